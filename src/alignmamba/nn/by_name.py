"""Modules and weights by names that users choose, such as those of modalities and targets."""

from collections.abc import ItemsView, Iterator, KeysView
from typing import Final

from torch import nn

_OWN: Final = "_of_"
"""Beginning of the attribute for a name that the container has for itself; names begin with a letter."""


class ModulesByName(nn.ModuleDict):
    """`torch.nn.ModuleDict` whose keys may be names of its own attributes, such as ``type``."""

    def __getitem__(self, key: str) -> nn.Module:
        return super().__getitem__(_attribute(key, _MODULES))

    def __setitem__(self, key: str, module: nn.Module) -> None:
        super().__setitem__(_attribute(key, _MODULES), module)

    def __delitem__(self, key: str) -> None:
        super().__delitem__(_attribute(key, _MODULES))

    def __contains__(self, key: str) -> bool:
        return super().__contains__(_attribute(key, _MODULES))

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self) -> KeysView[str]:
        """Names in the order in which they were given."""
        return {name.removeprefix(_OWN): None for name in self._modules}.keys()

    def items(self) -> ItemsView[str, nn.Module]:
        """Names and modules."""
        return dict(zip(self.keys(), self.values(), strict=True)).items()


class WeightsByName(nn.ParameterDict):
    """`torch.nn.ParameterDict` whose keys may be names of its own attributes."""

    def _key_to_attr(self, key: str) -> str:
        return _attribute(key, _WEIGHTS)


_MODULES: Final = frozenset(dir(nn.ModuleDict()))
_WEIGHTS: Final = frozenset(dir(nn.ParameterDict()))


def _attribute(name: str, taken: frozenset[str]) -> str:
    """Attribute for a name: the name itself, as which stored weights know it, where that is free."""
    return f"{_OWN}{name}" if name in taken else name
