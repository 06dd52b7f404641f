"""Fuzz the command line and the directories it reads; print every end that is not one of the promised ones.

``python benchmarks/fuzz_commands.py --commands 2000 --directories 2000`` runs random command lines (verbs, options, values,
settings, paths that exist, are missing, pipes or devices) and puts mutated runs, experiments and model folders through
``evaluate``, ``predict``, ``report`` and ``train --resume``. All happens in one process at a time with a time limit each.
Wrong are a traceback, an "internal error", another exit code than 0 or 2, no line or several on an error, and a time-out.
The same seed makes the same cases.
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignmamba.cli.main import main as command_line
from alignmamba.contracts import Task
from alignmamba.data.archive import write_corpus

SETTINGS = ("fit.epochs=1", "options.d_model=8", "options.depth=1", "options.d_state=2", "loader.batch_size=8")
VERBS = ("train", "evaluate", "predict", "convert", "export", "inspect", "report", "experiment", "doctor")
SPLITS = ("train", "valid", "test", "tset", "")
KEYS = (
    "fit.epochs", "fit.lr", "fit.learning_rate", "fit.select", "fit.precision", "loader.batch_size", "loader.workers",
    "options.d_model", "options.depth", "options.local.window", "options.encoder.dropout", "missing.rate", "model", "data",
    "seed", "", "a.b.c", "fit", "__class__",
)  # fmt: skip
VALUES = (
    "0", "-1", "1", "1e400", "nan", "null", "true", "[]", "{}", "[1, 2]", "text", "''", "9" * 400, "é\u202e", "\x1b[2J",
    "{a: {b: c}}", "!!python/object:os.system x", "*a", "&a [*a]", "1e-3", " ", "=",
)  # fmt: skip
STRANGE = (None, True, -1, 0, 1e300, 2**70, "", "x", [], {}, [[]], {"a": None}, "\x1b[2J", "../..", [1, "a"], "DELETE")
SECONDS = 60


def main() -> None:
    """Run the cases asked for and print what ended wrongly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=2000, help="command lines")
    parser.add_argument("--directories", type=int, default=2000, help="mutated directories")
    parser.add_argument("--seed", type=int, default=0, help="of the cases")
    given = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        os.chdir(folder)
        place = Place(Path(folder))
        for what, count, case in (("command lines", given.commands, fuzzed_command), ("directories", given.directories, mutated_directory)):
            codes: Counter[object] = Counter()
            for number in range(count):
                draw = random.Random(f"{what} {given.seed} {number}")
                arguments, note = case(place, draw)
                code, problem = outcome(arguments)
                codes[code] += 1
                if problem:
                    wrong += 1
                    print(f"WRONG {what} {number}: {note} {arguments}\n{problem}", flush=True)
            print(f"{count} {what}: exit codes {dict(codes)}", flush=True)
    print(f"{wrong} wrong ends")
    sys.exit(bool(wrong))


class Place:
    """A corpus, a finished run, an unfinished one and an experiment to draw from."""

    def __init__(self, root: Path) -> None:
        self.root = root
        random_numbers = np.random.default_rng(0)
        splits: Any = {
            role: {
                "features": {
                    "text": [random_numbers.normal(size=(4, 3)) for _ in range(size)],
                    "audio": [None if row % 5 == 0 else random_numbers.normal(size=(6, 2)) for row in range(size)],
                },
                "targets": [("low", "high")[row % 2] for row in range(size)],
            }
            for role, size in (("train", 16), ("valid", 6), ("test", 6))
        }
        write_corpus(root / "corpus", splits, task=Task(kind="classification", classes=("low", "high")), name="small")
        made, settings = ("--data", "corpus"), ("--set", *SETTINGS)
        self._done("train", *made, "--out", "run", *settings)
        shutil.copytree("run", "unfinished")
        Path("unfinished/metrics.json").unlink()
        self._done("experiment", "comparison", "--models", "alignmamba", "--seeds", "1", *made, "--out", "experiment", *settings)
        (root / "text.txt").write_text("no corpus\n")
        (root / "empty").write_bytes(b"")
        (root / "folder").mkdir()
        os.mkfifo(root / "pipe")

    def _done(self, *arguments: str) -> None:
        code, problem = outcome(arguments, seconds=900)  # kernels may have to be compiled first
        if code != 0:
            raise SystemExit(f"cannot prepare {arguments}: {code} {problem}")

    def path(self, draw: random.Random) -> str:
        """A path of any kind."""
        return draw.choice(
            ("corpus", "run", "unfinished", "experiment", "missing", "missing/deeper", "text.txt", "empty", "folder", "pipe",
             "/dev/zero", "/dev/null", "/dev/full", "run/config.yaml", "run/last.ckpt", "corpus/corpus.json", "synthetic", "",
             "-", "a" * 300, "x\0y", "/proc/self/mem")
        )  # fmt: skip

    def out(self, draw: random.Random) -> str:
        """A path to write to; what exists of these is not needed by other cases."""
        return draw.choice(
            ("out", "out.csv", "out.parquet", "out.html", "out.pkl", "missing/out.csv", "folder", "pipe", "/dev/full",
             "/proc/out.csv", "text.txt/x.csv", "")
        )  # fmt: skip


