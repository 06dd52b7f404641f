import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import nn
from toy import CLASSIFICATION, DIRECTIONS, REGRESSION, ScalingToyModel, ToyModel, ToySource, toy_score

from alignmamba import capacity
from alignmamba.contracts import Batch, Output, Predictions, TargetScale
from alignmamba.errors import CheckpointError, ConfigError, DataError, TrainingError
from alignmamba.training import checkpoints
from alignmamba.training.fit_config import FitConfig, FitResult, learning_rate_at
from alignmamba.training.interrupts import Interrupted, Interrupts
from alignmamba.training.logs import LOG
from alignmamba.training.loop import fit

QUICK = FitConfig(epochs=3, learning_rate=0.02, warmup_fraction=0.2)


@pytest.fixture(autouse=True)
def _few_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(
    config: FitConfig = QUICK,
    *,
    model: nn.Module | None = None,
    train: ToySource | None = None,
    valid: ToySource | None = None,
    seed: int = 5,
    **options: Any,
) -> tuple[FitResult, nn.Module]:
    model = ToyModel() if model is None else model
    torch.manual_seed(seed)
    if "fabric" not in options:
        options["fabric"] = Fabric(accelerator="cpu", devices=1, precision=config.precision)
    plain: dict[str, Any] = {
        "task": REGRESSION,
        "score": toy_score,
        "higher_is_better": DIRECTIONS,
        "target_scale": TargetScale(),
    }
    arguments = {**plain, **options}
    train = ToySource("train") if train is None else train
    valid = ToySource("valid", samples=9) if valid is None else valid
    return fit(model, train, valid, config, **arguments), model


def course(result: FitResult) -> list[dict[str, float]]:
    """The history without what a clock decides."""
    return [{name: value for name, value in record.items() if name != "seconds"} for record in result.history]


class StopAfter:
    """Sends this process a signal after a number of optimiser steps, counted over the whole run."""

    def __init__(self, step: int, number: int = signal.SIGINT) -> None:
        self.step, self.number = step, number

    def started(self, **_: int) -> None:
        pass

    def stepped(self, **where: Any) -> None:
        if where["step"] == self.step:
            signal.raise_signal(self.number)

    def epoch_finished(self, record: Mapping[str, float], *, best: bool) -> None:
        pass


# --- memory ---


def test_a_model_that_training_has_no_memory_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ToyModel()
    trained = sum(weight.numel() for weight in model.parameters())
    # The model is there: its gradient and two moments, and the best weights where no directory keeps them.
    monkeypatch.setattr(capacity, "available_bytes", lambda _: 4 * 4 * trained - 1)
    said = (
        rf"^ToyModel: training {trained} weights in 32 bits \(gradient, AdamW's two moments, best weights\)"
        r" needs .*run_dir"
    )
    with pytest.raises(ConfigError, match=said):
        run(model=model)
    assert all(weight.grad is None for weight in model.parameters())
    run(model=model, run_dir=tmp_path)
    monkeypatch.setattr(capacity, "available_bytes", lambda _: 3 * 8 * trained - 1)
    with pytest.raises(ConfigError, match="in 64 bits"):
        run(FitConfig(epochs=1, precision="64-true"), model=model, run_dir=tmp_path / "other")


# --- learning -----------------------------------------------------------------------------------------------


def test_a_model_learns_and_keeps_its_best_epoch() -> None:
    config = FitConfig(epochs=25, learning_rate=0.03, patience=0)
    result, model = run(config, model=ToyModel(dropout=0.0))
    errors = [record["valid/mae"] for record in result.history]
    assert result.history[-1]["train/loss/task"] < 0.6 * result.history[0]["train/loss/task"]
    assert result.best_score == min(errors)
    assert result.best_epoch == errors.index(min(errors)) + 1
    assert result.optimiser_steps == 25 * 7
    assert result.metric == "mae"
    # The weights are the best epoch's: predicting again gives its score.
    batches = list(ToySource("valid", samples=9))
    model.eval()
    with torch.no_grad():
        found = torch.cat([model(batch).prediction - batch.targets for batch in batches]).abs().mean()
    assert float(found) == pytest.approx(result.best_score, rel=1e-6)


