"""Several runs side by side: scores, settings that differ, and how far their predictions agree."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np

from alignmamba.contracts import Task
from alignmamba.errors import ConfigError
from alignmamba.evaluation.metrics import HIGHER_IS_BETTER
from alignmamba.evaluation.statistics import Mark, compare_to_best, scores_of
from alignmamba.recipes.report.gathering import (
    EXPERIMENT,
    OVER_SAMPLES,
    RESAMPLES,
    RUNS,
    Agreement,
    CorpusIdentity,
    Entry,
    Found,
    Gathered,
    ResultTable,
    SettingsTable,
    gather,
    scored,
)
from alignmamba.recipes.run_directory import RunDirectory


def gather_runs(directories: Sequence[Path]) -> Gathered:
    """Read several runs, finished or not, to compare them.

    Raises:
        CheckpointError: If one of them is no run, or a file in it is damaged; the message names the file.
        ConfigError: If one is given twice, or their tasks are not of one kind.
    """
    twice = [path for path, count in Counter(path.resolve() for path in directories).items() if count > 1]
    if twice:
        raise ConfigError(f"report: {twice[0]} is given twice, expected runs that differ")
    for path in directories:
        if (path / EXPERIMENT).is_file():
            raise ConfigError(
                f"report: {path} is an experiment, expected runs alone where several directories are given"
            )
    each = [gather(path) for path in directories]
    labels = _labels(directories)
    _refuse_other_tasks(labels, [one.experiment.task for one in each])
    found = [
        replace(one.found[0], cell=replace(one.found[0].cell, row=label, key=f"{place:016x}"))
        for place, (one, label) in enumerate(zip(each, labels, strict=True))
    ]
    first = each[0].experiment
    corpora = list(dict.fromkeys(one.experiment.corpus for one in each))
    experiment = replace(
        first,
        experiment=RUNS,
        command=("alignmamba", "report", *map(str, directories)),
        corpus=CorpusIdentity(
            name=", ".join(dict.fromkeys(corpus.name for corpus in corpora)),
            checksum=", ".join(corpus.checksum for corpus in corpora),
        ),
        data=", ".join(dict.fromkeys(one.experiment.data for one in each)),
        task=next((one.experiment.task for one in each if one.experiment.task), None),
        seeds=tuple(dict.fromkeys(one.experiment.seeds[0] for one in each)),
        cells=tuple(one.cell for one in found),
    )
    return Gathered(
        directory=directories[0],
        experiment=experiment,
        found=tuple(found),
        tables=_side_by_side(labels, each),
        figures=(),
        left_out=tuple(dict.fromkeys(sentence for one in each for sentence in one.left_out)),
        differing=_differing(labels, directories),
        agreement=_agreements(found),
    )


def _labels(directories: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as tell them apart."""
    paths = [path.resolve().parts for path in directories]
    for count in range(1, max(map(len, paths)) + 1):
        labels = ["/".join(parts[-count:]) for parts in paths]
        if len(set(labels)) == len(labels):
            return labels
    raise AssertionError("distinct paths have distinct parts")


def _refuse_other_tasks(labels: Sequence[str], tasks: Sequence[Task | None]) -> None:
    known = [(label, task) for label, task in zip(labels, tasks, strict=True) if task is not None]
    for label, task in known[1:]:
        if task.kind != known[0][1].kind:
            raise ConfigError(
                f"report: {label} is a {task.kind}, {known[0][0]} a {known[0][1].kind}; expected runs of one"
                " task"
            )


def _side_by_side(labels: Sequence[str], each: Sequence[Gathered]) -> tuple[ResultTable, ...]:
    """One table per split, runs in rows; marks where all runs predicted the same samples."""
    roles = dict.fromkeys(role for one in each for table in one.tables for role in reversed(table.rows))
    tables = []
    for role in sorted(roles, key=("test", "valid", "train").index):
        entries: dict[str, dict[str, Entry]] = {label: {} for label in labels}
        for label, one in zip(labels, each, strict=True):
            for table in one.tables:
                if role in table.rows:
                    row = table.entries[table.rows.index(role)]
                    entries[label] = {
                        name: entry
                        for name, entry in zip(table.columns, row, strict=True)
                        if entry is not None
                    }
        columns = tuple(dict.fromkeys(name for row in entries.values() for name in row))
        marks = _marks(role, labels, each, columns)
        tables.append(
            ResultTable(
                name=role,
                title=f"Scores on {role}",
                caption="",
                row_label="run",
                rows=tuple(labels),
                columns=columns,
                digits=3,
                entries=tuple(
                    tuple(
                        replace(entries[label][name], mark=marks.get((label, name), ""))
                        if name in entries[label]
                        else None
                        for name in columns
                    )
                    for label in labels
                ),
                notes=(OVER_SAMPLES, _TESTED if marks else _NOT_TESTED),
            )
        )
    return tuple(tables)


