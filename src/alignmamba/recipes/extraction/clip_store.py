"""Clips that were read, one file each, found again by their content: the work of a killed extraction is kept.

A file is named by the checksum of all that decides it: the media file, the transcripts beside it, the
segment, the text of the table and the recipe.
"""

import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from alignmamba.checksums import checksum, file_checksum
from alignmamba.errors import DataError
from alignmamba.files import open_regular, read_bounded, replace_file
from alignmamba.media.clip import MediaClip
from alignmamba.media.tracks import ClipContent, Track
from alignmamba.media.transcripts import transcript_path

_ENDING = ".safetensors"
_FACTS, _SUM = "facts", "sha256"
_MOST_BYTES = 16 << 30
_FORM = 1
"""Version of the files, part of their names."""


@dataclass(frozen=True)
class ClipStore:
    """A folder of clips that were read."""

    folder: Path

    def path(self, key: str) -> Path:
        """File of a clip; folders of a hundredth each keep 100 000 of them apart."""
        return self.folder / key[:2] / f"{key}{_ENDING}"

    def get(self, key: str) -> ClipContent | None:
        """The clip of a key; ``None`` where there is none, or a damaged one."""
        try:
            content = read_bounded(self.path(key), limit_bytes=_MOST_BYTES)
            return _unpacked(content)
        except (DataError, SafetensorError, KeyError, ValueError, TypeError):
            return None

    def put(self, key: str, clip: ClipContent) -> None:
        """Keep a clip, at once: whoever looks finds all of it or nothing."""
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, _packed(clip))


def clip_key(clip: MediaClip, recipe_digest: str) -> str:
    """Checksum of all that decides what is read of a clip.

    Raises:
        DataError: If a file cannot be read.
    """
    beside = transcript_path(clip.path)
    decides = {
        "form": _FORM,
        "recipe": recipe_digest,
        "file": _of_file(clip.path),
        "start": clip.start,
        "end": clip.end,
        "text": clip.text,
        "beside": None if beside is None else [beside.suffix, _of_file(beside)],
    }
    return checksum(json.dumps(decides, sort_keys=True).encode())


def _of_file(path: Path) -> str:
    """Checksum of a file, read once for all of its segments."""
    with open_regular(path) as file:
        state = os.fstat(file.fileno())
    return _checksum_once(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _checksum_once(path: Path, size: int, changed: int) -> str:
    del size, changed  # of another state of the file
    return file_checksum(path)


def _packed(clip: ClipContent) -> bytes:
    arrays: dict[str, np.ndarray] = {}
    for name, track in clip.tracks.items():
        arrays[f"{name}.values"] = np.ascontiguousarray(track.values)
        arrays[f"{name}.times"] = np.ascontiguousarray(track.times, dtype=np.float64)
    facts = {
        "tokens": {name: list(track.tokens) for name, track in clip.tracks.items()},
        "track_notes": {name: list(track.notes) for name, track in clip.tracks.items()},
        "absent": dict(clip.absent),
        "text": clip.text,
        "notes": list(clip.notes),
    }
    said = json.dumps(facts, ensure_ascii=False)
    return save(arrays, metadata={_FACTS: said, _SUM: _sum_of(arrays, said)})


def _unpacked(content: bytes) -> ClipContent:
    arrays = load(content)
    metadata = _metadata(content)
    if metadata[_SUM] != _sum_of(arrays, metadata[_FACTS]):
        raise ValueError("damaged")
    facts = json.loads(metadata[_FACTS])
    return ClipContent(
        tracks={
            name: Track(
                values=arrays[f"{name}.values"],
                times=arrays[f"{name}.times"],
                tokens=tuple(tokens),
                notes=tuple(facts["track_notes"][name]),
            )
            for name, tokens in facts["tokens"].items()
        },
        absent=facts["absent"],
        text=facts["text"],
        notes=tuple(facts["notes"]),
    )


def _metadata(content: bytes) -> dict[str, Any]:
    """Metadata in the header of a safetensors file, besides its arrays."""
    size = int.from_bytes(content[:8], "little")
    return dict(json.loads(content[8 : 8 + size])["__metadata__"])


def _sum_of(arrays: dict[str, np.ndarray], facts: str) -> str:
    parts = [facts.encode()]
    for name in sorted(arrays):
        array = arrays[name]
        parts += [f"{name} {array.dtype} {array.shape}".encode(), checksum(array.tobytes()).encode()]
    return checksum(b"\n".join(parts))
