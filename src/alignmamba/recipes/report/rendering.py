"""The page itself: what was gathered, drawn and put into one HTML file that asks nothing of the network."""

import base64
import json
import math
import os
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from alignmamba import __version__
from alignmamba.contracts import Predictions, Task
from alignmamba.errors import AlignMambaError, CheckpointError, ConfigError
from alignmamba.evaluation.calibration import class_scores, reliability
from alignmamba.evaluation.metrics import HIGHER_IS_BETTER
from alignmamba.extras import require
from alignmamba.files import replace_file
from alignmamba.recipes.report.comparing import gather_runs
from alignmamba.recipes.report.drawing import (
    GLYPHS,
    MOST_RUNS,
    NUM_COLOURS,
    Drawing,
    forest_drawing,
    loss_drawing,
    metric_drawing,
    metric_limits,
    missing_rate_drawing,
    overlaid_drawing,
    reliability_drawing,
    scatter_drawing,
)
from alignmamba.recipes.report.gathering import (
    EXPERIMENT,
    RUN,
    RUNS,
    Entry,
    Figure,
    Found,
    Gathered,
    ResultTable,
    Samples,
    gather,
)
from alignmamba.recipes.report.studying import Study, Tokens, study
from alignmamba.recipes.run_directory import plain

if TYPE_CHECKING:
    from markupsafe import Markup

TITLES: Final = {
    "comparison": "Comparison of methods",
    "missing": "Missing modalities",
    "ablation": "Ablation",
    "distance": "Distance between modalities",
    "plans": "Transport plans",
    "efficiency": "Efficiency",
    RUN: "Training run",
    RUNS: "Runs compared",
}
"""Name of an experiment to the page's title; an experiment of another name is titled by it."""
_SCRIPTS = ("elements.js", "viewer.js", "samples.js")
"""Parts of the page's script, in their order."""
_MOST_PLACES = 9
"""Digits after the point, beyond which a number is written with a power of ten."""
_MOST_PROBABILITIES = 12
"""Classes whose probabilities a page holds for each sample; of more classes, the most probable ones."""
_STATES = {"failed": "failed", "unfinished": "begun, not finished", "pending": "pending"}


