"""Flags of the command line from the fields of configurations."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import UseAppendAction, arg

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_BY_DEFAULT: Mapping[Any, str] = {None: "(default: none)", "": "", (): ""}
"""Form of a default that stands for nothing in help; its meaning, the description says."""


def flag(name: str, info: "FieldInfo", takers: Sequence[str] = ()) -> tuple[str, Any, Any]:
    """An option as a field of a verb, of which tyro makes a flag. The title of a field stands for its value
    in help; values by name are given as words, once or several times. `takers` are those who take it, if not
    all do.
    """
    text = " ".join((info.description or "").split())
    if takers:
        text = f"{text.removesuffix('.')} ({', '.join(takers)})."
    repeated = isinstance(info.default, Mapping)
    hint = "(repeatable)" if repeated else _BY_DEFAULT.get(info.default)
    taken = arg(metavar=info.title, help=text, help_behavior_hint=hint)
    if repeated:
        return name, Annotated[tuple[str, ...], UseAppendAction, taken], field(default=())
    return name, Annotated[(info.annotation, taken)], field(default=info.default)
