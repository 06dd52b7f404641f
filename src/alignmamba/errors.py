"""Every error that a user's input can cause; the command line prints it as one line and ends with code 2."""

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

_KINDS = ("[ours]", "[pretrained]")
"""Tags by which pydantic distinguishes the configurations that one field may hold."""
_BRANCHES = ("str", "list[str]", "[key]", *_KINDS)
"""Parts of the place of a mistake, in pydantic, besides the names of fields."""

_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Characters that a terminal obeys and does not show: control characters, line ends, changes of direction;
and lone surrogates."""


DONE, OUR_FAULT, USER_INPUT, INTERRUPTED = 0, 1, 2, 130
"""Exit codes of every process of ours."""


class AlignMambaError(Exception):
    """Root of the errors that name a wrong input: the file or field, what was found and what was expected."""


class ShapeError(AlignMambaError, ValueError):
    """A tensor's shape, dtype or device does not fit the operator or the model it was given to."""


class ConfigError(AlignMambaError, ValueError):
    """A configuration names an unknown key or holds a value out of range."""


class DataError(AlignMambaError, ValueError):
    """A corpus, an array or a batch is malformed, inconsistent, damaged or not finite."""


class CheckpointError(AlignMambaError, ValueError):
    """A run directory, a checkpoint or a saved model cannot be used as asked."""


class BackendError(AlignMambaError, RuntimeError):
    """A backend asked for by name cannot serve the call; the message gives the reason."""


class TrainingError(AlignMambaError, RuntimeError):
    """Training cannot continue: a loss or gradient is not finite, or no optimiser step was taken."""


def first_fault(error: "ValidationError", prefix: str = "", keys: Sequence[str] = ()) -> str:
    """The first of the mistakes in a model's input, in one line: the dotted field, what was expected and what
    was found.

    Args:
        error: What pydantic raised.
        prefix: What the fields belong to.
        keys: Every key there is, dotted, to suggest from.
    """
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(
        [*([prefix] if prefix else []), *(str(part)[:40] for part in first["loc"] if part not in _BRANCHES)]
    )
    said = (
        "expected, found nothing"
        if first["type"] == "missing"
        else first["msg"].removeprefix("Value error, ")
    )
    found = (
        ""
        if first["type"] in ("missing", "value_error", "json_invalid")
        else f", found {shown(first['input'])}"
    )
    if first["type"] == "extra_forbidden":
        said, found = f"unknown key{suggestion(where, keys)}", ""
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    message = f"{said}{found}{more}"
    return " ".join((f"{where}: {message}" if where else message).split())


def shown(value: object) -> str:
    """A value from a file for a message: a container by its kind, for it may be of any depth."""
    if isinstance(value, dict | list | tuple):
        return "a list" if isinstance(value, list | tuple) else "a mapping"
    if isinstance(value, int) and value.bit_length() > 256:  # more digits than Python writes out
        return "a number of more than 256 bits"
    return repr(value)[:80]


def counted(number: int, noun: str) -> str:
    """A number of things, as words."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Iterable[str], most: int = 5) -> str:
    """The first of some names, and how many more there are."""
    found = list(names)
    more = len(found) - most
    return ", ".join(found[:most]) + (f" and {more:,} more" if more > 0 else "")


def explain(error: "ValidationError", *, prefix: str = "", keys: Sequence[str] = ()) -> str:
    """All mistakes in one line: the dotted key, what was found and what was expected.

    Args:
        error: What pydantic raised.
        prefix: What the fields belong to.
        keys: Every key there is, dotted, to suggest from.
    """
    lines = []
    problems = error.errors(include_url=False)
    for problem in problems:
        place = problem["loc"]
        if any(place == each["loc"][: len(place)] and place != each["loc"] for each in problems):
            continue  # a list is wrong because one of its items is
        key = ".".join(
            str(part)
            for part in (*([prefix] if prefix else []), *problem["loc"])
            if part not in _KINDS and "[" not in str(part)  # one of several types is no field
        )
        if problem["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key{suggestion(key, keys)}")
        elif problem["type"] == "value_error":
            text = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{key}: {text}" if key else text)
        elif problem["type"] == "missing":
            lines.append(f"{key}: missing")
        else:
            found, expected = _mismatch(key, problem["input"], problem["msg"])
            if lines and lines[-1].startswith(found):  # another type that the same field may have
                lines[-1] += f" or {expected}"
            else:
                lines.append(f"{found}{expected}")
    return " ".join("; ".join(lines).split())


def _mismatch(key: str, found: Any, message: str) -> tuple[str, str]:
    """Beginning of a message with what was found, and what was expected."""
    expected = re.sub(r"^\w+ should (be |have )?", "", message)
    return (
        f"{f'{key}: ' if key else ''}found {shown_with_type(found)}, expected ",
        f"{expected[0].lower()}{expected[1:]}",
    )


def shown_with_type(value: Any) -> str:
    """A value and the name of its type, for a message."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def brief(error: BaseException) -> str:
    """Message of an error of another library, in one short line; its type where it has none."""
    return " ".join(str(error).split())[:160] or type(error).__name__


def suggestion(key: str, keys: Sequence[str]) -> str:
    """`, perhaps you meant ...`, where some key is like the one found."""
    found = likely(key, keys)
    return "" if found is None else f", perhaps you meant {found!r}"


def likely(key: str, keys: Sequence[str]) -> str | None:
    """The key that is most likely meant: of the same last part, with these initials or with this word, else
    the most alike.

    Args:
        key: Dotted, such as ``fit.lr``, or the last part alone.
        keys: Those that are known.

    Returns:
        One of `keys`, or None where none is like it.
    """
    section, _, last = key.rpartition(".")
    within = [each for each in keys if each.startswith(f"{section}.")] if section else []
    if within and "." in section:  # a section within another, such as targets.mood, has keys of its own
        keys = within
    for place in (within, keys):
        for fits in (_is_last_part, _has_initials, _has_word):
            same = [each for each in place if fits(each, last)]
            if same:
                return same[0]
    close = difflib.get_close_matches(key, within or keys, n=1, cutoff=0.6)
    # A section that both share makes any two keys alike: their own parts decide.
    if close and difflib.SequenceMatcher(None, _last_part(close[0]), last).ratio() >= 0.6:
        return close[0]
    lasts = {_last_part(each): each for each in reversed(keys)}
    return next((lasts[each] for each in difflib.get_close_matches(last, lasts, n=1, cutoff=0.7)), None)


def _last_part(key: str) -> str:
    return key.rpartition(".")[2]


def _is_last_part(key: str, name: str) -> bool:
    return _last_part(key) == name


def _has_initials(key: str, name: str) -> bool:
    """`lr` are those of `fit.learning_rate`; a last part of one word has none."""
    words = _last_part(key).split("_")
    return len(words) > 1 and "".join(word[:1] for word in words) == name


def _has_word(key: str, name: str) -> bool:
    """`loss` is one of `fit.regression_loss`."""
    return name in _last_part(key).split("_")


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a message: the known name that is most like the one found, if any is."""
    return "".join(
        f", perhaps you meant {each!r}" for each in difflib.get_close_matches(name, list(names), n=1)
    )


def printable(text: str) -> str:
    r"""A text from a file as it may be printed: what a terminal would obey is shown as its escape, as in
    ``\x1b``.

    Args:
        text: One line; a line end is escaped as well.
    """
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def safe_json(text: str) -> str:
    """A JSON text in which what a terminal would obey is escaped, as JSON allows within its strings.

    Args:
        text: JSON in one line.
    """
    return _UNSEEN.sub(lambda found: json.dumps(found[0])[1:-1], text)