MOST_CLASSES: Final = 20
"""Classes of a confusion matrix that is shown whole; of more, those that are confused most. So many class
scores are shown as well."""
MOST_FORESTS: Final = 40
"""Columns of tables that are drawn."""
MOST_PAIRS: Final = 15
"""Pairs of runs whose agreement is shown."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """What was written."""

    path: Path
    size: int
    """Bytes."""
    cells: Mapping[str, int]
    """State to the number of cells in it."""
    note: str = ""
    """Why model and corpus of a single run have no part in it."""


def write_page(
    directory: Path | Sequence[Path],
    out: Path | None = None,
    *,
    data: str | None = None,
    files_only: bool = False,
) -> Page:
    """Write one HTML file about an experiment, finished or not, about a single run, or about several runs.

    Args:
        directory: Of the experiment or the run; several runs are compared.
        out: The file, by default ``report.html`` in that directory. One that exists is replaced if its name
            ends in ``.html``. For several runs it must be given.
        data: Where the corpus of a single run lies now; by default where it lay in training.
        files_only: Leave corpus and model alone, also of a single run.

    Raises:
        CheckpointError: If the directory is neither, or a file in it is damaged.
        ConfigError: If the page cannot be written there, `data` is not the corpus of the run, or a package is
            not installed.
        DataError: If `data` cannot be read.
    """
    directories = [directory] if isinstance(directory, Path) else list(directory)
    path = check_page(directories, out, data=data, files_only=files_only)
    gathered = gather(directories[0]) if len(directories) == 1 else gather_runs(directories)
    if gathered.experiment.experiment == RUN and not files_only:
        gathered = _studied(gathered, data)
    content = render(gathered).encode()
    replace_file(path, content)
    return Page(path=path, size=len(content), cells=_states(gathered), note=gathered.not_studied)


def check_page(
    directories: Sequence[Path], out: Path | None = None, *, data: str | None = None, files_only: bool = False
) -> Path:
    """Refuse a page that cannot be made, before anything is read or written.

    Args:
        directories: Of one experiment or run, or of several runs.
        out: As for `write_page`.
        data: As for `write_page`.
        files_only: As for `write_page`.

    Returns:
        Where the page goes.

    Raises:
        CheckpointError: If a directory is not there.
        ConfigError: If a package is not installed, the page cannot be written there, or the arguments do not
            fit each other.
    """
    require("report", "experiments", "jinja2", "matplotlib", "scipy")
    if not directories:
        raise ConfigError("report: expected the directory of an experiment or a run, found none")
    for directory in directories:
        if not directory.is_dir():
            found = (
                "expected the directory of an experiment or a run, found a file"
                if directory.exists()
                else "no such directory"
            )
            raise CheckpointError(f"{directory}: {found}")
    if len(directories) > 1 and out is None:
        raise ConfigError(
            "out: several runs are compared, expected a file for the page, for example --out comparison.html"
        )
    if data is not None and (len(directories) > 1 or (directories[0] / EXPERIMENT).is_file()):
        raise ConfigError("data: goes with a single run, whose corpus it is")
    if data is not None and files_only:
        raise ConfigError("data: does not go with files alone; choose one of them")
    path = directories[0] / "report.html" if out is None else out
    _check_place(path)
    return path


def _studied(gathered: Gathered, data: str | None) -> Gathered:
    """With what model and corpus add; a corpus that was asked for must be there, the run's own may be
    gone.
    """
    found = gathered.found[0]
    if found.state != "done" or found.samples is None:
        if data is not None:
            raise ConfigError(f"data: run {gathered.directory} is not finished, so its model cannot be asked")
        return gathered
    try:
        known = study(gathered.directory, found.samples, data=data)
    except AlignMambaError as error:
        if data is not None:
            raise
        reason = str(error).rstrip(".")
        return replace(
            gathered,
            not_studied=f"Made from the files of the run alone, its corpus could not be used: {reason}.",
        )
    return replace(gathered, study=known, found=(replace(found, plans=known.plans or found.plans),))


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise ConfigError(f"out {path}: a directory is there, expected a file")
    if path.exists() and path.suffix != ".html":
        raise ConfigError(f"out {path}: is there already and does not end in .html, choose another --out")
    if not path.parent.is_dir():
        raise ConfigError(f"out {path}: there is no directory {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"out {path}: directory {path.parent} cannot be written to")


def render(gathered: Gathered) -> str:
    """The page as text."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    # Everything is escaped but these: files of the package itself, SVG drawn here (which holds no words of
    # others), JSON made safe.
    package = files("alignmamba.recipes.report")
    template = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(package.joinpath("page.html.j2").read_text(encoding="utf-8"))
    experiment = gathered.experiment
    title = TITLES.get(experiment.experiment, experiment.experiment)
    series = list(
        dict.fromkeys(
            [cell.row for cell in experiment.cells] + [row for table in gathered.tables for row in table.rows]
        )
    )
    confusions = _confusions(gathered)
    plans = _plans(gathered)
    samples = _samples(gathered)
    return template.render(
        title=title,
        gathered=gathered,
        experiment=experiment,
        style=Markup(package.joinpath("page.css").read_text(encoding="utf-8")),
        script=Markup("".join(package.joinpath(name).read_text(encoding="utf-8") for name in _SCRIPTS)),
        summary=_summary(gathered),
        tables=_shown_tables(gathered),
        missing=_missing_drawings(gathered, series),
        forests=_forests(gathered),
        overlaid=_overlaid(gathered),
        differing=gathered.differing,
        agreement=_agreement(gathered),
        worth=_worth(gathered),
        quality=_quality(gathered),
        class_rows=_class_rows(gathered),
        study_notes=(gathered.study.notes if gathered.study else ()),
        legend=[
            {"name": name, "glyph": GLYPHS[number % len(GLYPHS)], "colour": number % NUM_COLOURS}
            for number, name in enumerate(series)
        ],
        figures=[_embedded(figure) for figure in gathered.figures],
        training=_training(gathered),
        confusions=bool(confusions),
        plans=bool(plans),
        samples=bool(samples),
        data=_script_json({"confusions": confusions, "plans": plans, "samples": samples}),
        undone=_undone(gathered),
        versions=[*_facts_of_machine(gathered), *_versions(gathered)],
        facts=_facts(gathered),
        command=shlex.join(experiment.command),
        settings=_settings(gathered),
        version=__version__,
        markup=Markup,
    )


def _script_json(value: Any) -> "Markup":
    """JSON that cannot end the script element that it stands in."""
    from markupsafe import Markup

    text = json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


# Words


def _states(gathered: Gathered) -> dict[str, int]:
    """Runs by state; several places of a table may rest on one run."""
    counts = Counter({found.cell.key: found.state for found in gathered.found}.values())
    return {state: counts[state] for state in ("done", "failed", "unfinished", "pending")}


def _summary(gathered: Gathered) -> str:
    kinds = {RUN: _run_words, RUNS: _runs_words}
    words = kinds.get(gathered.experiment.experiment, _experiment_words)(gathered)
    return " ".join([*words, *_best_words(gathered)])


