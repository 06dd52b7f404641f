"""Experiment directories as the engine leaves them, invented: any size, finished or not, with strings that
try to break a page.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from alignmamba.contracts import Predictions
from alignmamba.recipes.report.contents import gather
from alignmamba.recipes.report.findings import Gathered, Study, Tokens, Worth
from alignmamba.recipes.transport_plans import PlanSample

HOSTILE = "<script>alert(1)</script>"
ENDS_SCRIPT = "</script><img src=x onerror=alert(2)>"
QUOTES = "\"'`&amp; {{ 7*7 }} $x^2$"
UNICODE = "naïve 情感 \u2028 🙂"
LONG = "long-" * 60
STRINGS = (HOSTILE, ENDS_SCRIPT, QUOTES, UNICODE, LONG)
METHODS = ("alignmamba", "mult", "misa", "tfn", "lmf", "concatenate")
CLASSES = ("calm", "glad", "sad", "angry")
VERSIONS = {"alignmamba": "0.1.0", "python": "3.11.7", "torch": "2.13.0"}


def write_experiment(
    path: Path,
    *,
    kind: str = "classification",
    experiment: str = "comparison",
    rows: Sequence[str] = METHODS[:3],
    columns: Sequence[str] = ("",),
    seeds: int = 2,
    samples: int = 12,
    epochs: int = 4,
    plan_lengths: tuple[int, int] | None = None,
    classes: Sequence[str] = CLASSES,
    hostile: bool = False,
    failed: Sequence[int] = (),
    pending: Sequence[int] = (),
    unfinished: Sequence[int] = (),
) -> Path:
    """Write a whole directory.

    With `plan_lengths`, tokens of a source and of the anchor, the runs of the first row have plans. If
    `hostile`, then ids, tokens, classes, notes and errors are of `STRINGS`. `failed`, `pending` and
    `unfinished` are places in the list of cells.
    """
    random = np.random.default_rng(0)
    if hostile:
        classes = [f"{each} {number}" for number, each in enumerate(STRINGS[:4])]
    ids = [
        f"{STRINGS[place % len(STRINGS)]}-{place}" if hostile else f"test-{place:06d}"
        for place in range(samples)
    ]
    targets = (
        random.integers(0, len(classes), samples)
        if kind == "classification"
        else random.uniform(-3, 3, samples)
    )
    cells = [
        {"key": f"{number:016x}", "row": row, "column": column, "seed": seed, "digest": f"{number:064x}"}
        for number, (row, column, seed) in enumerate(
            (row, column, seed) for row in rows for column in columns for seed in range(seeds)
        )
    ]
    corpus = {"name": HOSTILE if hostile else "invented", "checksum": "c" * 64}
    task = {
        "kind": kind,
        "classes": list(classes) if kind == "classification" else [],
        "label_range": [-3, 3] if kind == "regression" else None,
    }
    metric = "accuracy" if kind == "classification" else "mae"
    write_json(
        path / "experiment.json",
        {
            "experiment": experiment,
            "command": ["alignmamba", "experiment", experiment, "--data", "a corpus", "--seeds", str(seeds)],
            "environment": {"versions": VERSIONS, "platform": "Linux", "cores": 2, "gpus": [], "cuda": None},
            "corpus": corpus,
            "data": "a corpus",
            "task": task,
            "metrics": [metric],
            "seeds": list(range(seeds)),
            "cells": cells,
        },
    )
    for number, cell in enumerate(cells):
        if number in failed:
            write_json(
                path / "failed" / f"{cell['key']}.json",
                {"error": f"loss is not finite {HOSTILE if hostile else ''}"},
            )
        if number in pending or number in failed:
            continue
        run = path / "cells" / str(cell["key"])
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(f"model: {cell['row']}\nseed: {cell['seed']}\n", encoding="utf-8")
        write_json(run / "run.json", {"digest": cell["digest"], "corpus": corpus, "seed": cell["seed"]})
        write_json(run / "environment.json", {"versions": VERSIONS, "command": ["alignmamba"]})
        _write_log(run / "log.csv", metric, epochs, random)
        if number in unfinished:
            continue
        _write_predictions(run, ids, targets, kind, classes, random)
        if plan_lengths is not None and cell["row"] == rows[0]:
            plans = [plan_sample(each, *plan_lengths, random=random, hostile=hostile) for each in ids[:3]]
            write_json(run / "analysis" / "plans" / "plans.json", {"samples": plans})
        if experiment == "missing":
            masks = [[each, 1, int(random.random() > 0.5)] for each in ids]
            _write_csv(run / "missing_test.csv", ["id", "text", "audio"], masks)
        write_json(
            run / "metrics.json",
            {
                "metrics": {"test": {metric: 0.5}},
                "references": {},
                "selected_by": metric,
                "best_epoch": max(1, epochs - 1),
                "epochs": epochs,
                "num_parameters": 1234,
            },
        )
    names = [metric, "f1_macro"] if experiment != "missing" else [*columns, "average"]
    write_table(
        path,
        metric,
        rows,
        names,
        seeds,
        random,
        notes=list(STRINGS) if hostile else ["Level: paired test, Holm over the column."],
    )
    figure = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 80 40"><script>alert(3)</script><path d="M0 40'
        ' 80 0" stroke="#06c"/></svg>'
    )
    (path / "figures").mkdir()
    (path / "figures" / "memory_by_length.svg").write_text(figure, encoding="utf-8")
    return path


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_table(
    path: Path,
    name: str,
    rows: Sequence[str],
    columns: Sequence[str],
    seeds: int,
    random: np.random.Generator,
    *,
    notes: list[str],
) -> None:
    entries: list[list[dict[str, Any] | None]] = []
    for place, _ in enumerate(rows):
        line: list[dict[str, Any] | None] = []
        for step, _ in enumerate(columns):
            values = (0.92 - 0.03 * place - 0.05 * step + random.normal(0, 0.01, seeds)).tolist()
            mean, deviation = float(np.mean(values)), float(np.std(values)) if seeds > 1 else None
            half = None if deviation is None else 2 * deviation
            line.append(
                {
                    "values": values,
                    "mean": mean,
                    "deviation": deviation,
                    "low": half and mean - half,
                    "high": half and mean + half,
                    "mark": ("best", "level", "")[min(place, 2)],
                }
            )
        entries.append(line)
    if len(rows) > 2:
        entries[-1][-1] = None
    table = {
        "name": name,
        "title": "Accuracy, complete modalities",
        "caption": "Every method on the same splits.",
        "row_label": "method",
        "rows": list(rows),
        "columns": list(columns),
        "digits": 3,
        "entries": entries,
        "notes": notes,
    }
    write_json(path / "tables" / f"{name}.json", table)
    (path / "tables" / f"{name}.csv").write_text("method\n", encoding="utf-8")


def plan_sample(
    identifier: str, source_length: int, anchor_length: int, *, random: np.random.Generator, hostile: bool
) -> dict[str, Any]:
    """Audio is sent to text, text takes from video."""
    words = list(STRINGS) if hostile else ["this", "is", "a", "really", "good", "movie", "I", "think"]
    return {
        "id": identifier,
        "target": "glad",
        "prediction": "sad",
        "why": f"most telling {HOSTILE}" if hostile else "most telling: largest change of the prediction",
        "anchor": {
            "modality": "text",
            "tokens": [words[place % len(words)] for place in range(anchor_length)],
            "times": None,
            "length": anchor_length,
        },
        "sources": [
            {
                "modality": "audio",
                "tokens": None,
                "times": [0.04 * place for place in range(source_length)],
                "length": source_length,
                "marginal": "source",
                "index": [
                    place * anchor_length // source_length if place else -1 for place in range(source_length)
                ],
                "similarity": random.uniform(-0.2, 0.9, source_length).tolist(),
                "content": {
                    "index": [anchor_length - 1] * source_length,
                    "similarity": [0.95] * source_length,
                },
            },
            {
                "modality": "video",
                "tokens": None,
                "times": None,
                "length": source_length // 2,
                "marginal": "anchor",
                "index": random.integers(0, source_length // 2, anchor_length).tolist(),
                "similarity": random.uniform(0, 1, anchor_length).tolist(),
            },
        ],
    }


def studied_run(
    path: Path, *, kind: str = "classification", samples: int = 12, plan_lengths: tuple[int, int] = (30, 9)
) -> Gathered:
    """A finished run whose every string is hostile, with what model and corpus would have said."""
    write_experiment(path, kind=kind, rows=["alignmamba"], seeds=1, samples=samples, hostile=True)
    run = path / "cells" / "0000000000000000"
    classes = [f"{each} {number}" for number, each in enumerate(STRINGS[:4])]
    task = (
        {"kind": kind, "classes": classes}
        if kind == "classification"
        else {"kind": kind, "label_range": [-3, 3]}
    )
    write_json(run / "model" / "config.json", {"model_type": "AlignMamba", "task": task})
    gathered = gather(run)
    found = gathered.found[0].samples
    assert found is not None
    random = np.random.default_rng(1)
    strings = tuple(f"{STRINGS[place % len(STRINGS)]} said {place}" for place in range(samples))
    values = (
        random.dirichlet([1.0] * 4, samples) if kind == "classification" else random.uniform(-3, 3, samples)
    )
    other = Predictions(ids=found.ids[1:], prediction=values[::-1][1:])
    score = {"accuracy": 0.75} if kind == "classification" else {"mae": 0.5}
    plans = [plan_sample(each, *plan_lengths, random=random, hostile=True) for each in found.ids[:3]]
    made = TypeAdapter(tuple[PlanSample, ...]).validate_python(plans)
    study = Study(
        texts=strings,
        groups=strings,
        tokens=tuple(
            {HOSTILE: Tokens(length=len(STRINGS), seconds=(0.5, 2.25), words=STRINGS)}
            | ({QUOTES: Tokens(length=1234, seconds=None, words=None)} if place % 2 else {})
            for place in range(samples)
        ),
        modalities=(HOSTILE, QUOTES),
        complete=Predictions(ids=found.ids, prediction=values),
        without={HOSTILE: other},
        worth=(
            Worth(modality=HOSTILE, samples=samples - 1, complete=score, without=dict.fromkeys(score, 0.25)),
        ),
        plans=made,
        without_plan=f"Plans of 3 of {samples} samples are on this page, {UNICODE}.",
        notes=STRINGS,
    )
    return replace(gathered, study=study, found=(replace(gathered.found[0], plans=made),))


def _write_log(path: Path, metric: str, epochs: int, random: np.random.Generator) -> None:
    rows = [
        [
            epoch + 1,
            1.5 * 0.9**epoch + random.normal(0, 0.03),
            1.6 * 0.93**epoch + random.normal(0, 0.05),
            0.9 - 0.6 * 0.85**epoch + random.normal(0, 0.02),
        ]
        for epoch in range(epochs)
    ]
    _write_csv(path, ["epoch", "train/loss/total", "valid/loss/total", f"valid/{metric}"], rows)


def _write_predictions(
    run: Path,
    ids: Sequence[str],
    targets: Any,
    kind: str,
    classes: Sequence[str],
    random: np.random.Generator,
) -> None:
    if kind == "regression":
        predictions = targets + random.normal(0, 0.8, len(ids))
        _write_csv(
            run / "predictions_test.csv",
            ["id", "target", "prediction"],
            zip(ids, targets.tolist(), predictions.tolist(), strict=True),
        )
        return
    wrong = random.random(len(ids)) < 0.25
    predictions = np.where(wrong, (targets + 1) % len(classes), targets)
    shares = random.dirichlet([1.0] * len(classes), len(ids)).tolist()
    rows = [
        [each, classes[target], classes[prediction], *share]
        for each, target, prediction, share in zip(ids, targets, predictions, shares, strict=True)
    ]
    _write_csv(
        run / "predictions_test.csv",
        ["id", "target", "prediction", *(f"p({name})" for name in classes)],
        rows,
    )
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (targets, predictions), 1)
    lines = [[name, *line] for name, line in zip(classes, counts.tolist(), strict=True)]
    _write_csv(run / "confusion_test.csv", ["true class", *(f"predicted {name}" for name in classes)], lines)


def _write_csv(path: Path, header: Sequence[str], rows: Any) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