_TESTED: Final = (
    "Level: a paired test on the same samples, Holm over the column, at 5 %. It compares these trained"
    " models: another seed of the same method may stand elsewhere."
)
_NOT_TESTED: Final = "Nothing is marked: the runs did not all predict the same samples."


def _marks(
    role: str, labels: Sequence[str], each: Sequence[Gathered], columns: Sequence[str]
) -> dict[tuple[str, str], Mark]:
    """Label and metric to mark; empty where the runs cannot be compared sample by sample."""
    tasks = [one.experiment.task for one in each]
    task = tasks[0]
    if task is None or any(other != task for other in tasks):
        return {}
    runs = {label: scored(one.directory, role, task) for label, one in zip(labels, each, strict=True)}
    there = {label: run for label, run in runs.items() if run is not None}
    ids = next(iter(there.values())).ids if there else ()
    if len(there) < len(labels) or len(ids) < 2 or any(run.ids != ids for run in there.values()):
        return {}
    marks: dict[tuple[str, str], Mark] = {}
    for name in columns:
        scores = {label: scores_of(task, [run], name) for label, run in there.items()}
        for label, standing in compare_to_best(
            scores, higher_is_better=HIGHER_IS_BETTER[name], resamples=RESAMPLES
        ).items():
            marks[label, name] = standing.mark
    return marks


def _differing(labels: Sequence[str], directories: Sequence[Path]) -> SettingsTable:
    """Settings that not all runs share, by their dotted names."""
    settings = [_flat(RunDirectory.open(path).config().model_dump(mode="json")) for path in directories]
    names = dict.fromkeys(name for each in settings for name in each)
    rows = [(name, tuple(each.get(name, "") for each in settings)) for name in names]
    return SettingsTable(
        runs=tuple(labels), rows=tuple((name, values) for name, values in rows if len(set(values)) > 1)
    )


def _flat(values: Mapping[str, Any], within: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{within}{key}.")
        else:
            found[f"{within}{key}"] = (
                json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
            )
    return found


def _agreements(found: Sequence[Found]) -> tuple[Agreement, ...]:
    """Every pair of the runs that predicted the same samples."""
    made = []
    for one, other in combinations(found, 2):
        first, second = one.samples, other.samples
        if first is None or second is None:
            continue
        place = {identity: row for row, identity in enumerate(second.ids)}
        rows = [(row, place[identity]) for row, identity in enumerate(first.ids) if identity in place]
        if rows:
            pairs = [(first.predictions[row], second.predictions[there]) for row, there in rows]
            truth = None if first.targets is None else [first.targets[row] for row, _ in rows]
            alike, apart, right = _of_classes(pairs, truth) if first.classes else _of_values(pairs)
            names = (one.cell.row, other.cell.row)
            made.append(
                Agreement(
                    first=names[0], second=names[1], samples=len(rows), alike=alike, apart=apart, right=right
                )
            )
    return tuple(made)


_Counts = tuple[int, int, int, int]


def _of_classes(
    pairs: Sequence[tuple[str, str]], truth: Sequence[str] | None
) -> tuple[float, None, _Counts | None]:
    alike = sum(a == b for a, b in pairs) / len(pairs)
    if truth is None:
        return alike, None, None
    counts = Counter((a == true, b == true) for (a, b), true in zip(pairs, truth, strict=True))
    return alike, None, (counts[True, True], counts[True, False], counts[False, True], counts[False, False])


def _of_values(pairs: Sequence[tuple[str, str]]) -> tuple[float, float, None]:
    a, b = (np.array([float(pair[side]) for pair in pairs]) for side in (0, 1))
    varied = len(pairs) > 1 and np.ptp(a) > 0 and np.ptp(b) > 0
    return float(np.corrcoef(a, b)[0, 1]) if varied else math.nan, float(np.abs(a - b).mean()), None
