"""Common parts of all verbs: two options, and where they print."""

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, ClassVar, cast

from tyro.conf import UseAppendAction, arg

from alignmamba.errors import ConfigError, printable, safe_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from alignmamba.recipes.configuration import RunConfig

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

    @classmethod
    def setting(cls, word: str, given: Sequence[str]) -> str | None:
        """Key of ``--set`` that a word most likely means beside these arguments; none by default."""
        del word, given
        return None

    @abstractmethod
    def run(self) -> int:
        """Do it; returns the exit code."""

    def emit(self, result: Mapping[str, Any]) -> None:
        """Print the machine-readable result; a number that is not finite becomes null."""
        from alignmamba.recipes.run_directory import plain

        sys.stdout.write(safe_json(json.dumps(plain(result), ensure_ascii=False, allow_nan=False)) + "\n")
        sys.stdout.flush()

    def refuse_options(self, rule: str, *, allowed: Collection[str]) -> None:
        """Refuse all given options but these; the message begins with the rule that drops them."""
        taken = {*allowed, "json", "traceback"}
        given = [
            f"--{option_name(each.name)}"
            for each in fields(self)
            if each.name not in taken and getattr(self, each.name) != each.default
        ]
        if given:
            raise ConfigError(f"{rule}: drop {', '.join(given)}")

    def emit_address(self, what: str, address: str) -> None:
        """Print at once where a server listens."""
        if self.json:
            self.emit({"address": address})
        else:
            write(f"{what} at {address} (Ctrl-C ends it)")
            sys.stdout.flush()


@dataclass(frozen=True, kw_only=True)
class RunsVerb(Verb):
    """A verb that trains, with the settings of its runs."""

    data: Annotated[str | None, arg(metavar="PATH|synthetic", help_behavior_hint="(default: synthetic)")] = (
        None
    )
    """Corpus directory, file that `alignmamba convert` reads, or `synthetic`, the built-in corpus."""
    preset: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: default)")] = None
    """Starting options of the model: `default`, `paper` as published, or `0.1`, the former default."""
    config: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    """YAML file of settings, for example the config.yaml of another run."""
    set: Annotated[
        tuple[tuple[str, ...], ...],
        UseAppendAction,
        arg(metavar="KEY=VALUE ...", help_behavior_hint="(repeatable)"),
    ] = ()
    """Settings by dotted key, with YAML values: fit.epochs=5 options.d_model=128."""
    label: Annotated[
        tuple[str, ...], arg(metavar="NAME [NAME ...]", help_behavior_hint="(default: that of the corpus)")
    ] = ()
    """Label to predict; several become one target, or a target and further ones."""
    split_valid: Annotated[
        float | None, arg(metavar="SHARE", help_behavior_hint="(default: the corpus's own valid split)")
    ] = None
    """Share of train that serves as the valid split, for example 0.15, if the corpus has none."""

    @classmethod
    def setting(cls, word: str, given: Sequence[str]) -> str | None:
        """Key of a run that a word most likely means."""
        from alignmamba.recipes.configuration import suggested_key

        del given
        return suggested_key(word)

    @property
    def assignments(self) -> list[str]:
        """Words of ``--set``."""
        return [each for group in self.set for each in group]

    def configuration(self, **others: Any) -> "RunConfig":
        """Settings from the file, the assignments and the options; `others` by key, with __ for a dot."""
        from alignmamba.recipes.configuration import read_config

        names = ("data", "preset", "split_valid")
        given: dict[str, Any] = {name: getattr(self, name) for name in names}
        given["leading.labels"] = list(self.label) or None
        given |= {key.replace("__", "."): value for key, value in others.items()}
        overrides = {key: value for key, value in given.items() if value is not None}
        return read_config(self.config, assignments=self.assignments, overrides=overrides)


@dataclass(frozen=True, kw_only=True)
class SettingVerb(RunsVerb):
    """A verb that trains one method."""

    model: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: alignmamba)")] = None
    """Method to train; `alignmamba methods` lists all of them."""

    def configuration(self, **others: Any) -> "RunConfig":
        """Settings of the verb, those of its method."""
        return super().configuration(model=self.model, **others)


def console(*, stderr: bool = False) -> "Console":
    """A console with colour on a terminal only, without breaks for a width that nobody sees. Its text passes
    through `printable`: names in a corpus cannot take over a terminal.
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


def option_name(field_name: str) -> str:
    """Name of an option without its dashes. One that is a word of Python, such as ``from``, has a field with
    an underscore behind it.
    """
    return field_name.rstrip("_").replace("_", "-")


def say(line: str) -> None:
    """A line on standard error, for people who wait; not broken to fit a width."""
    console(stderr=True).print(line, soft_wrap=True)


def write(line: str) -> None:
    """A plain line on standard output, as `printable` shows it, and never broken."""
    sys.stdout.write(f"{printable(line)}\n")
