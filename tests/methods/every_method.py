"""Checks that hold for every method: it learns, resumes exactly, saves, loads, predicts, and bears whatever a
corpus brings.
"""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from alignmamba.contracts import Batch, ModalitySpec, Sample, Task
from alignmamba.data.loader import Loader, LoaderConfig
from alignmamba.data.memory_splits import MemorySplit
from alignmamba.data.missing_protocols import MissingConfig
from alignmamba.data.standardise import fit_standardisation
from alignmamba.errors import ConfigError
from alignmamba.evaluation.metrics import HIGHER_IS_BETTER, metric_names, score
from alignmamba.methods.method import Method
from alignmamba.models.network import Network, merged
from alignmamba.training.fit_config import FitConfig, FitResult
from alignmamba.training.interrupts import Interrupted
from alignmamba.training.loop import fit
from alignmamba.training.objective import Objective
from alignmamba.training.progress import Progress
from tolerances import MODEL

SPECS = tuple(ModalitySpec(name=name, dim=dim) for name, dim in (("text", 6), ("audio", 4), ("video", 5)))
TASKS = {
    "regression": Task(kind="regression", label_range=(-3.0, 3.0)),
    "classification": Task(kind="classification", classes=("low", "middle", "high")),
}
SMALL = {
    "d_model": 8,
    "depth": 1,
    "own_depth": 1,
    "hidden": 8,
    "components": 2,
    "steps": 4,
    "swaps": 1,
    "crossings": 1,
}
"""Options that keep a network small, where it has them."""
DEFAULT = {"components": 2}
"""Default sizes, but for what must be fewer than the samples of a batch here."""


def split(
    role: Any, count: int, task: Task, *, modalities: Sequence[ModalitySpec] = SPECS, seed: int = 0
) -> MemorySplit:
    """Samples of unequal lengths in conversations of four, a few of which lack a modality."""
    random = np.random.default_rng(seed)
    samples = []
    for row in range(count):
        value = random.uniform(-3, 3)
        lengths = random.integers(2, 9, size=len(modalities))
        features = {
            spec.name: (random.normal(size=(length, spec.dim)) + value / 3).astype(np.float32)
            for spec, length in zip(modalities, lengths, strict=True)
        }
        if row % 5 == 4 and len(features) > 1:
            del features[modalities[row % len(modalities)].name]
        target = value if task.kind == "regression" else int(np.digitize(value, (-1, 1)))
        samples.append(
            Sample(
                id=f"{role}-{row:03d}",
                features=features,
                target=target,
                group=f"{role}-conversation-{row // 4}",
            )
        )
    return MemorySplit(role=role, samples=tuple(samples), modalities=tuple(modalities))


def network(
    method: Method,
    task: Task,
    *,
    modalities: Sequence[ModalitySpec] = SPECS,
    sizes: Mapping[str, Any] = SMALL,
    **options: Any,
) -> Network[Any]:
    """A network of the method, small unless told otherwise; the same weights each time."""
    torch.manual_seed(3)
    known = method.network.config_class.model_fields
    small = {name: value for name, value in sizes.items() if name in known}
    made: Any = method.network
    built: Network[Any] = made(
        method.network.config_class.preset(
            "default", modalities=tuple(modalities), task=task, **merged(small, options)
        )
    )
    return built


def accepts(method: Method, task: Task) -> bool:
    """Answer to whether the method takes the task; what it refuses, it refuses in one line."""
    try:
        network(method, task)
    except ConfigError:
        return False
    return True


def sources(method: Method, task: Task, *, missing: bool) -> tuple[Loader, Loader]:
    """Batches of train and valid; with modalities withheld, which the method sees if it learns from them."""
    settings = LoaderConfig(**{"batch_size": 8, **method.required.get("loader", {})})
    protocol = MissingConfig(protocol="gcnet", rate=0.3) if missing else MissingConfig()
    common: dict[str, Any] = {"config": settings, "task": task, "seed": 0, "missing": protocol}
    train = Loader(
        split("train", 24, task), SPECS, shuffle=True, keep_withheld=method.keeps_withheld, **common
    )
    return train, Loader(split("valid", 12, task, seed=1), SPECS, shuffle=False, **common)


QUICK = FitConfig(epochs=2, learning_rate=1e-3)
"""Two epochs of every stage that says nothing else."""


