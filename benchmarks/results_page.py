"""Write a page of docs/results from directories of `alignmamba experiment`.

Usage: python benchmarks/results_page.py PAGE DIR [DIR ...] [--tables PATTERN ...]

Each directory becomes a section of docs/results/PAGE.md with its commands, its plots and its tables. Plots go
to docs/images, tables as CSV beside the page. What stands outside of the marks of the page is kept.
"""

import argparse
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import written_table
from alignmamba.evaluation.tables import ResultTable
from alignmamba.files import replace_file
from alignmamba.recipes.experiments.cells import ExperimentRecord
from alignmamba.recipes.experiments.grid_directory import ExperimentDirectory
from alignmamba.recipes.tuning.tuning_directory import TuningDirectory

BEGIN: Final = "<!-- the sections are written by benchmarks/results_page.py -->"


def section(directory: Path, docs: Path, page: str, patterns: Sequence[str] = ("*",)) -> str:
    """Section of one experiment, whose plots and tables are copied into the documentation."""
    plan = ExperimentDirectory.open(directory).plan()
    name = re.sub(r"[^\w-]+", "-", plan.corpus.name)
    commands = "\n".join(map(shown, (*searches(plan, directory), plan.command)))
    lines = [f"## {plan.corpus.name}", f"```\n{commands}\n```"]
    for path in sorted((directory / "tables").glob("*.json")):
        table = ResultTable.from_json(path.read_text(encoding="utf-8"))
        if not any(fnmatch(table.name, pattern) for pattern in patterns):
            continue
        file = f"{page}-{name}-{table.name.removeprefix(f'{plan.experiment}-')}"
        plot = directory / "figures" / f"{table.name}.svg"
        if plot.is_file():
            shutil.copyfile(plot, docs / "images" / f"{file}.svg")
            lines.append(f"![{table.title}](../images/{file}.svg)")
        shutil.copyfile(path.with_suffix(".csv"), docs / "results" / f"{file}.csv")
        lines.append("\n".join(narrow(f"#{table.to_markdown()}".splitlines())).strip())
    return "\n\n".join(lines)


def searches(plan: ExperimentRecord, directory: Path) -> Iterator[Sequence[str]]:
    """Commands of the searches whose settings a comparison has taken."""
    for path in plan.settings.get("tuned", ()):
        beside = directory.parent / path
        yield TuningDirectory.open(beside if beside.is_dir() else Path(path)).record().command


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
    parser.add_argument("page", metavar="PAGE", help="name of the page, for example training-size")
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--tables", nargs="+", default=["*"], metavar="PATTERN", help="names of tables")
    given = parser.parse_args()
    path = written_table.DOCS / "results" / f"{given.page}.md"
    empty = f"# {given.page}\n\n{BEGIN}\n{written_table.END}\n"
    page = path.read_text(encoding="utf-8") if path.is_file() else empty
    sections = [section(each, written_table.DOCS, given.page, given.tables) for each in given.directories]
    replace_file(path, written_table.renewed(page, BEGIN, "\n\n".join(sections)).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
