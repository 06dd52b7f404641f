"""Objectives that learn otherwise: several optimisers, stages, teachers, memories; each resumed exactly."""

import copy
import signal
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from toy import DIRECTIONS, REGRESSION, ToyModel, ToySource, toy_score

from alignmamba.contracts import Batch, Output
from alignmamba.errors import ConfigError, TrainingError
from alignmamba.training.batches import BatchSource, known_targets
from alignmamba.training.fit_config import FitConfig, FitResult
from alignmamba.training.interrupts import Interrupted
from alignmamba.training.loop import fit
from alignmamba.training.objective import Minimise, Objective, Stage, Supervised
from alignmamba.training.progress import Progress


class LabelMemory(Objective):
    """A refined label of its own for every train sample, kept by id, and a head that is not of the
    network.
    """

    labels: Tensor

    def __init__(self) -> None:
        super().__init__(ToyModel(), REGRESSION)
        self.aside = nn.Linear(8, 1)
        self.pending: list[tuple[list[int], Tensor]] = []

    def prepare(self, train: BatchSource) -> None:
        targets = known_targets(train, self.task)
        torch.rand(3)  # draws here change nothing
        self.row = {identity: number for number, identity in enumerate(targets)}
        self.register_buffer("labels", torch.tensor(list(targets.values())))

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        terms = self.supervised(batch, output)
        if self.training:
            rows = [self.row[identity] for identity in batch.ids]
            said = self.aside(output.embedding).squeeze(-1)
            terms["aside"] = (said - self.labels[rows]).abs()
            self.pending.append((rows, (0.9 * self.labels[rows] + 0.1 * said).detach()))
        return terms

    def after_step(self) -> None:
        for rows, labels in self.pending:
            self.labels[rows] = labels
        self.pending = []


class TwoOptimisers(Objective):
    """An estimator and everything else take epochs in turn; one term is of the whole batch."""

    def __init__(self, alternate: str = "epoch") -> None:
        super().__init__(ToyModel(), REGRESSION)
        self.estimator = nn.Linear(8, 1)
        self.alternate: Any = alternate

    @property
    def stages(self) -> Sequence[Stage]:
        rest = Minimise(
            terms=("task", "nce"), rates={"model.": 1.0, "model.encoders.text.": 0.05, "estimator.": 0.0}
        )
        first = Minimise(terms=("likelihood",), rates={"estimator.": 3.0, "model.": 0.0})
        return (Stage(optimisers=(first, rest), alternate=self.alternate),)

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        likelihood = (self.estimator(output.embedding).squeeze(-1) - output.prediction.detach()).square()
        nce = nn.functional.cross_entropy(output.embedding @ output.embedding.T, torch.arange(len(batch)))
        return {**self.supervised(batch, output), "likelihood": likelihood, "nce": 0.1 * nce}


class MomentumTeacher(Objective):
    """The prediction is held to that of a slow copy, which is in the checkpoint and not in the network."""

    def __init__(self) -> None:
        super().__init__(ToyModel(), REGRESSION)
        self.teacher = copy.deepcopy(self.model).requires_grad_(False)

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        with torch.no_grad():
            taught = self.teacher(batch).prediction
        return {**self.supervised(batch, output), "distilled": 0.5 * (output.prediction - taught).square()}

    def after_step(self) -> None:
        for slow, fast in zip(self.teacher.parameters(), self.model.parameters(), strict=True):
            slow.lerp_(fast, 0.01)


class TwoStages(Objective):
    """The encoders first, chosen by the loss; then the rest, with the encoders held."""

    def __init__(self) -> None:
        super().__init__(ToyModel(), REGRESSION)

    @property
    def stages(self) -> Sequence[Stage]:
        encoders = Minimise(terms=("size",), rates={"": 0.0, "model.encoders.": 1.0})
        return (
            Stage(name="encoders", epochs=2, select="loss", optimisers=(encoders,)),
            Stage(name="head", optimisers=(Minimise(rates={"": 1.0, "model.encoders.": 0.0}),)),
        )

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        return self.supervised(batch, output)


SCHEMES: dict[str, Callable[[], Objective]] = {
    "label memory": LabelMemory,
    "two optimisers, epochs in turn": TwoOptimisers,
    "two optimisers on each batch": lambda: TwoOptimisers("batch"),
    "momentum teacher": MomentumTeacher,
    "two stages": TwoStages,
}


def learn(objective: nn.Module, **more: Any) -> FitResult:
    torch.manual_seed(1)
    config = FitConfig(epochs=3, learning_rate=0.02, warmup_fraction=0.2)
    fabric = Fabric(accelerator="cpu", devices=1)
    sources = ToySource("train"), ToySource("valid", samples=9)
    return fit(
        objective,
        *sources,
        config,
        task=REGRESSION,
        score=toy_score,
        higher_is_better=DIRECTIONS,
        fabric=fabric,
        **more,
    )


