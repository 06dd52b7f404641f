"""Small fusion models of every kind, and batches in which modalities are missing."""

from collections.abc import Mapping
from typing import Any

import torch

from alignmamba.contracts import Batch, ModalitySpec, Sequences, Task
from alignmamba.methods import METHODS
from alignmamba.models.encoded import Fusion

MODALITIES = (
    ModalitySpec(name="audio", dim=4),
    ModalitySpec(name="text", dim=11, kind="tokens"),
    ModalitySpec(name="video", dim=6),
    ModalitySpec(name="touch", dim=2),
)
THREE = MODALITIES[:3]
TASK = Task(kind="classification", classes=("a", "b", "c"))
KINDS = {
    "classification": TASK,
    "regression": Task(kind="regression"),
    "ordinal": Task(kind="ordinal", classes=("low", "middle", "high")),
    "multilabel": Task(kind="multilabel", classes=("sad", "angry")),
}
# Every pattern of presence of three modalities but the empty one, in one batch, with unequal lengths.
LENGTHS = {
    "text": [5, 0, 3, 0, 7, 1, 0],
    "audio": [9, 12, 0, 0, 2, 0, 1],
    "video": [4, 6, 5, 8, 0, 0, 0],
    "touch": [3, 1, 0, 4, 0, 2, 0],
}
ALL_PRESENT = {"text": [5, 2, 3], "audio": [9, 12, 4], "video": [4, 6, 5], "touch": [3, 2, 8]}


def model(
    name: str, *, modalities: tuple[ModalitySpec, ...] = THREE, task: Task = TASK, **options: Any
) -> Fusion[Any]:
    torch.manual_seed(0)
    built: Any = METHODS[name].network
    fused: Fusion[Any] = built(
        built.config_class.preset("default", modalities=modalities, task=task, **{"d_model": 16, **options})
    ).eval()
    with torch.no_grad():
        for token in fused.absent_tokens.values():
            if token.requires_grad:
                token.normal_()
    return fused


def batch(
    lengths: Mapping[str, list[int]] = LENGTHS, *, modalities: tuple[ModalitySpec, ...] = THREE, seed: int = 1
) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    sequences = {}
    for spec in modalities:
        valid = torch.tensor(lengths[spec.name])
        shape = (len(valid), int(valid.max()), spec.width)
        if spec.kind == "tokens":
            features = torch.randint(0, spec.dim, shape, generator=generator)
        else:
            features = torch.randn(shape, generator=generator)
        sequences[spec.name] = Sequences(features=features, mask=torch.arange(shape[1]) < valid[:, None])
    return Batch(modalities=sequences, ids=tuple(f"s{row}" for row in range(len(valid))))


def rows_that_differ(first: torch.Tensor, second: torch.Tensor) -> list[int]:
    return ((first - second).abs() > 1e-3).any(-1).nonzero().flatten().tolist()


def labelled(task: Task) -> Batch:
    """The batch with targets of that task."""
    whole = batch()
    targets = {
        "classification": torch.tensor([0, 1, 2, 0, 1, 2, 0]),
        "ordinal": torch.tensor([0, 1, 2, 0, 1, 2, 0]),
        "regression": torch.tensor([-1.0, 0.5, 2, 0, 1, 3, -2], dtype=torch.float64),
        "multilabel": torch.tensor([[0.0, 1.0]] * 7, dtype=torch.float64),
    }[task.kind]
    return Batch(modalities=whole.modalities, ids=whole.ids, targets=targets)