def _run_words(gathered: Gathered) -> list[str]:
    found = gathered.found[0]
    epochs = _counted(len(found.log.get("epoch", ())), "epoch")
    return [
        f"{found.cell.row} on the corpus {gathered.experiment.corpus.name}, seed {found.cell.seed}.",
        "The run is finished." if found.state == "done" else f"The run is not finished: {epochs} so far.",
        *_score_words(gathered),
    ]


def _score_words(gathered: Gathered) -> list[str]:
    """The score that a run was selected by, on test where it has one."""
    for table in gathered.tables:
        chosen = gathered.found[0].selected_by
        column = table.columns.index(chosen) if chosen in table.columns else 0
        for role in sorted(table.rows, key=("test", "valid", "train").index):
            entry = table.entries[table.rows.index(role)][column] if table.columns else None
            if entry is not None and entry.mean is not None:
                places = _places(entry.mean, table.digits)
                interval = _interval_words(entry, places)
                reach = f" (95 % interval {interval})" if interval else ""
                return [
                    f"On {role}, {table.columns[column].replace('_', ' ')}"
                    f" {_fixed(entry.mean, places)}{reach}."
                ]
    return []


def _runs_words(gathered: Gathered) -> list[str]:
    experiment, states = gathered.experiment, _states(gathered)
    words = [f"{_counted(len(gathered.found), 'run')} on {experiment.corpus.name}."]
    if ", " in experiment.corpus.checksum:
        words.append("They were trained on different corpora, so their scores need not mean the same.")
    undone = len(gathered.found) - states["done"]
    return [*words, f"{_counted(undone, 'run')} of them not finished."] if undone else words


def _experiment_words(gathered: Gathered) -> list[str]:
    experiment, states = gathered.experiment, _states(gathered)
    total = sum(states.values())
    rows = _counted(
        len({cell.row for cell in experiment.cells}),
        gathered.tables[0].row_label if gathered.tables else "row",
    )
    task = f", {_task_words(experiment.task)}" if experiment.task else ""
    size = f"{_counted(len(experiment.seeds), 'seed')}, {_counted(total, 'training run')}"
    words = [f"{rows} on the corpus {experiment.corpus.name}{task}; {size}."]
    if states["done"] == total:
        return [*words, "All of them are done."]
    begun = f"{states['unfinished']} begun, " if states["unfinished"] else ""
    words.append(
        f"Of these, {states['done']} done, {states['failed']} failed, {begun}{states['pending']} pending."
    )
    if states["unfinished"] or states["pending"]:
        words.append("The experiment is not finished, and its numbers can change.")
    return words


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _task_words(task: Task) -> str:
    if task.kind == "classification":
        return f"classification into {len(task.classes)} classes"
    return (
        "regression"
        if task.label_range is None
        else "regression from {:g} to {:g}".format(*task.label_range).replace("-", "−")
    )


def _best_words(gathered: Gathered) -> list[str]:
    """The winner of the first column of the first table, and who is level with it."""
    place = _best_row(gathered)
    if place is None:
        return []
    table = gathered.tables[0]
    entry = table.entries[place][0]
    assert entry is not None
    level = [
        name
        for name, row in zip(table.rows, table.entries, strict=True)
        if row[0] is not None and row[0].mark == "level"
    ]
    best = f"the best is {table.rows[place]} with {_mean_words(entry, table.digits)}"
    words = f"In “{table.title}”, column {table.columns[0].replace('_', ' ')}, {best}"
    return [f"{words}; not significantly worse: {', '.join(level)}." if level else f"{words}."]


def _best_row(gathered: Gathered) -> int | None:
    for table in gathered.tables[:1]:
        for place, row in enumerate(table.entries):
            if row and row[0] is not None and row[0].mark == "best":
                return place
    return None


def _mean_words(entry: Entry, digits: int) -> str:
    places = _places(entry.mean, digits)
    mean = _fixed(entry.mean, places)
    return mean if entry.deviation is None else f"{mean}\u00a0±\u00a0{_fixed(entry.deviation, places)}"


def _rounded(value: float | None, digits: int) -> str:
    """A number with that many digits after the point, fewer of a large one and more of a tiny one; a dash
    where it is not defined.
    """
    return "–" if value is None or not math.isfinite(value) else _fixed(value, _places(value, digits))


def _fixed(value: float | None, places: int) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return (f"{value:,.{places}f}" if places <= _MOST_PLACES else f"{value:.1e}").replace("-", "−")


