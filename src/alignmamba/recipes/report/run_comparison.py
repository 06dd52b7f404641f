"""Several runs side by side: scores, settings that differ, and how far their predictions agree."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np

from alignmamba.contracts import Role
from alignmamba.errors import ConfigError, DataError
from alignmamba.evaluation.metrics import metric_of, part_named
from alignmamba.evaluation.seed_variance import scores_of
from alignmamba.evaluation.statistics import Mark, compare_to_best
from alignmamba.evaluation.tables import Entry, ResultTable
from alignmamba.recipes.experiments.grid_directory import PLAN
from alignmamba.recipes.report.contents import (
    BY_SPLIT,
    OVER_SAMPLES,
    RESAMPLES,
    Scored,
    gather,
    of_groups,
    run_entry,
    scored,
)
from alignmamba.recipes.report.findings import RUNS, Agreement, Found, Gathered, SettingsTable
from alignmamba.recipes.run_directory import RunDirectory
from alignmamba.recipes.run_records import CorpusIdentity

_TESTED: Final = (
    "Level: a paired test on the same samples, Holm over the column, at 5 %. It compares these trained"
    " models: another seed of the same method may stand elsewhere."
)
_NOT_TESTED: Final = "Nothing is marked: the runs did not all predict the same samples."


def gather_runs(directories: Sequence[Path]) -> Gathered:
    """Read several runs, finished or not, to compare them; refuses what is no run, given twice, or of another
    task.
    """
    twice = [path for path, count in Counter(path.resolve() for path in directories).items() if count > 1]
    if twice:
        raise ConfigError(f"report: {twice[0]} is given twice, expected runs that differ")
    for path in directories:
        if (path / PLAN).is_file():
            raise ConfigError(
                f"report: {path} is an experiment, expected runs alone where several directories are given"
            )
    runs = dict(zip(_labels(directories), map(gather, directories), strict=True))
    _refuse_other_tasks(runs)
    found = tuple(
        replace(run.found[0], cell=replace(run.found[0].cell, row=label, key=f"{place:016x}"))
        for place, (label, run) in enumerate(runs.items())
    )
    records = [run.experiment for run in runs.values()]
    corpora = dict.fromkeys(record.corpus for record in records)
    experiment = replace(
        records[0],
        experiment=RUNS,
        command=("alignmamba", "report", *map(str, directories)),
        corpus=CorpusIdentity(
            name=", ".join(dict.fromkeys(corpus.name for corpus in corpora)),
            checksum=", ".join(corpus.checksum for corpus in corpora),
        ),
        data=", ".join(dict.fromkeys(record.data for record in records)),
        task=next((record.task for record in records if record.task), None),
        seeds=tuple(dict.fromkeys(record.seeds[0] for record in records)),
        cells=tuple(each.cell for each in found),
    )
    return Gathered(
        directory=directories[0],
        experiment=experiment,
        found=found,
        tables=_side_by_side(runs),
        figures=(),
        left_out=tuple(dict.fromkeys(sentence for run in runs.values() for sentence in run.left_out)),
        differing=_differing(runs),
        agreement=tuple(
            pair for one, other in combinations(found, 2) if (pair := _agreement(one, other)) is not None
        ),
    )


def _labels(directories: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as distinguish them."""
    paths = [path.resolve().parts for path in directories]
    for count in range(1, max(map(len, paths)) + 1):
        labels = ["/".join(parts[-count:]) for parts in paths]
        if len(set(labels)) == len(labels):
            return labels
    raise AssertionError("distinct paths have distinct parts")


def _refuse_other_tasks(runs: Mapping[str, Gathered]) -> None:
    kinds = [(label, run.experiment.task.kind) for label, run in runs.items() if run.experiment.task]
    for label, kind in kinds[1:]:
        if kind != kinds[0][1]:
            raise ConfigError(
                f"report: {label} is a {kind}, {kinds[0][0]} a {kinds[0][1]}; expected runs of one task"
            )


# Scores


def _side_by_side(runs: Mapping[str, Gathered]) -> tuple[ResultTable, ...]:
    """One table per split, runs in rows; marks where all runs predicted the same samples."""
    roles = {role for run in runs.values() for table in run.tables[:1] for role in table.rows}
    order: tuple[Role, ...] = ("test", "valid", "train")
    return tuple(_table_of(role, runs) for role in order if role in roles)


def _table_of(role: Role, runs: Mapping[str, Gathered]) -> ResultTable:
    entries: dict[str, dict[str, Entry]] = {label: {} for label in runs}
    for label, run in runs.items():
        for table in run.tables:
            if table.row_label == BY_SPLIT and role in table.rows:
                row = zip(table.columns, table.entries[table.rows.index(role)], strict=True)
                entries[label] |= {name: entry for name, entry in row if entry is not None}
    columns = tuple(dict.fromkeys(name for row in entries.values() for name in row))
    own = _said(role, runs)
    said = _in_shared_groups(own)
    for label, lent in said.items():
        if lent is not own[label]:
            entries[label] = {
                name: run_entry(entry.mean, name, lent) for name, entry in entries[label].items()
            }
    marks = _marks(said, columns) if _are_paired(runs, said) else {}
    for (label, name), mark in marks.items():
        if (entry := entries[label].get(name)) is not None:
            entries[label][name] = entry.model_copy(update={"mark": mark})
    return ResultTable(
        name=role,
        title=f"Scores on {role}",
        row_label="run",
        rows=tuple(runs),
        columns=columns,
        entries=tuple(tuple(row.get(name) for name in columns) for row in entries.values()),
        notes=(OVER_SAMPLES, *of_groups(said.values(), columns), _TESTED if marks else _NOT_TESTED),
    )


