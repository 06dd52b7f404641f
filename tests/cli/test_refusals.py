"""Refusals of the machine, and ends that nobody asked for: one line, the right exit code, nothing
half-written, a way to resume.
"""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from test_main import raising

from alignmamba.cli.doctor import Doctor
from alignmamba.data.loader import lost_workers_told
from alignmamba.files import held, refused_by_machine, replace_file
from alignmamba.recipes.run_directory import METRICS, RunDirectory
from small_run import SETTINGS

Cli = Callable[..., tuple[int, str, str]]
COMMAND = (sys.executable, "-m", "alignmamba")

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and limits of POSIX")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/best.ckpt"),
            "/x/best.ckpt: No space left on device",
        ),
        (OSError(errno.EFBIG, "File too large", "/x/p.csv"), "/x/p.csv: File too large"),
        (PermissionError(errno.EACCES, "Permission denied", b"/x"), "/x: Permission denied"),
        (MemoryError(), "out of memory; lower loader.batch_size"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out of memory ("),
        (RuntimeError("can't start new thread"), "refuses another thread"),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
            "TMPDIR names another",
        ),
    ],
)
def test_what_the_machine_refuses_is_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    monkeypatch.setattr(Doctor, "run", raising(error))
    code, out, err = cli("doctor")
    assert (code, out.strip()) == (2, "")
    assert err.startswith("error: ")
    assert said in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), RuntimeError("a bug"), ValueError("out of memory"), FileNotFoundError(2, "x", "/y")],
)
def test_other_errors_stay_ours(error: Exception) -> None:
    assert refused_by_machine(error) == ""


def test_our_fault_is_told_without_a_temporary_folder(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Doctor, "run", raising(ZeroDivisionError("by zero")))
    monkeypatch.setattr(
        "tempfile.NamedTemporaryFile", lambda *_, **__: raising(OSError(errno.ENOSPC, "full"))(None)
    )
    monkeypatch.delenv("ALIGNMAMBA_TRACEBACK", raising=False)
    assert cli("doctor") == (
        1,
        "",
        "error: internal: ZeroDivisionError: by zero (please report it with what --traceback shows)\n",
    )


def test_a_file_that_cannot_be_written_is_named_and_the_old_one_survives(tmp_path: Path) -> None:
    file = tmp_path / "file"
    replace_file(file, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            replace_file(file, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(file)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["doctor", "--json"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_standard_output_is_named(arguments: list[str], unbuffered: str) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(
            [*COMMAND, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
            env=environment,
        )
    assert (done.returncode, done.stderr) == (2, "error: standard output: No space left on device\n")


def test_closed_streams_are_no_fault() -> None:
    done = subprocess.run(["sh", "-c", f"{' '.join(COMMAND)} --version >&- 2>&-"], check=False, timeout=120)
    assert done.returncode == 0


def test_ctrl_c_while_modules_are_imported_is_one_word() -> None:
    code = """
import signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "alignmamba.cli.train":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from alignmamba.cli.main import main
sys.exit(main(["--help"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_training_on_a_full_disk_says_how_to_resume(
    cli: Cli, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "run" / METRICS))
    monkeypatch.setattr(RunDirectory, "finish", lambda *_: raising(full)(None))
    arguments = ["train", "--data", corpus, "--out", tmp_path / "run", "--set", *SETTINGS, "fit.epochs=1"]
    resume = f"resume with: alignmamba train --resume {tmp_path / 'run'}"
    code, _, err = cli(*arguments)
    assert (code, err.splitlines()[-1]) == (2, f"error: {full.filename}: No space left on device; {resume}")
    monkeypatch.undo()
    assert cli("train", "--resume", tmp_path / "run")[0] == 0
    monkeypatch.setattr("alignmamba.recipes.training_run.fit", lambda *_, **__: raising(MemoryError())(None))
    code, _, err = cli(*arguments[:3], "--out", tmp_path / "other", *arguments[5:])
    assert code == 2
    assert err.startswith("error: out of memory; ")
    assert "resume" not in err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("told", [False, True])
def test_a_lost_loader_says_how_to_resume(
    cli: Cli, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, told: bool
) -> None:
    lost: Exception = RuntimeError("DataLoader worker (pid 123) is killed by signal: Killed. ")

    def finish(*_: object) -> None:
        with lost_workers_told() if told else nullcontext():
            raise lost

    monkeypatch.setattr(RunDirectory, "finish", finish)
    code, _, err = cli(
        "train", "--data", corpus, "--out", tmp_path / "run", "--set", *SETTINGS, "fit.epochs=1"
    )
    assert code == 2
    assert (
        "a process that reads ahead ended"
        if told
        else "a process that loads batches ended: DataLoader worker"
    ) in err
    assert f"resume with: alignmamba train --resume {tmp_path / 'run'}" in err


def test_a_run_that_is_in_use_is_refused(
    cli: Cli, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = shutil.copytree(run, tmp_path / "busy")
    (busy / METRICS).unlink()
    monkeypatch.setattr("alignmamba.recipes.run_directory._ORPHANS_SECONDS", 0.0)
    with held(busy):
        assert cli("train", "--resume", busy) == (2, "", f"error: run {busy}: in use by another process\n")
    assert cli("train", "--resume", busy)[0] == 0


def test_a_hangup_saves_and_says_how_to_resume(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [
        *COMMAND,
        "train",
        "--data",
        str(corpus),
        "--out",
        str(run),
        "--set",
        *SETTINGS,
        "fit.epochs=100000",
        "fit.patience=0",
    ]
    # As from a terminal: tests that run under nohup would hand on that a hangup is ignored.
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    until = time.monotonic() + 120
    while not (run / "log.csv").exists() and time.monotonic() < until and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.splitlines()[-1].endswith(f"alignmamba train --resume {run}")
    assert (run / "last.ckpt").exists()