def _places(value: float | None, digits: int) -> int:
    """Digits after the point that show a number of that size: six digits of a large one, two of one that
    would be shown as zero.
    """
    if value is None or not math.isfinite(value) or value == 0:
        return digits
    size = math.floor(math.log10(abs(value)))
    return 1 - size if round(value, digits) == 0 else min(digits, max(0, 5 - size))


def _label(found: Found, experiment: str) -> str:
    """Row, column and seed of a cell."""
    return f"{_place(found, experiment)}, seed {found.cell.seed}"


def _place(found: Found, experiment: str) -> str:
    column = found.cell.column
    if experiment == "missing" and column.replace(".", "", 1).isdecimal():
        column = f"{100 * float(column):.0f} % missing"
    return f"{found.cell.row}, {column}" if column else found.cell.row


# Sections


def _shown_tables(gathered: Gathered) -> list[dict[str, Any]]:
    """Tables with what is said below them, which is said once below tables that follow each other and share
    it.
    """
    shown = [_shown_table(table, len(gathered.experiment.seeds)) for table in gathered.tables]
    for table, following in pairwise(shown):
        if (table["legend"], table["notes"]) == (following["legend"], following["notes"]):
            table["legend"], table["notes"] = "", ()
    return shown


def _shown_table(table: ResultTable, seeds: int) -> dict[str, Any]:
    over_seeds = any(entry is not None and len(entry.values) > 1 for row in table.entries for entry in row)

    def shown(entry: Entry | None) -> dict[str, Any] | None:
        if entry is None:
            return None
        places = _places(entry.mean, table.digits)
        few = over_seeds and len(entry.values) not in (0, seeds)
        return {
            "mean": _fixed(entry.mean, places),
            "full": "" if entry.mean is None else repr(entry.mean),
            "deviation": "" if entry.deviation is None else _fixed(entry.deviation, places),
            "interval": _interval_words(entry, places),
            "mark": entry.mark,
            "few": f"{len(entry.values)} of {seeds} seeds" if few else "",
        }

    rows = [[shown(entry) for entry in row] for row in table.entries]
    entries = [entry for row in rows for entry in row if entry]
    legend = [
        sentence
        for sentence, told in (
            ("Mean ± standard deviation over seeds.", any(entry["deviation"] for entry in entries)),
            ("Below each number its 95 % interval.", any(entry["interval"] for entry in entries)),
            ("Bold with ★: best of the column.", any(entry["mark"] == "best" for entry in entries)),
            ("≈: not significantly worse than the best.", any(entry["mark"] == "level" for entry in entries)),
        )
        if told
    ]
    return {
        "table": table,
        "rows": list(zip(table.rows, rows, strict=True)),
        "legend": " ".join(legend),
        "notes": table.notes,
        "many": len(table.columns) > 8,
    }


def _interval_words(entry: Entry, places: int) -> str:
    return (
        ""
        if entry.low is None or entry.high is None
        else f"{_fixed(entry.low, places)} to {_fixed(entry.high, places)}"
    )


def _missing_drawings(gathered: Gathered, series: Sequence[str]) -> list[Drawing]:
    if gathered.experiment.experiment != "missing":
        return []
    drawn = [
        missing_rate_drawing(table, series, f"missing-{number}")
        for number, table in enumerate(gathered.tables)
    ]
    return [drawing for drawing in drawn if drawing is not None]


def _forests(gathered: Gathered) -> list[Drawing]:
    """A drawing per column of every table in which two rows or more have a number and one an interval."""
    if gathered.experiment.experiment == RUN:
        return []
    drawn = [
        forest_drawing(table, column, f"forest-{number}-{column}")
        for number, table in enumerate(gathered.tables)
        for column in range(len(table.columns))
        if any(
            entry is not None and entry.low is not None for entry in (row[column] for row in table.entries)
        )
    ]
    return [drawing for drawing in drawn if drawing is not None][:MOST_FORESTS]


def _overlaid(gathered: Gathered) -> list[Drawing]:
    """Learning curves of several runs over each other."""
    if gathered.experiment.experiment != RUNS:
        return []
    runs = gathered.found[:MOST_RUNS]
    metric = _watched_metric([found for found in runs if found.log])
    columns = [("valid/loss/total", "loss on valid"), ("train/loss/total", "loss on train")]
    columns += [(f"valid/{metric}", f"{metric.replace('_', ' ')} on valid")] if metric else []
    drawn = [
        overlaid_drawing(runs, column, title, f"overlaid-{number}")
        for number, (column, title) in enumerate(columns)
    ]
    return [drawing for drawing in drawn if drawing is not None]


