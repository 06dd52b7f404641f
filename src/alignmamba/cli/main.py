"""``alignmamba``: parse the command line, run a verb, turn errors into one line and an exit code.

Exit codes: 0 done, 1 our fault, 2 the user's input, 130 interrupted.
"""

import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import tyro

from alignmamba import __version__
from alignmamba.cli.bench import Bench
from alignmamba.cli.convert import Convert
from alignmamba.cli.doctor import Doctor
from alignmamba.cli.evaluate import Evaluate
from alignmamba.cli.experiment import Experiment
from alignmamba.cli.export import Export
from alignmamba.cli.inspect import Inspect
from alignmamba.cli.predict import Predict
from alignmamba.cli.report import Report
from alignmamba.cli.train import Train
from alignmamba.cli.verb import Verb
from alignmamba.errors import AlignMambaError, printable

DONE, OUR_FAULT, USER_INPUT, INTERRUPTED = 0, 1, 2, 130

DESCRIPTION = """Fuse text, audio, video or any other token sequences into one prediction with AlignMamba.

Start with `alignmamba train`; each verb explains itself with `alignmamba VERB --help`. `alignmamba --version` prints the version.

Shell completion: `alignmamba --tyro-print-completion SHELL` prints a script for bash, zsh or tcsh.

Exit codes: 0 done, 1 a fault of alignmamba, 2 an input it cannot use, 130 interrupted.
"""

AnyVerb = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Convert, tyro.conf.subcommand("convert")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Inspect, tyro.conf.subcommand("inspect")]
    | Annotated[Experiment, tyro.conf.subcommand("experiment")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; by default those of the process.

    Returns:
        The exit code.

    Raises:
        SystemExit: After printing help, or code 2 where the arguments cannot be parsed.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # a stream that a caller put in place may be of another kind
            stream.reconfigure(errors="replace")  # type: ignore[union-attr] # a terminal without Unicode shows ? instead of failing
    _let_threads_sleep()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["--version"]:
        print(f"alignmamba {__version__}")
        return DONE
    try:
        verb: Verb = tyro.cli(
            AnyVerb,
            prog="alignmamba",
            description=DESCRIPTION,
            args=given,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except BrokenPipeError:
        return _unheard()
    return _guarded(verb)


def _let_threads_sleep() -> None:
    """Let PyTorch's OpenMP threads spin for a shorter time before they sleep: spinning, they take the cores from the kernels' threads.

    Read when PyTorch is first imported; whoever sets either variable is left alone (`benchmarks/threads.py` measures it).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _guarded(verb: Verb) -> int:
    """Run a verb; whatever it raises becomes one line on standard error."""
    show = verb.traceback or os.environ.get("ALIGNMAMBA_TRACEBACK", "") not in ("", "0")
    try:
        return verb.run()
    except AlignMambaError as error:
        return _fail(str(error), USER_INPUT, show=show)
    except KeyboardInterrupt as error:
        # Where there is something to say, it is how to go on.
        _say(str(error) or "interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return _unheard()
    except OSError as error:
        if _names_given_path(error, verb):
            return _fail(f"{error.filename}: {error.strerror}", USER_INPUT, show=show)
        return _our_fault(error, show=show)
    except Exception as error:
        return _our_fault(error, show=show)


def _unheard() -> int:
    """Whoever read our output has seen enough. Python would complain once more when it closes the stream at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def _fail(message: str, code: int, *, show: bool) -> int:
    if show:
        _say(traceback.format_exc().rstrip())
    _say(f"error: {' '.join(message.split())}")
    return code


def _our_fault(error: Exception, *, show: bool) -> int:
    what = f"{type(error).__name__}: {error}"
    if show:
        return _fail(f"internal: {what}", OUR_FAULT, show=True)
    with tempfile.NamedTemporaryFile("w", prefix="alignmamba-", suffix=".txt", delete=False, encoding="utf-8") as file:
        file.write(traceback.format_exc())
    return _fail(f"internal: {what} (please report it with {file.name})", OUR_FAULT, show=False)


def _names_given_path(error: OSError, verb: Verb) -> bool:
    """Whether the error is about a path on the command line or something under it."""
    if not isinstance(error.filename, str | Path) or not error.strerror:
        return False
    failed = Path(error.filename).absolute()
    given = [Path(value).absolute() for value in vars(verb).values() if isinstance(value, str | Path)]
    return any(failed == path or path in failed.parents for path in given)


def _say(lines: str) -> None:
    sys.stderr.write("".join(f"{printable(line)}\n" for line in lines.split("\n")))
    sys.stderr.flush()
