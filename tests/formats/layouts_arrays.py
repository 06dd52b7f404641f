"""Arrays and tables with a description, in each layout that a description can name, of small random data."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

IDS = tuple(f"s{number}" for number in range(7))
SPLITS = ("train", "train", "train", "train", "valid", "valid", "test")
LABELS = (0.5, -1.0, 2.25, 3.0, -3.0, 0.0, 1.5)
LENGTHS = {"text": (2, 3, 1, 4, 2, 2, 3), "audio": (5, 4, 6, 3, 5, 4, 2)}


def truth() -> dict[str, list[np.ndarray]]:
    """Values of each sample: tokens of text, (time,), and features of audio, (time, 3)."""
    random = np.random.default_rng(5)
    return {
        "text": [random.integers(0, 40, size=length) for length in LENGTHS["text"]],
        "audio": [random.normal(size=(length, 3)).astype(np.float32) for length in LENGTHS["audio"]],
    }


def seconds() -> list[np.ndarray]:
    """Times of the audio of each sample."""
    return [0.25 + 0.5 * np.arange(length) for length in LENGTHS["audio"]]


def padded(arrays: list[np.ndarray], filler: float = 9.0) -> np.ndarray:
    """(samples, longest, ...), with a filler that is no padding by its value."""
    longest = max(map(len, arrays))
    return np.stack(
        [np.concatenate([a, np.full((longest - len(a), *a.shape[1:]), filler, a.dtype)]) for a in arrays]
    )


def write_samples(folder: Path) -> None:
    """`samples.csv`."""
    rows = [f"{identity},{label},{split}" for identity, label, split in zip(IDS, LABELS, SPLITS, strict=True)]
    (folder / "samples.csv").write_text("id,label,split\n" + "\n".join(rows) + "\n")


def write_npz(folder: Path, *, compressed: bool = False) -> None:
    """`all.npz` with everything that a description can refer to."""
    values = truth()
    arrays: dict[str, Any] = {
        "id": np.array(IDS),
        "label": np.array(LABELS),
        "text": padded(values["text"], 0),
        "text_lengths": np.array(LENGTHS["text"]),
        "audio": np.concatenate(values["audio"]),
        "audio_offsets": np.cumsum([0, *LENGTHS["audio"]]),
        "falling": np.array([0, 9, 5, 12, 15, 20, 25, 29]),
        "audio_lengths": np.array(LENGTHS["audio"], dtype=np.float32),
        "audio_padded": padded(values["audio"]),
        "audio_times": np.concatenate(seconds()),
        "audio_times_padded": padded(seconds()),
    }
    (np.savez_compressed if compressed else np.savez)(folder / "all.npz", **arrays)


def write_files(folder: Path) -> None:
    """One `.npy` per sample in `audio/`, its times in `times/`, and tokens in `text/`."""
    values = truth()
    for name in ("audio", "times", "text"):
        (folder / name).mkdir()
    for row, identity in enumerate(IDS):
        np.save(folder / "audio" / f"{identity}.npy", values["audio"][row])
        np.save(folder / "times" / f"{identity}.npy", seconds()[row])
        np.save(folder / "text" / f"{identity}.npy", values["text"][row])


def write_tables(folder: Path) -> None:
    """`audio.csv` and `audio.parquet` in row groups that cut samples, with columns id, t, x, y, z."""
    rows = [
        (IDS[row], float(second), *map(float, frame))
        for row, (frames, times) in enumerate(zip(truth()["audio"], seconds(), strict=True))
        for frame, second in zip(frames, times, strict=True)
    ]
    names = ("id", "t", "x", "y", "z")
    (folder / "audio.csv").write_text(
        "\n".join([";".join(names), *(";".join(map(str, row)) for row in rows)]) + "\n"
    )
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    parquet.write_table(pa.table(columns), folder / "audio.parquet", row_group_size=4)


HEAD = 'name = "made up"\n[task]\nkind = "regression"\nrange = [-3, 3]\n'
SAMPLES = '[samples]\ntable = "samples.csv"\nlabel = "label"\nsplit = "split"\n'
AUDIO: Mapping[str, str] = {
    "files": 'files = "audio/{id}.npy"\ntimes = "times/{id}.npy"\n',
    "offsets": 'values = "all.npz#audio"\noffsets = "all.npz#audio_offsets"\ntimes = "all.npz#audio_times"\n',
    "lengths": 'values = "all.npz#audio"\nlengths = "all.npz#audio_lengths"\ntimes = "all.npz#audio_times"\n',
    "padded": (
        'values = "all.npz#audio_padded"\nlengths = "all.npz#audio_lengths"\ntimes ='
        ' "all.npz#audio_times_padded"\n'
    ),
    "csv": 'table = "audio.csv"\ntime = "t"\n',
    "parquet": 'table = "audio.parquet"\ntime = "t"\ncolumns = ["x", "y", "z"]\n',
}
TEXT: Mapping[str, str] = {
    "files": 'kind = "tokens"\nvocabulary_size = 50\nfiles = "text/{id}.npy"\n',
    "padded": (
        'kind = "tokens"\nvocabulary_size = 50\nvalues = "all.npz#text"\nlengths = "all.npz#text_lengths"\n'
    ),
}


def describe(
    folder: Path,
    *,
    text: str = TEXT["padded"],
    audio: str = AUDIO["offsets"],
    head: str = HEAD,
    samples: str = SAMPLES,
) -> Path:
    """`corpus.toml`."""
    path = folder / "corpus.toml"
    path.write_text(f"{head}{samples}[modalities.text]\n{text}[modalities.audio]\n{audio}")
    return path


def _write_values(folder: Path) -> None:
    write_samples(folder)
    write_npz(folder)
    write_files(folder)
    write_tables(folder)


def write_each_kind(folder: Path) -> Path:
    """A description that refers to every file beside it: each way to store values is one modality."""
    _write_values(folder)
    ways = {
        "files": AUDIO["files"],
        "offsets": AUDIO["offsets"],
        "csv": AUDIO["csv"],
        "parquet": AUDIO["parquet"],
        "text": TEXT["files"],
    }
    path = folder / "corpus.toml"
    path.write_text(HEAD + SAMPLES + "".join(f"[modalities.{name}]\n{way}" for name, way in ways.items()))
    return path


def write_everything(folder: Path) -> Path:
    """All files, and a description."""
    _write_values(folder)
    (folder / "ids.json").write_text(json.dumps(IDS))
    return describe(folder)
