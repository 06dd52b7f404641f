"""Search space of settings: what all methods share as data, and the kinds of ranges that it is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final


@dataclass(frozen=True, kw_only=True)
class Real:
    """Real numbers from `low` to `high`, drawn evenly in themselves or in their logarithm."""

    low: float
    high: float
    log: bool = False

    def nearest(self, value: Any) -> float:
        """The number of the range that is nearest to a value."""
        return min(max(float(value), self.low), self.high)

    def including(self, value: Any) -> "Real":
        """The same numbers, from or up to this one; of a logarithm, if it is positive."""
        if self.log and value <= 0:
            return self
        return replace(self, low=min(self.low, float(value)), high=max(self.high, float(value)))

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{' (log)' if self.log else ''}"


@dataclass(frozen=True, kw_only=True)
class Whole:
    """Whole numbers from `low` to `high` in steps."""

    low: int
    high: int
    step: int = 1

    def nearest(self, value: Any) -> int:
        """The number of the range that is nearest to a value."""
        return min(range(self.low, self.high + 1, self.step), key=lambda each: abs(each - value))

    def including(self, value: Any) -> "Whole":
        """The same numbers and further steps as far as this one, which they may miss but never pass."""
        steps = int((value - self.low) / self.step)  # towards the range, from below as from above
        reached = self.low + steps * self.step
        return replace(self, low=min(self.low, reached), high=max(self.high, reached))

    def __str__(self) -> str:
        return f"{self.low} to {self.high}{f' by {self.step}' if self.step > 1 else ''}"


@dataclass(frozen=True)
class Choice:
    """One of a few numbers, which are drawn without an order."""

    values: tuple[float, ...]

    def nearest(self, value: Any) -> float:
        """The number that is nearest to a value."""
        return min(self.values, key=lambda each: abs(each - value))

    def including(self, value: Any) -> "Choice":
        """The same numbers and this one, in order."""
        return Choice(tuple(sorted({*self.values, value})))

    def __str__(self) -> str:
        return ", ".join(f"{value:g}" for value in self.values)


@dataclass(frozen=True)
class Names:
    """One of a few names, which are drawn without an order."""

    values: tuple[str, ...]

    def nearest(self, value: Any) -> str:
        """The value, or the first name where it is another."""
        return value if value in self.values else self.values[0]

    def __str__(self) -> str:
        return ", ".join(self.values)


Range = Real | Whole | Choice | Names
"""Values that a setting may take."""

SearchSpace = Mapping[str, Range]
"""Dotted key of a run to its values."""

SHARED_SPACE: Final[Mapping[str, Real | Whole | Choice]] = {
    "fit.learning_rate": Real(low=1e-4, high=1e-2, log=True),
    "fit.weight_decay": Real(low=1e-4, high=0.3, log=True),
    "fit.epochs": Whole(low=10, high=40, step=10),
    "loader.batch_size": Choice((8, 16, 32, 64)),
    "options.d_model": Choice((32, 64, 128)),
    "options.depth": Whole(low=1, high=4),
    "options.dropout": Real(low=0.0, high=0.5),
    "options.modality_dropout": Choice((0.0, 0.3)),
}
"""Space of every method, as far as it has these settings; a default of a method beside them is one more."""

BATCHES_OF_VIEWS: Final = Choice((16, 32, 64))
"""Batches of methods that correlate as many components as a smaller one has samples; in place of those that
all share."""

LOSS_WEIGHT: Final = Real(low=0.01, high=1.0, log=True)
"""Values for the weight of a loss beside the task's."""