def test_a_record_holds_every_loss_by_name() -> None:
    result, _ = run()
    assert set(result.history[0]) == {
        "epoch",
        "step",
        "learning_rate",
        "seconds",
        "train/loss/task",
        "train/loss/size",
        "train/loss/total",
        "valid/loss/task",
        "valid/loss/size",
        "valid/loss/total",
        "valid/mae",
        "valid/spread",
    }
    assert [record["epoch"] for record in result.history] == [1, 2, 3]
    assert [record["step"] for record in result.history] == [7, 14, 21]
    first = result.history[0]
    assert first["train/loss/total"] == pytest.approx(first["train/loss/task"] + first["train/loss/size"])
    # the task loss is the absolute error here
    assert first["valid/loss/task"] == pytest.approx(first["valid/mae"], rel=1e-6)


def test_classification_selects_accuracy_and_smooths_in_training_only() -> None:
    def accuracy(predictions: Predictions) -> dict[str, float]:
        assert predictions.targets is not None
        np.testing.assert_allclose(predictions.prediction.sum(axis=1), 1.0, rtol=1e-5)
        return {"accuracy": float((predictions.prediction.argmax(axis=1) == predictions.targets).mean())}

    options = {
        "task": CLASSIFICATION,
        "score": accuracy,
        "higher_is_better": {"accuracy": True},
        "valid": ToySource("valid", task=CLASSIFICATION, samples=9),
    }
    results = []
    for smoothing in (0.0, 0.5):
        model = ToyModel(CLASSIFICATION, dropout=0.0)
        # At this rate the weights stay what they are, so that the two runs see the same logits.
        config = FitConfig(epochs=1, learning_rate=1e-12, label_smoothing=smoothing)
        results.append(run(config, model=model, train=ToySource("train", task=CLASSIFICATION), **options)[0])
    plain, smooth = (result.history[0] for result in results)
    assert results[0].metric == "accuracy"
    assert plain["valid/loss/task"] == pytest.approx(smooth["valid/loss/task"], rel=1e-6)
    assert abs(plain["train/loss/task"] - smooth["train/loss/task"]) > 1e-3


def test_higher_is_better_is_honoured() -> None:
    result, _ = run(FitConfig(epochs=6, learning_rate=0.05, select="spread"))
    assert result.best_score == max(record["valid/spread"] for record in result.history)


def test_the_validation_loss_can_select() -> None:
    result, _ = run(FitConfig(epochs=6, learning_rate=0.05, select="loss"))
    assert result.best_score == min(record["valid/loss/total"] for record in result.history)


def test_patience_ends_training() -> None:
    scores = iter([5.0, 4.0, 4.5, math.nan, 4.1, 1.0])
    result, _ = run(FitConfig(epochs=6, patience=3), score=lambda _: {"mae": next(scores)})
    assert (len(result.history), result.best_epoch, result.best_score, result.stopped) == (
        5,
        2,
        4.0,
        "patience",
    )


def test_of_equal_scores_the_lower_loss_counts() -> None:
    result, _ = run(FitConfig(epochs=6, learning_rate=0.05, patience=0), score=lambda _: {"mae": 2.0})
    losses = [record["valid/loss/total"] for record in result.history]
    assert losses[0] > min(losses)
    assert result.best_epoch == losses.index(min(losses)) + 1
    fit = FitConfig(epochs=6, learning_rate=0.05, patience=2, ties="first")
    result, _ = run(fit, score=lambda _: {"mae": 2.0})
    assert (result.best_epoch, len(result.history)) == (1, 3)


def test_patience_0_never_stops() -> None:
    scores = iter([1.0, 2.0, 3.0, 4.0])
    result, _ = run(FitConfig(epochs=4, patience=0), score=lambda _: {"mae": next(scores)})
    assert (len(result.history), result.best_epoch, result.stopped) == (4, 1, "epochs")


def test_a_score_that_is_a_number_beats_nan() -> None:
    scores = iter([math.nan, 2.0])
    result, _ = run(FitConfig(epochs=2), score=lambda _: {"mae": next(scores)})
    assert result.best_epoch == 2


# --- steps --------------------------------------------------------------------------------------------------


def test_the_learning_rate_rises_and_falls() -> None:
    config = FitConfig(learning_rate=2.0, warmup_fraction=0.2)
    rates = [learning_rate_at(step, 10, config) for step in range(10)]
    assert rates[:3] == [1.0, 2.0, 2.0]  # two steps of warm-up, then the top of the cosine
    assert rates[6] == pytest.approx(1.0)  # halfway from step 2 to step 10
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert 0.0 < rates[-1] < 0.1
    assert learning_rate_at(0, 1, FitConfig(learning_rate=2.0, warmup_fraction=0.0)) == 2.0


