"""Fuzz corpora of strangers: what `inspect`, `train`, `predict`, `evaluate` and `export` make of each.

    python benchmarks/fuzz_corpora.py --count 2000

A small corpus is copied and one thing in it is changed: bytes, values of its JSON, of a line or of a header
of safetensors, a file put in the place of another, a pipe, a device, a folder, a circle of links, an empty, a
cut or a huge sparse file. For half of the cases the sums in `corpus.json` are made right again, so that the
change is not found by them. A verb reads it. A seed and a number make the same case again; what counts as a
fault is in `fuzz_ends.py`.
"""

import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from alignmamba.checksums import file_checksum
from alignmamba.cli.main import main as alignmamba
from alignmamba.data.archive import write_corpus
from alignmamba.data.storage import Manifest
from fuzz_ends import Case, fuzz, one_thread, options

SPARSE_BYTES = 1 << 40
SETTINGS = ("fit.epochs=1", "options.d_model=8", "options.depth=1", "options.d_state=2")
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        -1,
        1,
        2,
        1e308,
        1e30,
        2**31,
        2**40,
        2**62,
        2**64,
        10**90,
        10**120,
        0.5,
        "",
        "x",
        "\x1b[2J",
        "\u202e",
        "\ud800",
    ),
    *(
        [],
        {},
        [1],
        {"a": 1},
        [[]],
        "train",
        "valid",
        "features",
        "tokens",
        "audio",
        "a" * 70_000,
        "/etc/passwd",
        "../x",
        "\0",
    ),
)


def make(path: Path, *, kind: str) -> None:
    """A corpus of every kind of content: features, token ids, times, words, groups, labels, a missing
    modality.
    """
    rng = np.random.default_rng(0)

    def split(first: int, size: int) -> dict[str, Any]:
        return {
            "features": {
                "audio": [None if row == 2 else rng.normal(size=(4 + row % 3, 3)) for row in range(size)],
                "text": [rng.integers(0, 9, 3 + row % 2) for row in range(size)],
            },
            "targets": [row % 3 for row in range(size)]
            if kind == "classification"
            else rng.uniform(-3, 3, size).tolist(),
            "ids": [f"v{first + row}" for row in range(size)],
            "groups": [f"g{(first + row) // 2}" for row in range(size)],
            "times": {"audio": [None if row == 2 else np.arange(4.0 + row % 3) for row in range(size)]},
            "tokens": {"text": [["w"] * (3 + row % 2) for row in range(size)]},
            "texts": ["w w w"] * size,
            "labels": {"other": [float(row) for row in range(size)]},
        }

    task = {"kind": kind, "classes": ["a", "b", "c"]} if kind == "classification" else {"kind": kind}
    write_corpus(
        path,
        {"train": split(0, 12), "valid": split(12, 6), "test": split(18, 6)},
        task=task,
        units={"audio": "energy"},
        source="made up",
        samples_per_shard=8,
        overwrite=True,
    )


# Mutations: each changes one thing of the corpus in a folder


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, each in inner for place in _places(each, (*path, key))]


def _changed(text: str, draw: random.Random) -> str:
    """A JSON text with one value or key changed, taken away, repeated or nested."""
    value = json.loads(text)
    places = _places(value)
    place = draw.choice(places)
    holder = value
    for key in place[:-1]:
        holder = holder[key]
    key, how = place[-1], draw.randrange(6)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, dict):
        name = json.dumps(key)
        changed = json.dumps(value)
        return changed.replace(f"{name}:", f"{name}: {json.dumps(draw.choice(VALUES))}, {name}:", 1)
    elif how == 2 and isinstance(holder, dict):
        holder[str(draw.choice(VALUES))[:90]] = holder.pop(key)
    elif how == 3:
        deep = draw.choice((10, 70, 100_000))
        holder[key] = "DEEP"
        return json.dumps(value).replace('"DEEP"', "[" * deep + "]" * deep)
    elif how == 4 and isinstance(holder, list):
        holder.extend([holder[key]] * draw.choice((1, 10, 3000)))
    else:
        holder[key] = draw.choice(VALUES)
    if draw.randrange(20) == 0:
        return json.dumps(value).replace("1", "9" * 5000, 1)
    return json.dumps(value)


def _any_file(corpus: Path, draw: random.Random, suffix: str = "") -> Path:
    return draw.choice(sorted(path for path in corpus.iterdir() if path.suffix == suffix or not suffix))


def flip_bytes(corpus: Path, draw: random.Random) -> None:
    """Some bytes of a file."""
    path = _any_file(corpus, draw)
    content = bytearray(path.read_bytes())
    for _ in range(draw.choice((1, 1, 3, 30))):
        content[draw.randrange(len(content))] = draw.randrange(256)
    path.write_bytes(content)


def cut(corpus: Path, draw: random.Random) -> None:
    """The end of a file, or an end to it that was not there."""
    path = _any_file(corpus, draw)
    content = path.read_bytes()
    path.write_bytes(
        content[: draw.randrange(len(content))]
        if draw.randrange(3)
        else content + draw.randbytes(draw.randrange(1, 99))
    )


