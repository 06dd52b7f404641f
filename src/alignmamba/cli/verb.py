"""Common parts of all verbs: two options, and where they print."""

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, ClassVar, cast

from alignmamba.errors import printable, safe_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

PROTOCOLS = "{none,gcnet,imder-sample,imder-batch,fixed,tokens}"
"""Form of the protocols in help texts, those of `alignmamba.data.missing_protocols`."""


@dataclass(frozen=True, kw_only=True)
class Verb(ABC):
    """A verb of the command line."""

    moved: ClassVar[Mapping[str, str]] = {}
    """Words that it took once, each with what to type in its place."""

    json: bool = False
    """Print the result as one line of JSON; everything else goes to standard error."""
    traceback: bool = False
    """Show the traceback of an error, as does ALIGNMAMBA_TRACEBACK=1."""

    @classmethod
    def completed(cls) -> "type[Verb]":
        """The verb with the options that other rooms declare for it; here it has them all."""
        return cls

    @abstractmethod
    def run(self) -> int:
        """Do it; returns the exit code."""

    def emit(self, result: Mapping[str, Any]) -> None:
        """Print the machine-readable result; a number that is not finite becomes null."""
        from alignmamba.recipes.run_directory import plain

        sys.stdout.write(safe_json(json.dumps(plain(result), ensure_ascii=False, allow_nan=False)) + "\n")
        sys.stdout.flush()


def console(*, stderr: bool = False) -> "Console":
    """A console that uses colour on a terminal only, and does not break words to fit a width that nobody
    sees.

    Whatever text it prints, in a table or not, passes through `printable`: names in a corpus cannot take over
    a terminal.
    """
    from rich.console import Console

    class Screen(Console):
        def render_str(self, text: str, **options: Any) -> "Text":
            return super().render_str(printable(text), **options)

        def on_broken_pipe(self) -> None:
            """Leave it to `alignmamba.cli.main`, which knows the exit code; rich would end the process."""
            raise  # rich calls this where it caught the error

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 120
    return Screen(
        file=cast(IO[str], _Unheeded(stream)) if stderr else None, highlight=False, markup=False, width=width
    )


class _Unheeded:
    """Standard error for progress: work continues where nobody can read it, as after a hangup."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write it if that is possible."""
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        """Hand on what was written if that is possible."""
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def say(line: str) -> None:
    """A line on standard error, for people who wait; not broken to fit a width."""
    console(stderr=True).print(line, soft_wrap=True)


def write(line: str) -> None:
    """A plain line on standard output, as `printable` shows it, and never broken."""
    sys.stdout.write(f"{printable(line)}\n")
