"""Every error that a user's input can cause; the command line prints it as one line and ends with code 2."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

_BRANCHES = ("str", "list[str]", "[key]")
"""What pydantic puts into the place of a mistake beside the names of fields."""


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
    """Training cannot go on: a loss or gradient is not finite, or no optimiser step was taken."""


def first_fault(error: "ValidationError", prefix: str = "") -> str:
    """The first of the mistakes in a model's input, in one line: the dotted field, what was expected and what was found.

    Args:
        error: What pydantic raised.
        prefix: What the fields belong to.
    """
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join([*([prefix] if prefix else []), *(str(part)[:40] for part in first["loc"] if part not in _BRANCHES)])
    said = "expected, found nothing" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
    found = "" if first["type"] in ("missing", "value_error", "json_invalid") else f", found {shown(first['input'])}"
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
