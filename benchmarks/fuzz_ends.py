"""Run command lines in children of a warm process and judge how each ended: what `fuzz_commands.py` and
`fuzz_corpora.py` share.

A child is forked with PyTorch and the kernels loaded, so a command costs its own work and not three seconds
of imports. It has a folder of its own, files for its output, a limit of memory, and a parent that ends it
when it takes too long. `judge` finds what is wrong with an end; `tests/cli/test_fuzz_ends.py` puts every kind
of fault before it.
"""

import argparse
import os
import random
import re
import resource
import signal
import stat
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

import torch

from alignmamba.cli.arguments import VERBS
from alignmamba.cli.main import main as alignmamba

ADDRESS_BYTES = 12 << 30
"""Address space of a child: an allocation beyond it fails."""
MOST_BYTES = 3 << 30
"""Memory that a child may hold; small inputs need a tenth of it."""
FILE_BYTES = 1 << 30
"""Size of a file that a child may write."""
GRACE_SECONDS = 20.0
"""Time in which an interrupted command, or what it leaves behind, has to end."""
POLL_SECONDS = 0.002
BUSY_SHARE = 0.2
"""A command at work takes at least this share of the time of a processor; one that waits for nothing takes
none."""

_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that a terminal obeys beside a line's end and a tab."""
_NOT_TEXT = re.compile("[\udc80-\udcff]")
_UNFINISHED = re.compile(r"(^|/)\.[^/]*\.[0-9a-f]{12}\.|\.partial(/|$)")
_TRACEBACK = "Traceback (most recent call last):"
_INTERNAL = re.compile(rf"{re.escape(_TRACEBACK)}|\binternal( error)?: |Exception ignored|please report")

Command = Callable[[list[str]], int]


@dataclass(frozen=True, kw_only=True)
class End:
    """How a command ended."""

    code: int | None
    """Exit code; less than 0: the signal that ended it; None: it did not end, and was killed."""
    out: str = ""
    err: str = ""
    seconds: float = 0.0
    bytes: int = 0
    """Most memory it held."""
    signalled: int | None = None
    """The signal it was sent."""
    changed: tuple[str, ...] = ()
    """Paths of its folder that are new, gone or of other content."""
    made: tuple[str, ...] = ()
    """Those that are new."""
    stayed: bool = False
    """Mark of a command whose own processes outlived it."""


def judge(end: End, *, steps: Sequence[str] = (), traced: bool = False) -> list[str]:
    """All that is wrong with an end, one line each; nothing if it is one of those that are promised.

    Args:
        end: How the command ended.
        steps: Folders with which it goes on step by step, such as a run that it resumes: a later refusal
            leaves what was done.
        traced: Whether a traceback was asked for.
    """
    found = []
    said = end.out + end.err
    allowed = {0, 2, *(() if end.signalled is None else (128 + end.signalled, 130, -end.signalled))}
    if end.code is None:
        found.append(f"hang: killed after {end.seconds:.0f} s")
    elif end.code not in allowed:
        found.append(f"exit code {end.code}")
    if match := _INTERNAL.search(said.replace(_TRACEBACK, "") if traced else said):
        found.append(f"internal: {match[0]!r} in what it wrote")
    if match := _OBEYED.search(said):
        found.append(f"raw character {match[0]!a} in what it wrote")
    if match := _NOT_TEXT.search(said):
        found.append(f"byte {match[0]!a} that is no text in what it wrote")
    errors = [line for line in end.err.splitlines() if line.startswith("error: ")]
    # `inspect` answers with the problems it was asked for
    if end.code == 2 and not end.err.strip() and "problem" not in end.out:
        found.append("empty refusal: exit code 2 and not a word")
    if len(errors) > 1 or (errors and not end.err.rstrip("\n").endswith(errors[0])):
        found.append("an error in more than one line")
    if errors and end.code == 0:
        found.append("exit code 0 with an error")
    unfinished = [path for path in end.made if _UNFINISHED.search(path)]
    # what is killed cannot clean up: its next run does
    if unfinished and (end.code is None or end.code >= 0):
        found.append(f"half-written: left {', '.join(unfinished[:3])}")
    changed = [path for path in end.changed if path.partition("/")[0] not in steps]
    if end.code == 2 and changed and not unfinished and "resume with" not in end.err:
        found.append(f"half-written: refused, yet changed {', '.join(changed[:3])}")
    if end.bytes > MOST_BYTES:
        found.append(f"memory: held {end.bytes / 1e9:.1f} GB")
    if end.stayed:
        found.append("a process of its own outlived it")
    return found