def fuzzed_command(place: Place, draw: random.Random) -> tuple[list[str], str]:
    """A verb with options that may or may not be its own."""
    for each in Path.cwd().glob("out*"):
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    options: tuple[Callable[[], list[str]], ...] = (
        lambda: [place.path(draw)],
        lambda: ["--data", place.path(draw)],
        lambda: ["--out", place.out(draw)],
        lambda: ["--split", draw.choice(SPLITS)],
        lambda: ["--set", f"{draw.choice(KEYS)}={draw.choice(VALUES)}"],
        lambda: ["--config", place.path(draw)],
        lambda: ["--seed", draw.choice(VALUES)],
        lambda: ["--drop", draw.choice(("text", "audio", "vision", ""))],
        lambda: ["--missing-protocol", draw.choice(("gcnet", "fixed", "tokens", "x"))],
        lambda: ["--missing-rate", draw.choice(("0.3", "1", "-1", "nan"))],
        lambda: ["--nonfinite", draw.choice(("zero", "mean", "error", "x"))],
        lambda: ["--model", draw.choice(("alignmamba", "nonsense", ""))],
        lambda: ["--json"],
        lambda: ["--dry-run"],
        lambda: [draw.choice(("--hlep", "--version", "-h", "--", "--set", "--tyro-print-completion", "\x1b[31m"))],
    )
    verb = draw.choice((*VERBS, draw.choice(("trian", "", "--json"))))
    first = {
        "evaluate": lambda: ["run"],
        "predict": lambda: ["run", "--data", "corpus", "--out", "out.csv"],
        "report": lambda: ["run", "--out", "out.html"],
        "inspect": lambda: ["corpus"],
        "experiment": lambda: [draw.choice(("comparison", "efficiency", "x")), "--dry-run"],
        "train": lambda: ["--dry-run"] if draw.random() < 0.9 else ["--resume", place.path(draw)],
    }.get(verb, list)
    base = first() if draw.random() < 0.7 or verb in ("experiment", "train") else []
    return [verb, *base, *(word for _ in range(draw.randrange(5)) for word in draw.choice(options)())], ""


def mutated_directory(place: Place, draw: random.Random) -> tuple[list[str], str]:
    """A run, an unfinished run or an experiment with one file changed, and a verb that reads it."""
    source = draw.choice(("run", "run", "unfinished", "experiment"))
    target = place.root / "mutated"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    unsealed = draw.random() < 0.8  # else the checksums refuse it, whatever it is
    if unsealed:
        for each in target.rglob("SHA256SUMS"):
            each.unlink()
    files = sorted(path for path in target.rglob("*") if path.is_file())
    path = draw.choice(files)
    note = f"{source}/{path.relative_to(target)}: {_mutate(path, draw, unsealed=unsealed)}"
    read = {
        "run": (["evaluate", "mutated"], ["predict", "mutated", "--data", "corpus", "--out", "out.csv"],
                ["report", "mutated", "--out", "out.html"], ["train", "--resume", "mutated"]),
        "unfinished": (["train", "--resume", "mutated"], ["report", "mutated", "--out", "out.html"]),
        "experiment": (["report", "mutated", "--out", "out.html"],),
    }  # fmt: skip
    return draw.choice(read[source]), note


def _mutate(path: Path, draw: random.Random, *, unsealed: bool) -> str:
    """Change a file; returns how."""
    content = path.read_bytes()
    kinds = ["flip", "cut", "empty", "noise", "pipe", "device", "sparse", "folder", "gone", "deep", "digits"]
    kind = draw.choice([*kinds, *["values"] * 20] if path.suffix == ".json" else kinds)
    if kind in ("pipe", "device", "folder", "gone"):
        path.unlink()
    if kind == "flip" and content:
        at = draw.randrange(len(content))
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :])
    elif kind == "cut":
        path.write_bytes(content[: draw.randrange(len(content) + 1)])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "noise":
        path.write_bytes(draw.randbytes(300))
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "sparse":
        os.truncate(path, 1 << 40)
    elif kind == "deep":
        path.write_text("[" * 100_000)
    elif kind == "digits":
        path.write_text('{"metrics": ' + "9" * 5000 + "}")
    elif kind == "values":
        values = json.loads(content)
        if unsealed and isinstance(values, dict):
            values.pop("sha256", None)
        kind = f"values {_change(values, draw)}"
        path.write_text(json.dumps(values))
    return kind


def _change(values: Any, draw: random.Random) -> str:
    """Put something else in the place of one value, at any depth; returns where and what."""
    where = []
    while isinstance(values, dict | list) and values:
        key = draw.choice(sorted(values)) if isinstance(values, dict) else draw.randrange(len(values))
        where.append(str(key))
        if draw.random() < 0.3 or not isinstance(values[key], dict | list) or not values[key]:
            strange: Any = draw.choice(STRANGE)
            if strange == "DELETE":
                del values[key]
            else:
                values[key] = strange
            return f"{'.'.join(where)}={strange!r}"
        values = values[key]
    return "nothing"


def outcome(arguments: Sequence[str], *, seconds: int = SECONDS) -> tuple[object, str]:
    """Exit code of a command line, and what is wrong with how it ended."""
    said, errors = io.StringIO(), io.StringIO()
    code: object
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
        try:
            with _limited(seconds):
                code = command_line(list(arguments))
        except SystemExit as stop:
            code = 0 if stop.code is None else stop.code
        except _Late:
            code = "time-out"
        except BaseException:
            code, _ = "traceback", errors.write(traceback.format_exc())
    text = errors.getvalue()
    refused = [line for line in text.splitlines() if line.startswith("error: ")]
    parsed = "─" in text or "------" in text  # the parser explains in a box of its own
    fine = code == 0 or (code == 2 and (len(refused) == 1 or parsed))
    wrong = not fine or "Traceback" in text or "internal:" in text or ("\x1b[2J" in text + said.getvalue() and not parsed)
    return code, text[-2000:] if wrong else ""


class _Late(BaseException):
    """The time is up; nothing but this file catches it."""


@contextlib.contextmanager
def _limited(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    main()