def made(name: str) -> Objective:
    torch.manual_seed(7)
    return SCHEMES[name]()


def course(result: FitResult) -> list[dict[str, float]]:
    return [{name: value for name, value in record.items() if name != "seconds"} for record in result.history]


class StopAfter(Progress):
    def __init__(self, step: int) -> None:
        self.step = step

    def stepped(self, *, epoch: int, batch: int, step: int, loss: float, learning_rate: float) -> None:
        del epoch, batch, loss, learning_rate
        if step == self.step:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("name", SCHEMES)
def test_what_is_interrupted_and_resumed_is_what_was_never_interrupted(name: str, tmp_path: Path) -> None:
    whole = made(name)
    expected = learn(whole)
    for step in (1, 9, 16):
        place = tmp_path / str(step)
        place.mkdir()
        with pytest.raises(Interrupted):
            learn(made(name), run_dir=place, progress=StopAfter(step))
        again = made(name)
        assert course(learn(again, run_dir=place, resume=True)) == course(expected)
        for key, value in whole.state_dict().items():
            assert torch.equal(again.state_dict()[key], value), key


@pytest.mark.parametrize("name", SCHEMES)
def test_what_an_objective_keeps_is_not_in_the_network(name: str) -> None:
    objective = made(name)
    plain = set(ToyModel().state_dict())
    learn(objective)
    assert set(objective.model.state_dict()) == plain


def test_a_stage_leaves_other_weights_as_they_are() -> None:
    objective = made("two stages")
    before = copy.deepcopy(objective.state_dict())
    result = learn(objective)
    assert [record["stage"] for record in result.history] == [1, 1, 2, 2, 2]
    assert [record["epoch"] for record in result.history] == [1, 2, 3, 4, 5]
    assert result.best_epoch > 2
    assert set(result.history[0]) & {"train/loss/task"} == set()

    class First(TwoStages):
        @property
        def stages(self) -> Sequence[Stage]:
            return super().stages[:1]

    torch.manual_seed(7)
    first = First()
    learn(first)
    for name, value in first.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("model.encoders."), name
        if name.startswith("model.encoders."):  # the second stage held what the first one found best
            assert torch.equal(value, objective.state_dict()[name]), name


def test_two_optimisers_leave_each_others_weights_alone() -> None:
    objective = made("two optimisers, epochs in turn")
    seen: list[dict[str, Tensor]] = [copy.deepcopy(objective.state_dict())]

    class Look(Progress):
        def epoch_finished(self, record: Mapping[str, float], *, best: bool) -> None:
            del record, best
            seen.append(copy.deepcopy(objective.state_dict()))

    learn(objective, progress=Look())
    for number, (before, after) in enumerate(pairwise(seen)):
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed
        assert all(name.startswith("estimator.") == (number % 2 == 0) for name in changed)


def test_an_objective_of_the_default_is_the_network_alone() -> None:
    torch.manual_seed(7)
    alone = ToyModel()
    first = learn(alone)
    torch.manual_seed(7)
    supervised = Supervised(ToyModel(), REGRESSION)
    assert course(learn(supervised)) == course(first)
    for name, value in alone.state_dict().items():
        assert torch.equal(supervised.model.state_dict()[name], value)


def with_stages(*stages: Stage) -> Objective:
    class Wrong(Supervised):
        @property
        def stages(self) -> Sequence[Stage]:
            return stages

    return Wrong(ToyModel(), REGRESSION)


@pytest.mark.parametrize(
    ("stages", "error", "message"),
    [
        ((), ConfigError, "stages: expected at least one, found none"),
        ((Stage(optimisers=()),), ConfigError, "stage 'fit': expected at least one optimiser"),
        (
            (Stage(optimisers=(), solved=True),),
            ConfigError,
            "stage 'fit': is solved, expected epochs and no optimiser, found None epochs and 0 optimisers",
        ),
        ((Stage(epochs=2, solved=True),), ConfigError, "found 2 epochs and 1 optimisers"),
        (
            (Stage(optimisers=(Minimise(rates={"model.head.": 1.0}),)),),
            ConfigError,
            "found no optimiser for weight 'model",
        ),
        ((Stage(optimisers=(Minimise(), Minimise())),), ConfigError, "belongs to 2 optimisers, expected one"),
        (
            (Stage(optimisers=(Minimise(rates={"": 1.0, "modle.": 0.0}),)),),
            ConfigError,
            "no weight has a name that begins with 'modle.'",
        ),
        ((Stage(optimisers=(Minimise(rates={"": 0.0}),)),), TrainingError, "found no weight to train"),
        (
            (Stage(optimisers=(Minimise(terms=("tsak",)),)),),
            ConfigError,
            "no loss term 'tsak', only task, size",
        ),
        ((Stage(), Stage(name="late", select="f1")), ConfigError, "select: no metric 'f1'"),
    ],
)
def test_stages_that_cannot_be_are_refused(
    stages: tuple[Stage, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        learn(with_stages(*stages))
