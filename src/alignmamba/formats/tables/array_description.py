"""What a TOML file says of arrays and tables: its keys, and the patterns of files that columns of the samples
fill in.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from alignmamba.contracts import Name, Role, Task
from alignmamba.errors import DataError, first_fault
from alignmamba.formats.tables.foreign_tables import ROW_NUMBER, is_table
from alignmamba.formats.tables.foreign_toml import read_toml
from alignmamba.formats.tables.text_tables import FeatureColumns, TableForm

LARGEST_DESCRIPTION = 64 << 10

_PLACE = re.compile(r"\{([^{}]*)\}")


class _Part(BaseModel):
    """A table of the description: types as they stand in TOML, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _several(given: Any) -> Any:
    """One name as a list of one; what is neither is a wrong name."""
    return given if isinstance(given, list) and all(isinstance(name, str) for name in given) else [given]


_Names = Annotated[list[str], BeforeValidator(_several)]


class TaskPart(_Part):
    """What is predicted."""

    kind: Literal["regression", "classification"]
    classes: list[str] = []
    range: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None

    @property
    def task(self) -> Task:
        """The task."""
        low_high = None if self.range is None else (self.range[0], self.range[1])
        return Task(kind=self.kind, classes=tuple(self.classes), label_range=low_high)

    @model_validator(mode="after")
    def _is_task(self) -> Self:
        try:
            self.task  # noqa: B018
        except ValidationError as error:
            raise ValueError(first_fault(error)) from error
        return self


_COLUMN_OR_ARRAY = (("label", "labels"), ("split", "splits"), ("text", "texts"), ("group", "groups"))


class SamplesPart(_Part, TableForm):
    """Where the samples are listed, and what is known of each."""

    table: str = ""
    ids: str = ""
    id: _Names = ["id"]
    label: str = ""
    labels: str = ""
    split: str = ""
    splits: str = ""
    text: str = ""
    texts: str = ""
    group: str = ""
    groups: str = ""
    further: list[str] = []

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.table) == bool(self.ids):
            raise ValueError("expected one of table and ids")
        if self.ids and (self.label or self.split):
            raise ValueError("label and split are columns of a table, but there is none")
        if self.ids and (self.text or self.group or self.further):
            raise ValueError("text, group and further are columns of a table, but there is none")
        for one, other in _COLUMN_OR_ARRAY:
            if getattr(self, one) and getattr(self, other):
                raise ValueError(f"expected one of {one} and {other}, found both")
        if (
            not self.id
            or "" in self.id
            or len(set(self.id)) != len(self.id)
            or (ROW_NUMBER in self.id and len(self.id) > 1)
        ):
            raise ValueError(f"id: expected one column or several different ones, found {self.id}")
        return self


_TABLE_KEYS = ("time", "columns", "exclude", "header", "separator")


class ModalityPart(_Part, FeatureColumns):
    """Where the values of a modality are."""

    kind: Literal["features", "tokens"] = "features"
    units: str = ""
    vocabulary_size: Annotated[int, Field(ge=1)] | None = None
    files: str = ""
    values: str = ""
    offsets: str = ""
    lengths: str = ""
    table: str = ""
    id: _Names = ["id"]
    times: str = ""

    @property
    def pattern(self) -> str:
        """The pattern of the file of a sample; empty where all samples share one."""
        return self.files or (self.table if placeholders(self.table) else "")

    @model_validator(mode="after")
    def _one_layout(self) -> Self:
        given = [name for name in ("files", "values", "table") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                f"expected one of files, values and table, found {' and '.join(given) or 'none'}"
            )
        if self.files and not placeholders(self.files):
            raise ValueError(f"files: expected a pattern with {{id}}, found {self.files!r}")
        own = {"files": ("times",), "values": ("offsets", "lengths", "times"), "table": ("id", *_TABLE_KEYS)}[
            given[0]
        ]
        where = given[0]
        if self.pattern and is_pattern_of_tables(self.pattern):
            own, where = _TABLE_KEYS, f"a table for each sample ({given[0]} = {self.pattern!r})"
        elif self.files:
            where = "files that are no tables" if self.model_fields_set & {*_TABLE_KEYS} else where
        for other in {"offsets", "lengths", "times", "id", *_TABLE_KEYS} & self.model_fields_set:
            if other not in own:
                raise ValueError(f"{other} does not go with {where}, only {', '.join(own)}")
        if self.offsets and self.lengths:
            raise ValueError("expected one of offsets and lengths, found both")
        if self.kind == "features" and self.vocabulary_size is not None:
            raise ValueError("vocabulary_size is for tokens")
        return self


class Description(_Part):
    """What a TOML file says; `docs/arrays.md` has all keys."""

    name: Annotated[str, Field(min_length=1)]
    source: str = ""
    task: TaskPart
    samples: SamplesPart
    splits: dict[Role, str | list[str]] = {}
    modalities: Annotated[dict[Name, ModalityPart], Field(min_length=1)]


def described(path: Path) -> Description:
    """The description in a TOML file.

    Raises:
        DataError: If it is no TOML, or no description.
    """
    given = read_toml(path, largest=LARGEST_DESCRIPTION)
    try:
        return Description.model_validate(given)
    except ValidationError as error:
        raise DataError(f"{path}: {first_fault(error)}") from error


def placeholders(pattern: str) -> list[str]:
    """The names in braces in a pattern of files: columns of the samples, or ``id`` for the id."""
    return list(dict.fromkeys(_PLACE.findall(pattern)))


def is_pattern_of_tables(pattern: str) -> bool:
    """Whether the files of a pattern are tables, by their name."""
    return "#" not in pattern and is_table(Path(_PLACE.sub("x", pattern)))


def filled(pattern: str, cells: Mapping[str, Sequence[Any]], row: int) -> str:
    """The pattern with what a sample has in the columns; a column that is empty leaves nothing there."""
    return _PLACE.sub(
        lambda found: "" if cells[found[1]][row] is None else str(cells[found[1]][row]), pattern
    )


def any_of(pattern: str) -> str:
    """The pattern of all files that it could name, for `Path.glob`."""
    parts = _PLACE.split(pattern)
    return "".join("*" if at % 2 else re.sub(r"([*?[])", r"[\1]", part) for at, part in enumerate(parts))


def plain_path(name: str) -> str:
    """A relative path without detours, by which two that name the same file are the same."""
    return os.path.normpath(name)
