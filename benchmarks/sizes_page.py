"""Write docs/results/training-size.md from directories of `alignmamba experiment sizes`.

Usage: python benchmarks/sizes_page.py DIR [DIR ...]

Each directory becomes a section with its command, its plots and its tables. Plots go to docs/images, tables
as CSV beside the page. What stands outside of the marks of the page is kept.
"""

import argparse
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import written_table
from alignmamba.evaluation.tables import ResultTable
from alignmamba.files import replace_file
from alignmamba.recipes.experiments.grid_directory import ExperimentDirectory

PAGE: Final = written_table.DOCS / "results" / "training-size.md"
BEGIN: Final = "<!-- the sections are written by benchmarks/sizes_page.py -->"
EMPTY: Final = f"""# Training sizes

Methods by the number of samples that they learn from ([how](../experiments.md#training-sizes)). Every number
is made by the command above it; `FOLDER` is where a corpus lies. The tables as CSV, with every seed's value,
lie beside this page.

{BEGIN}

{written_table.END}
"""
"""The page before anything was written."""


def section(directory: Path, docs: Path) -> str:
    """Section of one experiment, whose plots and tables are copied into the documentation."""
    plan = ExperimentDirectory.open(directory).plan()
    if plan.experiment != "sizes":
        raise SystemExit(f"{directory}: found experiment {plan.experiment!r}, expected sizes")
    name = re.sub(r"[^\w-]+", "-", plan.corpus.name)
    lines = [f"## {plan.corpus.name}", f"```\n{shown(plan.command)}\n```"]
    for path in sorted((directory / "tables").glob("*.json")):
        table = ResultTable.from_json(path.read_text(encoding="utf-8"))
        file = f"training-size-{name}-{table.name.removeprefix('sizes-')}"
        plot = directory / "figures" / f"{table.name}.svg"
        if plot.is_file():
            shutil.copyfile(plot, docs / "images" / f"{file}.svg")
            lines.append(f"![{table.title}](../images/{file}.svg)")
        shutil.copyfile(path.with_suffix(".csv"), docs / "results" / f"{file}.csv")
        lines.append("\n".join(narrow(f"#{table.to_markdown()}".splitlines())).strip())
    return "\n\n".join(lines)


def shown(command: Sequence[str]) -> str:
    """Command of an experiment, in which a folder of this machine is called FOLDER."""
    words = [re.sub(r"^(/|~|\.\./).*/", "FOLDER/", word) for word in command]
    return shlex.join(words)


def narrow(lines: Sequence[str]) -> Iterator[str]:
    """The lines of Markdown, notes broken at 110 columns."""
    for line in lines:
        indent = "  " if line.startswith("- ") else ""
        if line.startswith("|") or len(line) <= 110:
            yield line
        else:
            yield from textwrap.wrap(line, 110, subsequent_indent=indent, break_long_words=False)


def main() -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR")
    given = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else EMPTY
    sections = "\n\n".join(section(directory, written_table.DOCS) for directory in given.directories)
    replace_file(PAGE, written_table.renewed(page, BEGIN, sections).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
