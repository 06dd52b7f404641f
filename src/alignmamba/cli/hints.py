"""Answers to a command line that cannot be meant: one line that names the nearest thing that can."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin, get_type_hints

from alignmamba.cli.verb import Verb, option_name
from alignmamba.errors import ConfigError

_EVERYWHERE = ("help", "h", "version")
_FROM_TYRO = "tyro-"


def refuse_unknown(given: Sequence[str], verbs: Mapping[str, type[Verb]]) -> None:
    """Refuse, by a `ConfigError`, a verb or an option that does not exist, with the verb, option or setting
    that is nearest to it.
    """
    if given and given[0] in ("-h", "--help"):
        return
    if not given or given[0].startswith("-"):
        found = f", found {given[0]!r}" if given else ""
        raise ConfigError(
            f"expected a verb first{found}; there are {', '.join(verbs)}; see alignmamba --help"
        )
    verb = given[0]
    if verb == "help":
        raise ConfigError(
            "help: no such verb, perhaps you meant alignmamba --help, or alignmamba VERB --help"
        )
    if verb not in verbs:
        raise ConfigError(f"{verb}: no such verb{_nearest(verb, verbs)}; there are {', '.join(verbs)}")
    known = [option_name(field.name) for field in fields(verbs[verb])]
    for name in _option_names(given[1:]):
        if name not in known and name not in _EVERYWHERE and not name.startswith(_FROM_TYRO):
            raise ConfigError(
                f"--{name}: {verb} has no such option{_way_out(name, known, verbs[verb], given)};"
                f" see alignmamba {verb} --help"
            )


def refuse_empty(given: Sequence[str], verb: type[Verb]) -> None:
    """Refuse, by a `ConfigError`, an option of any number of values that has none, as an empty variable of
    the shell leaves it: it would be ignored.
    """
    lists = {option_name(name) for name, kind in get_type_hints(verb).items() if ... in get_args(kind)}
    words = [*given, "--"]
    for word, following in pairwise(words[: words.index("--") + 1]):
        if word.startswith("--") and word[2:].replace("_", "-") in lists and following.startswith("--"):
            raise ConfigError(f"{word}: expected a value, found none; see alignmamba {given[0]} --help")


def in_one_line(box: str, given: Sequence[str], verb: type[Verb]) -> str:
    """Put what tyro printed in a frame about wrong arguments in one line: what was found, what is expected,
    where to read on.
    """
    rows = [row.replace("│", " ").rstrip() for row in box.splitlines() if not row.startswith(("╭", "╰"))]
    rows = [row for row in rows if row.strip(" ─-")]
    text = " ".join(" ".join(rows).split())
    return f"{_told(text, rows, given, verb)}; see alignmamba {given[0]} --help"


def _told(text: str, rows: Sequence[str], given: Sequence[str], verb: type[Verb]) -> str:
    if "Missing from alignmamba" in text:
        return f"{given[0]}: expected {' and '.join(_missing(rows))}"
    if found := re.search(r"Missing value for argument '(.+?)'", text):
        return f"{found[1]}: expected a value, found none"
    if found := re.search(r"invalid choice '(.*?)' for argument '(.+?)'\. Expected one of \((.*?)\)", text):
        if found[1] in verb.moved:
            return f"{given[0]} {found[1]}: {verb.moved[found[1]]}"
        choices = re.findall(r"'(.*?)'", found[3])
        return (
            f"{found[2]}: found {found[1]!r}, expected one of"
            f" {', '.join(choices)}{_nearest(found[1], choices)}"
        )
    if found := re.search(r"Error parsing (--[\w-]+)", text):
        values = ", ".join(map(repr, _values(found[1], given)))
        return f"{found[1]}: found {values}, expected {_expected(verb, found[1])}"
    if found := re.search(
        r"Unrecognized (?:or misplaced )?options: (.*?) (?:\(applied to|Perhaps you meant|For full helptext)",
        text,
    ):
        return _superfluous(found[1], given, verb)
    return text


def _missing(rows: Sequence[str]) -> list[str]:
    """The arguments that tyro misses: each stands in a row of its own, with its help indented below it."""
    first = next(place for place, row in enumerate(rows) if "Missing from" in row) + 1
    own = _indent(rows[first])
    end = next((place for place in range(first, len(rows)) if _indent(rows[place]) < own), len(rows))
    return [row.strip() for row in rows[first:end] if _indent(row) == own]


def _indent(row: str) -> int:
    return len(row) - len(row.lstrip())


def _values(option: str, given: Sequence[str]) -> list[str]:
    """The words given to an option, where it stands last."""
    words = [part for word in given for part in (word.split("=", 1) if word.startswith("--") else [word])]
    own = [place for place, word in enumerate(words) if word.replace("_", "-") == option]
    rest = words[own[-1] + 1 :] if own else []
    return rest[: next((place for place, word in enumerate(rest) if word.startswith("--")), len(rest))]


def _expected(verb: type[Verb], option: str) -> str:
    kind = get_type_hints(verb)[option[2:].replace("-", "_")]
    leaves = list(_leaves(kind))
    choices = [str(leaf) for leaf in leaves if not isinstance(leaf, type)]
    number = "whole number" if int in leaves else "number"
    return ", ".join(choices) or (f"{number}s" if get_origin(kind) is tuple else f"a {number}")


def _leaves(kind: Any) -> Iterator[Any]:
    """The types and the literal values that a type consists of."""
    if get_origin(kind) is Literal:
        yield from get_args(kind)
    elif get_args(kind):
        for part in get_args(kind):
            yield from _leaves(part)
    elif kind not in (type(None), Ellipsis):
        yield kind


def _superfluous(word: str, given: Sequence[str], verb: type[Verb]) -> str:
    of_flag = next((each for each in given if each.startswith("--") and each.endswith(f"={word}")), None)
    if of_flag is not None:
        return f"{of_flag.partition('=')[0]}: takes no value, found {word!r}"
    if word.startswith("-"):
        return f"{word}: {given[0]} has no such option"
    hint = (
        f"; perhaps you meant --data {word}"
        if "data" in {field.name for field in fields(verb)} and "--data" not in given
        else ""
    )
    return f"{given[0]} takes no further word, found {word!r}{hint}"


def _option_names(given: Sequence[str]) -> Iterator[str]:
    """The long options among the arguments, without dashes and values, as they are declared: with hyphens."""
    for word in given:
        if word == "--":
            return
        if word.startswith("--"):
            yield word[2:].partition("=")[0].replace("_", "-")


def _way_out(name: str, known: Sequence[str], verb: type[Verb], given: Sequence[str]) -> str:
    """The end of a message: the setting of that name, else the nearest option; its plural before both."""
    close = _nearest(name, known, "--")
    if f"{name}s" in known:
        return close
    key = verb.setting(name.replace("-", "_"), given)
    if key is not None and (not close or key.rpartition(".")[2] == name.replace("-", "_")):
        return f", perhaps you meant --set {key}=VALUE"
    return close


def _nearest(name: str, names: Sequence[str] | Mapping[str, object], dashes: str = "") -> str:
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.65)
    return f", perhaps you meant {dashes}{close[0]}" if close else ""
