"""Fuzz the command line and the directories it reads; print every end that is not one of the promised ones.

    python benchmarks/fuzz_commands.py --count 2000

`lines` are command lines: of every verb a sound one, in which words are misspelt, dropped, repeated, emptied
or replaced, and to which options of any verb are added, with values and paths of any kind. `directories` are
finished and unfinished runs, experiments and saved models in which a file or two are flipped, cut, emptied,
swapped, gone, a pipe, a device, a folder, a link, huge, nonsense of any type, or hold another value at some
place; each is put through a verb that reads it. A seed and a number make the same case again.

What counts as a fault is in `fuzz_ends.py`. As root no file is unreadable; `setpriv
--bounding-set=-dac_override,-dac_read_search --inh-caps=-dac_override,-dac_read_search python
benchmarks/fuzz_commands.py ...` takes that right away.
"""

import csv
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from alignmamba.cli.arguments import VERBS
from alignmamba.cli.main import main as alignmamba
from alignmamba.data.archive import write_corpus
from fuzz_ends import Case, fuzz, one_thread, options

SETTINGS = (
    "fit.epochs=1",
    "options.d_model=8",
    "options.depth=1",
    "options.d_state=2",
    "loader.batch_size=8",
)
KEYS = (
    "fit.epochs", "fit.lr", "fit.learning_rate", "fit.select", "fit.precision", "fit.warmup_fraction",
    "loader.batch_size", "loader.workers", "options.d_model", "options.depth", "options.local.window",
    "options.encoder.dropout", "options.alignment", "missing.rate", "engine.accelerator", "engine.devices",
    "modalities", "model", "data", "seed", "", "a.b.c", "fit", "__class__",
)  # fmt: skip
WORDS = (
    "0", "-1", "1", "2", "0.5", "1e400", "-1e-400", "nan", "inf", "null", "true", "[]", "{}", "[1, 2]",
    "text", "''", "9" * 400, "1_0", "99999999", "9223372036854775808", "é\u202e", "\x1b[2J", "\x9b31m",
    "\x07", "{a: {b: c}}", "!!python/object:os.system x", "*a", "&a [*a]", "1e-3", " ", "=", "==", "a=b=c",
    "", "-", "--", "\udcff", "😀" * 50, "Ⅷ", "１２", "\ufeff1", "\n", "a\nb", "%s%n", "$(id)", "test",
    "valid", "alignmamba", "mult-fused", "paper", "gcnet", "fixed", "zero", "cpu", "cuda", "float16",
    "audio=vision", "audio=3", "i/n", "2/1", "1/0", "regression_labels_T", "small",
)  # fmt: skip
PATHS = (
    "corpus", "corpus/corpus.json", "classes", "run", "run/", "run/config.yaml", "run/last.ckpt", "run/model",
    "unfinished", "experiment", "small.pkl", "table.csv", "table.toml", "arrays.npz", "missing",
    "missing/deeper", "text.txt", "empty", "folder", "pipe", "socket", "circle", "unreadable", "readonly",
    "readonly/x", "/dev/zero", "/dev/null", "/dev/full", "/dev/stdin", "/dev/tty", "/proc/self/mem",
    "/proc/1/root/x", "/", "..", ".", "synthetic", "", "-", "a" * 300, "a/" * 3000, "x\0y", "~", "C:\\x",
    "file://x", "out", "out.csv", "out.parquet", "out.html", "out.pkl", "out.toml", "missing/out.csv",
    "text.txt/x.csv", "/proc/out.csv", "\x1b[2J", "\udcff", "é\u202e.csv",
)  # fmt: skip
STRANGE = (
    None, True, False, -1, 0, 1, 2, 0.5, 1e300, 2**31, 2**63, 2**70, 10**90, "", "x", "\x1b[2J", "\u202e",
    "\ud800", "../..", "/dev/zero", "a" * 70_000, [], {}, [[]], [None], [1, "a"], {"a": None}, {"": []},
    "train", "text", float("nan"), float("inf"), "DELETE",
)  # fmt: skip
SPARSE_BYTES = 1 << 40
STEPS = ("run", "unfinished", "experiment")