def _agreement(gathered: Gathered) -> list[dict[str, Any]]:
    """Pairs of runs, the first `MOST_PAIRS`."""
    return [
        {
            "first": pair.first,
            "second": pair.second,
            "samples": f"{pair.samples:,}",
            "alike": _rounded(pair.alike, 3),
            "apart": None if pair.apart is None else _rounded(pair.apart, 3),
            "right": None if pair.right is None else [f"{count:,}" for count in pair.right],
        }
        for pair in gathered.agreement[:MOST_PAIRS]
    ]


def _worth(gathered: Gathered) -> dict[str, Any] | None:
    """Scores with each modality left out, and the change."""
    if gathered.study is None or not gathered.study.worth:
        return None
    worth = gathered.study.worth
    names = list(worth[0].complete)
    first = max(worth, key=lambda each: each.samples)
    rows = [
        {
            "name": "all modalities",
            "samples": f"{first.samples:,}",
            "scores": [(_rounded(first.complete[name], 3), "", "") for name in names],
        }
    ]
    for each in worth:
        scores = []
        for name in names:
            change = each.without[name] - each.complete[name]
            worse = change < 0 if HIGHER_IS_BETTER[name] else change > 0
            places = _places(each.complete[name], 3)
            told = _fixed(change, places)
            seen = told.strip("−0.,") != ""
            shown = (
                ""
                if not math.isfinite(change)
                else f"+{told}"
                if change > 0 and seen
                else told
                if seen
                else "0"
            )
            scores.append((_fixed(each.without[name], places), shown, "loss" if worse and seen else ""))
        rows.append({"name": f"without {each.modality}", "samples": f"{each.samples:,}", "scores": scores})
    return {"columns": names, "rows": rows}


def _quality(gathered: Gathered) -> list[Drawing]:
    """Reliability of a classification, predicted against true of a regression, for each run that is shown by
    itself.
    """
    drawn = []
    for number, found in enumerate(gathered.found):
        samples = found.samples
        if (
            gathered.experiment.experiment not in (RUN, RUNS)
            or samples is None
            or not samples.targets
            or number >= MOST_RUNS
        ):
            continue
        name = f"{found.cell.row}: " if gathered.experiment.experiment == RUNS else ""
        if samples.classes and samples.probabilities is not None:
            confidence = samples.probabilities.max(axis=1)
            if not (
                np.isfinite(confidence).all() and (confidence >= 0).all() and (confidence <= 1 + 1e-6).all()
            ):
                continue
            right = [
                target == said for target, said in zip(samples.targets, samples.predictions, strict=True)
            ]
            made = reliability_drawing(reliability(confidence, right), len(right), f"quality-{number}")
        elif not samples.classes:
            made = scatter_drawing(
                [float(value) for value in samples.targets],
                [float(value) for value in samples.predictions],
                f"quality-{number}",
            )
        else:
            continue
        drawn.append(replace(made, title=f"{name}{made.title}"))
    return drawn


def _class_rows(gathered: Gathered) -> dict[str, Any] | None:
    """Precision, recall, F1 and support of each class of a single run; of very many classes, of those with
    the lowest F1.
    """
    if gathered.experiment.experiment != RUN:  # an analysis may have no run at all
        return None
    found = gathered.found[0]
    if not found.confusion:
        return None

    def shown(value: float | None) -> str:
        return "–" if value is None else f"{value:.3f}"

    scored = list(zip(found.classes, class_scores(np.array(found.confusion)), strict=True))
    note = ""
    if len(scored) > MOST_CLASSES:
        known = sorted((pair for pair in scored if pair[1].support), key=lambda pair: pair[1].f1 or 0.0)
        note = (
            f"The {min(MOST_CLASSES, len(known))} lowest F1 of {len(known):,} classes that have samples;"
            f" {len(scored):,} classes in all."
        )
        scored = known[:MOST_CLASSES]
    rows = [
        {
            "name": name,
            "precision": shown(each.precision),
            "recall": shown(each.recall),
            "f1": shown(each.f1),
            "support": f"{each.support:,}",
        }
        for name, each in scored
    ]
    return {"rows": rows, "note": note}


def _embedded(figure: Figure) -> dict[str, str]:
    kind = {"svg": "image/svg+xml", "png": "image/png"}[figure.kind]
    return {
        "name": figure.name.replace("_", " "),
        "source": f"data:{kind};base64,{base64.b64encode(figure.content).decode()}",
    }


