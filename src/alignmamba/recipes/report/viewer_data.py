"""Data for the scripts of a page: confusions, transport plans and samples, as values that JSON can hold."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from alignmamba.contracts import NO_CLASS, Predictions
from alignmamba.recipes.report.findings import RUN, Found, Gathered, Study, Tokens
from alignmamba.recipes.report.sentences import best_row, label, place
from alignmamba.recipes.run_records import Samples
from alignmamba.recipes.transport_plans import PlanSample

MOST_CLASSES: Final = 20
"""Classes of a confusion matrix that is shown whole; of more, those that are confused most."""
_MOST_PROBABILITIES = 12
"""Classes whose probabilities a page holds for each sample; of more classes, the most probable ones."""


def viewer_data(gathered: Gathered) -> dict[str, Any]:
    """Values for ``confusion.js``, ``viewer.js`` and ``samples.js``, each empty where there is nothing."""
    plans = [
        {
            "key": _key(found),
            "label": label(found),
            "samples": [plan_values(sample) for sample in found.plans],
        }
        for found in gathered.found
        if found.plans
    ]
    return {"confusions": _confusions(gathered), "plans": plans, "samples": _samples(gathered)}


def _key(found: Found) -> str:
    return f"{found.cell.key} {found.cell.row} {found.cell.column}"


# Confusions


def _confusions(gathered: Gathered) -> list[dict[str, Any]]:
    """Matrices by row; the first row is the best of the first table."""
    rows: dict[str, list[Found]] = {}
    for found in gathered.found:
        if found.confusion:
            rows.setdefault(place(found), []).append(found)
    best = best_row(gathered)
    shown = []
    for name, runs in sorted(rows.items(), key=lambda row: row[1][0].cell.row != best):
        # Seeds of the same classes can be added up, so they show the same of them.
        totals: dict[tuple[str, ...], NDArray[np.int64]] = {}
        for run in runs:
            totals[run.classes] = totals.get(run.classes, np.int64(0)) + np.array(run.confusion)
        chosen = {classes: _most_confused(total) for classes, total in totals.items()}
        cells = [{"seed": run.cell.seed, **_confusion(run, chosen[run.classes])} for run in runs]
        shown.append({"label": name, "row": runs[0].cell.row, "cells": cells})
    return shown


def _most_confused(counts: NDArray[np.int64]) -> list[int]:
    """Choose at most `MOST_CLASSES` classes in their order, those that are confused most."""
    size = len(counts)
    if size <= MOST_CLASSES:
        return list(range(size))
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    chosen: dict[int, None] = {}
    for cell in np.argsort(-wrong, axis=None, kind="stable").tolist():
        pair = dict.fromkeys(divmod(cell, size))
        if len(chosen | pair) <= MOST_CLASSES:
            chosen |= pair
        if len(chosen) == MOST_CLASSES:
            break
    return sorted(chosen)


def _confusion(run: Found, chosen: Sequence[int]) -> dict[str, Any]:
    """Counts of the chosen classes, and of all others as if they were one class that comes last."""
    counts = np.array(run.confusion)
    others = len(counts) - len(chosen)
    if not others:
        return {"classes": run.classes, "counts": run.confusion, "others": 0}
    group = np.full(len(counts), len(chosen))
    group[list(chosen)] = np.arange(len(chosen))
    folded = np.zeros((len(chosen) + 1,) * 2, dtype=np.int64)
    np.add.at(folded, (group[:, None], group[None, :]), counts)
    return {
        "classes": [*(run.classes[number] for number in chosen), f"{others:,} other classes"],
        "counts": folded.tolist(),
        "others": others,
        "wrong": int(counts.sum() - np.trace(counts)),
    }


# Plans


def plan_values(sample: PlanSample) -> dict[str, Any]:
    """A sample's plans with no more digits than a picture shows."""
    values = asdict(sample)
    for lane in (values["anchor"], *values["sources"]):
        lane["times"] = _short(lane["times"], 3)
    for source in values["sources"]:
        for way in (source, source["content"]):
            if way is not None:
                way["similarity"] = _short(way["similarity"], 2)
    for name in ("target", "prediction"):
        if isinstance(values[name], float):
            values[name] = float(f"{values[name]:.4g}")
    return values


def _short(values: Sequence[float | None] | None, digits: int) -> list[float | None] | None:
    if values is None:
        return None
    return [None if each is None or not math.isfinite(each) else round(each, digits) for each in values]


# Samples


@dataclass(frozen=True)
class _Code:
    """Form of targets and predictions: names of classes by number, numbers rounded."""

    numbers: Mapping[str, int]
    """Class that occurs to its number; empty for a regression."""
    decimals: int

    def __call__(self, value: str | float) -> int | float | None:
        if value == "":
            return None
        return self.numbers[str(value)] if self.numbers else round(float(value), self.decimals)


def _samples(gathered: Gathered) -> dict[str, Any] | None:
    """Predictions; what several cells share is held once, and classes are held by number."""
    held = [(found, found.samples) for found in gathered.found if found.samples is not None]
    every = [samples for _, samples in held]
    if not every:
        return None
    known = dict.fromkeys(name for samples in every for name in samples.classes)
    used = set[str]().union(*(_used_classes(samples, gathered.study) for samples in every)) - {""}
    classes = [*(name for name in known if name in used), *sorted(used - known.keys())] if known else []
    code = _Code({name: number for number, name in enumerate(classes)}, 0 if classes else decimals_of(every))
    sets: dict[tuple[Any, ...], int] = {}
    cells = [
        {
            "key": _key(found),
            "label": f"{label(found)}, {samples.split}",
            "set": sets.setdefault((samples.ids, samples.targets), len(sets)),
            "prediction": [code(value) for value in samples.predictions],
            "probabilities": _probabilities(samples, code),
            "withheld": _withheld(samples),
        }
        for found, samples in held
    ]
    task = gathered.experiment.task
    return {
        "classes": classes,
        "num_classes": len(known),
        "decimals": code.decimals,
        "sentiment": bool(task and task.is_sentiment),
        "sets": [{"ids": ids, "targets": said and [code(value) for value in said]} for ids, said in sets],
        "cells": cells,
        "study": _study(gathered.study, every[0], code) if gathered.study else None,
        "lacking": _lacking(gathered),
    }


