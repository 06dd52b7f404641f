"""Sentences and numbers of a page, as a person reads them."""

import math
from collections import Counter
from typing import Final

from alignmamba.contracts import Task
from alignmamba.errors import counted, listed
from alignmamba.evaluation.tables import Entry
from alignmamba.recipes.experiments.cells import State
from alignmamba.recipes.report.findings import RUN, RUNS, Found, Gathered

MOST_NAMED: Final = 20
"""Classes that a sentence names."""
_MOST_PLACES = 9
"""Digits after the point, beyond which a number is written with a power of ten."""
STATES: Final[dict[State, str]] = {
    "finished": "done",
    "failed": "failed",
    "damaged": "damaged, not read",
    "begun": "begun, not finished",
    "pending": "pending",
}
"""State of a run to what a page calls it, in the order in which a page lists them."""


# Numbers


def rounded(value: float | None, digits: int) -> str:
    """Number with so many decimals, fewer of a large and more of a tiny one; a dash if undefined."""
    return fixed(value, places(value, digits))


def fixed(value: float | None, digits: int) -> str:
    """A number with exactly that many digits after the point; a dash where it is not defined."""
    if value is None or not math.isfinite(value):
        return "–"
    return (f"{value:,.{digits}f}" if digits <= _MOST_PLACES else f"{value:.1e}").replace("-", "−")


def places(value: float | None, digits: int) -> int:
    """Decimals that show a number: six digits of a large one, two of one that would be shown as zero."""
    if value is None or not math.isfinite(value) or value == 0:
        return digits
    size = math.floor(math.log10(abs(value)))
    return 1 - size if round(value, digits) == 0 else min(digits, max(0, 5 - size))


def interval_words(entry: Entry, digits: int) -> str:
    """Both ends of an interval in as many digits as its mean; empty where there is none."""
    if entry.low is None or entry.high is None:
        return ""
    shown = places(entry.mean, digits)
    return f"{fixed(entry.low, shown)} to {fixed(entry.high, shown)}"


# What it is about


def states(gathered: Gathered) -> dict[str, int]:
    """Number of runs by state; several places of a table may rest on one run."""
    counts = Counter({found.cell.key: found.state for found in gathered.found}.values())
    return {state: counts[state] for state in STATES}


def summary(gathered: Gathered) -> str:
    """Summary of what was run, how far it is, and what came out, in a few sentences."""
    words = {RUN: _run_words, RUNS: _runs_words}.get(gathered.kind, _experiment_words)(gathered)
    return " ".join([*words, *_best_words(gathered)])


def _run_words(gathered: Gathered) -> list[str]:
    found = gathered.found[0]
    epochs = counted(len(found.log.get("epoch", ())), "epoch")
    ended = found.state == "finished"
    return [
        f"{found.cell.row} on the corpus {gathered.experiment.corpus.name}, {found.cell.draw}.",
        "The run is finished." if ended else f"The run is not finished: {epochs} so far.",
        *_score_words(gathered),
    ]


def _score_words(gathered: Gathered) -> list[str]:
    """The score that a run was selected by, on test where it has one."""
    for table in gathered.tables:
        if not table.columns:
            continue
        chosen = gathered.found[0].selected_by
        column = table.columns.index(chosen) if chosen in table.columns else 0
        for role in sorted(table.rows, key=("test", "valid", "train").index):
            entry = table.entries[table.rows.index(role)][column]
            if entry is not None and entry.mean is not None:
                interval = interval_words(entry, table.digits)
                reach = f" (95 % interval {interval})" if interval else ""
                name = table.columns[column].replace("_", " ")
                return [f"On {role}, {name} {rounded(entry.mean, table.digits)}{reach}."]
    return []


def _runs_words(gathered: Gathered) -> list[str]:
    corpus = gathered.experiment.corpus
    words = [f"{counted(len(gathered.found), 'run')} on {corpus.name}."]
    if ", " in corpus.checksum:
        words.append("They were trained on different corpora, so their scores need not mean the same.")
    left = len(gathered.found) - states(gathered)["finished"]
    return [*words, f"{counted(left, 'run')} of them not finished."] if left else words


def _experiment_words(gathered: Gathered) -> list[str]:
    experiment, count = gathered.experiment, states(gathered)
    total = sum(count.values())
    what = gathered.tables[0].row_label if gathered.tables else "row"
    rows = counted(len({cell.row for cell in experiment.cells}), what)
    task = f", {task_words(experiment.task)}" if experiment.task else ""
    size = f"{counted(len(experiment.seeds), 'seed')}, {counted(total, 'training run')}"
    words = [f"{rows} on the corpus {experiment.corpus.name}{task}; {size}."]
    if count["finished"] == total:
        return [*words, "All of them are done."]
    begun = f"{count['begun']} begun, " if count["begun"] else ""
    damaged = f"{count['damaged']} damaged, " if count["damaged"] else ""
    ended = f"{count['finished']} done, {count['failed']} failed, {damaged}"
    words.append(f"Of these, {ended}{begun}{count['pending']} pending.")
    if count["begun"] or count["pending"]:
        words.append("The experiment is not finished, and its numbers can change.")
    return words