def _training(gathered: Gathered) -> dict[str, Any]:
    """Figures of loss and metric for each row."""
    begun = [found for found in gathered.found if found.log]
    metric = _watched_metric(begun)
    limits = metric_limits(begun, metric)
    rows = []
    omitted = 0
    for number, row in enumerate(dict.fromkeys(found.cell.row for found in begun)):
        all_runs = [found for found in begun if found.cell.row == row]
        runs = all_runs
        if len(runs) > MOST_RUNS:
            runs = list({found.cell.column: found for found in reversed(runs)}.values())[::-1][:MOST_RUNS]
        omitted += len(all_runs) - len(runs)
        drawings = [loss_drawing(row, runs, f"loss-{number}")]
        if limits is not None:
            drawings.append(metric_drawing(row, runs, metric, limits, f"metric-{number}"))
        if any(drawings):
            rows.append(
                {
                    "name": row,
                    "runs": len(runs),
                    "drawings": [drawing for drawing in drawings if drawing is not None],
                }
            )
    return {"rows": rows, "metric": metric, "omitted": omitted}


def _watched_metric(begun: Sequence[Found]) -> str:
    """The metric that epochs were chosen by, or the first that was logged."""
    chosen = [found.selected_by for found in begun if f"valid/{found.selected_by}" in found.log]
    logged = [
        name.removeprefix("valid/")
        for found in begun
        for name in found.log
        if name.startswith("valid/") and "/loss/" not in name
    ]
    return next(iter([*chosen, *logged]), "")


def _confusions(gathered: Gathered) -> list[dict[str, Any]]:
    """Matrices by row; the first row is the best of the first table."""
    experiment = gathered.experiment.experiment
    rows: dict[str, list[Found]] = {}
    for found in gathered.found:
        if found.confusion:
            rows.setdefault(_place(found, experiment), []).append(found)
    best = _best_row(gathered)
    name = None if best is None else gathered.tables[0].rows[best]
    shown = []
    for label, runs in sorted(rows.items(), key=lambda row: row[1][0].cell.row != name):
        # Seeds of the same classes can be added up, so they show the same of them.
        totals: dict[tuple[str, ...], NDArray[np.int64]] = {}
        for run in runs:
            totals[run.classes] = totals.get(run.classes, np.int64(0)) + np.array(run.confusion)
        chosen = {classes: _most_confused(total) for classes, total in totals.items()}
        cells = [{"seed": run.cell.seed, **_shown_confusion(run, chosen[run.classes])} for run in runs]
        shown.append({"label": label, "row": runs[0].cell.row, "cells": cells})
    return shown


def _most_confused(counts: NDArray[np.int64]) -> list[int]:
    """At most `MOST_CLASSES` classes in their order: all of them, or those of the largest numbers of samples
    taken for another class.
    """
    size = len(counts)
    if size <= MOST_CLASSES:
        return list(range(size))
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    chosen: dict[int, None] = {}
    for place in np.argsort(-wrong, axis=None, kind="stable").tolist():
        pair = dict.fromkeys(divmod(place, size))
        if len(chosen | pair) <= MOST_CLASSES:
            chosen |= pair
        if len(chosen) == MOST_CLASSES:
            break
    return sorted(chosen)


def _shown_confusion(run: Found, chosen: Sequence[int]) -> dict[str, Any]:
    """Counts of the chosen classes, and of all others as if they were one class that comes last."""
    counts = np.array(run.confusion)
    size = len(counts)
    if len(chosen) == size:
        return {"classes": run.classes, "counts": run.confusion, "others": 0}
    group = np.full(size, len(chosen))
    group[list(chosen)] = np.arange(len(chosen))
    folded = np.zeros((len(chosen) + 1,) * 2, dtype=np.int64)
    np.add.at(folded, (group[:, None], group[None, :]), counts)
    others = size - len(chosen)
    return {
        "classes": [*(run.classes[place] for place in chosen), f"{others:,} other classes"],
        "counts": folded.tolist(),
        "others": others,
        "wrong": int(counts.sum() - np.trace(counts)),
    }


def _plans(gathered: Gathered) -> list[dict[str, Any]]:
    def short(values: Sequence[float | None] | None, digits: int) -> list[float | None] | None:
        return (
            None
            if values is None
            else [
                None if value is None or not math.isfinite(value) else round(value, digits)
                for value in values
            ]
        )

    runs = []
    for found in gathered.found:
        samples = []
        for sample in found.plans:
            values = asdict(sample)
            for side in (values["anchor"], *values["sources"]):
                side["times"] = short(side["times"], 3)
            for source in values["sources"]:
                for way in (source, source["content"]):
                    if way is not None:
                        way["similarity"] = short(way["similarity"], 2)
            for name in ("target", "prediction"):
                if isinstance(values[name], float):
                    values[name] = float(f"{values[name]:.4g}")
            samples.append(values)
        if samples:
            runs.append(
                {
                    "key": _key(found),
                    "label": _label(found, gathered.experiment.experiment),
                    "samples": samples,
                }
            )
    return runs


