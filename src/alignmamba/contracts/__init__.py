"""Contracts between the parts of AlignMamba: one batch, one output, one task, sealed splits.

Everything above this floor speaks in these types. A model sees a `Batch` and returns an `Output`; training
and evaluation know models only by that; data hands out `Split` objects whose role cannot be changed.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from alignmamba.contracts.configs import Config, configurations, dotted_keys
from alignmamba.contracts.corpora import Corpus, Predictions, Sample, Split
from alignmamba.contracts.tasks import MOST_CLASSES, MOST_IDS, ROLES, ModalitySpec, Name, Role, Task

if TYPE_CHECKING:
    from alignmamba.contracts.batch import Batch, Sequences, labelled
    from alignmamba.contracts.outputs import Output, Plan, ScalesTargets, Standardisation, TargetScale

__all__ = [
    "MOST_CLASSES",
    "MOST_IDS",
    "ROLES",
    "Batch",
    "Config",
    "Corpus",
    "ModalitySpec",
    "Name",
    "Output",
    "Plan",
    "Predictions",
    "Role",
    "Sample",
    "ScalesTargets",
    "Sequences",
    "Split",
    "Standardisation",
    "TargetScale",
    "Task",
    "configurations",
    "dotted_keys",
    "labelled",
]

_OF_TENSORS = {
    **dict.fromkeys(("Batch", "Sequences", "labelled"), "batch"),
    **dict.fromkeys(("Output", "Plan", "ScalesTargets", "Standardisation", "TargetScale"), "outputs"),
}
"""Names whose modules import PyTorch, which takes seconds: imported when they are first used."""

if not TYPE_CHECKING:  # a type checker reads the imports above, and so refuses a name that is not there

    def __getattr__(name: str) -> object:
        if name not in _OF_TENSORS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_OF_TENSORS[name]}"), name)
        globals()[name] = value  # the next use does not come back here
        return value