def _used_classes(samples: Samples, study: Study | None) -> set[str]:
    """Classes that a page about these samples names: of very many classes, few occur."""
    used = {*samples.predictions, *(samples.targets or ())}
    numbers = [] if samples.probabilities is None else [_most_probable(samples.probabilities)]
    if study is not None and samples.labels is not None:
        used |= {
            _called(samples, each, row)
            for each in (study.complete, *study.without.values())
            for row in range(len(each.ids))
        }
    elif study is not None and samples.classes:
        numbers += [each.prediction.argmax(axis=1) for each in (study.complete, *study.without.values())]
    return used.union(samples.classes[number] for each in numbers for number in np.unique(each).tolist())


def _called(samples: Samples, predictions: Predictions, row: int) -> str:
    """Those of several labels that are called in a sample, as one text."""
    values = predictions.prediction[row] >= 0.5 if predictions.called is None else predictions.called[row]
    return ", ".join(name for name, there in zip(samples.classes, values, strict=True) if there) or NO_CLASS


def _most_probable(probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    """(samples, classes shown), the most probable class first."""
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :_MOST_PROBABILITIES]


def decimals_of(every: Sequence[Samples]) -> int:
    """Digits after the point that show a thousandth of the spread of all targets and predictions."""
    said = [value for samples in every for value in (*samples.predictions, *(samples.targets or ()))]
    values = [float(value) for value in said if value != ""]
    finite = [value for value in values if math.isfinite(value)]
    spread = max(finite, default=0.0) - min(finite, default=0.0)
    return 3 if spread == 0 else min(12, max(0, 3 - math.floor(math.log10(spread))))


def _probabilities(samples: Samples, code: _Code) -> list[list[int | float | None]] | None:
    """Class and thousandths in turn for each sample, the most probable first."""
    if samples.probabilities is None:
        return None
    rows = zip(_most_probable(samples.probabilities).tolist(), samples.probabilities, strict=True)
    return [
        [each for number in row for each in (code(samples.classes[number]), _thousandths(values[number]))]
        for row, values in rows
    ]


def _thousandths(share: float) -> int:
    return round(1000 * float(share)) if math.isfinite(share) else 0


def _withheld(samples: Samples) -> dict[str, Any] | None:
    """Number for each sample whose bits say which of the modalities it had to do without."""
    if not samples.withheld:
        return None
    masks = [
        sum(1 << bit for bit, gone in enumerate(row) if gone)
        for row in zip(*samples.withheld.values(), strict=True)
    ]
    return {"modalities": list(samples.withheld), "masks": masks}


def _lacking(gathered: Gathered) -> str:
    """Reason, in one sentence, why the page has no transcripts and tokens; empty where it has them."""
    if gathered.study is not None or gathered.not_studied:
        return gathered.not_studied
    what = "Transcripts, tokens and what each modality changes"
    if gathered.kind != RUN:
        return f"{what} are on the page of a single run: alignmamba report RUN."
    return f"{what} need the corpus of the run, and this page was made from its files alone."


# What model and corpus add


def _study(study: Study, samples: Samples, code: _Code) -> dict[str, Any]:
    """Transcripts, groups, tokens, and what each modality changes in those predicted again."""
    words: dict[str, int] = {}
    tokens = [[_tokens(each.get(name), words) for name in study.modalities] for each in study.tokens]
    return {
        "texts": study.texts if any(study.texts) else None,
        "groups": study.groups if any(study.groups) else None,
        "effects": dict(_effects(study, samples, code)),
        "modalities": study.modalities,
        "tokens": tokens,
        "words": list(words),
        "without_plan": study.without_plan,
    }


def _tokens(tokens: Tokens | None, words: dict[str, int]) -> list[Any] | None:
    """Length, first and last second, and words by their number in `words`, to which new ones are added."""
    if tokens is None:
        return None
    ends = None if tokens.seconds is None else [round(end, 2) for end in tokens.seconds]
    said = None if tokens.words is None else [words.setdefault(word, len(words)) for word in tokens.words]
    return [tokens.length, ends, said]


def _effects(study: Study, samples: Samples, code: _Code) -> Iterator[tuple[int, list[Any]]]:
    """Each sample predicted again: what is predicted with and without each modality, how surely."""
    rows = {identity: row for row, identity in enumerate(samples.ids)}
    without = {
        name: {identity: row for row, identity in enumerate(predictions.ids)}
        for name, predictions in study.without.items()
    }

    def said(predictions: Predictions, row: int, first: int) -> list[Any]:
        values = predictions.prediction[row]
        if not samples.classes:
            return [code(values)]
        if samples.labels is not None:
            return [code(_called(samples, predictions, row)), _thousandths(values[first])]
        return [code(samples.classes[int(values.argmax())]), _thousandths(values[first])]

    for row, identity in enumerate(study.complete.ids):
        first = int(study.complete.prediction[row].argmax()) if samples.classes else 0
        effects = [["all modalities", *said(study.complete, row, first)]]
        effects += [
            [f"without {name}", *said(study.without[name], found[identity], first)]
            for name, found in without.items()
            if identity in found
        ]
        yield rows[identity], effects
