"""Checkpoint files: written whole or not at all, read without running anything that is in them."""

import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from lightning_fabric import Fabric

from alignmamba.errors import CheckpointError

LAST: Final = "last.ckpt"
"""Everything that training needs to go on."""
BEST: Final = "best.ckpt"
"""The weights that scored best on the validation split."""

FORMAT_VERSION: Final = 1


def save(fabric: Fabric, path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint; whoever looks at `path`, at any moment, finds the old file or the new one.

    Every process has to call this. Rank 0 writes.

    Args:
        fabric: The engine that the modules and optimisers in `state` were set up with.
        path: Where the file goes; its directory exists.
        state: Modules, optimisers, tensors and plain values by name.
    """
    temporary = path.with_name(f".{path.name}.partial")
    fabric.save(temporary, {**state, "format_version": FORMAT_VERSION})
    fabric.barrier()
    if fabric.is_global_zero:
        _replace(temporary, path)
    fabric.barrier()


def load(fabric: Fabric, path: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """Read a checkpoint into the modules and optimisers of `state`.

    Args:
        fabric: The engine that they were set up with.
        path: A file that `save` wrote.
        state: Modules and optimisers by the names they were saved under.

    Returns:
        What else the checkpoint holds.

    Raises:
        CheckpointError: If the file is absent, damaged, not a checkpoint of this format, or does not fit the objects of `state`.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint")
    if path.is_file() and not zipfile.is_zipfile(path):  # torch would try older formats, and warn about what it finds
        raise CheckpointError(f"{path}: not a checkpoint, or cut short: expected a zip archive as torch writes it")
    try:
        rest: dict[str, Any] = fabric.load(path, dict(state), weights_only=True)
    except Exception as error:  # what a damaged file makes torch raise has no narrower root
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: not a complete checkpoint of this model: {reason[:200]}") from error
    version = rest.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path}: format version {version}, expected {FORMAT_VERSION}")
    return rest


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """State of torch's generators of this process: CPU, and the device's where it is a GPU."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Undo everything drawn since `random_state`."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def _replace(temporary: Path, path: Path) -> None:
    """Move a finished file or directory of shards over `path`, on disk before it is visible."""
    for file in [temporary, *temporary.rglob("*")] if temporary.is_dir() else [temporary]:
        _sync(file)
    if path.is_dir():  # a directory cannot be replaced in one step: the old shards step aside first
        retired = path.with_name(f".{path.name}.retired")
        shutil.rmtree(retired, ignore_errors=True)
        path.rename(retired)
        temporary.rename(path)
        shutil.rmtree(retired)
    else:
        temporary.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
