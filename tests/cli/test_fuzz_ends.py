"""The fuzzers' judge: every kind of fault, put before it on purpose, is reported, and the promised ends are
not.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fuzzers fork, and look into /proc")

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

from fuzz_ends import MOST_BYTES, Case, End, fuzz, judge, options, run  # noqa: E402

REFUSED = End(code=2, err="error: x: found y, expected z\n")


@pytest.mark.parametrize(
    "end",
    [
        End(code=0, out="done\n"),
        REFUSED,
        End(code=2, err="note: one\nerror: two\n"),
        End(code=2, err="╭─ Invalid choice ─╮\n"),
        End(code=2, out="1 problem\n"),
        End(code=130, err="interrupted\n", signalled=signal.SIGINT),
        End(code=143, signalled=signal.SIGTERM),
        End(code=-signal.SIGHUP, signalled=signal.SIGHUP, made=(".run.0123456789ab.partial",)),
        End(code=0, changed=("out.csv",), made=("out.csv",)),
        End(code=0, changed=(".run.0123456789ab.partial",)),
        End(
            code=2,
            err="error: full; resume with: alignmamba train --resume run\n",
            changed=("run/last.ckpt",),
        ),
    ],
)
def test_promised_ends_are_none(end: End) -> None:
    assert judge(end) == []


def test_what_was_asked_for_is_no_fault() -> None:
    traced = replace(
        REFUSED,
        err="Traceback (most recent call last):\nDataError: x\nerror: x\n",
        changed=("run/log.csv", "out"),
    )
    assert len(judge(traced)) == 2
    assert judge(traced, traced=True, steps=("run", "out")) == []
    assert judge(replace(traced, err=f"{traced.err}error: internal: x\n"), traced=True, steps=("run", "out"))


@pytest.mark.parametrize(
    ("end", "fault"),
    [
        (End(code=1), "exit code 1"),
        (End(code=3, err="error: x\n"), "exit code 3"),
        (End(code=-signal.SIGSEGV), "exit code -11"),
        (End(code=130, err="interrupted\n"), "exit code 130"),
        (End(code=130, signalled=signal.SIGINT, err="Traceback (most recent call last):\n"), "internal"),
        (End(code=None, seconds=60), "hang: killed after 60 s"),
        (End(code=0, err="Traceback (most recent call last):\n"), "internal"),
        (End(code=0, out="Traceback (most recent call last):\n"), "internal"),
        (End(code=2, err="error: internal: KeyError: 'x' (please report it)\n"), "internal"),
        *(
            (End(code=0, out=f"a{character}b\n"), "raw character")
            for character in "\x1b\x07\r\x00\x7f\x9b\u202e\u2066"
        ),
        (replace(REFUSED, err="error: \x1b[2J\n"), "raw character"),
        (End(code=0, out="\udcff"), "no text"),
        (End(code=2), "empty refusal"),
        (End(code=2, out="table\n"), "empty refusal"),
        (replace(REFUSED, err="error: one\nerror: two\n"), "more than one line"),
        (replace(REFUSED, err="error: one\nand more\n"), "more than one line"),
        (End(code=0, err="error: x\n"), "exit code 0 with an error"),
        (End(code=0, made=(".out.csv.0123456789ab.partial",)), "half-written"),
        (replace(REFUSED, made=("a/.run.0123456789ab.old/x",)), "half-written"),
        (replace(REFUSED, changed=("out.csv",)), "half-written: refused, yet changed out.csv"),
        (End(code=0, bytes=MOST_BYTES + 1), "memory"),
        (End(code=0, stayed=True), "outlived"),
    ],
)
def test_every_fault_is_found(end: End, fault: str) -> None:
    assert any(fault in each for each in judge(end)), judge(end)


def _raises(_: list[str]) -> int:
    raise KeyError("x")


def _hangs_on_a_pipe(_: list[str]) -> int:
    os.mkfifo("pipe")
    return len(Path("pipe").read_text())


def _works_on(_: list[str]) -> int:
    try:
        while True:
            pass
    except KeyboardInterrupt:
        return 130


def _leaves_a_process(_: list[str]) -> int:
    subprocess.Popen(["sleep", "60"])
    return 0


def _writes_past_python(_: list[str]) -> int:
    os.write(1, b"\x1b[31m")
    return 0


def _leaves_half(_: list[str]) -> int:
    Path(".out.csv.0123456789ab.partial").touch()
    sys.stderr.write("error: no\n")
    return 2


@pytest.mark.parametrize(
    ("command", "faults"),
    [
        (lambda _: 0, []),
        (_raises, ["exit code 1", "internal"]),
        (lambda _: os.kill(os.getpid(), signal.SIGKILL), ["exit code -9"]),
        (lambda _: sys.exit(2), ["empty refusal"]),
        (_hangs_on_a_pipe, ["hang"]),
        (_works_on, []),
        (_leaves_a_process, ["outlived"]),
        (_writes_past_python, ["raw character"]),
        (_leaves_half, ["half-written"]),
        (lambda _: len(bytearray(1 << 40)), ["exit code 1", "internal"]),
    ],
)
def test_a_child_is_seen_as_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[[list[str]], int], faults: list[str]
) -> None:
    monkeypatch.setattr("fuzz_ends.GRACE_SECONDS", 0.3)
    found = judge(run(["x"], tmp_path, seconds=0.5, works=True, command=command))
    assert len(found) == len(faults), found
    assert all(fault in each for fault, each in zip(faults, found, strict=True)), found


def test_a_signal_reaches_a_command(tmp_path: Path) -> None:
    end = run([], tmp_path, interrupt=(signal.SIGTERM, 0.05), command=lambda _: time.sleep(60) or 0)
    assert (end.code, end.signalled, judge(end)) == (-signal.SIGTERM, signal.SIGTERM, [])


def test_a_handler_of_the_parent_does_not_reach_a_command(tmp_path: Path) -> None:
    """Ray, for one, takes the signal in the process that starts it."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))
    try:
        end = run([], tmp_path, interrupt=(signal.SIGTERM, 0.3), command=lambda _: time.sleep(60) or 0)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert end.code == -signal.SIGTERM


def test_a_case_with_a_fault_is_kept_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def make(folder: Path, draw: random.Random) -> Case:
        (folder / "input").write_text(str(draw.random()))
        return Case(commands=[["inspect", "input"]], note="an input")

    def command(_: list[str]) -> int:
        number = float(Path("input").read_text())
        Path("input").write_text("changed")
        return int(number > 0.5)

    given: Any = options(None).parse_args(["--count", "8", "--keep", str(tmp_path / "kept")])
    numbers = [random.Random(f"cases 0 {number}").random() for number in range(8)]
    assert fuzz("cases", make, given, command=command) == sum(number > 0.5 for number in numbers)
    kept = {path.name: float((path / "input").read_text()) for path in (tmp_path / "kept").iterdir()}
    assert kept == {f"cases-0-{place}": number for place, number in enumerate(numbers) if number > 0.5}
    assert "FAULT cases" in capsys.readouterr().out
    one = argparse.Namespace(**{**vars(given), "start": 3, "count": 1})
    assert fuzz("cases", make, one, command=command) == int(numbers[3] > 0.5)