# A command in a child


def one_thread() -> None:
    """Compute on one thread from here on: a child that is forked has none of its parent's, and would wait for
    them.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def run(
    arguments: Sequence[str],
    folder: Path,
    *,
    seconds: float = 60.0,
    interrupt: tuple[int, float] | None = None,
    works: bool = False,
    command: Command = alignmamba,
) -> End:
    """Run a command line in a child whose working folder, home and temporary folder lie in `folder`.

    Args:
        arguments: Of the command line.
        folder: Where it runs.
        seconds: After which it is killed.
        interrupt: A signal to send it, and after how many seconds.
        works: Whether the command may be at work for as long as it likes. Then one that keeps a processor
            busy when the time is up is interrupted as by Ctrl-C, and killed only if it does not end at that.
        command: What is run.
    """
    for name in ("home", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    before = _contents(folder)
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            _be_child(arguments, folder, out, err, command)
        code, used, signalled = _waited(child, started, seconds=seconds, interrupt=interrupt, works=works)
        took = time.monotonic() - started
        stayed = _stayed(child)
        after = _contents(folder)
        texts = [_text(file) for file in (out, err)]
    return End(
        code=code,
        out=texts[0],
        err=texts[1],
        seconds=took,
        bytes=used.ru_maxrss * 1024,
        signalled=signalled,
        changed=tuple(
            sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        ),
        made=tuple(sorted(after.keys() - before.keys())),
        stayed=stayed,
    )


def _be_child(
    arguments: Sequence[str], folder: Path, out: IO[bytes], err: IO[bytes], command: Command
) -> NoReturn:
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        for place, stream in enumerate((open(os.devnull, "rb"), out, err)):  # noqa: SIM115, PTH123 # as long as the process is
            os.dup2(stream.fileno(), place)
        sys.stdout, sys.stderr = (open(place, "w", encoding="utf-8", closefd=False) for place in (1, 2))  # noqa: SIM115
        sys.argv = ["alignmamba", *arguments]
        os.environ.update(
            HOME=str(folder / "home"), XDG_CACHE_HOME=str(folder / "home"), TMPDIR=str(folder / "tmp")
        )
        os.environ.pop("ALIGNMAMBA_CACHE", None)
        tempfile.tempdir = None
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        for stops in (signal.SIGTERM, signal.SIGHUP):  # a library of the parent may have taken them
            signal.signal(stops, signal.SIG_DFL)
        code = command(list(arguments))
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _waited(
    child: int, started: float, *, seconds: float, interrupt: tuple[int, float] | None, works: bool
) -> tuple[int | None, resource.struct_rusage, int | None]:
    """Exit code, use of resources and the signal sent of a child, once it has ended."""
    signalled, until = None, started + seconds
    while True:
        ended, status, used = os.wait4(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), used, signalled
        now = time.monotonic()
        if interrupt is not None and now >= started + interrupt[1]:
            signalled, until = interrupt[0], min(until, now + GRACE_SECONDS)
            os.kill(child, signalled)
            interrupt = None
        elif now >= until:
            if works and signalled is None and _processor_seconds(child) > BUSY_SHARE * seconds:
                signalled, until = signal.SIGINT, now + GRACE_SECONDS
                os.kill(child, signalled)
                continue
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            return None, os.wait4(child, 0)[2], signalled
        time.sleep(POLL_SECONDS)


def _processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _stayed(group: int) -> bool:
    """Answer to whether processes of a group outlive their leader; they are then killed."""
    until = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(10 * POLL_SECONDS)
    os.killpg(group, signal.SIGKILL)
    return True


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(1 << 24).decode(errors="surrogateescape")


def _contents(folder: Path) -> dict[str, tuple[int, ...]]:
    """Every path below a folder with what would change if its content did; what lies in its home is not
    compared.
    """
    found = {}
    for path, folders, files in os.walk(folder):
        if Path(path) == folder:
            folders[:] = [name for name in folders if name != "home"]
        for name in (*folders, *files):
            at = os.lstat(os.path.join(path, name))  # noqa: PTH118 # thousands of them
            facts = (at.st_size, at.st_mtime_ns, at.st_ino) if stat.S_ISREG(at.st_mode) else ()
            within = os.path.relpath(os.path.join(path, name), folder)  # noqa: PTH118
            found[within] = (stat.S_IFMT(at.st_mode), *facts)
    return found


# Many of them


@dataclass(frozen=True, kw_only=True)
class Case:
    """Command lines for a folder that was made for them."""

    commands: Sequence[Sequence[str]]
    note: str = ""
    """Oddities of the folder."""
    interrupt: tuple[int, float] | None = None
    steps: Sequence[str] = ()
    """As `judge` has it, for the commands that resume or make again what such a folder holds."""


WORKING = ("train", "bench", "experiment")
"""Verbs that work as long as their settings say."""


def options(description: str | None, *, count: int = 2000) -> argparse.ArgumentParser:
    """Options of every fuzzer."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=count, help="cases of each kind")
    parser.add_argument(
        "--start",
        type=int,
        default=0,
        help="number of the first one; a seed and a number make the same case again",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the cases")
    parser.add_argument("--seconds", type=float, default=30.0, help="that a command may take")
    parser.add_argument(
        "--keep", type=Path, help="new folder for the cases with faults (default: a temporary one)"
    )
    return parser


def fuzz(
    what: str,
    make: Callable[[Path, random.Random], Case],
    given: argparse.Namespace,
    *,
    command: Command = alignmamba,
) -> int:
    """Make cases, run their commands, print every fault, keep the folder of each case that has one; returns
    how many commands had one.

    Args:
        what: Name of the cases; part of what their draws depend on.
        make: Fills an empty folder.
        given: From `options`.
        command: As `run` has it.
    """
    keep = given.keep if given.keep is not None else Path(tempfile.mkdtemp(prefix="fuzz-kept-"))
    ends: Counter[tuple[str, str]] = Counter()
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    faults, started = 0, time.monotonic()
    for number in range(given.start, given.start + given.count):
        with tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True) as folder:
            case = make(Path(folder), _draw(what, given, number))
            for arguments in case.commands:
                verb = arguments[0] if arguments and arguments[0] in VERBS else "(none)"
                works = verb in WORKING
                end = run(
                    arguments,
                    Path(folder),
                    seconds=given.seconds,
                    interrupt=case.interrupt,
                    works=works,
                    command=command,
                )
                stopped = end.signalled is not None and case.interrupt is None
                ended = (
                    verb,
                    "still at work, interrupted"
                    if stopped
                    else "hang"
                    if end.code is None
                    else str(end.code),
                )
                ends[ended] += 1
                seconds[ended] += end.seconds
                resumes = "--resume" in arguments or verb in ("experiment", "report")
                problems = judge(end, steps=case.steps if resumes else (), traced="--traceback" in arguments)
                if stopped:
                    print(
                        f"{what} {number}: still at work after {given.seconds:.0f} s: {_line(arguments)}",
                        flush=True,
                    )
                if problems:
                    faults += 1
                    kept = keep / f"{what.replace(' ', '-')}-{given.seed}-{number}"
                    _kept(kept, make, _draw(what, given, number), arguments, end, problems)
                    print(
                        f"FAULT {what} {number}: {'; '.join(problems)}\n  {case.note}\n  {_line(arguments)}\n"
                        f"  kept in {kept}",
                        flush=True,
                    )
                    print(f"  {end.err.strip()[-300:]!a}", flush=True)
        if (number + 1 - given.start) % 100 == 0:
            print(
                f"{what}: {number + 1 - given.start} of {given.count}, {faults} faults,"
                f" {time.monotonic() - started:.0f} s",
                flush=True,
            )
    for (verb, how), count in sorted(ends.items()):
        print(f"{verb:12} {how:28} {count:6} {seconds[verb, how] / count:8.2f} s each")
    print(
        f"{given.count} {what}, {sum(ends.values())} commands, {time.monotonic() - started:.0f} s, {faults}"
        " faults",
        flush=True,
    )
    if given.keep is None:
        with suppress(OSError):
            keep.rmdir()
    return faults


def _draw(what: str, given: argparse.Namespace, number: int) -> random.Random:
    return random.Random(f"{what} {given.seed} {number}")


def _line(arguments: Sequence[str]) -> str:
    return " ".join(word if re.fullmatch(r"[\w./=,:+-]+", word) else ascii(word[:200]) for word in arguments)


def _kept(
    folder: Path,
    make: Callable[[Path, random.Random], Case],
    draw: random.Random,
    arguments: Sequence[str],
    end: End,
    problems: list[str],
) -> None:
    """Make the folder of a case anew, as it was before its commands, with a file that says which one ended
    how.
    """
    if not folder.exists():
        folder.mkdir(parents=True)
        make(folder, draw)
    with (folder / "fault.txt").open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"{list(arguments)!a}\n{problems}\n{end.out[-5000:]}\n{end.err[-20000:]}\n\n")