def test_the_optimiser_follows_the_schedule() -> None:
    result, _ = run()
    expected = [learning_rate_at(step, 21, QUICK) for step in (6, 13, 20)]
    assert [record["learning_rate"] for record in result.history] == expected


def test_fitting_equals_the_loop_written_out() -> None:
    """One epoch, so that the last weights are the best ones."""
    config = FitConfig(epochs=1, learning_rate=0.05, weight_decay=0.1, warmup_fraction=0.3, gradient_clip=0.5)
    _, model = run(config, model=ToyModel(dropout=0.0))

    plain = ToyModel(dropout=0.0)
    matrices, vectors = ([p for p in plain.parameters() if (p.ndim > 1) is wide] for wide in (True, False))
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    )
    for step, batch in enumerate(ToySource("train")):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, 7, config)
        optimizer.zero_grad()
        output = plain(batch)
        ((output.prediction - batch.targets).abs() + output.losses["size"]).mean().backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        optimizer.step()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("accumulate", [2, 3, 50])
def test_accumulation_equals_larger_batches(accumulate: int) -> None:
    """26 samples in batches of 4 are 4, 4, 4, 4, 4, 4, 2: the last group and the last batch are both
    short.
    """
    config = QUICK.model_copy(update={"accumulate": accumulate})
    parts, _ = run(config, model=ToyModel(dropout=0.0))
    whole, _ = run(QUICK, model=ToyModel(dropout=0.0), train=ToySource("train", batch_size=4 * accumulate))
    assert parts.optimiser_steps == whole.optimiser_steps == 3 * math.ceil(7 / accumulate)
    for left, right in zip(course(parts), course(whole), strict=True):
        assert left == pytest.approx(right, rel=1e-5)


# Powers of two, so that scaling the targets loses no bit. At this offset, single precision tells labels 8192
# apart from nothing nearer.
FAR = TargetScale(mean=2.0**36, deviation=4.0)


