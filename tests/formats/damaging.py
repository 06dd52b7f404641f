"""Valid files of every format, ways to damage them, and what must then become of them.

For the tests of damaged files, and for `benchmarks/fuzz_readers.py` and `benchmarks/corruption.py`.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import layouts_arrays
import layouts_csd
import layouts_gcnet
import layouts_pickled
import numpy as np

from alignmamba.contracts import Corpus
from alignmamba.data.user_arrays import CheckedSplits
from alignmamba.errors import DataError
from alignmamba.formats.conversion import convert, open_foreign
from alignmamba.formats.foreign import FaultRow, ReadOptions
from alignmamba.formats.known_formats import recognised

Outcome = Literal["refused", "repaired", "unchanged", "one value", "changed"]
"""The last two: accepted with other content, and no fault counted that the sound file does not have. ``one
value`` where a single number or text of a single sample is another one, as where the damage lies in that
number."""


@dataclass(frozen=True, kw_only=True)
class Seed:
    """A sound file or folder of a format."""

    sources: list[Path]
    """Arguments of `convert`, below one folder."""
    files: list[Path]
    """Files that can be damaged."""


def _stub(folder: Path) -> list[Path]:
    import stub_reader

    return [stub_reader.write(folder / "given.json", stub_reader.content(size=2))]


def _pickled(layout: Callable[[], tuple[Any, Any]]) -> Callable[[Path], list[Path]]:
    def write(folder: Path) -> list[Path]:
        return [layouts_pickled.write(folder / "given.pkl", layout()[0])]

    return write


def _gcnet(folder: Path) -> list[Path]:
    return [layouts_gcnet.write_folder(folder)]


def _arrays(folder: Path) -> list[Path]:
    return [layouts_arrays.write_each_kind(folder)]


SEEDS: dict[str, Callable[[Path], list[Path]]] = {
    "stub": _stub,
    "mmsa": _pickled(layouts_pickled.mmsa),
    "mult": _pickled(layouts_pickled.mult),
    "mag-bert": _pickled(layouts_pickled.mag_bert),
    "csd": layouts_csd.write_corpus,
    "gcnet": _gcnet,
    "arrays": _arrays,
}
"""Format to what writes a small sound file of it into a folder and returns what `convert` is given."""


def seed(format: str, folder: Path) -> Seed:
    """Write a sound file of the format."""
    folder.mkdir(parents=True)
    sources = SEEDS[format](folder)
    return Seed(sources=sources, files=sorted(path for path in folder.rglob("*") if path.is_file()))


def truncated(content: bytes) -> list[bytes]:
    """The content cut off at every tenth of its length."""
    return [content[: len(content) * tenth // 10] for tenth in range(10)]


def flipped(content: bytes, bit: int) -> bytes:
    """The content with one bit turned over."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@dataclass(frozen=True, kw_only=True)
class Sound:
    """Result of a conversion of the sound file."""

    checksum: str
    faults: tuple[FaultRow, ...]
    values: dict[tuple[object, ...], object]
    """Every number and text by its place."""


def sound(format: str, given: Seed, folder: Path) -> Sound:
    """Convert the sound file."""
    done = convert(format, given.sources, folder / "sound")
    values = _values(done.corpus)
    shutil.rmtree(folder / "sound")
    return Sound(checksum=done.corpus.checksum, faults=done.faults, values=values)


def _origin(place: tuple[object, ...]) -> tuple[object, ...]:
    """A place, or that from which it is made: groups are made of ids, display tokens of texts."""
    role, row, kind = place[:3]
    made = {"group": "id", "tokens": "text"}
    return (role, row, made.get(str(kind), kind), *(() if kind in made else place[3:]))


def _values(corpus: Corpus) -> dict[tuple[object, ...], object]:
    """Every number and text of a corpus by its place; numbers by their bits, so that NaN equals itself."""
    found: dict[tuple[object, ...], object] = {("task", "", ""): corpus.task}
    for role, split in corpus.splits.items():
        for row, sample in enumerate(split):
            parts = {"id": sample.id, "target": sample.target, "text": sample.text, "group": sample.group}
            found |= {(role, row, kind): repr(value) for kind, value in parts.items()}
            found |= {(role, row, "label", name): repr(label) for name, label in sample.labels.items()}
            for kind, arrays in (
                ("features", sample.features),
                ("times", sample.times),
                ("tokens", sample.tokens),
            ):
                for name, array in arrays.items():
                    flat = (
                        [str(word) for word in array]
                        if kind == "tokens"
                        else [value.tobytes() for value in np.ravel(array)]
                    )
                    found |= {
                        (role, row, kind, name, np.shape(array)[1:], at): value
                        for at, value in enumerate(flat)
                    }
    return found


def attempt(format: str, given: Seed, folder: Path, expected: Sound) -> tuple[Outcome, str]:
    """Convert what may be damaged into an empty folder; the folder is empty again afterwards.

    Returns:
        What became of it, and the message of a refusal.

    Raises:
        AssertionError: If a refusal is not one line, or leaves something behind.
        Exception: Whatever else a reader raises; that is a fault of the reader.
    """
    message, done = "", None
    try:
        done = convert(format, given.sources, folder / "corpus")
    except DataError as error:
        message = str(error)
    if done is None:
        left = [path.name for path in folder.iterdir()]
        assert not left, f"a refused file left {left}"
        assert len(message.splitlines()) == 1, f"not one line: {message}"
        return "refused", message
    try:
        if done.corpus.checksum == expected.checksum:
            return "unchanged", ""
        if done.faults != expected.faults:
            return "repaired", ""
        found = _values(done.corpus)
        places = {
            place
            for place in found.keys() | expected.values.keys()
            if found.get(place) != expected.values.get(place)
        }
        same_length = not any(
            place[2] in ("features", "times") for place in found.keys() ^ expected.values.keys()
        )
        return "one value" if same_length and len(set(map(_origin, places))) == 1 else "changed", ""
    finally:
        shutil.rmtree(folder / "corpus")


def read_through(format: str, given: Seed, options: ReadOptions | None = None) -> None:
    """Read everything as a conversion does, and write nothing; a refusal is as good as success.

    Raises:
        Exception: Whatever is no `DataError`.
    """
    message = ""
    recognised(given.sources)
    try:
        foreign = open_foreign(format, given.sources, options or ReadOptions())
        checked = CheckedSplits(
            foreign.splits, task=foreign.task, vocabulary_sizes=foreign.vocabulary_sizes, empty="skip"
        )
        for role in checked.roles:
            for _ in checked.samples(role):
                pass
        checked.specs(foreign.units)
    except DataError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1, f"not one line: {message}"


def as_input(given: Seed, path: Path) -> bytes:
    """A file as an input of the fuzzer: where there are several, a byte in front says which it is."""
    content = path.read_bytes()
    return content if len(given.files) == 1 else bytes([given.files.index(path)]) + content


def place_input(given: Seed, data: bytes) -> tuple[Path, bytes]:
    """Write an input of the fuzzer where it belongs; returns the file and what was in it."""
    path, content = given.files[0], data
    if len(given.files) > 1:
        path, content = given.files[data[0] % len(given.files) if data else 0], data[1:]
    before = path.read_bytes()
    path.write_bytes(content)
    return path, before
