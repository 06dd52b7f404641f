"""Write docs/results/pretraining.md from pretrained runs and experiments that start from them.

Usage: python benchmarks/pretraining_page.py DIR [DIR ...]

Each DIR is of `alignmamba experiment sizes --pretrained RUN`, and becomes a section: the command of each run,
a plot and a table of its losses over the epochs, the command of the experiment, its plots and tables. Plots
go to docs/images, tables as CSV beside the page. What stands outside of the marks of the page is kept.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import results_page
import written_table
from alignmamba.files import replace_file
from alignmamba.recipes.bench.bench_files import COLOURS, drawn, why_no_plots
from alignmamba.recipes.experiments.grid_directory import ExperimentDirectory
from alignmamba.recipes.run_directory import ENVIRONMENT
from alignmamba.recipes.run_records import RunEnvironment, read_log, read_record
from alignmamba.training.logs import LOG

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE: Final = written_table.DOCS / "results" / "pretraining.md"
BEGIN: Final = "<!-- the sections are written by benchmarks/pretraining_page.py -->"
_SHOWN: Final = 6
"""Epochs in a table of losses, at most."""
_SIDES: Final = {"train": "--", "valid": "-"}
"""Side of the losses to the style of its lines."""


def section(directory: Path, docs: Path) -> str:
    """Section of one experiment and of the runs that it starts from."""
    plan = ExperimentDirectory.open(directory).plan()
    name = re.sub(r"[^\w-]+", "-", plan.corpus.name)
    parts = []
    for number, path in enumerate(plan.settings["pretrained"]):
        beside = directory.parent / path
        run = beside if beside.is_dir() else Path(path)
        file = f"pretraining-{name}-losses" + (f"-{number}" if number else "")
        parts += losses(run, file, docs)
    heading, *rest = results_page.section(directory, docs, "pretraining", ("sizes-accuracy*",)).split("\n\n")
    return "\n\n".join([heading, *parts, *rest])


def losses(run: Path, file: str, docs: Path) -> list[str]:
    """Command of a pretrained run, and its losses on valid over the epochs."""
    log = read_log(run / LOG)
    command = read_record(run / ENVIRONMENT, RunEnvironment).command
    parts = [f"```\n{results_page.shown(['alignmamba', *command[1:]])}\n```"]
    if not why_no_plots():
        plot = f"{file}.svg"
        replace_file(docs / "images" / plot, drawn(file, _curves(log))[plot])
        parts.append(f"![Losses over the epochs](../images/{file}.svg)")
    return [*parts, _table(log)]


def _table(log: dict[str, tuple[float | None, ...]]) -> str:
    """Losses on valid at some epochs."""
    epochs = [int(epoch or 0) for epoch in log["epoch"]]
    best = min(range(len(epochs)), key=lambda place: log["valid/loss/total"][place] or 0)
    step = max(1, len(epochs) // (_SHOWN - 1))
    places = sorted({*range(0, len(epochs), step), best})
    names = [name for name in log if name.startswith("valid/loss/")]
    head = "".join(f" epoch {epochs[place]}{' (kept)' * (place == best)} |" for place in places)
    lines = [f"| loss on valid |{head}", f"| --- |{' ---: |' * len(places)}"]
    for name in names:
        values = "".join(f" {log[name][place]:.3f} |" for place in places)
        lines.append(f"| {name.removeprefix('valid/loss/')} |{values}")
    return "\n".join(lines)


def _curves(log: dict[str, tuple[float | None, ...]]) -> "Figure":
    """A line per loss over the epochs: of valid solid, of train dashed."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    names = [name.removeprefix("valid/loss/") for name in log if name.startswith("valid/loss/")]
    with rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(9, 4.5), layout="constrained")
        axes = figure.subplots()
        for number, name in enumerate(each for each in names if each != "total"):
            for side, style in _SIDES.items():
                values = [float("nan") if value is None else value for value in log[f"{side}/loss/{name}"]]
                label = name if side == "valid" else None
                axes.plot(
                    [epoch or 0 for epoch in log["epoch"]],
                    values,
                    color=COLOURS[number % len(COLOURS)],
                    linestyle=style,
                    label=label,
                )
        axes.set(xlabel="epoch", title="Weighted losses: valid solid, train dashed")
        axes.grid(visible=True, alpha=0.25)
        figure.legend(fontsize="small", loc="outside right upper")
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR")
    given = parser.parse_args(arguments)
    sections = "\n\n".join(section(directory, written_table.DOCS) for directory in given.directories)
    page = PAGE.read_text(encoding="utf-8")
    replace_file(PAGE, written_table.renewed(page, BEGIN, sections).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
