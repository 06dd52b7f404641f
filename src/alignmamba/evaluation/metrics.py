"""Scores of a set of predictions, by the field's own formulas, in float64.

Sentiments follow MMSA (thuiar/MMSA a94e65d, MIT) without rounding: `__eval_mosei_regression`, the protocol of
CMU-MOSI and CMU-MOSEI, and `__eval_sims_regression`. All else follows the usual definitions.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from alignmamba.contracts import Predictions, Target, Task
from alignmamba.errors import ConfigError, DataError
from alignmamba.evaluation.checked_predictions import checked_classes, checked_labels, checked_values
from alignmamba.evaluation.score_formulas import (
    area_under_roc,
    average_precision,
    calibration_error,
    concordance,
    confusion,
    correlation,
    determination,
    f1_macro,
    f1_weighted,
    kappa,
    levels,
    one_against_others,
    over_folds,
    recall_unweighted,
    root_mean_square_error,
    weighted_accuracy,
)

# Real values, classes or signs.
Values = NDArray[Any]
Result = TypeVar("Result", Values, float)
Kind = Literal["regression", "classification", "ordinal", "multilabel"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One row of `METRICS`: everything that is known of a metric."""

    task: Kind | tuple[Kind, ...]
    """Kind of the targets that have it, or kinds; an ordinal also has those of a classification."""
    samples: Callable[[Values, Values], Values] | None = None
    """Score of each sample from targets and predictions; the metric is the mean."""
    whole: Callable[[Values, Values], float] | None = None
    """The metric itself, where it is no mean over samples."""
    higher_is_better: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)
    """Least and largest value that it can have."""
    counted: Callable[[Values], NDArray[np.bool_]] | None = None
    """Rows that have a score of their own, from targets; by default all."""
    probable: bool = False
    """True if it reads the probabilities of classes; others read the classes that are called."""
    reach: float | None = None
    """Half range of a metric of sentiments: the label range includes plus and minus this value."""
    span: tuple[float, float] | None = None
    """Label range of a metric of sentiments that no other range has."""
    undefined: str = ""
    """Samples that leave it undefined, in words."""
    columns: tuple[Kind, ...] | None = None
    """Kinds in whose comparisons it is a column; by default all that have it."""
    compares: bool = False
    """True if it compares samples with one another, so that only those that one model predicted go together:
    of several folds it is the mean over the folds."""
    in_epochs: bool = False
    """True if the line of an epoch shows it."""
    table: int = 0
    """Place among the tables over missing rates, from 1; 0 without one. The first leads a comparison."""

    def __call__(self, truth: Values, predicted: Values) -> float:
        """The metric of targets and predictions, or of true and predicted classes."""
        if self.samples is not None:
            return _mean(self.samples(truth, predicted))
        return self.whole(truth, predicted) if self.whole is not None else math.nan

    def over(self, truth: Values, predicted: Values, parts: NDArray[Any] | None) -> float:
        """The metric where several folds may stand together, by the number of the fold of each row."""
        if parts is None or not self.compares:
            return self(truth, predicted)
        return over_folds(self, truth, predicted, parts)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Kinds of the targets that have it."""
        return (self.task,) if isinstance(self.task, str) else self.task

    def suits(self, task: Task | Target) -> bool:
        """Answer to whether predictions of that task, or of a further target, are scored by it."""
        kinds = {"classification", "ordinal"} if task.kind == "ordinal" else {task.kind}
        has = not kinds.isdisjoint(self.kinds)
        if not has or (self.reach is None and self.span is None):
            return has
        if not task.is_sentiment or task.label_range is None:
            return False
        low, high = task.label_range
        if self.reach is None:
            return task.label_range == self.span
        return low <= -self.reach and high >= self.reach


def metric_names(task: Task | Target) -> tuple[str, ...]:
    """The metrics of this task, or of a further target, in the order of `METRICS`."""
    return tuple(name for name, metric in METRICS.items() if metric.suits(task))


def column_names(task: Task | Target) -> tuple[str, ...]:
    """Those metrics of a task, or of a further target, that are columns of comparisons."""
    chosen = {name: METRICS[name].columns for name in metric_names(task)}
    return tuple(name for name, kinds in chosen.items() if kinds is None or task.kind in kinds)


def label_names(task: Task | Target) -> tuple[str, ...]:
    """Metrics of each label of a multilabel, such as ``accuracy(sad)``; empty for another."""
    classes = task.classes if task.kind == "multilabel" else ()
    return tuple(f"{name}({each})" for each in classes for name in OF_A_LABEL)


def all_metric_names(task: Task) -> tuple[str, ...]:
    """The metrics that `score` returns: of the task, and of each further target after its name and a dot."""
    further = [
        f"{target.name}.{name}"
        for target in task.further
        for name in (*metric_names(target), *label_names(target))
    ]
    return (*metric_names(task), *label_names(task), *further)


def metric_of(name: str) -> Metric:
    """The metric of a name as `score` gives it."""
    return METRICS[name.partition("(")[0].rpartition(".")[2]]


def score(task: Task | Target, predictions: Predictions) -> dict[str, float]:
    """Score predictions against their targets.

    Args:
        task: Task, or a further target that `part_of` took out; it decides which metrics are computed, see
            `metric_names`.
        predictions: Values and targets of a split, (samples,) or (samples, classes).

    Returns:
        Metric name to value; those of a further target stand after its name and a dot, and are of the samples
        that have the target. Those of one label of a multilabel have its class in brackets. Where tokens
        have the target, a metric that is a mean is the mean over samples of the mean over a sample's tokens;
        others are computed on all tokens. A metric that compares samples is the mean over the folds that
        define it, weighted by their samples. One that is not defined is NaN, see `undefined`.

    Raises:
        DataError: If there is no sample, no target, or a value that is not finite or not of the task's shape.
    """
    found = _own_scores(task, predictions)
    for target in task.further if isinstance(task, Task) else ():
        part = part_of(target, predictions)
        if part is not None:
            names = (*metric_names(target), *label_names(target))
            own = _own_scores(target, part) if part.ids else dict.fromkeys(names, math.nan)
            found |= {f"{target.name}.{name}": value for name, value in own.items()}
    return found


def _own_scores(task: Task | Target, predictions: Predictions) -> dict[str, float]:
    given, parts = _checked(task, predictions), _fold_of_rows(known_part(task, predictions))
    found = {name: METRICS[name].over(*given(METRICS[name]), parts) for name in metric_names(task)}
    if predictions.lengths is not None:
        scores = {name: sample_scores(task, predictions, name) for name in found}
        found |= {name: _mean(each) for name, each in scores.items() if each is not None}
    for column, label in enumerate(task.classes if task.kind == "multilabel" else ()):
        for name in OF_A_LABEL:
            truth, said = given(METRICS[name])
            found[f"{name}({label})"] = _score_of_label(
                METRICS[name], truth[:, column], said[:, column], parts
            )
    return found


def _fold_of_rows(predictions: Predictions) -> NDArray[Any] | None:
    """(rows,) number of the fold of each row, which may be a token; nothing where one model predicted all."""
    if predictions.parts is None or predictions.lengths is None:
        return predictions.parts
    return np.repeat(predictions.parts, predictions.lengths)


def _score_of_label(metric: Metric, truth: Values, said: Values, parts: NDArray[Any] | None) -> float:
    """A metric of one label, over the samples of which it is known, from its probabilities or calls."""
    known = ~np.isnan(truth)
    truth, said, parts = truth[known], said[known], None if parts is None else parts[known]
    if "multilabel" in metric.kinds:
        return metric.over(truth[:, None], said[:, None], parts)
    return metric.over(truth > 0.5, said > 0.5, parts)


def undefined(scores: Mapping[str, float | None]) -> dict[str, str]:
    """Reason of each score of `score` that is not defined, by its name, as a clause."""
    lacking = [name for name, value in scores.items() if value is None or math.isnan(value)]
    return {name: metric_of(name).undefined or "no sample has the target" for name in lacking}


def undefined_by_reason(scores: Mapping[str, float | None]) -> dict[str, list[str]]:
    """Names of the scores of each reason of `undefined`."""
    names: dict[str, list[str]] = {}
    for name, why in undefined(scores).items():
        names.setdefault(why, []).append(name)
    return names


def undefined_notes(role: str, scores: Mapping[str, float | None]) -> list[str]:
    """One sentence for each reason that leaves scores of a split undefined."""
    return [
        f"split {role!r} has no {', '.join(names)}: {why}"
        for why, names in undefined_by_reason(scores).items()
    ]


def part_of(target: Target, predictions: Predictions) -> Predictions | None:
    """Predictions of a further target alone, over the samples that have it and of which it was predicted;
    ``None`` where it is not among them.
    """
    said = predictions.further.get(target.name)
    if said is None:
        return None
    predicted = np.asarray(said.prediction, dtype=np.float64)
    answered = ~np.isnan(predicted if predicted.ndim > 1 else predicted[:, None]).any(axis=1)
    alone = Predictions(
        ids=predictions.ids,
        prediction=predicted,
        targets=said.targets,
        called=said.called,
        lengths=said.lengths,
        parts=predictions.parts,
    )
    return _rows(alone, answered & _known_rows(target, np.asarray(said.targets)))


def known_part(task: Task | Target, predictions: Predictions) -> Predictions:
    """Predictions of the samples whose target is known; all of them where none is stated."""
    if predictions.targets is None:
        return predictions
    known = _known_rows(task, np.asarray(predictions.targets))
    return predictions if known.all() else _rows(predictions, known)


def _known_rows(task: Task | Target, targets: Values) -> NDArray[np.bool_]:
    """(samples,) true where a target is known, of several labels any of them."""
    if task.has_one_class:
        return np.asarray(targets != task.unknown)
    with suppress(TypeError):  # of what is no number, the check of values reports
        known = ~np.isnan(targets)
        return known if known.ndim == 1 else np.asarray(known.any(axis=1))
    return np.ones(len(targets), dtype=bool)


def _rows(predictions: Predictions, chosen: NDArray[np.bool_]) -> Predictions:
    """Predictions of some samples, or of those that have any of some tokens, without further targets."""
    here, lengths = chosen, None
    if predictions.lengths is not None:
        owners = np.repeat(np.arange(len(predictions.ids)), predictions.lengths)
        counts = np.bincount(owners[chosen], minlength=len(predictions.ids))
        here, lengths = counts > 0, counts[counts > 0]
    return Predictions(
        ids=tuple(np.asarray(predictions.ids, dtype=object)[here].tolist()),
        prediction=np.asarray(predictions.prediction)[chosen],
        targets=np.asarray(predictions.targets)[chosen],
        called=None if predictions.called is None else predictions.called[chosen],
        lengths=lengths,
        parts=None if predictions.parts is None else predictions.parts[here],
    )


def part_named(
    task: Task, predictions: Predictions, name: str
) -> tuple[Task | Target, Predictions, str] | None:
    """Task or further target that a score of `score` is of, its predictions, and the name of the metric
    alone; ``None`` for a score of one label, and for a target that no sample has.
    """
    owner, dot, metric = name.rpartition(".")
    if "(" in name or not dot:
        return None if "(" in name else (task, predictions, name)
    for target in task.further:
        if target.name == owner and (part := part_of(target, predictions)) is not None and part.ids:
            return target, part, metric
    return None


def nonfinite_problem(predictions: Predictions) -> str | None:
    """Number of samples whose prediction is not finite, and the first of them; ``None`` without any."""
    values = np.asarray(predictions.prediction, dtype=np.float64).reshape(len(predictions.ids), -1)
    wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if not wrong.size:
        return None
    return (
        f"{wrong.size} of {len(values)} predictions are not finite, the first is of sample"
        f" {predictions.ids[int(wrong[0])]!r}"
    )


def sample_scores(task: Task | Target, predictions: Predictions, metric: str) -> NDArray[np.float64] | None:
    """(samples,) scores whose mean is the metric, of ``acc2_non0`` for targets that are not zero; None for a
    metric that is no mean over samples. The score of a sample with a target for each token is the mean over
    its tokens.

    Raises:
        ConfigError: If the task has no such metric.
        DataError: As for `score`.
    """
    known = _known(task, metric)
    if known.samples is None:
        return None
    predictions = known_part(task, predictions)
    truth, predicted = _checked(task, predictions)(known)
    if predictions.lengths is None:
        return known.samples(truth, predicted)
    scores = [known.samples(truth[rows], predicted[rows]) for rows in _tokens_of(predictions.lengths)]
    return np.array([_mean(each) for each in scores if each.size])


def counted_ids(task: Task | Target, predictions: Predictions, metric: str) -> tuple[str, ...]:
    """Ids of the samples whose scores `sample_scores` gives, or on which a metric is that is no mean."""
    known, predictions = _known(task, metric), known_part(task, predictions)
    if known.samples is None:
        return predictions.ids
    truth, _ = _checked(task, predictions)(known)
    rows = np.ones(len(truth), dtype=bool) if known.counted is None else known.counted(truth)
    if predictions.lengths is not None:
        rows = np.array([rows[tokens].any() for tokens in _tokens_of(predictions.lengths)], dtype=bool)
    return tuple(identity for identity, there in zip(predictions.ids, rows, strict=True) if there)


def row_metric(
    task: Task | Target, predictions: Predictions, metric: str
) -> Callable[[NDArray[np.int64]], float]:
    """The metric as a function of the samples it is computed on; raises as `sample_scores`. Where tokens have
    targets, it is computed on all tokens of these samples.
    """
    known = _known(task, metric)
    predictions = known_part(task, predictions)
    truth, predicted = _checked(task, predictions)(known)
    parts = _fold_of_rows(predictions)

    def of_rows(rows: NDArray[np.int64]) -> float:
        return known.over(truth[rows], predicted[rows], None if parts is None else parts[rows])

    if predictions.lengths is None:
        return of_rows
    tokens = _tokens_of(predictions.lengths)
    return lambda rows: of_rows(np.concatenate([tokens[row] for row in rows]))


def _tokens_of(lengths: NDArray[Any]) -> list[NDArray[np.int64]]:
    """Rows of the tokens of each sample."""
    return np.split(np.arange(int(lengths.sum())), np.cumsum(lengths)[:-1])


def confusion_matrix(task: Task, predictions: Predictions) -> NDArray[np.int64]:
    """Samples by true (rows) and predicted class, of those whose class is known; a `DataError` for a task
    that has not one class, or as for `score`.
    """
    if not task.has_one_class:
        raise DataError(f"confusion matrix: expected a classification task, found {task.kind}")
    truth, probable = checked_classes(task, known_part(task, predictions))
    return confusion(truth, probable.argmax(axis=1), num_classes=len(task.classes))


def _known(task: Task | Target, metric: str) -> Metric:
    if metric not in metric_names(task):
        raise ConfigError(
            f"metric: this {task.kind} task has {', '.join(metric_names(task))}, found {metric!r}"
        )
    return METRICS[metric]


def _checked(task: Task | Target, predictions: Predictions) -> Callable[[Metric], tuple[Values, Values]]:
    """Targets and predictions as a metric reads them, of the samples whose target is known, checked: values
    of a regression, true classes and the most probable or the probabilities of classes, truth and the calls
    (1 or 0) or the probabilities of several labels.
    """
    predictions = known_part(task, predictions)
    if task.kind == "regression":
        values = checked_values(predictions)
        return lambda _: values
    truth: Values
    called: Values
    if task.kind == "multilabel":
        truth, probable = checked_labels(task, predictions)
        called = (probable >= 0.5 if predictions.called is None else predictions.called).astype(np.float64)
    else:
        truth, probable = checked_classes(task, predictions)
        called = probable.argmax(axis=1)
    return lambda metric: (truth, probable if metric.probable else called)


def _hits(truth: Values, predicted: Values) -> Values:
    return np.equal(truth, predicted).astype(np.float64)


def _rounded_hits(truth: Values, predicted: Values, *, limit: int) -> Values:
    """Hits on the true integer after clipping; np.round takes halves to the even neighbour, as MMSA does."""
    return _hits(np.round(np.clip(truth, -limit, limit)), np.round(np.clip(predicted, -limit, limit)))


def _mean(scores: Values) -> float:
    return float(scores.mean()) if scores.size else math.nan


def _by_label(formula: Callable[[Values, Values], float]) -> Callable[[Values, Values], float]:
    """Mean of a formula of truth and probabilities, or calls, over the labels that have both values; classes
    are labels against all others.
    """

    def over_labels(truth: Values, probable: Values) -> float:
        if truth.ndim == 1:
            truth, probable = one_against_others(truth, probable)
        found = []
        for column in range(truth.shape[1]):
            known = ~np.isnan(truth[:, column])
            there = truth[known, column] > 0.5
            if 0 < there.sum() < len(there):
                found.append(formula(there, probable[known, column]))
        return float(np.mean(found)) if found else math.nan

    return over_labels


def _label_hits(truth: Values, called: Values) -> Values:
    """Share of the known labels of a sample that were called rightly."""
    known = ~np.isnan(truth)
    right = ((truth > 0.5) == (called > 0.5)) & known
    return np.asarray(right.sum(axis=1) / known.sum(axis=1))


def _not_zero(truth: Values) -> NDArray[np.bool_]:
    return np.asarray(truth != 0.0)


def _non0(formula: Callable[[Values, Values], Result]) -> Callable[[Values, Values], Result]:
    """The formula on the signs of the samples whose target is not zero."""

    def masked(truth: Values, predicted: Values) -> Result:
        non0 = _not_zero(truth)
        return formula(truth[non0] > 0.0, predicted[non0] > 0.0)

    return masked


def _levels(formula: Callable[[Values, Values], Result], *edges: float) -> Callable[[Values, Values], Result]:
    """The formula on the levels of a sentiment between these edges."""
    return lambda truth, predicted: formula(levels(truth, edges), levels(predicted, edges))


_ONE_VALUE: Final = "no class or label has samples both with and without it"
METRICS: Final[dict[str, Metric]] = {
    "mae": Metric(
        task="regression",
        samples=lambda truth, predicted: np.abs(predicted - truth),
        higher_is_better=False,
        bounds=(0.0, math.inf),
        in_epochs=True,
        table=5,
    ),
    "corr": Metric(
        task="regression",
        whole=correlation,
        compares=True,
        bounds=(-1.0, 1.0),
        in_epochs=True,
        undefined="all targets or all predictions are equal",
    ),
    "ccc": Metric(
        task="regression",
        whole=concordance,
        compares=True,
        bounds=(-1.0, 1.0),
        undefined="all targets are equal",
    ),
    "rmse": Metric(
        task="regression",
        whole=root_mean_square_error,
        higher_is_better=False,
        bounds=(0.0, math.inf),
        columns=(),
    ),
    "r2": Metric(
        task="regression",
        whole=determination,
        bounds=(-math.inf, 1.0),
        undefined="all targets are equal",
        columns=(),
    ),
    "acc2_has0": Metric(
        task="regression",
        samples=lambda truth, predicted: _hits(truth >= 0.0, predicted >= 0.0),
        reach=0.0,
    ),
    "f1_has0": Metric(
        task="regression",
        whole=lambda truth, predicted: f1_weighted(truth >= 0.0, predicted >= 0.0),
        reach=0.0,
    ),
    "acc2_non0": Metric(
        task="regression",
        samples=_non0(_hits),
        counted=_not_zero,
        reach=0.0,
        table=3,
        undefined="all targets are 0",
    ),
    "f1_non0": Metric(
        task="regression", whole=_non0(f1_weighted), reach=0.0, table=4, undefined="all targets are 0"
    ),
    "acc5": Metric(task="regression", samples=partial(_rounded_hits, limit=2), reach=2.0),
    "acc7": Metric(task="regression", samples=partial(_rounded_hits, limit=3), reach=3.0),
    "acc2_sims": Metric(task="regression", samples=_levels(_hits, 0.0), span=(-1.0, 1.0)),
    "f1_sims": Metric(task="regression", whole=_levels(f1_weighted, 0.0), span=(-1.0, 1.0)),
    "acc3_sims": Metric(task="regression", samples=_levels(_hits, -0.1, 0.1), span=(-1.0, 1.0)),
    "acc5_sims": Metric(task="regression", samples=_levels(_hits, -0.7, -0.1, 0.1, 0.7), span=(-1.0, 1.0)),
    "accuracy": Metric(task="classification", samples=_hits, in_epochs=True, table=1),
    "f1_macro": Metric(task="classification", whole=f1_macro),
    "f1_weighted": Metric(task="classification", whole=f1_weighted, table=2),
    "recall_unweighted": Metric(task="classification", whole=recall_unweighted),
    "mae_classes": Metric(
        task="ordinal",
        samples=lambda truth, predicted: np.abs(predicted - truth).astype(np.float64),
        higher_is_better=False,
        bounds=(0.0, math.inf),
    ),
    "kappa": Metric(
        task="ordinal",
        whole=kappa,
        bounds=(-1.0, 1.0),
        undefined="all samples are and were called one class",
    ),
    "accuracy_labels": Metric(task="multilabel", samples=_label_hits),
    "accuracy_weighted": Metric(
        task="multilabel",
        whole=_by_label(weighted_accuracy),
        undefined=_ONE_VALUE,
        in_epochs=True,
        table=6,
    ),
    "f1_labels": Metric(
        task="multilabel",
        whole=_by_label(lambda there, called: f1_weighted(there, called > 0.5)),
        undefined=_ONE_VALUE,
        table=7,
    ),
    "auroc": Metric(
        task=("classification", "multilabel"),
        whole=_by_label(area_under_roc),
        compares=True,
        probable=True,
        undefined=_ONE_VALUE,
        columns=("multilabel",),
    ),
    "average_precision": Metric(
        task=("classification", "multilabel"),
        whole=_by_label(average_precision),
        compares=True,
        probable=True,
        undefined=_ONE_VALUE,
        columns=("multilabel",),
    ),
    "ece": Metric(
        task="classification",
        whole=calibration_error,
        probable=True,
        higher_is_better=False,
        columns=(),
    ),
}
"""Every metric, in the order in which scores are shown."""

OF_A_LABEL: Final = ("accuracy", "f1_weighted", "accuracy_weighted", "auroc", "average_precision")
"""Metrics of each label of a multilabel alone."""

HIGHER_IS_BETTER: Final = {name: metric.higher_is_better for name, metric in METRICS.items()}
RANGES: Final = {name: metric.bounds for name, metric in METRICS.items()}
