"""Choice of the best epoch."""

import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final

from alignmamba.contracts import Task
from alignmamba.errors import ConfigError

_AUTO: Final = {
    "regression": "mae",
    "classification": "accuracy",
    "ordinal": "accuracy",
    "multilabel": "auroc",
}
VALIDATION_LOSS: Final = "loss"
"""Name by which `FitConfig.select` asks for the total loss on the valid split; lower is better."""


def selection(select: str, task: Task, higher_is_better: Mapping[str, bool]) -> str:
    """Name of the metric that chooses the best epoch.

    Raises:
        ConfigError: If it is not a metric of this task.
    """
    name = select
    if select == "auto":
        name = _AUTO[task.kind]
    check_metric(name, higher_is_better)
    return name


def check_metric(name: str, known: Mapping[str, Any]) -> None:
    """Refuse a metric that is not among these.

    Raises:
        ConfigError: With the name that was probably meant.
    """
    choices = [*known, VALIDATION_LOSS]
    if name not in choices:
        close = get_close_matches(name, choices, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"select: no metric {name!r} for this task, only {', '.join(choices)}{hint}")


def column(metric: str) -> str:
    """Key of a metric in the record of an epoch."""
    return "valid/loss/total" if metric == VALIDATION_LOSS else f"valid/{metric}"


def improves(value: float, best: float, *, higher_is_better: bool) -> bool:
    """Answer to whether a score beats the best so far; NaN beats nothing and everything beats NaN."""
    if math.isnan(value) or math.isnan(best):
        return not math.isnan(value)
    return value > best if higher_is_better else value < best
