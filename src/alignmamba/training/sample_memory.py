"""Memory of an objective: vectors of every train sample, from one step to the next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alignmamba.training.batches import gather


@dataclass(frozen=True, slots=True)
class Seen:
    """Vectors that the samples of a step gave."""

    rows: Tensor
    """(samples,), places of the samples in the memory."""
    vectors: Mapping[str, Tensor]
    """(samples, width) each, detached."""
    present: Mapping[str, Tensor]
    """(samples,) bool each: whether the sample has the vector."""


class SampleMemory(nn.Module):
    """The last vectors of every train sample, by id, as buffers: every checkpoint holds them.

    Batches are noted as their losses are computed and written after the step, those of all processes
    together, so that micro batches and processes see one memory.

    Args:
        ids: Of the train split.
        widths: Width of the vectors that are kept, by name.
    """

    def __init__(self, ids: Sequence[str], widths: Mapping[str, int]) -> None:
        super().__init__()
        self._row = {identity: row for row, identity in enumerate(ids)}
        self._noted: list[Seen] = []
        self._names = tuple(widths)
        for name, width in widths.items():
            self.register_buffer(f"vectors_{name}", torch.zeros(len(ids), width))
            self.register_buffer(f"known_{name}", torch.zeros(len(ids), dtype=torch.bool))

    def vectors(self, name: str) -> Tensor:
        """(samples, width), zeros of those that are not known."""
        return self.get_buffer(f"vectors_{name}")

    def known(self, name: str) -> Tensor:
        """(samples,) bool: whose vector was written."""
        return self.get_buffer(f"known_{name}")

    def rows(self, ids: Sequence[str], device: torch.device) -> Tensor:
        """(samples,), places of samples of the train split."""
        return torch.tensor([self._row[identity] for identity in ids], device=device)

    def note(self, rows: Tensor, vectors: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> None:
        """Keep what a micro batch gave until the step is done."""
        self._noted.append(
            Seen(rows, {name: value.detach() for name, value in vectors.items()}, dict(present))
        )

    def take(self) -> Seen:
        """Notes since the last call, of all processes in the order of their ranks."""
        noted = [each for share in gather(self._noted) for each in share]
        self._noted = []
        device = noted[0].rows.device if len(noted) == 1 else self.known(self._names[0]).device

        def joined(parts: Sequence[Tensor]) -> Tensor:
            return torch.cat([part.to(device) for part in parts])

        return Seen(
            joined([each.rows for each in noted]),
            {name: joined([each.vectors[name] for each in noted]) for name in noted[0].vectors},
            {name: joined([each.present[name] for each in noted]) for name in noted[0].present},
        )

    def write(self, seen: Seen) -> None:
        """Keep the vectors that samples gave in place of their earlier ones; those that they lack stay."""
        for name in self._names:
            rows = seen.rows[seen.present[name]]
            self.vectors(name)[rows] = seen.vectors[name][seen.present[name]].to(self.vectors(name).dtype)
            self.known(name)[rows] = True

    def forget(self) -> None:
        """Begin again with nothing known."""
        for name in self._names:
            self.vectors(name).zero_()
            self.known(name).zero_()
