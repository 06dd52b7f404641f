"""Tables and figures of a page, section by section."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

import numpy as np

from alignmamba.evaluation.calibration import class_scores, reliability
from alignmamba.evaluation.metrics import metric_of
from alignmamba.evaluation.tables import Entry, ResultTable
from alignmamba.recipes.experiments.catalogue import EXPERIMENTS
from alignmamba.recipes.report.drawings import (
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
from alignmamba.recipes.report.findings import RUN, RUNS, Found, Gathered
from alignmamba.recipes.report.sentences import fixed, places, rounded

MOST_CLASS_SCORES: Final = 20
"""Classes whose scores are shown; of more, those with the lowest F1."""
MOST_FORESTS: Final = 40
"""Columns of tables that are drawn."""


def _made(drawings: Iterable[Drawing | None]) -> list[Drawing]:
    return [drawing for drawing in drawings if drawing is not None]


# Tables


def result_tables(gathered: Gathered) -> list[dict[str, Any]]:
    """Tables with their legend and notes, given once where tables that follow each other share them."""
    shown = [_result_table(gathered, table) for table in gathered.tables]
    for table, following in pairwise(shown):
        if (table["legend"], table["notes"]) == (following["legend"], following["notes"]):
            table["legend"], table["notes"] = "", ()
    return shown


def _result_table(gathered: Gathered, table: ResultTable) -> dict[str, Any]:
    entries = [entry for row in table.entries for entry in row if entry]

    def any_entry(holds: Callable[[Entry], bool]) -> bool:
        return any(map(holds, entries))

    legend = {
        "Mean ± standard deviation over seeds.": any_entry(lambda entry: entry.deviation is not None),
        "Below each number its 95 % interval.": any_entry(lambda entry: None not in (entry.low, entry.high)),
        "Bold with ★: best of the column.": any_entry(lambda entry: entry.mark == "best"),
        "≈: not significantly worse than the best.": any_entry(lambda entry: entry.mark == "level"),
    }
    others = (f"tables/{table.name}.{ending}" for ending in ("csv", "tex", "md"))
    return {
        "table": table,
        "legend": " ".join(sentence for sentence, there in legend.items() if there),
        "notes": table.notes,
        "files": [name for name in others if (gathered.directory / name).is_file()],
        "over_seeds": any_entry(lambda entry: len(entry.values) > 1),
    }


def worth_rows(gathered: Gathered) -> list[dict[str, Any]]:
    """Scores with each modality left out, and the change; empty where they are not known."""
    worth = gathered.study.worth if gathered.study else ()
    if not worth:
        return []
    first = max(worth, key=lambda each: each.samples)
    whole = [(rounded(score, 3), "", "") for score in first.complete.values()]
    rows: list[dict[str, Any]] = [{"name": "all modalities", "samples": first.samples, "scores": whole}]
    for each in worth:
        scores = [_changed(name, score, each.without[name]) for name, score in each.complete.items()]
        rows.append({"name": f"without {each.modality}", "samples": each.samples, "scores": scores})
    return rows


def _changed(metric: str, complete: float, without: float) -> tuple[str, str, str]:
    """A score without a modality, its change, and the class of a loss."""
    change, shown = without - complete, places(complete, 3)
    words = fixed(change, shown)
    if words == "–":
        return fixed(without, shown), "", ""
    if not words.strip("−0.,"):
        return fixed(without, shown), "0", ""
    worse = change < 0 if metric_of(metric).higher_is_better else change > 0
    return fixed(without, shown), f"+{words}" if change > 0 else words, "loss" if worse else ""


def class_rows(gathered: Gathered) -> dict[str, Any] | None:
    """Precision, recall, F1 and support of each class of a run; of very many, of the lowest F1."""
    if gathered.kind != RUN or not gathered.found[0].confusion:
        return None
    found, note = gathered.found[0], ""
    scored = list(zip(found.classes, class_scores(np.array(found.confusion)), strict=True))
    if len(scored) > MOST_CLASS_SCORES:
        known = sorted((pair for pair in scored if pair[1].support), key=lambda pair: pair[1].f1 or 0.0)
        note = (
            f"The {min(MOST_CLASS_SCORES, len(known))} lowest F1 of {len(known):,} classes that have samples;"
            f" {len(scored):,} classes in all."
        )
        scored = known[:MOST_CLASS_SCORES]
    return {"rows": scored, "note": note}


# Figures


def series_of(gathered: Gathered) -> list[str]:
    """Names of rows; the place of a name decides on its colour and mark."""
    names = [cell.row for cell in gathered.experiment.cells]
    return list(dict.fromkeys([*names, *(row for table in gathered.tables for row in table.rows)]))


def legend(gathered: Gathered) -> list[dict[str, Any]]:
    """Name, mark and colour of each row."""
    return [
        {"name": name, "glyph": GLYPHS[number % len(GLYPHS)], "colour": number % NUM_COLOURS}
        for number, name in enumerate(series_of(gathered))
    ]


def missing_rates(gathered: Gathered) -> list[Drawing]:
    """Curves over the missing rate, one per table."""
    if gathered.kind not in EXPERIMENTS:
        return []
    experiment, series = EXPERIMENTS[gathered.kind], series_of(gathered)
    return _made(
        missing_rate_drawing(table, experiment.rates(table), series, f"missing-{number}")
        for number, table in enumerate(gathered.tables)
    )


def forests(gathered: Gathered) -> list[Drawing]:
    """A drawing per column of every table in which two rows or more have a number and one an interval."""
    if gathered.kind == RUN:
        return []
    return _made(
        forest_drawing(table, column, f"forest-{number}-{column}")
        for number, table in enumerate(gathered.tables)
        for column, entries in enumerate(zip(*table.entries, strict=True))
        if any(entry is not None and entry.low is not None for entry in entries)
    )[:MOST_FORESTS]


def overlaid(gathered: Gathered) -> list[Drawing]:
    """Learning curves of several runs over each other."""
    if gathered.kind != RUNS:
        return []
    runs = gathered.found[:MOST_RUNS]
    columns = {"valid/loss/total": "loss on valid", "train/loss/total": "loss on train"}
    if metric := _watched_metric([found for found in runs if found.log]):
        columns[f"valid/{metric}"] = f"{metric.replace('_', ' ')} on valid"
    return _made(
        overlaid_drawing(runs, column, title, f"overlaid-{number}")
        for number, (column, title) in enumerate(columns.items())
    )


def quality(gathered: Gathered) -> list[Drawing]:
    """Reliability of a classification, or predicted against true, of each run shown by itself."""
    if gathered.kind not in (RUN, RUNS):
        return []
    made = []
    for number, found in enumerate(gathered.found[:MOST_RUNS]):
        drawing = _quality_of(found, f"quality-{number}")
        if drawing is not None:
            name = f"{found.cell.row}: " if gathered.kind == RUNS else ""
            made.append(replace(drawing, title=f"{name}{drawing.title}"))
    return made


def _quality_of(found: Found, identifier: str) -> Drawing | None:
    samples = found.samples
    if samples is None or not samples.targets:
        return None
    known = samples.known
    if not samples.classes:
        targets, said = (list(map(float, side)) for side in zip(*known, strict=True))
        return scatter_drawing(targets, said, identifier)
    if samples.probabilities is None or samples.labels is not None:
        return None
    there = np.array([bool(target) for target in samples.targets])
    confidence = samples.probabilities[there].max(axis=1)
    if not ((confidence >= 0) & (confidence <= 1 + 1e-6)).all():  # NaN is neither
        return None
    right = [true == said for true, said in known]
    return reliability_drawing(reliability(confidence, right), len(right), identifier)


def training(gathered: Gathered) -> dict[str, Any]:
    """Figures of loss and metric for each row."""
    begun = [found for found in gathered.found if found.log]
    metric = _watched_metric(begun)
    limits = metric_limits(begun, metric)
    rows, omitted = [], 0
    for number, row in enumerate(dict.fromkeys(found.cell.row for found in begun)):
        every = [found for found in begun if found.cell.row == row]
        runs = every if len(every) <= MOST_RUNS else _first_of_each_column(every)[:MOST_RUNS]
        omitted += len(every) - len(runs)
        drawings = [loss_drawing(row, runs, f"loss-{number}")]
        if limits is not None:
            drawings.append(metric_drawing(row, runs, metric, limits, f"metric-{number}"))
        if any(drawings):
            rows.append({"name": row, "runs": len(runs), "drawings": _made(drawings)})
    return {"rows": rows, "omitted": omitted}


def _first_of_each_column(runs: Sequence[Found]) -> list[Found]:
    return list({found.cell.column: found for found in reversed(runs)}.values())[::-1]


def _watched_metric(begun: Sequence[Found]) -> str:
    """The metric that epochs were chosen by, or the first that was logged."""
    for found in begun:
        if f"valid/{found.selected_by}" in found.log:
            return found.selected_by
    logged = (name for found in begun for name in found.log)
    metrics = (name for name in logged if name.startswith("valid/") and "/loss/" not in name)
    return next(metrics, "").removeprefix("valid/")
