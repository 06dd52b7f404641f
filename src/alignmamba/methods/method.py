"""A method: a network, how it learns, and the settings it was published with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from alignmamba.contracts import Task
from alignmamba.methods.search_space import SearchSpace
from alignmamba.models.network import Network
from alignmamba.training.objective import Objective, Supervised

MMSA: Final[Mapping[str, float]] = {
    "warmup_fraction": 0.0,
    "gradient_clip": 0.0,
    "epochs": 200,
    "patience": 8,
}
"""Settings of MMSA for the fit of every network, which ends after eight epochs without a better one. Along
the cosine of 200 epochs the rate hardly falls until then."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to fuse sequences, as people compare it with others.

    What it cannot be trained on, the configuration of its network refuses: before anything is built, with the
    reason.
    """

    network: type[Network[Any]]
    """The class of the network."""
    objective: Callable[[Any, Task], Objective] = Supervised
    """Makes of a network and its task the objective that it learns by."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of a run with which it was published, for example ``{"fit": {"learning_rate": 1e-4}}``. They
    replace the defaults; a file and ``--set`` replace them."""
    required: Mapping[str, Any] = field(default_factory=dict)
    """Fields of a run without which it is not itself, under shared settings too, for example ``{"loader":
    {"keep_groups": True}}``."""
    search: SearchSpace = field(default_factory=dict)
    """Values of settings of its own that `alignmamba tune` tries, beside those that all methods share."""
    source: str = ""
    """Authors, venue, and where to read it; empty for a plain family that has many sources."""
    needs: str = ""
    """Demands on a corpus, for people, for example ``text and one other modality``; empty where any will
    do."""
    differs: str = ""
    """Differences from its source, in a sentence or two for a table; empty where there are none."""
    reconstructed: str = ""
    """Parts that could not be read and were chosen here; empty where the paper and its code were read."""

    keeps_withheld: bool = False
    """Mark of an objective that learns from what is withheld of the train samples, `Batch.withheld`."""

    @property
    def summary(self) -> str:
        """The method in half a sentence; says so where it is reconstructed."""
        return f"{self.network.summary}{' (reconstructed)' if self.reconstructed else ''}"
