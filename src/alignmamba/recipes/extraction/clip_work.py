"""The work on one clip, the same in a pool of this machine, on SLURM and on Ray."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from alignmamba.files import verdict
from alignmamba.media.clip import MediaClip
from alignmamba.media.recipe import ClipReader, Recipe, repeated
from alignmamba.recipes.extraction.clip_store import ClipStore, clip_key


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipOrder:
    """All that a process needs to read clips; it is sent to other processes and machines."""

    store: Path
    recipe: str
    """The recipe as JSON."""
    models: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipOutcome:
    """One clip after the work on it: its key in the store, or the reason why it failed."""

    row: int
    """Place in the table."""
    key: str = ""
    failure: str = ""
    cached: bool = False
    """Mark of a clip that was in the store before."""
    present: tuple[str, ...] = ()
    """Modalities that it has."""
    absent: tuple[tuple[str, str], ...] = ()
    """Modalities that it lacks, each with the reason."""
    notes: tuple[str, ...] = ()
    """Half a sentence each on what is imperfect."""


def read_clip(order: ClipOrder, row: int, clip: MediaClip) -> ClipOutcome:
    """Read a clip into the store, unless it is there; a fault of the clip is its outcome.

    Raises:
        ConfigError: If the tools cannot be made here.
        OSError: If the store cannot be written, for example for want of room.
    """
    reader, store = reader_of(order), ClipStore(order.store)
    try:
        key = clip_key(clip, reader.recipe.digest)
        known = store.get(key)
        content = reader.read(clip) if known is None else known
    except Exception as error:
        _, said = verdict(error)
        return ClipOutcome(row=row, failure=said)
    if not content.tracks:
        reasons = "; ".join(f"{name}: {why}" for name, why in content.absent.items())
        return ClipOutcome(
            row=row, failure=f"{clip.path}: expected at least one modality, found none ({reasons})"
        )
    if known is None:
        store.put(key, content)
    own = (f"{name}: {note}" for name, track in content.tracks.items() for note in track.notes)
    return ClipOutcome(
        row=row,
        key=key,
        cached=known is not None,
        present=tuple(content.tracks),
        absent=tuple(content.absent.items()),
        notes=(*content.notes, *own),
    )


@lru_cache(maxsize=1)
def reader_of(order: ClipOrder) -> ClipReader:
    """The tools, made once in a process."""
    recipe = Recipe.read(json.loads(order.recipe), "recipe")
    return repeated(recipe, models=order.models)