@pytest.mark.parametrize("loss", ["l1", "mse", "huber"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_unit_and_the_zero_of_labels_decide_nothing(loss: Any, precision: Any) -> None:
    """The same course, step by step, and predictions moved and scaled as the labels were."""
    config = QUICK.model_copy(update={"regression_loss": loss, "accumulate": 2, "precision": precision})
    near, far = ScalingToyModel(), ScalingToyModel()
    expected, _ = run(config, model=near, target_scale=None)
    sources = {
        role: ToySource(role, samples=samples, scale=FAR) for role, samples in (("train", 26), ("valid", 9))
    }  # type: ignore[arg-type]
    found, _ = run(config, model=far, **sources, target_scale=None)
    rounding = 1e-4 if precision == "32-true" else 2e-2
    for left, right in zip(course(found), course(expected), strict=True):
        for name, value in right.items():
            scale = FAR.deviation if name in ("valid/mae", "valid/spread") else 1.0
            assert left[name] == pytest.approx(scale * value, rel=rounding), name
    assert expected.history[0]["valid/loss/task"] != pytest.approx(expected.history[0]["valid/mae"], rel=0.05)
    for name, weight in near.named_parameters():
        torch.testing.assert_close(far.get_parameter(name), weight, rtol=10 * rounding, atol=rounding)
    assert near.target_scale is not None
    assert far.target_scale is not None
    assert far.target_scale.mean == pytest.approx(
        FAR.mean + FAR.deviation * near.target_scale.mean, rel=0, abs=1e-4
    )
    assert far.target_scale.deviation == pytest.approx(FAR.deviation * near.target_scale.deviation)


def test_the_scale_of_targets_is_that_of_the_train_split() -> None:
    model = ScalingToyModel()
    run(FitConfig(epochs=1), model=model, target_scale=None)
    targets = torch.cat([batch.targets for batch in ToySource("train")]).double()
    assert model.target_scale == TargetScale(
        mean=pytest.approx(targets.mean()), deviation=pytest.approx(targets.std(correction=0))
    )


def test_a_scale_that_is_known_is_kept() -> None:
    model = ScalingToyModel()
    model.scale_targets(TargetScale(mean=1.0, deviation=2.0))
    run(FitConfig(epochs=1), model=model, target_scale=None)
    assert model.target_scale == TargetScale(mean=1.0, deviation=2.0)
    run(FitConfig(epochs=1), model=model, target_scale=TargetScale(mean=3.0))
    assert model.target_scale == TargetScale(mean=3.0)


def test_measuring_the_scale_leaves_the_course_as_it_is() -> None:
    given = TargetScale.of(torch.cat([batch.targets for batch in ToySource("train")]).tolist())
    measured, _ = run(model=ToyModel(), target_scale=None)
    assert course(measured) == course(run(model=ToyModel(), target_scale=given)[0])


def test_a_model_that_cannot_scale_is_told_of_targets_far_from_0() -> None:
    with pytest.warns(
        UserWarning, match="ToyModel predicts in units of the label, and the train targets lie at 6.872e"
    ):
        run(FitConfig(epochs=1), train=ToySource("train", scale=FAR), target_scale=None)


def test_a_target_that_is_not_finite_is_named() -> None:
    with pytest.raises(
        DataError, match=r"train: sample 'train-[0-9]+' has target inf, expected a finite number"
    ):
        run(train=ToySource("train", scale=TargetScale(mean=math.inf)), target_scale=None)


def test_a_checkpoint_without_a_scale_goes_on_in_units_of_the_label(tmp_path: Path) -> None:
    """Runs that version 0.1 began had none: neither in the checkpoint nor in the model."""
    expected, whole = run()
    with pytest.raises(Interrupted):
        run(run_dir=tmp_path, progress=StopAfter(10))
    saved = torch.load(tmp_path / checkpoints.LAST, weights_only=True)
    del saved["target_scale"]
    saved["format_version"] = 1  # which had no checksum either
    torch.save(saved, tmp_path / checkpoints.LAST)
    found, model = run(
        model=ToyModel(seed=99),
        seed=77,
        run_dir=tmp_path,
        resume=True,
        target_scale=TargetScale(mean=5.0, deviation=9.0),
    )
    assert course(found) == course(expected)
    for name, value in whole.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_clipping_bounds_the_step() -> None:
    """A clip of next to nothing, below Adam's epsilon, leaves the weights where they are; 0 means no
    clipping.
    """

    def moved(clip: float) -> float:
        model = ToyModel(dropout=0.0)
        before = model.head.weight.detach().clone()
        run(FitConfig(epochs=1, gradient_clip=clip, weight_decay=0.0, learning_rate=0.01), model=model)
        return float((model.head.weight.detach() - before).abs().max())

    assert moved(1e-14) < 1e-5
    assert moved(0.0) > 1e-3


def test_vectors_and_marked_parameters_do_not_decay() -> None:
    class Idle(nn.Module):
        """Four kinds of parameters that the prediction depends on with gradient 0."""

        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.ones(2, 2))
            self.vector = nn.Parameter(torch.ones(2))
            self.marked = nn.Parameter(torch.ones(2, 2))
            self.marked._no_weight_decay = True  # type: ignore[attr-defined]
            self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)

        def forward(self, batch: Batch) -> Output:
            nothing = 0.0 * (self.matrix.sum() + self.vector.sum() + self.marked.sum() + self.frozen.sum())
            return Output(prediction=nothing.expand(len(batch)), embedding=nothing.expand(len(batch), 1))

    _, model = run(FitConfig(epochs=1, weight_decay=0.5, learning_rate=0.1), model=Idle())
    assert float(model.matrix.detach().max()) < 0.9
    for name in ("vector", "marked", "frozen"):
        assert torch.equal(getattr(model, name), torch.ones_like(getattr(model, name)))


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_other_precisions_train(precision: Any) -> None:
    config = QUICK.model_copy(update={"precision": precision})
    result, model = run(config, model=ToyModel(dropout=0.0))
    plain, _ = run(QUICK, model=ToyModel(dropout=0.0))
    expected_dtype = torch.float64 if precision == "64-true" else torch.float32
    assert next(model.parameters()).dtype == expected_dtype
    assert result.history[-1]["train/loss/task"] == pytest.approx(
        plain.history[-1]["train/loss/task"], rel=0.05
    )


def half_precision(initial_scale: float) -> dict[str, Any]:
    """An engine that computes in float16 on the CPU, its gradient scaler starting at `initial_scale`."""
    scaler = torch.amp.GradScaler("cpu", init_scale=initial_scale)
    return {
        "fabric": Fabric(
            accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler=scaler)]
        )
    }


