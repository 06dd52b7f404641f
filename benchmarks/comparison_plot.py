"""Draw one score of several comparisons, a panel for each.

Usage: python benchmarks/comparison_plot.py NAME SCORE DIR [DIR ...] [--titles TITLE ...]

Each DIR is of `alignmamba experiment comparison`. The plot goes to docs/images/NAME.svg: a bar and an
interval for each method that stands in all of them, and a line at the best constant.
"""

import argparse
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import written_table
from alignmamba.evaluation.tables import ResultTable
from alignmamba.files import replace_file
from alignmamba.recipes.bench.bench_files import COLOURS, drawn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OURS: Final = "alignmamba"
_FLOOR: Final = "best-constant"


def plot(tables: Sequence[ResultTable], titles: Sequence[str], score: str) -> "Figure":
    """Bars of one score, the first row on top."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    names = [row for row in tables[0].rows if row != _FLOOR and all(row in each.rows for each in tables)]
    with rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(9, 0.6 + 0.32 * len(names)), layout="constrained")
        panels = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
        for axes, table, title in zip(panels, tables, titles, strict=True):
            known = _column(table, score)
            for place, name in enumerate(names):
                mean, low, high = known[name]
                colour = COLOURS[0] if name == _OURS else COLOURS[-1]
                reach = [[mean - low], [high - mean]]
                axes.barh(place, mean, xerr=reach, color=colour, ecolor=COLOURS[7], height=0.7)
            if _FLOOR in known:
                axes.axvline(known[_FLOOR][0], color=COLOURS[1], linestyle="--", linewidth=1)
            title = textwrap.fill(title, 68 // len(tables))
            axes.set(title=title, xlabel=f"{score}, test", xlim=(0, 1), yticks=range(len(names)))
            axes.set_yticklabels(names)
        panels[0].invert_yaxis()
    return figure


def _column(table: ResultTable, score: str) -> dict[str, tuple[float, float, float]]:
    """Row to the mean of one score and the ends of its interval."""
    place, found = table.columns.index(score), {}
    for row, entries in zip(table.rows, table.entries, strict=True):
        entry = entries[place]
        if entry is not None and entry.mean is not None:
            ends = (each if each is not None else entry.mean for each in (entry.low, entry.high))
            found[row] = (entry.mean, *ends)
    return found


def main() -> int:
    """Draw the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help="name of the plot, for example grid-sync")
    parser.add_argument("score", metavar="SCORE", help="column of the comparison, for example accuracy")
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--titles", nargs="+", metavar="TITLE", help="of the panels, in place of folders")
    given = parser.parse_args()
    titles = given.titles or [each.name for each in given.directories]
    if len(titles) != len(given.directories):
        parser.error(f"--titles: found {len(titles)}, expected {len(given.directories)}")
    tables = [
        ResultTable.from_json((each / "tables" / "comparison.json").read_bytes())
        for each in given.directories
    ]
    file = f"{given.name}.svg"
    replace_file(
        written_table.DOCS / "images" / file, drawn(given.name, plot(tables, titles, given.score))[file]
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
