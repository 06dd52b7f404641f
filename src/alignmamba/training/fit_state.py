"""Parts of training: the parts that stay the same throughout a stage, and where it stands."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from alignmamba.training.batches import BatchSource
from alignmamba.training.fit_config import FitConfig, Score
from alignmamba.training.moving_average import AveragedWeights
from alignmamba.training.objective import Objective, Stage
from alignmamba.training.progress import Progress
from alignmamba.training.stages import Turn, in_turn


@dataclass(frozen=True, kw_only=True)
class Run:
    """The parts that stay the same throughout a stage."""

    module: nn.Module  # the objective as the engine wraps it
    objective: Objective
    train: BatchSource
    valid: BatchSource
    config: FitConfig
    score: Score
    higher_is_better: Mapping[str, bool]
    fabric: Fabric
    run_dir: Path | None
    progress: Progress | None
    stage: Stage = Stage()  # noqa: RUF009 # immutable
    optimizers: tuple[Optimizer, ...] = ()  # those of the stage, in its order
    average: AveragedWeights | None = None  # of the stage
    metric: str = ""  # chooses the best epoch of the stage
    best_weights: dict[str, Tensor] = field(default_factory=dict)  # used where there is no run directory

    @property
    def epochs(self) -> int:
        """Epoch of the stage."""
        return self.stage.epochs or self.config.epochs

    def epochs_from(self, stage: int) -> int:
        """Epochs of this stage, from 0, and those after it."""
        return sum(each.epochs or self.config.epochs for each in self.objective.stages[stage:])

    @property
    def last_stage(self) -> int:
        return len(self.objective.stages) - 1

    def turns(self, epoch: int) -> list[Turn]:
        """The optimisers that step in an epoch of the stage."""
        steps = math.ceil(len(self.train) / self.config.accumulate)
        return in_turn(self.stage, self.optimizers, epoch=epoch, epochs=self.epochs, steps=steps)

    def averaged(self) -> AbstractContextManager[None]:
        """Weights as they are validated and kept."""
        return nullcontext() if self.average is None else self.average.in_place()

    def named_optimizers(self) -> dict[str, Optimizer]:
        """Parts by the names under which a checkpoint holds them."""
        return {
            f"optimizer-{number}" if number else "optimizer": each
            for number, each in enumerate(self.optimizers)
        }


@dataclass(kw_only=True)
class State:
    """State of training. Plain values only: they go into the checkpoint as they are."""

    stage: int = 0  # under way, from 0
    epoch: int = 0  # of the stage, under way, from 0
    batch: int = 0  # batches of it that are done
    step: int = 0  # optimiser steps tried, over all stages
    optimiser_steps: int = 0  # those that were not skipped by the gradient scaler
    learning_rate: float = 0.0  # of the last step
    seconds: float = 0.0  # spent on this epoch so far
    best_epoch: int = 0  # of the stage, from 1; 0 while there is none
    best_score: float = math.nan
    best_loss: float = math.nan  # of the best epoch, which decides between equal scores; 0.3 saved none
    stopped: str = ""
    history: list[dict[str, float]] = field(default_factory=list)
    # The epoch's sums over this process's samples; unlike all above they differ between processes.
    samples: int = 0
    sums: dict[str, float] = field(default_factory=dict)


PER_PROCESS = ("samples", "sums")