def test_steps_that_the_gradient_scaler_skips_do_not_count(tmp_path: Path) -> None:
    """A scale far beyond float16 makes the first gradients overflow, each time halving the scale; a resumed
    run knows the scale.
    """
    config = QUICK.model_copy(update={"precision": "16-mixed"})
    expected, whole = run(config, **half_precision(2.0**24))
    assert expected.history[-1]["step"] == 21
    assert 5 < expected.optimiser_steps < 21
    with pytest.raises(Interrupted):
        run(config, run_dir=tmp_path, progress=StopAfter(3), **half_precision(2.0**24))
    found, model = run(config, run_dir=tmp_path, resume=True, **half_precision(2.0**24))
    assert course(found) == course(expected)
    assert found.optimiser_steps == expected.optimiser_steps
    for name, value in whole.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_no_step_at_all_is_refused() -> None:
    with pytest.raises(
        TrainingError,
        match="no optimiser step of 21 was applied: every gradient overflowed under precision 16-mixed",
    ):
        run(QUICK.model_copy(update={"precision": "16-mixed"}), **half_precision(2.0**100))


def test_compiling_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled model has the same parameter names, and afterwards it is as it was; the compiler itself
    takes too long for a test.
    """
    compiled: list[nn.Module] = []

    def compile_in_place(model: nn.Module) -> None:
        compiled.append(model)
        model._compiled_call_impl = model._call_impl

    monkeypatch.setattr(nn.Module, "compile", compile_in_place)
    found, model = run(QUICK.model_copy(update={"compile": True}), run_dir=tmp_path)
    assert compiled == [model]
    assert model._compiled_call_impl is None
    assert course(found) == course(run()[0])
    assert "model.head.weight" in torch.load(tmp_path / checkpoints.BEST, weights_only=True)["model"]


def test_progress_hears_every_step() -> None:
    class Listener:
        def __init__(self) -> None:
            self.heard: list[object] = []

        def started(self, **what: Any) -> None:
            self.heard.append(what)

        def stepped(self, *, epoch: int, batch: int, step: int, loss: float, learning_rate: float) -> None:
            assert loss > 0
            assert learning_rate > 0
            self.heard.append((epoch, batch, step))

        def epoch_finished(self, record: Mapping[str, float], *, best: bool) -> None:
            self.heard.append((record["epoch"], best))

    listener = Listener()
    scores = iter([1.0, 2.0])
    run(FitConfig(epochs=2, accumulate=4), progress=listener, score=lambda _: {"mae": next(scores)})
    assert listener.heard == [
        {"epochs": 2, "batches": 7, "epoch": 1, "batch": 0},
        *[(1, 4, 1), (1, 7, 2), (1, True)],
        *[(2, 4, 3), (2, 7, 4), (2, False)],
    ]


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["train", "valid"])
@pytest.mark.parametrize("role", ["train", "valid", "test"])
def test_no_split_takes_the_place_of_another(place: str, role: Any) -> None:
    if role == place:
        return
    with pytest.raises(DataError, match=f"expected a {place} split .* found a {role} split"):
        run(**{place: ToySource(role)})


@pytest.mark.parametrize(
    ("select", "message"),
    [("mea", "did you mean 'mae'"), ("auto", "no metric 'accuracy'"), ("zzz", "only mae, spread, loss")],
)
def test_an_unknown_metric_is_refused_before_training(select: str, message: str) -> None:
    options: dict[str, Any] = {"task": CLASSIFICATION} if select == "auto" else {}
    with pytest.raises(ConfigError, match=message):
        run(FitConfig(select=select), model=nn.Linear(1, 1), **options)


def test_a_metric_that_the_scores_lack_is_refused() -> None:
    with pytest.raises(ConfigError, match="no metric 'mae' for this task, only spread"):
        run(score=lambda _: {"spread": 1.0})


def test_a_loss_that_is_not_finite_names_step_and_sample() -> None:
    found = (
        r"^epoch 1, step \d+: loss 'task' is nan: sample 'train-11', modality 'text': features are not"
        r" finite; --nonfinite mean or zero"
    )
    with pytest.raises(TrainingError, match=found):
        run(train=ToySource("train", spoil="train-11"))


class Bursting(ToyModel):
    """Beyond all bounds once its weights have moved."""

    def forward(self, batch: Batch, *, return_plans: bool = False) -> Output:
        output = super().forward(batch, return_plans=return_plans)
        beyond = self.head.weight.abs().max() > 50
        return Output(
            prediction=output.prediction + (torch.inf if beyond and self.training else 0.0),
            embedding=output.embedding,
        )


def test_a_rate_that_is_too_high_is_blamed_and_no_sample() -> None:
    blamed = "the learning rate is probably too high, found 100; set a smaller fit.learning_rate"
    config = FitConfig(epochs=2, learning_rate=100.0, warmup_fraction=0.0)
    with pytest.raises(
        TrainingError,
        match=(f"^epoch 1, step 2: loss 'task' is inf, although all inputs are finite: {blamed}$"),
    ):
        run(config, model=Bursting())

    class Blind(ToyModel):
        def forward(self, batch: Batch, *, return_plans: bool = False) -> Output:
            output = super().forward(batch, return_plans=return_plans)
            return (
                output
                if self.training
                else Output(prediction=output.prediction * torch.nan, embedding=output.embedding)
            )

    with pytest.raises(TrainingError, match=f"^valid: found no finite prediction: {blamed}$"):
        run(config, model=Blind())


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    class Steep(ToyModel):
        def forward(self, batch: Batch, *, return_plans: bool = False) -> Output:
            output = super().forward(batch, return_plans=return_plans)
            # slope of the root at 0
            return Output(prediction=(output.prediction * 0.0).abs().sqrt(), embedding=output.embedding)

    with pytest.raises(TrainingError, match="epoch 1, step 1: gradient norm is nan, samples train-"):
        run(model=Steep())


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(DataError, match="the train split has no batch, expected at least one optimiser step"):
        run(train=ToySource("train", samples=0))
    with pytest.raises(DataError, match="valid split is empty"):
        run(valid=ToySource("valid", samples=0))


def test_nothing_to_train_is_refused() -> None:
    model = ToyModel()
    model.requires_grad_(False)
    with pytest.raises(TrainingError, match="no trainable parameter"):
        run(model=model)


@pytest.mark.parametrize("place", ["train", "valid"])
def test_targets_are_needed(place: Any) -> None:
    with pytest.raises(DataError, match=f"{place}: found samples without targets"):
        run(**{place: ToySource(place, targets=False)})


def test_scores_that_are_never_a_number_are_refused() -> None:
    with pytest.raises(TrainingError, match="mae on the valid split was not a number in any of 3 epochs"):
        run(score=lambda _: {"mae": math.nan})


def test_a_source_that_breaks_its_promise_is_refused() -> None:
    class Short(ToySource):
        def __len__(self) -> int:
            return 9

    with pytest.raises(DataError, match="epoch 1 ended after 7 batches"):
        run(train=Short("train"))


def test_the_engine_must_have_the_precision_that_was_asked_for() -> None:
    with pytest.warns(UserWarning, match="fp16 is not supported on CPU"):
        fabric = Fabric(accelerator="cpu", devices=1, precision="16-mixed")
    with pytest.raises(
        ConfigError, match="precision: 16-mixed needs a GPU; on a CPU take bf16-mixed or 32-true"
    ):
        run(FitConfig(precision="16-mixed"), fabric=fabric)
    with pytest.raises(ConfigError, match="found '32-true' in the engine, expected 'bf16-mixed'"):
        run(FitConfig(precision="bf16-mixed"), fabric=Fabric(accelerator="cpu", devices=1))


# --- going on -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("step", "ema_decay"), [(1, 0.0), (3, 0.0), (4, 0.0), (7, 0.0), (11, 0.0), (3, 0.9), (7, 0.9)]
)
def test_a_resumed_run_equals_the_uninterrupted_one(
    tmp_path: Path, step: int, ema_decay: float, number: int
) -> None:
    """7 batches make 4 steps of an epoch here: stopped in the first, the last step of an epoch, and in later
    ones. Dropout is on.
    """
    config = QUICK.model_copy(update={"accumulate": 2, "ema_decay": ema_decay})
    expected, whole = run(config)

    with pytest.raises(Interrupted) as stopped:
        run(config, run_dir=tmp_path, progress=StopAfter(step, number))
    assert stopped.value.checkpoint == tmp_path / checkpoints.LAST
    assert stopped.value.signal_number == number
    found, model = run(config, model=ToyModel(seed=99), seed=77, run_dir=tmp_path, resume=True)

    assert course(found) == course(expected)
    assert (found.best_epoch, found.best_score, found.optimiser_steps) == (
        expected.best_epoch,
        expected.best_score,
        expected.optimiser_steps,
    )
    for name, value in whole.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    lines = (tmp_path / LOG).read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "1", "2", "3"]


def test_dropout_makes_the_random_state_matter(tmp_path: Path) -> None:
    """The test above would notice a random state that is not restored: here it is thrown away on purpose."""
    expected, _ = run()
    with pytest.raises(Interrupted):
        run(run_dir=tmp_path, progress=StopAfter(3))
    path = tmp_path / checkpoints.LAST
    contents = torch.load(path, weights_only=True)
    contents["processes"][0]["random"]["cpu"] = torch.Generator().manual_seed(123).get_state()
    torch.save(contents | {"format_version": 1}, path)
    found, _ = run(seed=77, run_dir=tmp_path, resume=True)
    assert course(found) != course(expected)


def test_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted):
        run(run_dir=tmp_path, progress=StopAfter(2))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_second_interrupt_ends_at_once() -> None:
    class Twice(StopAfter):
        def stepped(self, **_: Any) -> None:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as stopped:
        run(progress=Twice(1))
    assert not isinstance(stopped.value, Interrupted)


def test_a_worker_leaves_the_interrupt_to_the_training_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked loader worker has the handler too: Ctrl-C must not end it, but its loader may, with
    SIGTERM.
    """
    ended: list[int] = []
    with Interrupts() as interrupts, monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        patch.setattr(signal, "raise_signal", ended.append)
        interrupts._handle(signal.SIGTERM, None)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert not interrupts.requested
    assert ended == [signal.SIGTERM]