def change_manifest(corpus: Path, draw: random.Random) -> None:
    """A value of corpus.json."""
    path = corpus / "corpus.json"
    path.write_text(_changed(path.read_text(), draw))


def change_line(corpus: Path, draw: random.Random) -> None:
    """A value of a line about a sample, or the lines."""
    path = _any_file(corpus, draw, ".jsonl")
    lines = path.read_text().splitlines()
    at = draw.randrange(len(lines))
    lines[at] = _changed(lines[at], draw)
    if draw.randrange(8) == 0:
        draw.choice((lambda: lines.pop(at), lambda: lines.append(lines[at]), lambda: lines.reverse()))()
    path.write_text("\n".join(lines) + "\n")


def change_header(corpus: Path, draw: random.Random) -> None:
    """A value of the header of a shard, or its length."""
    path = _any_file(corpus, draw, ".safetensors")
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = _changed(content[8 : 8 + size].decode(), draw).encode()
    length = draw.choice((len(header), len(header), len(header), 0, 2**63, 2**64 - 1, len(content) * 2))
    path.write_bytes(length.to_bytes(8, "little") + header + content[8 + size :])


def change_values(corpus: Path, draw: random.Random) -> None:
    """Values of a shard: numbers that are not finite, offsets that fall, ids out of range."""
    path = _any_file(corpus, draw, ".safetensors")
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    for _ in range(draw.choice((1, 4))):
        at = start + 4 * draw.randrange((len(content) - start) // 4)
        content[at : at + 4] = draw.choice(
            (b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff" * 4, b"\x00" * 4, draw.randbytes(4))
        )
    path.write_bytes(content)


def put_in_place(corpus: Path, draw: random.Random) -> None:
    """Something else in the place of a file."""
    path = _any_file(corpus, draw)
    other = _any_file(corpus, draw).read_bytes()
    size = path.stat().st_size
    path.unlink()
    things: tuple[Callable[[], object], ...] = (
        lambda: os.mkfifo(path),
        path.mkdir,
        path.touch,
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to("/dev/stdin"),
        lambda: path.symlink_to(path),
        lambda: path.symlink_to("/nowhere"),
        lambda: path.write_bytes(other),
        lambda: path.write_bytes(b"\0" * size),
        lambda: _sparse(path),
        lambda: None,
    )
    draw.choice(things)()


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(SPARSE_BYTES)


MUTATIONS = (
    flip_bytes,
    cut,
    change_manifest,
    change_manifest,
    change_line,
    change_header,
    change_header,
    change_values,
    put_in_place,
)


def seal(corpus: Path) -> None:
    """Make the sizes and sums of the manifest right, as far as it still has them; a sparse file gets its size
    alone.
    """
    path = corpus / "corpus.json"
    if not path.is_file():  # a pipe would be waited for
        return
    with contextlib.suppress(Exception):
        manifest = json.loads(path.read_text())
        for split in manifest["splits"]:
            for shard in split["shards"]:
                for entry in (shard["values"], shard["strings"]):
                    file = corpus / entry["path"]
                    if file.is_file():
                        entry["bytes"] = file.stat().st_size
                        entry["sha256"] = file_checksum(file) if entry["bytes"] < SPARSE_BYTES else "0" * 64
        path.write_text(json.dumps(manifest))
        manifest["checksum"] = Manifest.model_validate(manifest).content_checksum()
        path.write_text(json.dumps(manifest))


def mutated(place: Path, folder: Path, draw: random.Random) -> Case:
    """A corpus with one thing changed, and what reads it."""
    kind, corpus = draw.choice(("classification", "regression")), folder / "corpus"
    shutil.copytree(place / kind, corpus)
    shutil.copytree(place / f"run-{kind}", folder / "run")
    mutation = draw.choice(MUTATIONS)
    mutation(corpus, draw)
    sealed = draw.randrange(2) == 1
    if sealed:
        seal(corpus)
    return Case(commands=[draw.choice(USES)], note=f"{mutation.__name__}{', sealed anew' if sealed else ''}")


USES = (
    *(["inspect", "corpus"],) * 6,
    *(["predict", "run", "--data", "corpus", "--out", "predictions.csv"],) * 3,
    *(["train", "--data", "corpus", "--dry-run", "--set", *SETTINGS],) * 3,
    ["train", "--data", "corpus", "--out", "other", "--set", *SETTINGS],
    ["evaluate", "run", "--data", "corpus"],
    ["export", "mmsa", "corpus", "corpus.pkl", "--vision", "audio"],
)


def main() -> int:
    """Run the cases asked for; 1 if one ended wrongly."""
    given = options(__doc__).parse_args()
    one_thread()
    with tempfile.TemporaryDirectory(prefix="fuzz-place-") as folder:
        place = Path(folder)
        for kind in ("classification", "regression"):
            make(place / kind, kind=kind)
            arguments = [
                "train",
                "--data",
                str(place / kind),
                "--out",
                str(place / f"run-{kind}"),
                "--set",
                *SETTINGS,
            ]
            if alignmamba(arguments) != 0:
                raise SystemExit(f"cannot prepare {arguments}")
        return 1 if fuzz("corpora", lambda case, draw: mutated(place, case, draw), given) else 0


if __name__ == "__main__":
    sys.exit(main())
