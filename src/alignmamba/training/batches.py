"""The face of whatever hands out samples to training, and how several processes put theirs together."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import distributed

from alignmamba.contracts import Batch, Role, Task
from alignmamba.errors import DataError

Value = TypeVar("Value")


class BatchSource(Protocol):
    """Hands out one split in batches; `alignmamba.data.loader.Loader` is one.

    The global batches are a function of the epoch alone. With several processes each source yields its share
    of every global batch, the same number of batches everywhere and at least one sample in each.
    """

    @property
    def role(self) -> Role:
        """Role of the split."""
        ...

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the whole split, in its order, whatever the share of this process."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the samples; epochs count from 0."""
        ...

    def __len__(self) -> int:
        """Batches per epoch."""
        ...

    def __iter__(self) -> Iterator[Batch]:
        """The epoch's batches."""
        ...

    def iter_from(self, batch_index: int) -> Iterator[Batch]:
        """The epoch's batches without the first `batch_index`."""
        ...


def gather(value: Value) -> list[Value]:
    """`value` of every process that trains together, in the order of their ranks."""
    if (
        not distributed.is_available()
        or not distributed.is_initialized()
        or distributed.get_world_size() == 1
    ):
        return [value]
    values: list[Value | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return [each for each in values if each is not None]


def known_targets(train: BatchSource, task: Task) -> dict[str, Any]:
    """Target of every train sample that has one, whichever process holds it, in the order of the split: a
    number, or of a multilabel a list of one for each class, NaN where unknown; one pass over the batches.

    Raises:
        DataError: If no sample has one.
    """
    found: dict[str, Any] = {}
    train.set_epoch(0)
    with torch.random.fork_rng(devices=[]):
        for batch in train:
            if batch.targets is None:
                raise DataError(f"train: found samples without targets, for example {batch.ids[0]!r}")
            found.update(zip(batch.ids, batch.targets.tolist(), strict=True))
    merged = {
        identity: target
        for share in gather(found)
        for identity, target in share.items()
        if task.known(target) is not None
    }
    if not merged:
        raise DataError("train: found no sample with a target, expected some")
    return {identity: merged[identity] for identity in train.ids if identity in merged}


def every_target(train: BatchSource, task: Task, *, why: str) -> dict[str, Any]:
    """Targets as `known_targets` gives them, of all samples.

    Raises:
        DataError: If a sample has none; the message gives the reason why it needs one.
    """
    found = known_targets(train, task)
    lacking = [identity for identity in train.ids if identity not in found]
    if lacking:
        raise DataError(
            f"train: {len(lacking)} of {len(train.ids)} samples have no target, the first is {lacking[0]!r},"
            f" expected one for each: {why}"
        )
    return found


def most_together(train: BatchSource, pairs: Sequence[tuple[str, str]]) -> int:
    """Most samples in a batch of one process that have both modalities of a pair; one pass."""
    most = 0
    train.set_epoch(0)
    with torch.random.fork_rng(devices=[]):
        for batch in train:
            present = {name: s.mask.any(1) for name, s in batch.modalities.items()}
            most = max(
                most,
                *(int((present[a] & present[b]).sum()) for a, b in pairs if a in present and b in present),
                0,
            )
    return max(gather(most))


def check_source(source: BatchSource, role: Role) -> None:
    """Refuse batches of another split than of `role`, and a split without any.

    Raises:
        DataError: If it is another, or empty.
    """
    if source.role != role:
        raise DataError(f"fit: expected a {role} split in the place of `{role}`, found a {source.role} split")
    if len(source) == 0:
        raise DataError(
            f"fit: the {role} split has no batch, expected at least one optimiser step"
            if role == "train"
            else f"fit: the {role} split is empty"
        )