def _key(found: Found) -> str:
    return f"{found.cell.key} {found.cell.row} {found.cell.column}"


def _samples(gathered: Gathered) -> dict[str, Any] | None:
    """Predictions; what several cells share is held once, and classes are held by number."""
    told = [(found, found.samples) for found in gathered.found if found.samples is not None]
    if not told:
        return None
    known = list(dict.fromkeys(name for _, samples in told for name in samples.classes))
    used = _used_classes([samples for _, samples in told], gathered.study)
    classes = [name for name in known if name in used]
    decimals = 0 if classes else _decimals([samples for _, samples in told])
    places = {name: place for place, name in enumerate(classes)}
    number: Callable[[str], Any] = (
        places.__getitem__ if classes else lambda value: round(float(value), decimals)
    )
    shared: list[tuple[Any, ...]] = []
    cells = []
    for found, samples in told:
        common = (samples.ids, samples.targets)
        if common not in shared:
            shared.append(common)
        cells.append(
            {
                "key": _key(found),
                "label": f"{_label(found, gathered.experiment.experiment)}, {samples.split}",
                "set": shared.index(common),
                "prediction": [number(value) for value in samples.predictions],
                "probabilities": _probabilities(samples, places),
                "withheld": _withheld(samples),
            }
        )
    sets = [
        {"ids": ids, "targets": targets and [number(value) for value in targets]} for ids, targets in shared
    ]
    task = gathered.experiment.task
    study_values = (
        None if gathered.study is None else _study_values(gathered.study, told[0][1], number, decimals)
    )
    return {
        "classes": classes,
        "num_classes": len(known),
        "decimals": decimals,
        "sentiment": bool(task and task.is_sentiment),
        "sets": sets,
        "cells": cells,
        "study": study_values,
        "lacking": _lacking(gathered),
    }


def _used_classes(told: Sequence[Samples], known: Study | None) -> set[str]:
    """Classes that a page about these samples names: of very many classes, few occur."""
    used: set[str] = set()
    for samples in told:
        used.update(samples.predictions, samples.targets or ())
        if samples.probabilities is not None:
            used.update(
                samples.classes[place] for place in np.unique(_most_probable(samples.probabilities)).tolist()
            )
        if known is not None and samples.classes:
            for predictions in (known.complete, *known.without.values()):
                used.update(
                    samples.classes[place]
                    for place in np.unique(predictions.prediction.argmax(axis=1)).tolist()
                )
    return used


def _most_probable(probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    """(samples, classes shown), the most probable class first."""
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :_MOST_PROBABILITIES]


def _decimals(told: Sequence[Samples]) -> int:
    """Digits after the point that show a thousandth of the spread of all targets and predictions."""
    values = [float(value) for samples in told for value in (*samples.predictions, *(samples.targets or ()))]
    finite = [value for value in values if math.isfinite(value)]
    spread = max(finite, default=0.0) - min(finite, default=0.0)
    return 3 if spread == 0 else min(12, max(0, 3 - math.floor(math.log10(spread))))


def _probabilities(samples: Samples, places: Mapping[str, int]) -> list[list[int]] | None:
    """For each sample, class and thousandths in turn, the most probable first."""
    if samples.probabilities is None:
        return None
    made = []
    for row, values in zip(
        _most_probable(samples.probabilities).tolist(), samples.probabilities, strict=True
    ):
        made.append(
            [each for place in row for each in (places[samples.classes[place]], _thousandths(values[place]))]
        )
    return made


def _thousandths(share: float) -> int:
    return round(1000 * float(share)) if math.isfinite(share) else 0


def _study_values(
    known: Study, samples: Samples, number: Callable[[str], Any], decimals: int
) -> dict[str, Any]:
    """Transcripts, groups and tokens of all samples, and of those that were predicted again what each
    modality changes.
    """
    place = {identity: row for row, identity in enumerate(samples.ids)}
    effects: dict[int, list[Any]] = {}
    kept = {identity: row for row, identity in enumerate(known.complete.ids)}

    def said(predictions: Predictions, row: int, of: int) -> list[Any]:
        values = predictions.prediction[row]
        if not samples.classes:
            return [round(float(values), decimals)]
        return [number(samples.classes[int(values.argmax())]), _thousandths(values[of])]

    for identity, row in kept.items():
        of = int(known.complete.prediction[row].argmax()) if samples.classes else 0
        effects[place[identity]] = [["all modalities", *said(known.complete, row, of)]]
    for name, predictions in known.without.items():
        for row, identity in enumerate(predictions.ids):
            of = int(known.complete.prediction[kept[identity]].argmax()) if samples.classes else 0
            effects[place[identity]].append([f"without {name}", *said(predictions, row, of)])
    vocabulary: dict[str, int] = {}

    def shown(tokens: Tokens | None) -> list[Any] | None:
        if tokens is None:
            return None
        ends = None if tokens.seconds is None else [round(end, 2) for end in tokens.seconds]
        words = (
            None
            if tokens.words is None
            else [vocabulary.setdefault(word, len(vocabulary)) for word in tokens.words]
        )
        return [tokens.length, ends, words]

    tokens = [[shown(each.get(name)) for name in known.modalities] for each in known.tokens]
    return {
        "texts": known.texts if any(known.texts) else None,
        "groups": known.groups if any(known.groups) else None,
        "effects": effects,
        "modalities": known.modalities,
        "tokens": tokens,
        "words": list(vocabulary),
        "without_plan": known.without_plan,
    }


