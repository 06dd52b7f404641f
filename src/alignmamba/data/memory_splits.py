"""Splits that live in memory."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from alignmamba.contracts import ModalitySpec, Role, Sample, Split
from alignmamba.errors import DataError


@dataclass(frozen=True, kw_only=True)
class MemorySplit:
    """A split over samples that are held in memory; meets `alignmamba.contracts.Split`.

    Raises:
        DataError: If two samples share an id.
    """

    role: Role
    samples: Sequence[Sample]
    modalities: tuple[ModalitySpec, ...]
    ids: tuple[str, ...] = field(init=False)
    lengths: Mapping[str, np.ndarray] = field(init=False)
    """Modality name to the number of tokens of each sample, 0 where missing."""

    def __post_init__(self) -> None:
        ids = tuple(sample.id for sample in self.samples)
        if len(set(ids)) != len(ids):
            repeated = next(identity for identity in ids if ids.count(identity) > 1)
            raise DataError(
                f"split {self.role!r}: id {repeated!r} appears {ids.count(repeated)} times, expected once"
            )
        lengths = {
            spec.name: np.array(
                [len(sample.features.get(spec.name, ())) for sample in self.samples], dtype=np.int64
            )
            for spec in self.modalities
        }
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "lengths", lengths)

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        return f"MemorySplit({self.role}, {len(self)} samples)"

    def __getitem__(self, row: int) -> Sample:
        return self.samples[row]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)


def content_checksum(splits: Mapping[Role, Split]) -> str:
    """SHA-256 over the ids, features and targets of every split, in order."""
    digest = hashlib.sha256()
    for role, split in splits.items():
        digest.update(role.encode())
        for sample in split:
            digest.update(f"\n{sample.id}\t{sample.target}".encode())
            for name, features in sample.features.items():
                digest.update(f"\t{name}{features.shape}{features.dtype.str}".encode())
                digest.update(np.ascontiguousarray(features).data)
    return digest.hexdigest()
