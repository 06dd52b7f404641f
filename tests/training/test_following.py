"""Models that change with the progress of training: what they hear, and that a resumed run equals a whole
one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from toy import DIRECTIONS, REGRESSION, ToyModel, ToySource, toy_score

from alignmamba.contracts import FollowsTraining, ModalitySpec, TargetScale
from alignmamba.models.alignmamba import AlignMamba, AlignMambaConfig
from alignmamba.training import checkpoints
from alignmamba.training.fit_config import FitConfig, FitResult
from alignmamba.training.loop import fit

CONFIG = FitConfig(epochs=3, learning_rate=0.01, checkpoint_every_steps=1)


class Listening(ToyModel, FollowsTraining):
    """Notes what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[float] = []

    def follow_training(self, progress: float) -> None:
        self.heard.append(progress)


def aligned() -> AlignMamba:
    """A small model whose prior fades, over the modalities of the toy source."""
    torch.manual_seed(0)
    modalities = tuple(ModalitySpec(name=name, dim=width) for name, width in (("text", 4), ("audio", 3)))
    options: dict[str, Any] = {"d_model": 8, "depth": 1, "d_state": 2, "anneal": {"to": 0.01}}
    return AlignMamba(AlignMambaConfig(modalities=modalities, task=REGRESSION, **options))


class Killed(BaseException):
    """End of a process that has no time to save anything."""


class KillAfter:
    """Ends training after a number of steps, without a word."""

    def __init__(self, step: int) -> None:
        self.step = step

    def started(self, **_: int) -> None:
        pass

    def stepped(self, **where: Any) -> None:
        if where["step"] == self.step:
            raise Killed

    def epoch_finished(self, record: Mapping[str, float], *, best: bool) -> None:
        pass


def run(model: nn.Module, config: FitConfig = CONFIG, **options: Any) -> FitResult:
    torch.manual_seed(5)
    return fit(
        model,
        ToySource("train", samples=12),
        ToySource("valid", samples=9),
        config,
        task=REGRESSION,
        score=toy_score,
        higher_is_better=DIRECTIONS,
        target_scale=TargetScale(),
        fabric=Fabric(accelerator="cpu", devices=1),
        **options,
    )


@pytest.mark.parametrize(("epochs", "heard"), [(1, [0.0]), (2, [0.0, 1.0]), (5, [0, 0.25, 0.5, 0.75, 1])])
def test_progress_runs_from_0_in_the_first_epoch_to_1_in_the_last(epochs: int, heard: list[float]) -> None:
    model = Listening()
    run(model, FitConfig(epochs=epochs))
    assert model.heard == heard


@pytest.mark.parametrize("step", [2, 4, 5])
def test_a_run_that_was_killed_resumes_with_the_prior_as_far_as_it_was(tmp_path: Path, step: int) -> None:
    """Three batches make an epoch: killed within the first, and within the second after one or two steps."""
    whole, model, again = aligned(), aligned(), aligned()
    expected = run(whole)
    with pytest.raises(Killed):
        run(model, run_dir=tmp_path, progress=KillAfter(step))
    found = run(again, run_dir=tmp_path, resume=True)
    assert [each["valid/mae"] for each in found.history] == [each["valid/mae"] for each in expected.history]
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    last = torch.load(tmp_path / checkpoints.LAST, weights_only=True)["model"]
    assert last["model.prior.left"] == pytest.approx(0.01)


def test_the_best_epoch_keeps_its_share_of_the_prior() -> None:
    """Shares of the three epochs: the square of 1, .55 and .1."""
    model = aligned()
    result = run(model)
    assert model.prior is not None
    assert model.prior.share == pytest.approx((1, 0.55**2, 0.01)[result.best_epoch - 1])