def _lacking(gathered: Gathered) -> str:
    """Why the page has no transcripts, tokens and modalities left out, in one sentence; empty where it has
    them.
    """
    if gathered.study is not None:
        return ""
    if gathered.not_studied:
        return gathered.not_studied
    if gathered.experiment.experiment != RUN:
        return (
            "Transcripts, tokens and what each modality changes are on the page of a single run: alignmamba"
            " report RUN."
        )
    return (
        "Transcripts, tokens and what each modality changes need the corpus of the run, and this page was"
        " made from its files alone."
    )


def _withheld(samples: Samples) -> dict[str, Any] | None:
    """For each sample a number whose bits say which of the modalities it had to do without."""
    if not samples.withheld:
        return None
    masks = [
        sum(1 << place for place, gone in enumerate(row) if gone)
        for row in zip(*samples.withheld.values(), strict=True)
    ]
    return {"modalities": list(samples.withheld), "masks": masks}


# How it was made


def _undone(gathered: Gathered) -> list[dict[str, str]]:
    """Cells that are not done, those of one place and fate together."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for found in gathered.found:
        if found.state != "done":
            key = (_place(found, gathered.experiment.experiment), _STATES[found.state], found.error)
            groups.setdefault(key, []).append(found.cell.seed)
    order = list(_STATES.values())
    return [
        {"place": place, "state": state, "seeds": ", ".join(map(str, seeds)), "error": error}
        for (place, state, error), seeds in sorted(groups.items(), key=lambda item: order.index(item[0][1]))
    ]


def _versions(gathered: Gathered) -> list[tuple[str, str]]:
    """Packages with the versions that the cells ran with: more than one where cells were made at different
    times.
    """
    versions: dict[str, Counter[str]] = {
        str(name): Counter([str(version)] if not any(found.versions for found in gathered.found) else [])
        for name, version in gathered.experiment.environment.get("versions", {}).items()
    }
    for found in gathered.found:
        for name, version in found.versions.items():
            versions.setdefault(name, Counter())[version] += 1
    return [
        (
            name,
            next(iter(counts))
            if len(counts) == 1
            else ", ".join(f"{version} ({_counted(count, 'run')})" for version, count in counts.items()),
        )
        for name, counts in versions.items()
        if counts
    ]


def _facts(gathered: Gathered) -> list[tuple[str, str]]:
    experiment = gathered.experiment
    return [
        ("corpus", experiment.corpus.name),
        ("checksum of the corpus", experiment.corpus.checksum),
        ("data", experiment.data),
        *([("task", _task_words(experiment.task))] if experiment.task else []),
        *(
            [("classes", _listed(experiment.task.classes))]
            if experiment.task and experiment.task.classes
            else []
        ),
        ("seeds", ", ".join(map(str, experiment.seeds))),
    ]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_CLASSES])
    return f"{shown} and {len(names) - MOST_CLASSES:,} more" if len(names) > MOST_CLASSES else shown


def _facts_of_machine(gathered: Gathered) -> list[tuple[str, str]]:
    machine = {
        name: value
        for name, value in gathered.experiment.environment.items()
        if name not in ("versions", "command")
    }
    return [
        (
            name,
            ", ".join(map(str, value)) or "none"
            if isinstance(value, list)
            else "none"
            if value is None
            else str(value),
        )
        for name, value in machine.items()
    ]


def _settings(gathered: Gathered) -> list[tuple[str, str]]:
    """For each row, the complete configuration of its first run."""
    first: dict[str, tuple[str, str]] = {}
    for found in gathered.found:
        if found.settings:
            first.setdefault(found.cell.row, (_label(found, gathered.experiment.experiment), found.settings))
    return list(first.values())
