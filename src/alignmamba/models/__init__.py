"""Fusion models by name. A new one is a file that meets `contracts.FusionModel` and a line here."""

from pathlib import Path
from typing import Any

from alignmamba.errors import CheckpointError, shown
from alignmamba.files import read_json
from alignmamba.models.alignmamba import AlignMamba
from alignmamba.models.exporting import TensorsIn
from alignmamba.models.fusion import Fusion
from alignmamba.models.multi_stream import LateFusion, MulT, MultiStreamMamba
from alignmamba.models.pretrained import CONFIG_FILE, fetched
from alignmamba.models.single_stream import SingleStreamMamba, SingleStreamTransformer

MODELS: dict[str, type[Fusion[Any]]] = {
    "alignmamba": AlignMamba,
    "single-stream-mamba": SingleStreamMamba,
    "multi-stream-mamba": MultiStreamMamba,
    "single-stream-transformer": SingleStreamTransformer,
    "mult": MulT,
    "late-fusion": LateFusion,
}

__all__ = [
    "MODELS",
    "AlignMamba",
    "LateFusion",
    "MulT",
    "MultiStreamMamba",
    "SingleStreamMamba",
    "SingleStreamTransformer",
    "TensorsIn",
    "from_pretrained",
]


def from_pretrained(source: str | Path, *, revision: str | None = None, local_files_only: bool = False) -> Fusion[Any]:
    """Load a saved model of whatever family it is, in evaluation mode.

    Args:
        source: A folder that ``save_pretrained`` wrote, the directory of a run, or the name of a repository on the Hugging Face Hub.
        revision: Branch, tag or commit of a Hub repository.
        local_files_only: Whether to look for a Hub repository in the local cache alone.

    Raises:
        CheckpointError: If a file is missing or damaged, or the model is of no family here; the message names it.
    """
    folder = fetched(source, revision=revision, local_files_only=local_files_only)
    if not (folder / CONFIG_FILE).exists() and (folder / "model" / CONFIG_FILE).exists():
        folder = folder / "model"  # of a run
    description = read_json(folder / CONFIG_FILE, error=CheckpointError)
    found = description.get("model_type") if isinstance(description, dict) else None
    families = {family.__name__: family for family in MODELS.values()}
    if not isinstance(found, str) or found not in families:
        raise CheckpointError(f"{folder / CONFIG_FILE}: model_type: found {shown(found)}, expected one of {', '.join(families)}")
    return families[found].from_pretrained(folder)