def test_an_interrupt_without_a_directory_says_so() -> None:
    with pytest.raises(Interrupted, match="nothing was saved"):
        run(progress=StopAfter(2))


def test_a_finished_run_is_finished(tmp_path: Path) -> None:
    expected, _ = run(run_dir=tmp_path)
    scores: list[Predictions] = []
    found, _ = run(
        model=ToyModel(seed=3),
        run_dir=tmp_path,
        resume=True,
        score=lambda p: scores.append(p) or {"mae": 0.0},
    )
    assert found == expected
    assert not scores


def test_resuming_before_the_first_checkpoint_starts_over(tmp_path: Path) -> None:
    assert course(run(run_dir=tmp_path, resume=True)[0]) == course(run()[0])


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    run(run_dir=tmp_path)
    with pytest.raises(CheckpointError, match="found a run"):
        run(run_dir=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.5}, "learning_rate=0.5, expected 0.02 to resume"),
        ({"epochs": 9}, "found epochs=9, expected 3 to resume"),
        ({"accumulate": 2}, "found accumulate=2, expected 1 to resume"),
        ({"ema_decay": 0.5}, "found ema_decay=0.5, expected 0.0 to resume"),
    ],
)
def test_another_course_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    run(run_dir=tmp_path)
    with pytest.raises(CheckpointError, match=message):
        run(QUICK.model_copy(update=change), run_dir=tmp_path, resume=True)


