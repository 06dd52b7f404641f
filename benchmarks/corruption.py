"""What becomes of damaged files: every format's sound file cut off at every tenth, and with single bits
turned over at random.

Each damaged file is converted. It is *refused* (in one line, nothing left behind), *repaired* (accepted with
faults counted that the sound file does not have), *unchanged* (accepted, and the corpus is the same to the
bit), *one value* (accepted with a single other number or text: a format without checksums cannot tell a
flipped bit of a number from a number), or *changed* (accepted with more than that changed and nothing
counted). Whatever else happens is a *crash*. The native archive stands beside as `archive`: what is damaged
is its own directory, what is done is loading it.

Usage: ``python benchmarks/corruption.py [--flips 1000] [--format mmsa ...] [--out crashes]``
"""

import argparse
import json
import random
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS / "formats"), str(TESTS)]

import damaging  # noqa: E402 # lies among the tests

import stub_reader  # noqa: E402
from alignmamba.data.archive import load_corpus  # noqa: E402
from alignmamba.errors import DataError  # noqa: E402
from alignmamba.formats import FORMATS  # noqa: E402
from alignmamba.formats.conversion import convert  # noqa: E402

ARCHIVE = "archive"


def damaged(seed: damaging.Seed, flips: int) -> list[tuple[str, Path, bytes]]:
    """How, which file, and its content; the bits are spread over all files by their size."""
    contents = {path: path.read_bytes() for path in seed.files}
    cut = [("cut", path, part) for path, content in contents.items() for part in damaging.truncated(content)]
    generator = random.Random(0)
    chosen = generator.choices(
        list(contents), weights=[len(content) for content in contents.values()], k=flips
    )
    return cut + [
        ("flip", path, damaging.flipped(contents[path], generator.randrange(8 * len(contents[path]))))
        for path in chosen
    ]


def trial(format: str, seed: damaging.Seed, folder: Path) -> Callable[[], str]:
    """What is done with every damaged file."""
    if format == ARCHIVE:
        checksum = load_corpus(seed.sources[0]).checksum

        def load() -> str:
            try:
                return "unchanged" if load_corpus(seed.sources[0]).checksum == checksum else "changed"
            except DataError:
                return "refused"

        return load
    sound = damaging.sound(format, seed, folder)
    return lambda: damaging.attempt(format, seed, folder, sound)[0]


def tried(format: str, flips: int, out: Path) -> dict[str, object]:
    """Damage a format in every way; counts of what became of it."""
    counts: Counter[str] = Counter()
    slowest, partial = 0.0, 0
    with tempfile.TemporaryDirectory() as temporary:
        seed = damaging.seed("stub" if format == ARCHIVE else format, Path(temporary) / "seed")
        folder = Path(temporary) / "out"
        folder.mkdir()
        if format == ARCHIVE:
            corpus = Path(temporary) / "corpus"
            convert("stub", seed.sources, corpus)
            seed = damaging.Seed(sources=[corpus], files=sorted(corpus.iterdir()))
        once = trial(format, seed, folder)
        for how, path, content in damaged(seed, flips):
            before = path.read_bytes()
            path.write_bytes(content)
            started = time.perf_counter()
            try:
                outcome = once()
            except Exception as error:
                outcome = "crash"
                out.mkdir(parents=True, exist_ok=True)
                name = f"{type(error).__name__}-{counts['flip crash'] + counts['cut crash']}"
                (out / name).write_bytes(damaging.as_input(seed, path))
                (out / f"{name}.txt").write_text(f"{how} {path.name}: {error!r}")
            slowest = max(slowest, time.perf_counter() - started)
            partial += any(folder.iterdir())
            shutil.rmtree(folder)
            folder.mkdir()
            path.write_bytes(before)
            counts[f"{how} {outcome}"] += 1
    return {
        "format": format,
        "inputs": sum(counts.values()),
        **{
            how: {
                outcome: counts[f"{how} {outcome}"]
                for outcome in ("refused", "repaired", "unchanged", "one value", "changed", "crash")
            }
            for how in ("cut", "flip")
        },
        "partial_outputs": partial,
        "slowest_seconds": round(slowest, 2),
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000,
    }


if __name__ == "__main__":
    FORMATS["stub"] = stub_reader
    parser = argparse.ArgumentParser(description="Conversions of damaged files.")
    parser.add_argument("--flips", type=int, default=1000, help="single bits to turn over, per format")
    parser.add_argument("--format", nargs="+", default=[*sorted(damaging.SEEDS), ARCHIVE], help="formats")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("crashes"),
        help="folder for inputs that break a reader, one below it per format",
    )
    given = parser.parse_args()
    for format in given.format:
        print(json.dumps(tried(format, given.flips, given.out / format)), flush=True)
