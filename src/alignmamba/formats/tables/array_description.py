"""Description of arrays and tables in a TOML file: its keys, and the patterns of files that columns of the
samples fill in.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from alignmamba.contracts import Name, Role, TargetKind, Task
from alignmamba.errors import DataError, first_fault
from alignmamba.formats.tables.foreign_tables import ROW_NUMBER, is_table
from alignmamba.formats.tables.foreign_toml import read_toml
from alignmamba.formats.tables.text_tables import FeatureColumns, TableForm

LARGEST_DESCRIPTION = 64 << 10
EVERY_OTHER = "*"
"""Placeholder for the ids of a split: every sample that no other split lists."""

_PLACE = re.compile(r"\{([^{}]*)\}")


class _Part(BaseModel):
    """A table of the description: types as they stand in TOML, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _several(given: Any) -> Any:
    """One name as a list of one; what is neither is a wrong name."""
    return given if isinstance(given, list) and all(isinstance(name, str) for name in given) else [given]


_Names = Annotated[list[str], BeforeValidator(_several)]


class TaskPart(_Part):
    """Task to predict."""

    kind: TargetKind
    classes: list[str] = []
    range: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None

    @property
    def task(self) -> Task:
        """The task; classes of a multilabel are columns of the samples."""
        low_high = None if self.range is None else (self.range[0], self.range[1])
        return Task(kind=self.kind, classes=tuple(self.classes), label_range=low_high)

    @model_validator(mode="after")
    def _is_task(self) -> Self:
        try:
            self.task  # noqa: B018
        except ValidationError as error:
            raise ValueError(first_fault(error)) from error
        return self


class SamplesPart(_Part, TableForm):
    """List of samples, with the facts known of each: by a column of the table, or by an array."""

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
            raise ValueError("label and split: expected a table with these columns, found no table")
        if self.ids and (self.text or self.group or self.further):
            raise ValueError("text, group and further: expected a table with these columns, found no table")
        for one in ("label", "split", "text", "group"):
            if getattr(self, one) and getattr(self, f"{one}s"):
                raise ValueError(f"expected one of {one} and {one}s, found both")
        names = set(self.id)
        if not names or "" in names or len(names) != len(self.id) or (ROW_NUMBER in names and len(names) > 1):
            raise ValueError(f"id: expected one column or several different ones, found {self.id}")
        return self


_OF_TABLES = ("time", "columns", "exclude", "labels", "header", "separator")
_LAYOUTS = {
    "files": ("times",),
    "values": ("offsets", "lengths", "times"),
    "table": ("id", *_OF_TABLES),
}
"""The key that says where values are, and those that go with it."""


class ModalityPart(_Part, FeatureColumns):
    """Place of the values of a modality."""

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

    @property
    def has_sample_tables(self) -> bool:
        """Return whether each sample has a table of its own, by the names of the files."""
        return "#" not in self.pattern and is_table(Path(_PLACE.sub("x", self.pattern)))

    @model_validator(mode="after")
    def _one_layout(self) -> Self:
        given = [name for name in _LAYOUTS if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                f"expected one of files, values and table, found {' and '.join(given) or 'none'}"
            )
        if self.files and not placeholders(self.files):
            raise ValueError(f"files: expected a pattern with {{id}}, found {self.files!r}")
        where, own = given[0], _LAYOUTS[given[0]]
        if self.has_sample_tables:
            where, own = f"a table for each sample ({where} = {self.pattern!r})", _OF_TABLES
        elif self.files and self.model_fields_set & {*_OF_TABLES}:
            where = "files that are no tables"
        for other in {name for names in _LAYOUTS.values() for name in names} & self.model_fields_set:
            if other not in own:
                raise ValueError(f"{other} does not go with {where}, only {', '.join(own)}")
        if self.offsets and self.lengths:
            raise ValueError("expected one of offsets and lengths, found both")
        if self.kind == "features" and self.vocabulary_size is not None:
            raise ValueError("vocabulary_size is for tokens")
        return self


class Description(_Part):
    """Content of a TOML file; `docs/arrays.md` has all keys."""

    name: Annotated[str, Field(min_length=1)]
    source: str = ""
    task: TaskPart
    samples: SamplesPart
    splits: dict[Role, str | list[str]] = {}
    modalities: Annotated[dict[Name, ModalityPart], Field(min_length=1)]

    @property
    def patterns(self) -> list[str]:
        """The patterns of the files of single samples."""
        parts = [part for part in self.modalities.values() if part.pattern]
        return [pattern for part in parts for pattern in (part.pattern, part.times) if pattern]

    @property
    def files(self) -> set[str]:
        """The files that are named by themselves."""
        samples = self.samples
        named = [samples.table, samples.ids, samples.labels, samples.splits, samples.texts, samples.groups]
        if not samples.split and not samples.splits:
            named += [given for given in self.splits.values() if isinstance(given, str)]
        for part in self.modalities.values():
            named += [part.values, part.offsets, part.lengths, part.table, part.times]
        files = {name.partition("#")[0] for name in named} - {"", EVERY_OTHER}
        return {name for name in files if not placeholders(name)}


def described(path: Path) -> Description:
    """The description in a TOML file; raises a `DataError` if it is none."""
    given = read_toml(path, largest=LARGEST_DESCRIPTION)
    try:
        return Description.model_validate(given)
    except ValidationError as error:
        raise DataError(f"{path}: {first_fault(error, keys=_keys(given))}") from error


def _keys(given: Mapping[str, Any]) -> list[str]:
    """The dotted keys that a description with these modalities may have."""
    named = given.get("modalities")
    parts: dict[str, type[BaseModel]] = {"task": TaskPart, "samples": SamplesPart}
    parts |= {f"modalities.{name}": ModalityPart for name in (named if isinstance(named, dict) else ())}
    within = [f"{place}.{field}" for place, part in parts.items() for field in part.model_fields]
    return [*Description.model_fields, *within]


def placeholders(pattern: str) -> list[str]:
    """The names in braces in a pattern of files: columns of the samples, or ``id`` for the id."""
    return list(dict.fromkeys(_PLACE.findall(pattern)))


def filled(pattern: str, cells: Mapping[str, Sequence[Any]], row: int) -> str:
    """The pattern with what a sample has in the columns; a column that is empty leaves nothing there."""
    return _PLACE.sub(
        lambda found: "" if cells[found[1]][row] is None else str(cells[found[1]][row]), pattern
    )


def any_of(pattern: str) -> str:
    """The pattern of all files that it could name, for `Path.glob`."""
    parts = _PLACE.split(pattern)
    return "".join("*" if at % 2 else re.sub(r"([*?[])", r"[\1]", part) for at, part in enumerate(parts))


def is_file(path: Path) -> bool:
    """Return whether there is such a file; of an id that can be no name there is none."""
    return os.path.isfile(path)  # noqa: PTH113 `Path.is_file` raises for names that are too long


def plain_path(name: str) -> str:
    """A relative path without detours, by which two that name the same file are the same."""
    return os.path.normpath(name)
