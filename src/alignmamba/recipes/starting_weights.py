"""Weights of a finished run as the start of another."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from alignmamba.checksums import file_checksum
from alignmamba.contracts import Corpus
from alignmamba.errors import CheckpointError, ConfigError, listed
from alignmamba.models.network import Network
from alignmamba.models.pretrained import WEIGHTS_FILE
from alignmamba.recipes.assembly import trained_model, untrained_network
from alignmamba.recipes.configuration import RunConfig
from alignmamba.recipes.run_directory import MODEL, RunDirectory

_SHOWN = 6
_OWN_SCALES = ("standardisers.", "target_scaling.", "further_scaling.", "calling.")
"""Beginnings of what a run measures on its own train split, and thresholds."""
_BRANCHES: Final = "branches."
"""Beginning of the weights of branches; behind it encoders have the names that they have in the fusion."""
_OF_TASK = ("head.", "heads.", "further_heads.", _BRANCHES)
"""Beginnings of the weights that learn nothing without labels."""


@dataclass(frozen=True, kw_only=True)
class StartingWeights:
    """Weights that fit a network, and those that do not."""

    taken: Mapping[str, Tensor] = field(repr=False)
    """Name in the network to the weights that it takes."""
    left: Mapping[str, str]
    """Name of a weight of the network that begins at random, to the reason."""
    learned_anew: tuple[str, ...]
    """Those of them that are learned."""
    unused: tuple[str, ...]
    """Weights of the finished run that the network has not."""

    @property
    def facts(self) -> dict[str, Any]:
        """Record in ``run.json`` of them."""
        return {"taken": len(self.taken), "left": dict(self.left), "unused": list(self.unused)}

    def rates(self, factor: float) -> dict[str, float]:
        """`fit.rates` that learn with a factor what was taken, and what begins at random as ever."""
        return {"": factor, **dict.fromkeys(self.learned_anew, 1.0)}

    def notes(self, run: str) -> tuple[str, ...]:
        """Sentences on what was taken and what was not."""
        found = [f"{len(self.taken)} of {len(self.taken) + len(self.left)} weights start from run {run}"]
        if self.left:
            new = [f"{name} ({why})" for name, why in self.left.items()]
            found.append(f"weights that begin at random: {listed(new, _SHOWN)}")
        if self.unused:
            found.append(f"weights of run {run} that have no place here: {listed(self.unused, _SHOWN)}")
        return tuple(found)


def pinned_start(config: RunConfig) -> RunConfig:
    """The same run with the full path of the run that it starts from, and the checksum of its weights.

    Raises:
        CheckpointError: If there is no finished run, or its weights are others than those that were pinned.
    """
    if not config.start.run:
        return config
    run = RunDirectory.open(Path(config.start.run).resolve())
    run.require_finished()
    run.check((f"{MODEL}/{WEIGHTS_FILE}",))
    found = file_checksum(run.path / MODEL / WEIGHTS_FILE)
    if config.start.sha256 not in ("", found):
        raise CheckpointError(
            f"start.run: weights of run {run.path} have SHA-256 {found[:12]}, expected"
            f" {config.start.sha256[:12]}"
        )
    start = config.start.model_copy(update={"run": str(run.path), "sha256": found})
    return config.model_copy(update={"start": start})


def starting_weights(config: RunConfig, network: Network[Any]) -> StartingWeights:
    """Weights of the run that `config` starts from that have a namesake of the same shape in a network.

    Scales of features and targets are not among them: a run measures them on its own train split. Encoders of
    branches start from pretrained ones of the fusion.

    Raises:
        ConfigError: If not one fits.
        CheckpointError: If the run is gone or damaged.
    """
    run = RunDirectory.open(Path(config.start.run))
    begun = run.config()
    unfit = _OWN_SCALES if begun.objective == "task" else (*_OWN_SCALES, *_OF_TASK)
    given = {
        name: value
        for name, value in trained_model(run, begun).state_dict().items()
        if not name.startswith(unfit)
    }
    found = given
    if begun.objective != "task":
        encoders = {name: value for name, value in given.items() if name.startswith("encoders.")}
        found = given | {_BRANCHES + name: value for name, value in encoders.items()}
    own = {name: value for name, value in network.state_dict().items() if not name.startswith(_OWN_SCALES)}
    taken = {name: found[name] for name, value in own.items() if _fits(value, found.get(name))}
    if not taken:
        raise ConfigError(
            f"start.run: no weight of run {run.path}, a {begun.model}, fits a {config.model} of these"
            " modalities and options"
        )
    left = {
        name: f"found {tuple(found[name].shape)}, expected {tuple(value.shape)}" if name in found else "new"
        for name, value in own.items()
        if name not in taken
    }
    return StartingWeights(
        taken=taken,
        left=left,
        learned_anew=tuple(name for name, _ in network.named_parameters() if name in left),
        unused=tuple(name for name in given if name not in own),
    )


def _fits(own: Tensor, found: Tensor | None) -> bool:
    return found is not None and own.shape == found.shape and own.dtype == found.dtype


def planned_start(config: RunConfig, corpus: Corpus) -> StartingWeights:
    """Weights that `start_from` will take, found without making a network."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        outline = untrained_network(config, corpus)
    return starting_weights(config, outline)


def start_from(config: RunConfig, network: Network[Any]) -> None:
    """Put the weights of the run that `config` starts from into a network.

    Raises:
        CheckpointError: If the run is gone, or has other weights than when this run was planned.
    """
    network.load_state_dict(dict(starting_weights(pinned_start(config), network).taken), strict=False)
