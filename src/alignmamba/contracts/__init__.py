"""Contracts between the parts of AlignMamba: one batch, one output, one task, sealed splits.

Everything above this floor speaks in these types. A model sees a `Batch` and returns an `Output`; training
and evaluation know models only by that; data hands out `Split` objects whose role cannot be changed.
"""

from typing import TYPE_CHECKING

from alignmamba.contracts.configs import Config, configurations, dotted_keys
from alignmamba.contracts.corpora import Corpus, FurtherPredictions, Predictions, Sample, Split
from alignmamba.contracts.tasks import (
    MOST_CLASSES,
    MOST_IDS,
    NAME_PATTERN,
    NO_CLASS,
    ROLES,
    DistinctNames,
    ModalitySpec,
    Name,
    Role,
    Target,
    TargetKind,
    Task,
)

if TYPE_CHECKING:
    from alignmamba.contracts.batch import Batch, Sequences, labelled
    from alignmamba.contracts.outputs import (
        Branches,
        FollowsTraining,
        Output,
        Plan,
        ScalesTargets,
        Standardisation,
        TargetScale,
        TokenVectors,
        Unimodal,
        WeighsModalities,
    )

__all__ = [
    "MOST_CLASSES",
    "MOST_IDS",
    "NAME_PATTERN",
    "NO_CLASS",
    "ROLES",
    "Batch",
    "Branches",
    "Config",
    "Corpus",
    "DistinctNames",
    "FollowsTraining",
    "FurtherPredictions",
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
    "Target",
    "TargetKind",
    "TargetScale",
    "Task",
    "TokenVectors",
    "Unimodal",
    "WeighsModalities",
    "configurations",
    "dotted_keys",
    "labelled",
]

_OF_OUTPUTS = (
    "Branches",
    "FollowsTraining",
    "Output",
    "Plan",
    "ScalesTargets",
    "Standardisation",
    "TargetScale",
    "TokenVectors",
    "Unimodal",
    "WeighsModalities",
)

if not TYPE_CHECKING:  # a type checker reads the imports above, and so refuses a name that is not there

    def __getattr__(name: str) -> object:
        """Import the modules of PyTorch's tensors, which takes seconds, when they are first used."""
        if name in ("Batch", "Sequences", "labelled"):
            from alignmamba.contracts import batch as module
        elif name in _OF_OUTPUTS:
            from alignmamba.contracts import outputs as module
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(module, name)
