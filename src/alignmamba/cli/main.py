"""``alignmamba``: parse the command line, run a verb, turn errors into one line and an exit code: 0 done, 1
our fault, 2 the user's input or machine, 130 interrupted, 141 nobody reads the output. What takes time to
import is imported where errors are caught, so that Ctrl-C ends in one word.
"""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from alignmamba import __version__
from alignmamba.errors import DONE, INTERRUPTED, OUR_FAULT, USER_INPUT

if TYPE_CHECKING:
    from alignmamba.cli.verb import Verb


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line of these arguments, by default those of the process, and return the exit code;
    help ends in a `SystemExit`.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    ended: SystemExit | int
    verb = None
    try:
        _prepare_streams()
        _let_threads_sleep()
        try:
            if given[:1] == ["--version"]:
                print(f"alignmamba {__version__}")
                ended = DONE
            else:
                from alignmamba.cli.arguments import parsed

                verb = parsed(given)
                ended = verb.run()
        except SystemExit as stop:
            ended = stop
        sys.stdout.flush()  # now: what cannot be written later, Python would complain about in its own words
    except (Exception, KeyboardInterrupt) as error:
        return _told(error, verb)
    if isinstance(ended, SystemExit):
        raise ended
    return ended


def _prepare_streams() -> None:
    """Open streams that the process lacks, and let a terminal without Unicode show ?."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 # open as long as the process is
        with suppress(AttributeError):  # a stream that a caller put in place may be of another kind
            getattr(sys, name).reconfigure(errors="replace")


def _let_threads_sleep() -> None:
    """Let PyTorch's OpenMP threads spin shorter before they sleep: they take the cores from the kernels'
    threads (`benchmarks/threads.py`). Whoever sets either variable is kept.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _told(error: BaseException, verb: "Verb | None") -> int:
    """Say in one line on standard error what went wrong; returns the exit code."""
    from alignmamba.files import verdict

    code, message = verdict(error)
    if code == INTERRUPTED:
        _say(message)
        return code
    if isinstance(error, BrokenPipeError):  # whoever read our output has seen enough
        _discard(sys.stdout)
        return 128 + signal.SIGPIPE
    show = (verb is not None and verb.traceback) or os.environ.get("ALIGNMAMBA_TRACEBACK", "") not in (
        "",
        "0",
    )
    if isinstance(error, OSError):
        if verb is not None and _names_given_path(error, verb):
            code, message = USER_INPUT, f"{error.filename}: {error.strerror}"
        elif code == USER_INPUT and error.filename is None and _is_full(sys.stdout):
            message = f"standard output: {message}"
    if code == OUR_FAULT and not show:
        message = f"{message} (please report it with {_report(error)})"
    if show:
        import traceback

        _say("".join(traceback.format_exception(error)).rstrip("\n"))
    _say(f"error: {' '.join(message.split())}")
    return code


def _is_full(stream: TextIO) -> bool:
    """Try to write to a stream, and discard it where it takes no character; true if it was discarded."""
    try:
        stream.write("\n")
        stream.flush()
    except OSError:
        _discard(stream)
        return True
    return False


def _discard(stream: TextIO) -> None:
    """Let what is left of a stream vanish; Python would complain once more when it closes it at exit."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _report(error: BaseException) -> str:
    """Path of the traceback, or the way to see it where no file can be made."""
    import tempfile
    import traceback

    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="alignmamba-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write("".join(traceback.format_exception(error)))
    except OSError:
        return "what --traceback shows"
    return file.name


def _names_given_path(error: OSError, verb: "Verb") -> bool:
    """Return whether the error is about a path on the command line or something under it."""
    if not isinstance(error.filename, str | Path) or not error.strerror:
        return False
    failed = Path(error.filename).absolute()
    given = [Path(value).absolute() for value in vars(verb).values() if isinstance(value, str | Path)]
    return any(failed == path or path in failed.parents for path in given)


def _say(lines: str) -> None:
    from alignmamba.errors import printable

    try:
        sys.stderr.write("".join(f"{printable(line)}\n" for line in lines.split("\n")))
        sys.stderr.flush()
    except (OSError, ValueError):
        _discard(sys.stderr)
