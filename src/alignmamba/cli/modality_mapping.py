"""Options and notes of verbs that apply a run to a corpus, about its modalities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg

from alignmamba.cli.verb import Verb, say
from alignmamba.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ApplyingVerb(Verb):
    """A verb that applies a run to a corpus. A modality that the run does not know is refused, unless one of
    these options names it.
    """

    directory: Annotated[Positional[Path], arg(metavar="RUN")]
    """Directory of the run."""
    nonfinite: Annotated[
        Literal["error", "zero", "mean"] | None,
        arg(metavar="{error,zero,mean}", help_behavior_hint="(default: as in training)"),
    ] = None
    """Action on features that are not finite: refuse them, or read 0 or the channel's train mean."""
    rename: Annotated[
        tuple[tuple[str, ...], ...],
        UseAppendAction,
        arg(metavar="NAME=KNOWN ...", help_behavior_hint="(repeatable)"),
    ] = ()
    """Read a modality of the corpus as one that the run knows, for example vision=video."""
    ignore: Annotated[
        tuple[tuple[str, ...], ...],
        UseAppendAction,
        arg(metavar="MODALITY ...", help_behavior_hint="(repeatable)"),
    ] = ()
    """Ignore a modality of the corpus, for example one that the run does not know."""

    def matching(self) -> dict[str, Any]:
        """The options as `recipes` take them; a `ConfigError` if one is malformed or contradicts another."""
        renamed: dict[str, str] = {}
        for given in (each for group in self.rename for each in group):
            old, equals, new = given.partition("=")
            if not (old and equals and new):
                raise ConfigError(f"--rename {given!r}: expected NAME=KNOWN, for example vision=video")
            if renamed.setdefault(old, new) != new:
                raise ConfigError(
                    f"--rename: {old!r} has the names {renamed[old]!r} and {new!r}, expected one"
                )
        ignored = [name for group in self.ignore for name in group]
        return {"nonfinite": self.nonfinite, "rename": renamed, "ignore": ignored}

    def tell(self, modalities: Mapping[str, Any], corpus: str) -> None:
        """Say on standard error what is predicted without, and what was taken for something else."""
        for name in modalities["not_in_corpus"]:
            say(f"note: {name} is not in corpus {corpus!r}; predictions do without it")
        for name in modalities["in_no_sample"]:
            say(f"note: no predicted sample of corpus {corpus!r} has {name}; predictions do without it")
        for old, new in modalities["renamed"].items():
            say(f"note: {old} of corpus {corpus!r} is read as {new}")
        if modalities["ignored"]:
            say(f"note: dropped from corpus {corpus!r}: {', '.join(modalities['ignored'])}")


def heading(modalities: Mapping[str, Sequence[str]]) -> str:
    """Head of a table of scores: all modalities of the run, or those that were there and why."""
    reasons = [
        *([f"{_are(modalities['not_in_corpus'])} not in this corpus"] if modalities["not_in_corpus"] else []),
        *([f"no sample has {' or '.join(modalities['in_no_sample'])}"] if modalities["in_no_sample"] else []),
    ]
    return f"{' and '.join(modalities['used'])} ({'; '.join(reasons)})" if reasons else "all modalities"


def _are(names: Sequence[str]) -> str:
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}"
