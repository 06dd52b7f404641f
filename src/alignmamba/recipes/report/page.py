"""The page itself: what was gathered, drawn and put into one HTML file that asks nothing of the network."""

import base64
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from alignmamba import __version__
from alignmamba.errors import AlignMambaError, CheckpointError, ConfigError
from alignmamba.extras import require
from alignmamba.files import replace_file
from alignmamba.recipes.experiments.catalogue import EXPERIMENTS
from alignmamba.recipes.experiments.grid_directory import PLAN
from alignmamba.recipes.report import sections, sentences
from alignmamba.recipes.report.contents import gather
from alignmamba.recipes.report.findings import RUN, RUNS, Gathered
from alignmamba.recipes.report.model_study import study
from alignmamba.recipes.report.page_parts import package_text, script_json, template_environment
from alignmamba.recipes.report.run_comparison import gather_runs
from alignmamba.recipes.report.viewer_data import viewer_data
from alignmamba.recipes.run_directory import check_file

TITLES: Final = {RUN: "Training run", RUNS: "Runs compared"}
"""Title of a page that is about no experiment."""
MOST_PAIRS: Final = 15
"""Pairs of runs whose agreement is shown."""
_STYLES = ("palette.css", "page.css")
"""Parts of the page's style, in their order."""
_SCRIPTS = ("elements.js", "confusion.js", "viewer.js", "samples.js")
"""Parts of the page's script, in their order."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """Result of the writing."""

    path: Path
    size: int
    """Bytes."""
    cells: Mapping[str, int]
    """State to the number of cells in it."""
    note: str = ""
    """Reason why model and corpus of a single run have no part in it."""


def write_page(
    directory: Path | Sequence[Path],
    out: Path | None = None,
    *,
    data: str | None = None,
    files_only: bool = False,
) -> Page:
    """Write one HTML file about an experiment or a run, finished or not, or about several runs to compare. It
    ends in ``.html``, by default ``report.html`` in the directory, and is replaced. `data` is the new place
    of the corpus of a single run; `files_only` keeps corpus and model out. Raises an `AlignMambaError` if
    something is damaged, lacking, or does not fit.
    """
    directories = [directory] if isinstance(directory, Path) else list(directory)
    path = check_page(directories, out, data=data, files_only=files_only)
    gathered = gather(directories[0]) if len(directories) == 1 else gather_runs(directories)
    if gathered.kind == RUN and not files_only:
        gathered = _studied(gathered, data)
    content = render(gathered).encode()
    replace_file(path, content)
    cells = sentences.states(gathered)
    return Page(path=path, size=len(content), cells=cells, note=gathered.not_studied)


def check_page(
    directories: Sequence[Path], out: Path | None = None, *, data: str | None = None, files_only: bool = False
) -> Path:
    """Place of the page that `write_page` would write; what cannot be made is refused before anything is read
    or written.
    """
    require("report", "experiments", "jinja2", "matplotlib", "scipy")
    if not directories:
        raise ConfigError("report: expected the directory of an experiment or a run, found none")
    for directory in directories:
        if not directory.exists():
            raise CheckpointError(f"{directory}: no such directory")
        if not directory.is_dir():
            raise CheckpointError(
                f"{directory}: expected the directory of an experiment or a run, found a file"
            )
    if len(directories) > 1 and out is None:
        raise ConfigError(
            "out: several runs are compared, expected a file for the page, for example --out comparison.html"
        )
    if data is not None and (len(directories) > 1 or (directories[0] / PLAN).is_file()):
        raise ConfigError("data: goes with a single run, whose corpus it is")
    if data is not None and files_only:
        raise ConfigError("data: does not go with files alone; choose one of them")
    path = directories[0] / "report.html" if out is None else out
    check_file(path, ".html")
    return path


def _studied(gathered: Gathered, data: str | None) -> Gathered:
    """Page with model and corpus; only a corpus that was asked for must be there."""
    found = gathered.found[0]
    if found.state != "finished" or found.samples is None:
        if data is not None:
            raise ConfigError(f"data: run {gathered.directory} is not finished, so its model cannot be asked")
        return gathered
    try:
        known = study(gathered.directory, found.samples, data=data)
    except AlignMambaError as error:
        if data is not None:
            raise
        why = f"Made from the files of the run alone, its corpus could not be used: {str(error).rstrip('.')}."
        return replace(gathered, not_studied=why)
    return replace(gathered, study=known, found=(replace(found, plans=known.plans or found.plans),))


def render(gathered: Gathered) -> str:
    """The page as text."""
    from markupsafe import Markup

    environment = template_environment()
    environment.filters |= {
        "fixed": sentences.fixed,
        "rounded": sentences.rounded,
        "places": sentences.places,
        "interval": sentences.interval_words,
        "thousands": "{:,}".format,
        "base64": lambda content: base64.b64encode(content).decode(),
    }
    data = viewer_data(gathered)
    return environment.from_string(package_text("page.html.j2")).render(
        version=__version__,
        markup=Markup,
        style=Markup("".join(map(package_text, _STYLES))),
        script=Markup("".join(map(package_text, _SCRIPTS))),
        data=Markup(script_json(data)),
        title=_title(gathered.kind),
        gathered=gathered,
        experiment=gathered.experiment,
        command=shlex.join(gathered.experiment.command),
        summary=sentences.summary(gathered),
        tables=sections.result_tables(gathered),
        forests=sections.forests(gathered),
        agreement=gathered.agreement[:MOST_PAIRS],
        worth=sections.worth_rows(gathered),
        quality=sections.quality(gathered),
        class_rows=sections.class_rows(gathered),
        legend=sections.legend(gathered),
        missing=sections.missing_rates(gathered),
        overlaid=sections.overlaid(gathered),
        training=sections.training(gathered),
        undone=sentences.undone(gathered),
        facts=sentences.facts(gathered),
        machine=sentences.machine(gathered),
        settings=sentences.settings(gathered),
        **{name: bool(values) for name, values in data.items()},
    )


def _title(kind: str) -> str:
    """Title of an experiment, or of runs; an experiment that this version does not know has its name."""
    return EXPERIMENTS[kind].title if kind in EXPERIMENTS else TITLES.get(kind, kind)
