"""Answers to a command line that cannot be meant: one line that names the nearest thing that can."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields

from alignmamba.cli.verb import Verb
from alignmamba.errors import ConfigError

_EVERYWHERE = ("help", "h", "version")
_FROM_TYRO = "tyro-"


def refuse_unknown(given: Sequence[str], verbs: Mapping[str, type[Verb]]) -> None:
    """Refuse a verb or an option that does not exist.

    Args:
        given: The arguments of the process.
        verbs: Every verb by name.

    Raises:
        ConfigError: Naming what was found, and what is nearest to it: another verb or option, a setting, or ``--data``.
    """
    if not given or given[0].startswith("-"):
        return
    verb = given[0]
    if verb not in verbs:
        raise ConfigError(f"{verb}: no such verb{_nearest(verb, verbs)}; there are {', '.join(verbs)}")
    known = [field.name.replace("_", "-") for field in fields(verbs[verb])]
    for name in _option_names(given[1:]):
        if name not in known and name not in _EVERYWHERE and not name.startswith(_FROM_TYRO):
            raise ConfigError(f"--{name}: {verb} has no such option{_way_out(name, known)}; see alignmamba {verb} --help")
    if verb == "train" and len(given) > 1 and not given[1].startswith("-"):
        raise ConfigError(f"train takes no word by itself, found {given[1]!r}; perhaps you meant --data {given[1]}")


def _option_names(given: Sequence[str]) -> Iterator[str]:
    """The long options among the arguments, without dashes and values, as they are declared: with hyphens."""
    for word in given:
        if word == "--":
            return
        if word.startswith("--"):
            yield word[2:].partition("=")[0].replace("_", "-")


def _way_out(name: str, known: Sequence[str]) -> str:
    """The end of a message: the setting of that name, else the nearest option."""
    from alignmamba.recipes.configuration import suggested_key

    close = _nearest(name, known, "--")
    key = suggested_key(name.replace("-", "_")) if "set" in known else None
    if key is not None and (not close or key.rpartition(".")[2] == name.replace("-", "_")):
        return f", perhaps you meant --set {key}=VALUE"
    return close


def _nearest(name: str, names: Sequence[str] | Mapping[str, object], dashes: str = "") -> str:
    close = difflib.get_close_matches(name, list(names), n=1)
    return f", perhaps you meant {dashes}{close[0]}" if close else ""
