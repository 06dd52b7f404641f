"""Every method on ordered classes and on several labels, in a corpus of which some samples have no target: it
learns, or it says why not.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from every_method import SPECS, accepts, learn, network, prepared, split

from alignmamba.contracts import Sample, Task
from alignmamba.data.loader import Loader, LoaderConfig
from alignmamba.data.memory_splits import MemorySplit
from alignmamba.errors import ConfigError, DataError
from alignmamba.methods import METHODS
from alignmamba.training.objective import Parcel

KINDS = {
    "regression": Task(kind="regression", label_range=(-3.0, 3.0)),
    "ordinal": Task(kind="ordinal", classes=("low", "middle", "high")),
    "multilabel": Task(kind="multilabel", classes=("loud", "sad")),
}
NEEDS_EVERY_TARGET = ("self-mm", "ulgm", "mmim", "confede")
"""Methods whose objective is about the label of each sample of train."""


def partly(role: Any, count: int, task: Task, *, lacking: int = 3) -> MemorySplit:
    """Samples of which every third has no target, and every fourth of several labels one."""

    def target(row: int, sample: Sample) -> Any:
        value = sample.target
        assert isinstance(value, int | float)
        if lacking and row % lacking == 0:
            return None
        if task.kind != "multilabel":
            return value if task.kind == "regression" else int(np.digitize(value, (-1, 1)))
        return (float(value > 0), float("nan") if row % 4 == 1 else float(value < 1))

    whole = split(role, count, KINDS["regression"])
    samples = tuple(replace(each, target=target(row, each)) for row, each in enumerate(whole))
    return MemorySplit(role=role, samples=samples, modalities=SPECS)


def loader(role: Any, task: Task, *, keep_groups: bool, lacking: int = 3) -> Loader:
    settings = LoaderConfig(batch_size=8, keep_groups=keep_groups)
    samples = partly(role, 24, task, lacking=lacking)
    return Loader(samples, SPECS, config=settings, task=task, shuffle=role == "train", seed=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", METHODS)
def test_it_learns_from_the_samples_that_have_a_target_or_says_why_not(name: str, kind: str) -> None:
    method, task = METHODS[name], KINDS[kind]
    by_groups = bool(method.required.get("loader", {}).get("keep_groups"))
    train, valid = (loader(role, task, keep_groups=by_groups) for role in ("train", "valid"))
    if not accepts(method, task):
        assert kind != "regression"
        with pytest.raises(ConfigError, match=r"^task: .*found"):
            prepared(method, task)
        return
    objective = prepared(method, task)
    if name in NEEDS_EVERY_TARGET:
        with pytest.raises(
            DataError, match=r"train: 8 of 24 samples have no target, .* expected one for each"
        ):
            learn(objective, train, valid)
        return
    result = learn(objective, train, valid)
    assert np.isfinite(result.best_score)
    batch = next(iter(valid))
    predicted, losses = objective.eval()(Parcel(batch))
    assert bool(predicted.values.isfinite().all())
    values = batch.targets
    assert values is not None
    unknown = values < 0 if task.has_one_class else values.isnan().reshape(len(batch), -1).all(1)
    assert bool(unknown.any())
    assert not bool(unknown.all())
    assert bool((losses["task"][unknown] == 0).all())
    assert bool((losses["task"][~unknown] > 0).any())


@pytest.mark.parametrize("name", ["alignmamba", "lmf", "hycon", "dmd", "mtmd"])
def test_what_an_unlabelled_sample_would_be_has_no_part_in_any_gradient(name: str) -> None:
    """The same batch with another number in the place of a target that is unknown."""
    task = Task(kind="classification", classes=("low", "middle", "high"))
    gradients = []
    for hidden in (0, 2):
        objective = METHODS[name].objective(network(METHODS[name], task), task).train()
        train = loader("train", task, keep_groups=False)
        objective.prepare(train)
        objective.begin_epoch(objective.stages[0], 0)
        batch = next(iter(train))
        assert batch.targets is not None
        # of a loader that had put a class there, every sample counts
        wrong = replace(batch, targets=batch.targets.where(batch.targets >= 0, hidden))
        for given in (batch, wrong):
            torch.manual_seed(0)
            objective.zero_grad()
            _, losses = objective(Parcel(given))
            torch.stack([value.sum() for value in losses.values()]).sum().backward()
            gradients.append(
                torch.cat([each.grad.flatten() for each in objective.parameters() if each.grad is not None])
            )
    unknown, low, again, high = gradients
    torch.testing.assert_close(unknown, again)
    assert not torch.allclose(low, high)
    assert not torch.allclose(unknown, low)
