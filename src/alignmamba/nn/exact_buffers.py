"""Buffers whose type a model does not change."""

from collections.abc import Callable
from typing import Self

from torch import Tensor, nn


class ExactBuffers(nn.Module):
    """Module whose own buffers move with the model but keep their type: ``model.half()`` is about weights."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        exact = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in exact.items():
            changed = self.get_buffer(name)
            if changed.dtype != buffer.dtype:
                setattr(self, name, buffer.to(changed.device))
        return self
