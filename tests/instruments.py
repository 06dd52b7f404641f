"""Instruments that show what an operator holds in memory, and what it leaves unwritten there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, is_tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


class Products(TorchDispatchMode):
    """Counts batched products of matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += func is torch.ops.aten.bmm.default
        return func(*args, **(kwargs or {}))


class LargePlaces(TorchDispatchMode):
    """Counts the places of at least some number of elements that operations take for their results."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least, self.number = least, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {each.untyped_storage().data_ptr() for each in tree_leaves((args, kwargs)) if is_tensor(each)}
        for each in tree_leaves(result):
            if is_tensor(each) and each.numel() >= self.least:
                self.number += each.untyped_storage().data_ptr() not in given
        return result


class KeptBytes:
    """Hooks for `saved_tensors_hooks` that add up the storage kept for the backward pass, each piece once."""

    def __init__(self) -> None:
        self._storages: dict[int, int] = {}

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    def unpack(self, tensor: Tensor) -> Tensor:
        return tensor

    @property
    def total(self) -> int:
        return sum(self._storages.values())


@contextmanager
def unwritten_is_nan() -> Iterator[None]:
    """Fill with NaN what is allocated without a value, so that an element that nobody writes shows; -7 where
    there is no NaN.
    """
    empty, empty_like, new_empty = torch.empty, torch.empty_like, Tensor.new_empty

    def poisoned(allocate: Any) -> Any:
        def allocated(*args: Any, **kwargs: Any) -> Tensor:
            tensor: Tensor = allocate(*args, **kwargs)
            return tensor.fill_(float("nan") if tensor.is_floating_point() else -7)

        return allocated

    torch.empty, torch.empty_like, Tensor.new_empty = (
        poisoned(empty),
        poisoned(empty_like),
        poisoned(new_empty),
    )  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.empty, torch.empty_like, Tensor.new_empty = empty, empty_like, new_empty  # type: ignore[method-assign]
