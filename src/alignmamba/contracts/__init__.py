"""Contracts between the parts of AlignMamba: one batch, one output, one task, sealed splits.

Everything above this floor speaks in these types. A model sees a `Batch` and returns an `Output`; training
and evaluation know models only by that; data hands out `Split` objects whose role cannot be changed.
"""

from alignmamba.contracts.batch import Batch, Sequences, labelled
from alignmamba.contracts.configs import Config, configurations, dotted_keys
from alignmamba.contracts.corpora import Corpus, Predictions, Sample, Split
from alignmamba.contracts.outputs import Output, Plan, ScalesTargets, Standardisation, TargetScale
from alignmamba.contracts.tasks import MOST_CLASSES, MOST_IDS, ROLES, ModalitySpec, Name, Role, Task

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