def task_words(task: Task) -> str:
    """Description of a task, in a few words."""
    if task.kind == "multilabel":
        return f"{len(task.classes)} labels at once"
    if task.has_one_class:
        ordered = "ordered " if task.kind == "ordinal" else ""
        return f"classification into {len(task.classes)} {ordered}classes"
    if task.label_range is None:
        return "regression"
    return "regression from {:g} to {:g}".format(*task.label_range).replace("-", "−")


def _best_words(gathered: Gathered) -> list[str]:
    """The winner of the first column of the first table, and who is level with it."""
    best = best_row(gathered)
    if best is None:
        return []
    table = gathered.tables[0]
    first = {name: entry for name, (entry, *_) in zip(table.rows, table.entries, strict=True) if entry}
    level = [name for name, entry in first.items() if entry.mark == "level"]
    shown, deviation = places(first[best].mean, table.digits), first[best].deviation
    mean = fixed(first[best].mean, shown)
    if deviation is not None:
        mean = f"{mean}\u00a0±\u00a0{fixed(deviation, shown)}"
    where = f"In “{table.title}”, column {table.columns[0].replace('_', ' ')}"
    also = f"; not significantly worse: {', '.join(level)}" if level else ""
    return [f"{where}, the best is {best} with {mean}{also}."]


def best_row(gathered: Gathered) -> str | None:
    """Name of the best row in the first column of the first table, if one is marked."""
    for table in gathered.tables[:1]:
        for name, row in zip(table.rows, table.entries, strict=True):
            if row and row[0] is not None and row[0].mark == "best":
                return name
    return None


def place(found: Found) -> str:
    """Row and column of a cell."""
    return ", ".join(part for part in (found.cell.row, found.cell.column) if part)


def label(found: Found) -> str:
    """Row, column and seed of a cell."""
    return f"{place(found)}, {found.cell.draw}"


# How it was made


def undone(gathered: Gathered) -> list[dict[str, str]]:
    """Cells that are not done, those of one place and fate together."""
    groups: dict[tuple[str, State, str], list[int]] = {}
    for found in gathered.found:
        if found.state != "finished":
            groups.setdefault((place(found), found.state, found.error), []).append(found.cell.seed)
    order = list(STATES)
    return [
        {
            "place": where,
            "state": STATES[state],
            "seeds": ", ".join(map(str, dict.fromkeys(seeds))),
            "error": error,
        }
        for (where, state, error), seeds in sorted(groups.items(), key=lambda item: order.index(item[0][1]))
    ]


def facts(gathered: Gathered) -> list[tuple[str, str]]:
    """Corpus, task and seeds."""
    experiment = gathered.experiment
    said = [
        ("corpus", experiment.corpus.name),
        ("checksum of the corpus", experiment.corpus.checksum),
        ("data", experiment.data),
    ]
    if experiment.task:
        said.append(("task", task_words(experiment.task)))
        if experiment.task.classes:
            said.append(("classes", listed(experiment.task.classes, MOST_NAMED)))
    return [*said, ("seeds", ", ".join(map(str, experiment.seeds)))]


def machine(gathered: Gathered) -> list[tuple[str, str]]:
    """Machine and versions of packages: more than one where cells were made at different times."""
    environment = dict(gathered.experiment.environment)
    planned = environment.pop("versions", {})
    environment.pop("command", None)
    versions: dict[str, Counter[str]] = {str(name): Counter() for name in planned}
    for found in gathered.found:
        for name, version in found.versions.items():
            versions.setdefault(name, Counter())[version] += 1
    if not any(versions.values()):
        versions = {str(name): Counter([str(version)]) for name, version in planned.items()}
    return [
        *((name, _value_words(value)) for name, value in environment.items()),
        *((name, _version_words(counts)) for name, counts in versions.items() if counts),
    ]


def _value_words(value: object) -> str:
    words = ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
    return words or "none"


def _version_words(counts: Counter[str]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{version} ({counted(count, 'run')})" for version, count in counts.items())


def settings(gathered: Gathered) -> list[tuple[str, str]]:
    """Complete configuration of the first run of each row."""
    first: dict[str, tuple[str, str]] = {}
    for found in gathered.found:
        if found.settings:
            first.setdefault(found.cell.row, (label(found), found.settings))
    return list(first.values())
