"""Coverage-guided fuzzing of the readers of foreign files, from valid seeds (needs atheris: ``pip install
atheris``).

A reader may refuse an input in one line or read it. Anything else is a crash: another exception, a hang of
more than 30 s, more than 2 GiB of memory, the end of the process. Each is written into the folder once per
place in the code; the run goes on until the time is up. Put what was found into
``tests/formats/crashes/FORMAT``, where the tests keep it.

``csd`` starts a process for every input, as the product does, so it is slow and its coverage is that of this
side alone. ``csd-in-process`` calls the HDF5 library here; what ends it would in the product end that
process, and be refused in one line.

Usage: ``python benchmarks/fuzz_readers.py --minutes 10 [--reader mmsa ...] [--out crashes]``
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS / "formats"), str(TESTS)]

HANG_SECONDS, MEMORY_MIB = 30, 2048
INPUT_BYTES = 1 << 16
"""Longest input; the seeds are shorter, and speed matters more than size."""


IN_PROCESS = "csd-in-process"


def call_hdf5_here() -> None:
    """Answer what the reader asks of the process that reads HDF5 in this one."""
    from alignmamba.errors import DataError
    from alignmamba.formats.sequences import csd, hdf5_child
    from alignmamba.formats.sequences import hdf5_process as hdf5

    class Here(hdf5.HDF5Process):
        def __init__(self) -> None:
            self._opened: dict[str, hdf5_child.OpenFile] = {}

        def _ask(self, path: Path, request: dict[str, object], **_: object) -> bytes:
            line = json.dumps({**request, "path": str(path)}).encode()
            head, content = hdf5_child.answer(line, self._opened)
            if "error" in head:
                raise DataError(f"{path}: {head['error']}")
            return content

    csd.HDF5Process = Here


def fuzz(format: str, folder: Path, seconds: int, out: Path) -> None:
    """Fuzz one reader in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["alignmamba.data"]):
        import damaging

        from alignmamba.formats import FORMATS

        if format == IN_PROCESS:
            format = "csd"
            call_hdf5_here()
    if format == "stub":
        import stub_reader

        FORMATS["stub"] = stub_reader
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as temporary:
        seed = damaging.seed(format, Path(temporary) / "seed")
        for number, path in enumerate(seed.files):
            (folder / f"seed-{number}").write_bytes(damaging.as_input(seed, path))

        def one(data: bytes) -> None:
            path, before = damaging.place_input(seed, data)
            try:
                damaging.read_through(format, seed)
            except Exception as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{Path(last.filename).stem}-{last.lineno}"
                name = re.sub(r"[^A-Za-z0-9-]", "-", f"{type(error).__name__}-{where}")
                if not (out / name).exists():
                    (out / name).write_bytes(data)
                    (out / f"{name}.txt").write_text("".join(traceback.format_exception(error)))
            finally:
                path.write_bytes(before)

        atheris.Setup(
            [
                sys.argv[0],
                str(folder),
                f"-max_total_time={seconds}",
                f"-timeout={HANG_SECONDS}",
                f"-rss_limit_mb={MEMORY_MIB}",
                f"-max_len={INPUT_BYTES}",
                f"-artifact_prefix={out}/",
                "-print_final_stats=1",
            ],
            one,
        )
        atheris.Fuzz()


def run(format: str, minutes: float, out: Path) -> dict[str, object]:
    """Fuzz one reader in fresh processes until the time is up; figures for people."""
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    inputs, ends, coverage = 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        while (left := 60 * minutes - (time.monotonic() - started)) >= 1:
            command = [
                sys.executable,
                __file__,
                "--child",
                format,
                folder,
                str(max(1, round(left))),
                str(out),
            ]
            done = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
            )
            counted = (
                re.findall(r"number_of_executed_units:\s*(\d+)", done.stdout)
                or re.findall(r"^#(\d+)", done.stdout, re.MULTILINE)[-1:]
            )
            if not counted:
                raise SystemExit(f"{format}: the fuzzer did not start:\n{done.stdout[-3000:]}")
            inputs += int(counted[-1])
            coverage = max([coverage, *map(int, re.findall(r"cov: (\d+)", done.stdout))])
            # a hang, too much memory, or the end of the process: libFuzzer has written the input
            if done.returncode != 0:
                ends += 1
                digest = hashlib.sha256(done.stdout.encode()).hexdigest()[:8]
                (out / f"ended-{digest}.txt").write_text(done.stdout[-5000:])
    found = sorted(path.name for path in out.iterdir() if path.suffix != ".txt")
    return {
        "reader": format,
        "minutes": round((time.monotonic() - started) / 60, 2),
        "inputs": inputs,
        "inputs_per_second": round(inputs / (time.monotonic() - started)),
        "coverage": coverage,
        "processes_ended": ends,
        "crashes": found,
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        reader, folder, seconds, crashes = sys.argv[2:]
        fuzz(reader, Path(folder), int(seconds), Path(crashes))
        raise SystemExit
    import damaging

    parser = argparse.ArgumentParser(description="Fuzz the readers of foreign files.")
    parser.add_argument("--minutes", type=float, default=10, help="time for each reader")
    parser.add_argument(
        "--reader",
        nargs="+",
        choices=[*sorted(damaging.SEEDS), IN_PROCESS],
        default=sorted(damaging.SEEDS),
        help="formats",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("crashes"), help="folder for what is found, one below it per format"
    )
    given = parser.parse_args()
    for reader in given.reader:
        print(json.dumps(run(reader, given.minutes, given.out.absolute() / reader)), flush=True)
