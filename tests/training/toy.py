"""A fusion model and a batch source small enough to train in a blink, shared by the tests of this
directory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from alignmamba.contracts import Batch, Output, Predictions, Role, ScalesTargets, Sequences, TargetScale, Task

REGRESSION = Task(kind="regression", label_range=(-3.0, 3.0))
CLASSIFICATION = Task(kind="classification", classes=("low", "middle", "high"))
DIRECTIONS = {"mae": False, "spread": True}


class ToyModel(nn.Module):
    """Mean of each present modality, projected, dropped out, added up; a modality that is nowhere in the
    batch is not touched at all.
    """

    def __init__(self, task: Task = REGRESSION, *, dropout: float = 0.3, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.encoders = nn.ModuleDict({"text": nn.Linear(4, 8), "audio": nn.Linear(3, 8)})
            self.norm = nn.LayerNorm(8)
            self.head = nn.Linear(8, task.num_outputs)
        self.dropout = nn.Dropout(dropout)
        self.regression = task.kind == "regression"

    def forward(self, batch: Batch, *, return_plans: bool = False) -> Output:
        del return_plans
        hidden: Tensor | float = 0.0
        for name, encoder in self.encoders.items():
            s = batch.modalities[name]
            if s.mask.any():
                weights = s.mask.unsqueeze(-1) / s.lengths.clamp(min=1)[:, None, None]
                present = (s.lengths > 0).unsqueeze(-1)
                hidden = hidden + torch.tanh(encoder((s.features * weights).sum(dim=1))) * present
        assert isinstance(hidden, Tensor)
        embedding = self.dropout(self.norm(hidden))
        logits = self.head(embedding)
        prediction = logits.squeeze(-1) if self.regression else logits
        return Output(
            prediction=prediction, losses={"size": 0.01 * embedding.square().mean(dim=1)}, embedding=embedding
        )


class ScalingToyModel(ToyModel, ScalesTargets):
    """The same, with a head that says how far from the mean of the targets a sample lies."""

    def __init__(self) -> None:
        super().__init__(dropout=0.0)
        self._scale: TargetScale | None = None

    @property
    def target_scale(self) -> TargetScale | None:
        return self._scale

    def scale_targets(self, scale: TargetScale) -> None:
        self._scale = scale

    def forward(self, batch: Batch, *, return_plans: bool = False) -> Output:
        out = super().forward(batch, return_plans=return_plans)
        assert self._scale is not None
        return replace(out, prediction=self._scale.mean + self._scale.deviation * out.prediction.double())


class ToySource:
    """Samples made from their number; sample 0, 2, 4, ... lack audio, so that with two processes one of them
    never sees any.
    """

    def __init__(
        self,
        role: Role,
        *,
        task: Task = REGRESSION,
        samples: int = 26,
        batch_size: int = 4,
        rank: int = 0,
        world_size: int = 1,
        targets: bool = True,
        spoil: str | None = None,
        repeat: Sequence[int] = (),
        scale: TargetScale = TargetScale(),  # noqa: B008 # immutable
    ) -> None:
        self.role: Role = role
        self.task = task
        self.samples = samples
        self.batch_size = batch_size
        self.rank, self.world_size = rank, world_size
        self.targets = targets
        self.spoil = spoil
        self.repeat = list(repeat)
        self.scale = scale
        self.ids = tuple(f"{role}-{row}" for row in range(samples))
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def _global_batches(self) -> list[list[int]]:
        order = list(range(self.samples)) + self.repeat
        if self.role == "train":
            # Even and odd samples alternate, so that rank 0 of 2 gets the even ones alone.
            random = np.random.default_rng(self.epoch)
            even, odd = random.permutation(order[0::2]), random.permutation(order[1::2])
            order = [int(row) for pair in zip(even, odd, strict=True) for row in pair]
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]

    def __len__(self) -> int:
        return len(self._global_batches())

    def __iter__(self) -> Iterator[Batch]:
        return self.iter_from(0)

    def iter_from(self, batch_index: int) -> Iterator[Batch]:
        torch.rand(1)  # as a DataLoader does, which draws a seed for its workers from the global generator
        for rows in self._global_batches()[batch_index:]:
            yield self.batch(rows[self.rank :: self.world_size])

    def batch(self, rows: Sequence[int]) -> Batch:
        features = {name: torch.zeros(len(rows), 5, width) for name, width in (("text", 4), ("audio", 3))}
        masks = {name: torch.zeros(len(rows), 5, dtype=torch.bool) for name in features}
        targets = []
        for at, row in enumerate(rows):
            random = np.random.default_rng([row, {"train": 0, "valid": 1, "test": 2}[self.role]])
            for name, values in features.items():
                length = int(random.integers(1, 6))
                values[at] = torch.from_numpy(random.normal(size=tuple(values[at].shape)).astype(np.float32))
                masks[name][at, :length] = name == "text" or row % 2 == 1
            if self.ids[row] == self.spoil:
                features["text"][at, 0, 0] = torch.nan
            evidence = float(features["text"][at, 0].nan_to_num().sum())
            number = self.scale.mean + self.scale.deviation * float(np.clip(evidence, -3, 3))
            targets.append(
                number if self.task.kind == "regression" else int(evidence > -1) + int(evidence > 1)
            )
        dtype = torch.float64 if self.task.kind == "regression" else torch.int64
        return Batch(
            modalities={name: Sequences(features=features[name], mask=masks[name]) for name in features},
            ids=tuple(self.ids[row] for row in rows),
            targets=torch.tensor(targets, dtype=dtype) if self.targets else None,
        )


def toy_score(predictions: Predictions) -> dict[str, float]:
    """Mean absolute error and the spread of the predictions."""
    assert predictions.targets is not None
    return {
        "mae": float(np.abs(predictions.prediction - predictions.targets).mean()),
        "spread": float(predictions.prediction.std()),
    }
