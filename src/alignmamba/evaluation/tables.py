"""Tables of results, each cell a mean with deviation and interval; as JSON, CSV, LaTeX and Markdown."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from alignmamba.contracts import Config, Name
from alignmamba.errors import DataError, first_fault
from alignmamba.evaluation.statistics import UNBOUNDED, Estimate, Mark, over_seeds
from alignmamba.files import csv_text, replace_file

Number = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(pattern=r"^[^\r\n]*$", description="one line")]

_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # At the start of a row these two would be taken for arguments of the \\ before it.
    "[": "{[}",
    "*": "{*}",
    "±": r"$\pm$",
    "≈": r"$\approx$",
    "×": r"$\times$",
    "−": "$-$",
    "–": "--",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "√": r"$\surd$",
    "→": r"$\rightarrow$",
}


_LATEX_MARKS: Mapping[Mark, str] = {"best": r"\textbf{{{}}}", "level": r"\underline{{{}}}", "": "{}"}
_MARKDOWN_MARKS: Mapping[Mark, str] = {"best": "**{}**", "level": "≈ {}", "": "{}"}
_TERMINAL_MARKS: Mapping[Mark, str] = {"best": "{} *", "level": "{} ≈", "": "{}"}


class Entry(Config):
    """One cell: what one method scored in one column."""

    values: tuple[Number | None, ...]
    """One per seed, in the order of the seeds; null where the metric is not defined."""
    mean: Number | None
    """Null where one of the values is."""
    seeds: tuple[int, ...] = ()
    """Range of the values, if known."""
    deviation: Number | None = None
    """Standard deviation over the seeds; null for a single one."""
    low: Number | None = None
    """Lower end of the confidence interval."""
    high: Number | None = None
    """Upper end of the confidence interval."""
    mark: Mark = ""
    """``best``, ``level`` with the best, or nothing."""

    @classmethod
    def of_seeds(
        cls,
        values: Sequence[float],
        *,
        mark: Mark = "",
        bounds: tuple[float, float] = UNBOUNDED,
        estimate: Estimate | None = None,
    ) -> Self:
        """The entry of (n,) values, one per seed, with the interval of an estimate or of `over_seeds`."""
        known = over_seeds(values, bounds=bounds)
        within = estimate or known
        return cls(
            values=tuple(float(value) if math.isfinite(value) else None for value in values),
            mean=known.mean if math.isfinite(known.mean) else None,
            deviation=known.deviation,
            low=within.low,
            high=within.high,
            mark=mark,
        )


class ResultTable(Config):
    """Methods or settings in rows, metrics or conditions in columns."""

    name: Name
    """Name of the files, and of the label in LaTeX."""
    title: Text
    """Title of the table."""
    caption: Text = ""
    """One or two sentences more."""
    row_label: Text
    """Meaning of a row, for example ``method``."""
    rows: tuple[Text, ...]
    """Names of the rows, from the top."""
    columns: tuple[Text, ...]
    """Names of the columns, from the left."""
    digits: Annotated[int, Field(ge=0, le=12)] = 3
    """Decimals shown."""
    entries: tuple[tuple[Entry | None, ...], ...]
    """A row of entries per row, one per column; null where nothing is known."""
    notes: tuple[Text, ...] = ()
    """Plain sentences on how it came about."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for field, names in (("rows", self.rows), ("columns", self.columns)):
            if len(set(names)) != len(names):
                raise ValueError(f"{field}: expected distinct names, found {list(names)}")
        count = len(self.entries)
        if count != len(self.rows):
            raise ValueError(f"entries: expected one row per row name, {len(self.rows)}, found {count}")
        for name, entries in self._lines:
            expected = f"expected one per column, {len(self.columns)}, found {len(entries)}"
            if len(entries) != len(self.columns):
                raise ValueError(f"entries: row {name!r}: {expected}")
        return self

    @property
    def _lines(self) -> list[tuple[str, tuple[Entry | None, ...]]]:
        """Name and entries of each row."""
        return list(zip(self.rows, self.entries, strict=True))

    def to_json(self) -> str:
        """All of it, as `from_json` reads it."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """A table from what `to_json` wrote; a `DataError` names the first field that is wrong."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise DataError(first_fault(error, "table")) from None

    def to_csv(self) -> str:
        """One line per known entry: row, column, mean, deviation, low, high, mark, and every value."""
        known = [
            (row, column, entry)
            for row, entries in self._lines
            for column, entry in zip(self.columns, entries, strict=True)
            if entry is not None
        ]
        seeds = sorted({seed for _, _, entry in known for seed in entry.seeds})
        most = max((len(entry.values) for _, _, entry in known), default=0)
        names = [f"seed_{seed}" for seed in seeds] or [f"value_{number}" for number in range(1, most + 1)]
        fields = ("mean", "deviation", "low", "high", "mark")
        rows: list[list[object]] = [[self.row_label, "column", *fields, *names]]
        for row, column, entry in known:
            own = [f"seed_{seed}" for seed in entry.seeds] if seeds else names
            values = dict(zip(own, entry.values, strict=False))
            facts = [getattr(entry, field) for field in fields]
            rows.append([row, column, *facts, *map(values.get, names)])
        return csv_text(rows)

    def to_latex(self) -> str:
        """A booktabs float: the best in bold, what is level with it underlined, notes in the caption."""

        def cell(entry: Entry | None) -> str:
            interval = _latex(self._interval(entry))
            shown = self._cell(entry, _LATEX_MARKS, "--", _latex)
            return f"{shown} {{\\scriptsize {interval}}}" if interval else shown

        said = (self.title, self.caption, *self.notes, *self._legend("bold", "underlined"))
        caption = " ".join(_sentence(part) for part in said if part)
        lines = [
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{_latex(caption)}}}",
            rf"\label{{tab:{self.name}}}",
            rf"\begin{{tabular}}{{l{'c' * len(self.columns)}}}",
            r"\toprule",
            " & ".join(map(_latex, (self.row_label, *self.columns))) + r" \\",
            r"\midrule",
            *(" & ".join([_latex(row), *map(cell, entries)]) + r" \\" for row, entries in self._lines),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"

    def to_markdown(self) -> str:
        """A heading, a table with the best in bold and an ≈ at what is level, and the notes as a list."""

        def cell(entry: Entry | None) -> str:
            return f"{self._cell(entry, _MARKDOWN_MARKS, '–')} {self._interval(entry)}".rstrip()

        lines = [
            _pipes(map(_markdown, (self.row_label, *self.columns))),
            _pipes(["---", *["---:"] * len(self.columns)]),
            *(_pipes([_markdown(row), *map(cell, entries)]) for row, entries in self._lines),
        ]
        notes = "\n".join(f"- {_markdown(note)}" for note in (*self.notes, *self._legend("bold", "≈")))
        parts = (f"## {_markdown(self.title)}", _markdown(self.caption), "\n".join(lines), notes)
        return "\n\n".join(part for part in parts if part) + "\n"

    def shown(self, *, intervals: bool = True) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Header and rows as short text for a terminal, with a * at the best and an ≈ at what is level; a
        column with intervals is followed by one of them.
        """
        header, columns = [self.row_label], [list(self.rows)]
        for place, name in enumerate(self.columns):
            entries = [row[place] for row in self.entries]
            header.append(name)
            columns.append([self._cell(entry, _TERMINAL_MARKS, "–") for entry in entries])
            if intervals and any(entry is not None and entry.low is not None for entry in entries):
                header.append("95 % interval")
                columns.append([self._interval(entry) for entry in entries])
        return tuple(header), [tuple(row) for row in zip(*columns, strict=True)]

    def shown_notes(self, *, intervals: bool = True) -> list[str]:
        """Caption, notes and the legend of what is shown on a terminal."""
        elsewhere = f"There is no room for intervals here: {self.name}.md has them."
        return [
            *([self.caption] if self.caption else []),
            *self.notes,
            *([elsewhere] if self._has_intervals and not intervals else []),
            *self._legend("*", "≈", intervals=intervals),
        ]

    def of_columns(self, names: Sequence[str]) -> "ResultTable":
        """The table with the named of its columns; with all if it has no such column."""
        places = [place for place, name in enumerate(self.columns) if name in names]
        if not places:
            return self
        columns = tuple(self.columns[place] for place in places)
        entries = tuple(tuple(row[place] for place in places) for row in self.entries)
        return self.model_copy(update={"columns": columns, "entries": entries})

    def write(self, directory: Path) -> list[Path]:
        """Put the table into a directory as ``name``.json, .csv, .tex and .md and return the files; a
        `DataError` if that is not possible.
        """
        texts = (self.to_json(), self.to_csv(), self.to_latex(), self.to_markdown())
        paths = [directory / f"{self.name}.{ending}" for ending in ("json", "csv", "tex", "md")]
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for path, text in zip(paths, texts, strict=True):
                replace_file(path, text.encode())
        except OSError as error:
            raise DataError(f"tables {directory}: cannot be written: {error.strerror}") from error
        return paths

    def _cell(
        self,
        entry: Entry | None,
        marks: Mapping[Mark, str],
        nothing: str,
        escape: Callable[[str], str] = str,
    ) -> str:
        """Mean and deviation with the mark, or what stands where nothing is known."""
        if entry is None or entry.mean is None:
            return nothing
        mean = self._number(entry.mean)
        both = mean if entry.deviation is None else f"{mean} ± {self._number(entry.deviation)}"
        return marks[entry.mark].format(escape(both))

    def _interval(self, entry: Entry | None) -> str:
        if entry is None or entry.mean is None or entry.low is None or entry.high is None:
            return ""
        return f"[{self._number(entry.low)}, {self._number(entry.high)}]"

    def _number(self, value: float) -> str:
        shown = f"{value:.{self.digits}f}"
        return shown if shown.strip("-0.") else shown.removeprefix("-")  # a rounded -0.0 is not negative

    @property
    def _has_intervals(self) -> bool:
        return any(entry is not None and entry.low is not None for row in self.entries for entry in row)

    def _legend(self, best: str, level: str, *, intervals: bool = True) -> list[str]:
        """Shown parts of those that exist."""
        entries = [entry for row in self.entries for entry in row if entry is not None]
        marks = {entry.mark for entry in entries}
        there = {
            "mean ± standard deviation over seeds": any(entry.deviation is not None for entry in entries),
            "[95 % interval]": intervals and self._has_intervals,
            f"{best}: best": "best" in marks,
            f"{level}: level with the best": "level" in marks,
        }
        parts = "; ".join(part for part, shown in there.items() if shown)
        return [f"Shown: {parts}."] if parts else []


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _latex(text: str) -> str:
    """The text with every character that LaTeX takes for itself written out."""
    return "".join(_LATEX.get(character, character) for character in text)


def _markdown(text: str) -> str:
    """Text with what Markdown takes for itself escaped; an underscore within a word is kept."""
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", re.sub(r"[\\|*`<]", r"\\\g<0>", text))


def _pipes(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