def test_another_train_split_is_refused(tmp_path: Path) -> None:
    run(run_dir=tmp_path)
    with pytest.raises(CheckpointError, match="batches per epoch=10, expected 7 to resume"):
        run(train=ToySource("train", samples=40), run_dir=tmp_path, resume=True)


def test_a_directory_makes_no_difference(tmp_path: Path) -> None:
    """The first epoch is the best here, so that its weights have to come back."""
    scores = iter([1.0, 2.0, 3.0] * 2)
    with_directory, left = run(run_dir=tmp_path, score=lambda _: {"mae": next(scores)})
    without, right = run(score=lambda _: {"mae": next(scores)})
    assert course(with_directory) == course(without)
    for name, value in left.state_dict().items():
        assert torch.equal(right.state_dict()[name], value)
    assert sorted(path.name for path in tmp_path.iterdir()) == [checkpoints.BEST, checkpoints.LAST, LOG]


def test_tensorboard_events_are_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run(QUICK.model_copy(update={"tensorboard": True}), run_dir=tmp_path)
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


# --- real processes -----------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys, torch
from pathlib import Path
from test_fitting import QUICK, run
from toy import ToySource

class Deadly(ToySource):
    fetched = 0
    def batch(self, rows):
        Deadly.fetched += 1
        if Deadly.fetched == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().batch(rows)