def learn(
    objective: Objective, train: Loader, valid: Loader, *, config: FitConfig = QUICK, **more: Any
) -> FitResult:
    """Train on these batches."""
    task = objective.task
    torch.manual_seed(4)
    return fit(
        objective,
        train,
        valid,
        config,
        task=task,
        score=lambda predictions: score(task, predictions),
        higher_is_better={name: HIGHER_IS_BETTER[name] for name in metric_names(task)},
        fabric=Fabric(accelerator="cpu", devices=1),
        **more,
    )


def prepared(method: Method, task: Task, *, sizes: Mapping[str, Any] = SMALL) -> Objective:
    """An objective of a network with standardised inputs and targets."""
    built = network(method, task, sizes=sizes)
    built.standardise(fit_standardisation(split("train", 24, task), SPECS, task))
    return method.objective(built, task)


class StopAfter(Progress):
    """Interrupts training after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def stepped(self, *, epoch: int, batch: int, step: int, loss: float, learning_rate: float) -> None:
        del epoch, batch, loss, learning_rate
        if step == self.step:
            signal.raise_signal(signal.SIGINT)


def check_learning(
    method: Method, task: Task, place: Path, *, missing: bool, sizes: Mapping[str, Any] = SMALL
) -> Network[Any]:
    """Train; train anew with an interruption in every stage; compare everything that training leaves
    behind.
    """
    whole = prepared(method, task, sizes=sizes)
    before = {name: value.clone() for name, value in whole.model.named_parameters()}
    expected = learn(whole, *sources(method, task, missing=missing))
    assert any(not torch.equal(value, before[name]) for name, value in whole.model.named_parameters()), (
        "nothing was learned"
    )
    steps = [int(record["step"]) for record in expected.history]
    for stop in {max(1, steps[0] - 1), steps[-1] - 1}:
        folder = place / f"stop-{stop}"
        folder.mkdir(parents=True)
        try:
            learn(
                prepared(method, task, sizes=sizes),
                *sources(method, task, missing=missing),
                run_dir=folder,
                progress=StopAfter(stop),
            )
        except Interrupted:
            pass
        else:
            raise AssertionError("training was not interrupted")
        again = prepared(method, task, sizes=sizes)
        resumed = learn(again, *sources(method, task, missing=missing), run_dir=folder, resume=True)
        assert _course(resumed) == _course(expected)
        for name, value in whole.state_dict().items():
            assert torch.equal(again.state_dict()[name], value), name
    trained = whole.model
    assert isinstance(trained, Network)
    return trained.eval()


def _course(result: FitResult) -> list[Mapping[str, float]]:
    return [{name: value for name, value in record.items() if name != "seconds"} for record in result.history]


def batch_of(task: Task, *, count: int = 8) -> Batch:
    """Samples of every kind, conversations whole."""
    whole = split("test", count, task, seed=2)
    return next(
        iter(Loader(whole, SPECS, config=LoaderConfig(batch_size=count), task=task, shuffle=False, seed=0))
    )


@torch.no_grad()
def check_predicting(trained: Network[Any], task: Task, *, by_groups: bool) -> None:
    """Neighbours, order, padding, masked content and what was withheld change no prediction; any modality may
    be missing.
    """
    whole = batch_of(task)
    expected = trained(whole).prediction
    assert expected.isfinite().all()
    assert torch.equal(trained(whole).prediction, expected), "drawn at random, though nothing differs"
    rows = [4, 5, 6, 7] if by_groups else [5, 2, 7]
    torch.testing.assert_close(trained(whole.select(rows)).prediction, expected[rows], **MODEL)
    dirty = {}
    for name, s in whole.modalities.items():
        longer = s.padded(s.mask.shape[1] + 3)
        garbage = torch.full_like(longer.features, torch.nan)
        dirty[name] = longer.with_tensors(
            features=torch.where(longer.mask.unsqueeze(-1), longer.features, garbage)
        )
    torch.testing.assert_close(trained(replace(whole, modalities=dirty)).prediction, expected, **MODEL)
    torch.testing.assert_close(trained(replace(whole, withheld=dirty)).prediction, expected, **MODEL)
    for name in whole.modalities:
        left = whole.without(name)
        rows = [
            row for row in range(len(left)) if any(bool(s.mask[row].any()) for s in left.modalities.values())
        ]
        if by_groups and len(rows) < len(left):
            continue
        assert trained(left.select(rows)).prediction.isfinite().all(), name


@torch.no_grad()
def check_saving(trained: Network[Any], task: Task, place: Path) -> None:
    """Save and load; the prediction stays the same."""
    trained.save_pretrained(place)
    loaded = type(trained).from_pretrained(place)
    assert torch.equal(loaded(batch_of(task)).prediction, trained(batch_of(task)).prediction)