def main() -> int:
    """Run the cases asked for; 1 if one ended wrongly."""
    parser = options(__doc__)
    parser.add_argument("--only", choices=["lines", "directories"], help="one of the two kinds")
    parser.add_argument(
        "--place", type=Path, help="folder for the sound runs and files, used again if it is there"
    )
    given = parser.parse_args()
    one_thread()
    with tempfile.TemporaryDirectory(prefix="fuzz-place-") as folder:
        place = Place(given.place or Path(folder) / "place")
        kinds = {
            "lines": ("command lines", place.fuzzed_line),
            "directories": ("directories", place.mutated_directory),
        }
        faults = sum(
            fuzz(what, make, given)
            for what, make in (kinds[kind] for kind in kinds if given.only in (None, kind))
        )
    return 1 if faults else 0


class Place:
    """A folder with two corpora, a finished run, an unfinished one, an experiment and files of others, to
    copy and to draw from.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        if not root.exists():
            root.mkdir(parents=True)
            os.chdir(root)
            self._fill()
        os.chdir(root)
        # what a verb loads at its first call is loaded before children are forked
        self._done("train", "--resume", "warm")
        for directory in ("run", "experiment"):
            self._done("report", directory, "--out", "warm/report.html")

    def _fill(self) -> None:
        _write_corpora()
        made, settings = ("--data", "corpus"), ("--set", *SETTINGS)
        self._done("train", *made, "--out", "run", *settings)
        for copy in ("unfinished", "warm"):
            shutil.copytree("run", copy)
            for name in ("metrics.json", "SHA256SUMS"):
                Path(copy, name).unlink()
        self._done("evaluate", "run", "--drop", "audio", "--out", "evaluation")
        self._done(*_GRID, *settings)
        self._done("export", "mmsa", "corpus", "small.pkl")
        _write_table()
        self._done("init", "table.csv", "--out", "table.toml")
        np.savez("arrays.npz", audio=np.ones((4, 3, 2), np.float32), labels=np.arange(4.0))
        Path("text.txt").write_text("no corpus\n")
        Path("empty").touch()

    @staticmethod
    def _done(*arguments: str) -> None:
        sys.argv = ["alignmamba", *arguments]
        if alignmamba(list(arguments)) != 0:
            raise SystemExit(f"cannot prepare {arguments}")

    def fuzzed_line(self, folder: Path, draw: random.Random) -> Case:
        """A command line in a folder with everything that `PATHS` names."""
        shutil.copytree(self.root, folder, dirs_exist_ok=True)
        _add_special(folder)
        words = list(draw.choice(SOUND[verb])) if (verb := draw.choice(sorted(SOUND))) else []
        own = [f"--{field.name.replace('_', '-')}" for field in fields(VERBS[verb])]
        for _ in range(draw.choice((0, 1, 1, 2, 2, 3, 4))):
            words = draw.choice(CHANGES)(words, own, draw) if words else words
        interrupt = (
            (draw.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP)), draw.random())
            if draw.random() < 0.03
            else None
        )
        return Case(commands=[words], interrupt=interrupt, steps=STEPS)

    def mutated_directory(self, folder: Path, draw: random.Random) -> Case:
        """A directory of ours with a file or two changed, and a verb that reads it."""
        name = draw.choice(("run", "run", "run", "unfinished", "experiment"))
        for each in {"corpus", "unfinished", name}:
            shutil.copytree(self.root / each, folder / each)
        target = folder / name
        inner = [path for path in target.rglob("*") if path.is_dir()]
        files = sorted(path for path in target.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
        sealed = draw.random() < 0.2  # the checksums then refuse it, whatever it is
        if not sealed:
            for each in target.rglob("SHA256SUMS"):
                each.unlink()
        notes = []
        for _ in range(draw.choice((1, 1, 1, 2))):
            path = draw.choice(sorted(inner)) if inner and draw.random() < 0.05 else draw.choice(files)
            # not changed yet
            if not path.is_symlink() and (
                path.is_dir() or (path.is_file() and path.stat().st_size < SPARSE_BYTES)
            ):
                notes.append(f"{path.relative_to(folder)}: {_mutate(path, draw, files=files)}")
        return Case(
            commands=[list(draw.choice(READING[name]))],
            note=f"{'sealed ' if sealed else ''}{'; '.join(notes)}",
            steps=STEPS,
        )


def _write_corpora() -> None:
    numbers = np.random.default_rng(0)

    def split(size: int, kind: str) -> dict[str, Any]:
        return {
            "features": {
                "text": [numbers.normal(size=(4, 3)) for _ in range(size)],
                "audio": [None if row % 5 == 0 else numbers.normal(size=(6, 2)) for row in range(size)],
                "vision": [numbers.normal(size=(5, 2)) for _ in range(size)],
            },
            "targets": [("low", "high")[row % 2] for row in range(size)]
            if kind == "classification"
            else numbers.uniform(-3, 3, size).tolist(),
            "texts": ["words of it"] * size,
        }

    for name, task in (
        ("corpus", {"kind": "regression"}),
        ("classes", {"kind": "classification", "classes": ["low", "high"]}),
    ):
        splits = {
            "train": split(16, task["kind"]),
            "valid": split(6, task["kind"]),
            "test": split(6, task["kind"]),
        }
        write_corpus(Path(name), splits, task=task, name="small")


def _write_table() -> None:
    rows = [
        ("split", "label", "a", "b"),
        *(("train", row % 2, row / 7, -row) for row in range(8)),
        ("valid", 0, 1, 2),
        ("test", 1, 2, 3),
    ]
    with open("table.csv", "w", newline="", encoding="utf-8") as file:  # noqa: PTH123
        csv.writer(file).writerows(rows)


def _add_special(folder: Path) -> None:
    """What cannot be copied."""
    os.mkfifo(folder / "pipe")
    (folder / "circle").symlink_to("circle")
    (folder / "unreadable").write_text("secret")
    (folder / "unreadable").chmod(0)
    (folder / "folder").mkdir()
    (folder / "readonly").mkdir(mode=0o555)


# Command lines

_TRAIN = ("train", "--data", "corpus", "--out", "out", "--set", *SETTINGS)
_GRID = ("experiment", "plans", "--data", "corpus", "--out", "experiment", "--seeds", "1")
SOUND: dict[str, tuple[tuple[str, ...], ...]] = {
    "train": (
        _TRAIN,
        (*_TRAIN, "--dry-run"),
        (*_TRAIN, "--json"),
        ("train", "--resume", "unfinished"),
        ("train", "--settings"),
    ),
    "evaluate": (
        ("evaluate", "run"),
        ("evaluate", "run", "--drop", "audio", "--out", "out"),
        ("evaluate", "run", "--data", "corpus"),
    ),
    "predict": (
        ("predict", "run", "--data", "corpus", "--out", "out.csv"),
        ("predict", "run", "--data", "small.pkl", "--out", "out.csv"),
    ),
    "convert": (
        ("convert", "mmsa", "small.pkl", "out"),
        ("convert", "auto", "table.toml", "out"),
        ("convert", "arrays", "table.toml", "out"),
    ),
    "export": (("export", "mmsa", "corpus", "out.pkl"),),
    "init": (("init", "table.csv", "--out", "out.toml"), ("init", "arrays.npz")),
    "inspect": (
        ("inspect", "corpus"),
        ("inspect", "small.pkl"),
        ("inspect", "table.toml"),
        ("inspect", "classes", "--json"),
    ),
    "experiment": ((*_GRID, "--dry-run", "--set", *SETTINGS), (*_GRID, "--set", *SETTINGS)),
    "bench": (
        (
            "bench",
            "match",
            "--lengths",
            "8",
            "--repeats",
            "1",
            "--d-model",
            "8",
            "--against",
            "torch",
            "--measure",
            "flops",
        ),
    ),
    "report": (
        ("report", "run", "--out", "out.html"),
        ("report", "experiment"),
        ("report", "run", "run", "--out", "out.html"),
    ),
    "doctor": (("doctor",), ("doctor", "--json")),
}
"""Verb to command lines that do what they say."""
_EVERY_OPTION = tuple(
    sorted({f"--{field.name.replace('_', '-')}" for verb in VERBS.values() for field in fields(verb)})
)
_ODD_OPTIONS = (
    "--hlep",
    "--version",
    "-h",
    "--help",
    "--",
    "--set",
    "--tyro-print-completion",
    "\x1b[31m",
    "--\x1b[2J",
    "--=",
    "---",
)


def _value(draw: random.Random) -> str:
    return draw.choice((draw.choice(WORDS), draw.choice(PATHS), f"{draw.choice(KEYS)}={draw.choice(WORDS)}"))


def _place(words: list[str], draw: random.Random) -> int:
    """A word, mostly not the verb, which ends a command line early if it is unknown."""
    return (
        draw.randrange(len(words)) if len(words) < 2 or draw.random() < 0.1 else draw.randrange(1, len(words))
    )


def _add_option(words: list[str], own: list[str], draw: random.Random) -> list[str]:
    name = draw.choice(
        (draw.choice(own), draw.choice(own), draw.choice(_EVERY_OPTION), draw.choice(_ODD_OPTIONS))
    )
    values = [_value(draw) for _ in range(draw.choice((0, 1, 1, 1, 2)))]
    return [*words, f"{name}={values[0]}"] if values and draw.random() < 0.2 else [*words, name, *values]


def _set_key(words: list[str], _: list[str], draw: random.Random) -> list[str]:
    return [*words, "--set", f"{draw.choice(KEYS)}={draw.choice(WORDS)}"]


def _replace(words: list[str], _: list[str], draw: random.Random) -> list[str]:
    at = _place(words, draw)
    return [*words[:at], _value(draw), *words[at + 1 :]]


def _drop(words: list[str], _: list[str], draw: random.Random) -> list[str]:
    at = _place(words, draw)
    return [*words[:at], *words[at + 1 :]]


def _repeat(words: list[str], _: list[str], draw: random.Random) -> list[str]:
    at = _place(words, draw)
    return [*words[:at], *words[at : at + 2] * draw.choice((2, 2, 3, 300)), *words[at + 2 :]]


def _misspell(words: list[str], _: list[str], draw: random.Random) -> list[str]:
    at = _place(words, draw)
    letters = list(words[at])
    if not letters:
        return words
    where = draw.randrange(len(letters))
    letters[where : where + 1] = draw.choice(
        ([], [letters[where]] * 2, ["x"], [letters[where].swapcase()], ["\u0301"], [" "])
    )
    return [*words[:at], "".join(letters), *words[at + 1 :]]


def _shuffle(words: list[str], _: list[str], draw: random.Random) -> list[str]:
    return [*words[:1], *draw.sample(words[1:], len(words[1:]))]


CHANGES: tuple[Callable[[list[str], list[str], random.Random], list[str]], ...] = (
    *(
        _add_option,
        _add_option,
        _add_option,
        _set_key,
        _replace,
        _replace,
        _replace,
        _drop,
        _repeat,
        _misspell,
        _shuffle,
    ),
)


# Directories

READING: dict[str, tuple[tuple[str, ...], ...]] = {
    "run": (
        *(("evaluate", "run"), ("evaluate", "run", "--data", "corpus", "--drop", "audio", "--out", "out"))
        * 2,
        *(("predict", "run", "--data", "corpus", "--out", "out.csv"), ("train", "--resume", "run")) * 2,
        ("train", "--data", "corpus", "--out", "run", "--overwrite", "--set", *SETTINGS),
        ("train", "--data", "corpus", "--config", "run/config.yaml", "--out", "out", "--dry-run"),
        ("inspect", "run"),
        ("report", "run", "--out", "out.html"),
        ("report", "run", "--files-only", "--json"),
        ("report", "run", "unfinished", "--out", "out.html"),
    ),
    "unfinished": (
        *(("train", "--resume", "unfinished"), ("train", "--resume", "unfinished", "--json")) * 3,
        ("report", "unfinished", "--out", "out.html"),
        ("evaluate", "unfinished"),
    ),
    "experiment": (
        *(("report", "experiment", "--out", "out.html"),) * 4,
        *((*_GRID, "--dry-run", "--set", *SETTINGS),) * 3,
        (*_GRID, "--set", *SETTINGS),
    ),
}
"""Directory to the command lines that read it."""


def _mutate(path: Path, draw: random.Random, *, files: list[Path]) -> str:
    """Change a file or a folder; returns how."""
    if path.is_dir():
        return draw.choice((_gone, _as_file, _as_link, _with_strangers))(path)
    content = path.read_bytes()
    values = VALUES.get(path.suffix)
    kinds: list[str] = [
        "flip",
        "flip",
        "cut",
        "cut",
        "longer",
        "empty",
        "noise",
        "pipe",
        "device",
        "input",
        "sparse",
        "folder",
        "gone",
    ]
    kinds += ["circle", "deep", "digits", "other", "zeros", "nonsense"]
    kind = draw.choice([*kinds, *["values"] * 30] if values is not None else kinds)
    if kind in ("pipe", "device", "input", "folder", "gone", "circle"):
        path.unlink()
    if kind == "flip" and content:
        changed = bytearray(content)
        for _ in range(draw.choice((1, 1, 1, 20))):
            changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
    elif kind == "cut":
        path.write_bytes(content[: draw.randrange(len(content) + 1)])
    elif kind == "longer":
        path.write_bytes(content + draw.randbytes(draw.choice((1, 100))))
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "noise":
        path.write_bytes(draw.randbytes(300))
    elif kind == "zeros":
        path.write_bytes(bytes(len(content)))
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind in ("device", "input"):
        path.symlink_to("/dev/zero" if kind == "device" else "/dev/stdin")
    elif kind == "circle":
        path.symlink_to(path.name)
    elif kind == "folder":
        path.mkdir()
    elif kind == "sparse":
        os.truncate(path, SPARSE_BYTES)
    elif kind == "deep":
        path.write_text(draw.choice(("[", '{"a":', "{a: [")) * 100_000)
    elif kind == "digits":
        path.write_text('{"metrics": ' + "9" * 5000 + "}")
    elif kind == "nonsense":
        strange = draw.choice([each for each in STRANGE if each != "DELETE"])
        path.write_text(json.dumps(strange))
        kind = f"nonsense {strange!a:.60}"
    elif kind == "other":
        other = draw.choice(files)
        if other.is_file() and not other.is_symlink() and other.stat().st_size < SPARSE_BYTES:
            path.write_bytes(other.read_bytes())
        kind = f"other {other.name}"
    elif kind == "values" and values is not None:
        try:
            changed_text, said = values(content.decode(), draw)
        except (ValueError, yaml.YAMLError):
            return "nothing, changed before"
        path.write_text(changed_text, encoding="utf-8", errors="surrogatepass")
        kind = f"values {said}"
    return kind


def _gone(path: Path) -> str:
    shutil.rmtree(path)
    return "gone"


def _as_file(path: Path) -> str:
    shutil.rmtree(path)
    path.write_text("a file")
    return "a file"


def _as_link(path: Path) -> str:
    shutil.rmtree(path)
    path.symlink_to("/dev")
    return "a link to /dev"


def _with_strangers(path: Path) -> str:
    (path / "\x1b[2J").mkdir()
    (path / "é\u202e.json").write_text("{}")
    os.mkfifo(path / "extra.json")
    (path / f".metrics.json.{'ab' * 6}.partial").write_text("left")
    return "strangers in it"


def _changed_json(text: str, draw: random.Random) -> tuple[str, str]:
    values = json.loads(text)
    if isinstance(values, dict) and draw.random() < 0.8:  # else the sum of its own refuses it
        values.pop("sha256", None)
    said = _change(values, draw)
    return json.dumps(values), said


def _changed_yaml(text: str, draw: random.Random) -> tuple[str, str]:
    values = yaml.safe_load(text)
    said = _change(values, draw)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True), said


def _changed_csv(text: str, draw: random.Random) -> tuple[str, str]:
    rows = list(csv.reader(io.StringIO(text)))
    at = draw.randrange(len(rows))
    column = draw.randrange(len(rows[at])) if rows[at] else 0
    strange = draw.choice(
        (
            "",
            "x",
            "nan",
            "inf",
            "-1",
            "1e999",
            "1e308",
            "9" * 5000,
            "\x1b[2J",
            "\u202e",
            '"',
            "a" * 200_000,
            "\0",
            "low",
            "test",
        )
    )
    how = draw.choice(("cell", "cell", "cell", "drop", "repeat", "short", "long"))
    if how == "cell":
        rows[at][column : column + 1] = [strange]
    elif how == "drop":
        del rows[at]
    elif how == "repeat":
        rows.insert(at, rows[at])
    elif how == "short":
        rows[at] = rows[at][:column]
    else:
        rows[at] = [*rows[at], strange]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue(), f"row {at} column {column} {how} {strange!a:.40}"


VALUES: dict[str, Callable[..., tuple[str, str]]] = {
    ".json": _changed_json,
    ".yaml": _changed_yaml,
    ".csv": _changed_csv,
    ".jsonl": _changed_csv,
}
"""How a file that holds values gets others: text and draw to the new text and what is new."""


def _change(values: Any, draw: random.Random) -> str:
    """Put something else in the place of one value, at any depth, or give it another key; returns where and
    what.
    """
    where = []
    while isinstance(values, dict | list) and values:
        key = draw.choice(sorted(values)) if isinstance(values, dict) else draw.randrange(len(values))
        where.append(str(key))
        if draw.random() < 0.3 or not isinstance(values[key], dict | list) or not values[key]:
            strange: Any = draw.choice(STRANGE)
            if strange == "DELETE":
                del values[key]
            elif isinstance(values, dict) and draw.random() < 0.1:
                values[str(strange)[:90]] = values.pop(key)
            else:
                values[key] = strange
            return f"{'.'.join(where)}={strange!a:.60}"
        values = values[key]
    return "nothing"


if __name__ == "__main__":
    sys.exit(main())