def _said(role: Role, runs: Mapping[str, Gathered]) -> dict[str, Scored]:
    """Label to what a run said of a split that can be scored."""
    found = {label: scored(run.directory, role, run.experiment.task) for label, run in runs.items()}
    return {label: each for label, each in found.items() if each is not None}


def _in_shared_groups(said: Mapping[str, Scored]) -> dict[str, Scored]:
    """The same, with groups that another run of the same samples knows for those that name none, as runs of
    earlier versions.
    """
    known = {each.predictions.ids: each.groups for each in said.values() if each.groups}
    return {
        label: each
        if each.groups or each.predictions.ids not in known
        else replace(each, groups=known[each.predictions.ids])
        for label, each in said.items()
    }


def _are_paired(runs: Mapping[str, Gathered], said: Mapping[str, Scored]) -> bool:
    """True where all runs predicted the same samples of one task, which come in the same groups."""
    if len(said) < len(runs):
        return False
    first = next(iter(said.values()))
    return len(first.predictions.ids) > 1 and all(
        (each.task, each.predictions.ids, each.groups) == (first.task, first.predictions.ids, first.groups)
        for each in said.values()
    )


def _marks(said: Mapping[str, Scored], columns: Sequence[str]) -> dict[tuple[str, str], Mark]:
    """Label and metric to mark, of runs that can be compared sample by sample."""
    first = next(iter(said.values()))
    marks: dict[tuple[str, str], Mark] = {}
    for name in columns:
        parts = {label: part_named(first.task, each.predictions, name) for label, each in said.items()}
        of = {label: part for label, part in parts.items() if part is not None}
        if len(of) == len(said):
            better = metric_of(name).higher_is_better
            with suppress(DataError):  # not defined on these samples, or not on the same of every run
                scores = {
                    label: scores_of(part, [run], metric, groups=first.groups)
                    for label, (part, run, metric) in of.items()
                }
                standings = compare_to_best(scores, higher_is_better=better, resamples=RESAMPLES)
                marks |= {(label, name): standing.mark for label, standing in standings.items()}
    return marks


# Settings


def _differing(runs: Mapping[str, Gathered]) -> SettingsTable:
    """Settings that not all runs share, by their dotted names."""
    settings = [
        _flat(RunDirectory.open(run.directory).config().model_dump(mode="json")) for run in runs.values()
    ]
    names = dict.fromkeys(name for each in settings for name in each)
    rows = [(name, tuple(each.get(name, "") for each in settings)) for name in names]
    return SettingsTable(runs=tuple(runs), rows=tuple(row for row in rows if len(set(row[1])) > 1))


def _flat(values: Mapping[str, Any], within: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{within}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            found[f"{within}{key}"] = text
    return found


# Agreement


def _agreement(one: Found, other: Found) -> Agreement | None:
    """Agreement of two runs on the samples that both predicted; ``None`` where there are none."""
    first, second = one.samples, other.samples
    if first is None or second is None:
        return None
    place = {identity: row for row, identity in enumerate(second.ids)}
    rows = [(row, place[identity]) for row, identity in enumerate(first.ids) if identity in place]
    if not rows:
        return None
    pairs = [(first.predictions[row], second.predictions[there]) for row, there in rows]
    truth = None if first.targets is None else [first.targets[row] for row, _ in rows]
    alike, apart, right = _of_classes(pairs, truth) if first.classes else _of_values(pairs)
    return Agreement(
        first=one.cell.row, second=other.cell.row, samples=len(rows), alike=alike, apart=apart, right=right
    )


_Counts = tuple[int, int, int, int]


def _of_classes(
    pairs: Sequence[tuple[str, str]], truth: Sequence[str] | None
) -> tuple[float, None, _Counts | None]:
    alike = sum(a == b for a, b in pairs) / len(pairs)
    if truth is None:
        return alike, None, None
    known = [(pair, true) for pair, true in zip(pairs, truth, strict=True) if true]
    counts = Counter((a == true, b == true) for (a, b), true in known)
    return alike, None, (counts[True, True], counts[True, False], counts[False, True], counts[False, False])


def _of_values(pairs: Sequence[tuple[str, str]]) -> tuple[float, float, None]:
    a, b = (np.array([float(pair[side]) for pair in pairs]) for side in (0, 1))
    varied = len(pairs) > 1 and np.ptp(a) > 0 and np.ptp(b) > 0
    return float(np.corrcoef(a, b)[0, 1]) if varied else math.nan, float(np.abs(a - b).mean()), None