config = QUICK.model_copy(update={"checkpoint_every_steps": int(sys.argv[3])})
run(config, train=Deadly("train"), run_dir=Path(sys.argv[1]))
"""


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.parametrize(("fetched", "every", "batch"), [(13, 2, 5), (17, 0, 0)])
def test_a_killed_run_goes_on(tmp_path: Path, fetched: int, every: int, batch: int) -> None:
    """SIGKILL in the middle of an epoch: it goes on from the step checkpoint, or without those from the end
    of the epoch before.
    """
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(fetched), str(every)]
    process = subprocess.run(command, env=_environment(), capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    saved = torch.load(tmp_path / checkpoints.LAST, weights_only=True)["state"]
    assert saved["batch"] == batch
    expected, whole = run()
    found, model = run(model=ToyModel(seed=99), seed=77, run_dir=tmp_path, resume=True)
    assert course(found) == course(expected)
    for name, value in whole.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


TWO_PROCESSES = """
import json, signal, sys, torch
from pathlib import Path
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from test_fitting import StopAfter, run, course, QUICK
from toy import ToyModel, ToySource
from alignmamba.training.fit_config import FitConfig
from alignmamba.training.interrupts import Interrupted

def main(fabric, directory):
    torch.set_num_threads(1)
    place = dict(rank=fabric.global_rank, world_size=fabric.world_size)

    def once(config=QUICK, dropout=0.0, **options):
        sources = dict(train=ToySource("train", **place), valid=ToySource("valid", samples=10, **place))
        model = ToyModel(dropout=dropout)
        return run(config, model=model, fabric=fabric, seed=5 + fabric.global_rank, **sources, **options)

    results = {}
    for accumulate, loss in ((1, "l1"), (3, "l1"), (3, "ccc")):
        result, model = once(QUICK.model_copy(update={"accumulate": accumulate, "regression_loss": loss}))
        head = model.head.weight.detach().flatten().tolist()
        results[f"{accumulate} {loss}"] = {"course": course(result), "head": head}
    results["measured"] = course(once(target_scale=None)[0])
    results["whole"] = course(once(dropout=0.3)[0])
    try:  # only one of the two processes is asked to stop
        once(dropout=0.3, run_dir=directory, progress=StopAfter(10) if fabric.global_rank == 0 else None)
    except Interrupted:
        torch.manual_seed(1)
        results["resumed"] = course(once(dropout=0.3, run_dir=directory, resume=True)[0])
    if fabric.is_global_zero:
        (directory / "results.json").write_text(json.dumps(results))
    assert sum(len(b) for b in ToySource("train", **place)) == 13

if __name__ == "__main__":
    start_method = "fork" if sys.platform == "linux" else "spawn"  # a fork spares two more imports of torch
    strategy = DDPStrategy(start_method=start_method, process_group_backend="gloo")
    fabric = Fabric(accelerator="cpu", devices=2, strategy=strategy)
    fabric.launch(main, Path(sys.argv[1]))
"""


def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Rank 0 never sees audio, so its audio encoder is unused there. The engine's own launcher starts the
    processes, over gloo.
    """
    script = tmp_path / "two_processes.py"
    script.write_text(TWO_PROCESSES)
    process = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], env=_environment(), capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr[-3000:]
    results = json.loads((tmp_path / "results.json").read_text())
    for accumulate, loss in ((1, "l1"), (3, "l1"), (3, "ccc")):
        expected, model = run(
            QUICK.model_copy(update={"accumulate": accumulate, "regression_loss": loss}),
            model=ToyModel(dropout=0.0),
            valid=ToySource("valid", samples=10),
        )
        found = results[f"{accumulate} {loss}"]
        for left, right in zip(found["course"], course(expected), strict=True):
            assert left == pytest.approx(right, rel=1e-5)
        assert found["head"] == pytest.approx(
            model.head.weight.detach().flatten().tolist(), rel=1e-4, abs=1e-6
        )
    measured, _ = run(model=ToyModel(dropout=0.0), valid=ToySource("valid", samples=10), target_scale=None)
    for left, right in zip(results["measured"], course(measured), strict=True):
        assert left == pytest.approx(right, rel=1e-5)
    assert results["resumed"] == results["whole"]


def test_time_of_day_is_not_in_the_course() -> None:
    before = time.perf_counter()
    result, _ = run(FitConfig(epochs=1))
    assert 0.0 < result.history[0]["seconds"] <= time.perf_counter() - before
