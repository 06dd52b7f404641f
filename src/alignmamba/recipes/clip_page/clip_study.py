"""Knowledge of one clip under one run or several: predictions, what each modality changes, matched tokens."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from alignmamba.contracts import Predictions, Sample, Split, Task
from alignmamba.errors import ConfigError, DataError, shown
from alignmamba.evaluation.metrics import nonfinite_problem
from alignmamba.evaluation.thresholds import HALF
from alignmamba.media.recipe import Recipe
from alignmamba.recipes.clip_page.clip_sight import ClipSight
from alignmamba.recipes.extraction.clip_predictions import ReadClips, recipe_of
from alignmamba.recipes.finished_run import LoadedRun, OpenedRun
from alignmamba.recipes.report.model_study import kept_view, without_each
from alignmamba.recipes.transport_plans import PlanSample, TokenLane, shown_plans

MOST_MATCHES: Final = 400_000
"""Tokens of a clip whose plan a page holds."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Predictions of one run for the clip."""

    run: str
    """Name of its directory."""
    seed: int
    complete: NDArray[np.float64]
    """(classes,) probabilities, of several labels (labels,), or (1,) value in units of the label."""
    without: Mapping[str, NDArray[np.float64]]
    """Modality to the same without it, where another modality is left."""
    thresholds: NDArray[np.float64] | None = None
    """(labels,) probabilities from which several labels are called; ``None`` of other tasks."""
    further: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Further target of the clip to the same of it, but for those of a modality that the clip lacks."""


@dataclass(frozen=True, kw_only=True)
class ClipStudy:
    """All that a page says of a clip."""

    name: str
    """Name of the file."""
    model: str
    """Method of the first run."""
    task: Task
    answers: tuple[Answer, ...]
    """One for each run, in the order given."""
    used: tuple[str, ...]
    """Modalities of the first run that the clip has."""
    absent: Mapping[str, str]
    """Modality of the first run that the clip lacks to the reason."""
    units: Mapping[str, str]
    """Modality to the meaning of one vector."""
    sight: ClipSight
    plan: PlanSample | None
    """Plan of the first run; ``None`` where there is none."""
    no_plan: str
    """Sentence on why there is no plan; empty where there is one."""
    lanes: tuple[TokenLane, ...]
    """Tokens of each modality with their times, as the model matched them."""
    notes: tuple[str, ...]
    """Half a sentence each on what is imperfect."""

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean prediction of the runs."""
        mean: NDArray[np.float64] = np.stack([answer.complete for answer in self.answers]).mean(axis=0)
        return mean

    @property
    def thresholds(self) -> NDArray[np.float64] | None:
        """Mean of the thresholds of the runs, of several labels."""
        known = [answer.thresholds for answer in self.answers if answer.thresholds is not None]
        return np.mean(known, axis=0) if known else None

    def called(self, values: NDArray[np.float64], answer: Answer | None = None) -> tuple[str, ...] | None:
        """Names of those of several labels that are called from probabilities, by the thresholds of a run or
        by the mean ones; ``None`` of other tasks.
        """
        thresholds = self.thresholds if answer is None else answer.thresholds
        if thresholds is None:
            return None
        return tuple(itertools.compress(self.task.classes, values >= thresholds))


def check_alike(runs: Sequence[OpenedRun]) -> None:
    """Refuse runs that do not answer the same question about the same features.

    Raises:
        ConfigError: If a run was given twice, or differs from the first in recipe or task; the message names
            both.
    """
    first, places = runs[0], [run.stored.path.resolve() for run in runs]
    for run, place in zip(runs[1:], places[1:], strict=True):
        if places.count(place) > 1:
            raise ConfigError(f"also: run {run.stored.path} is given twice, expected different runs")
        difference = next(_differences(first, run), None)
        if difference is not None:
            raise ConfigError(f"also: run {run.stored.path}: {difference}, as of run {first.stored.path}")


def _differences(first: OpenedRun, other: OpenedRun) -> Iterator[str]:
    for part in ("kind", "classes", "label_range"):
        have, want = (getattr(run.model.config.task, part) for run in (other, first))
        if have != want:
            yield f"task {part}: found {_said(have)}, expected {_said(want)}"
    recipes = [recipe_of(run) for run in (other, first)]
    if recipes[0].digest != recipes[1].digest:
        parts = [_parts(recipe) for recipe in recipes]
        key = next(key for key in {**parts[0], **parts[1]} if parts[0].get(key) != parts[1].get(key))
        have, want = (part.get(key) for part in parts)
        yield f"recipe {key}: found {_said(have)}, expected {_said(want)}"


def _said(value: Any) -> str:
    if value is None:
        return "none"
    return ", ".join(map(str, value))[:80] if isinstance(value, tuple) else shown(value)


def _parts(recipe: Recipe) -> dict[str, Any]:
    """Values that decide what is read, by dotted key."""
    found: dict[str, Any] = {}
    for slot, part in recipe.parts().items():
        values = part.model_dump(mode="json", exclude={"path", "options", "weights"})
        found |= {f"{slot}.{name}": value for name, value in values.items()}
        for group in (part.options, part.weights):
            found |= {f"{slot}.{name}": value for name, value in group.items()}
    return found


def study_clip(
    read: ReadClips,
    others: Sequence[OpenedRun],
    sight: ClipSight,
    *,
    name: str,
) -> ClipStudy:
    """Ask runs about one clip.

    Args:
        read: The clip, read for the first run.
        others: Further runs, which `check_alike` has let through.
        sight: The clip as people see it.
        name: Name of the file, for people.

    Raises:
        AlignMambaError: If a run cannot use the clip, or its prediction is not finite.
    """
    loaded = [read.loaded(run) for run in (read.run, *others)]
    first = loaded[0]
    answers = tuple(_answer(run) for run in loaded)
    split = first.corpus.split("test")
    sample = split[0]
    plan, no_plan = _plan(first, split)
    used = tuple(spec.name for spec in first.modalities if spec.name in sample.features)
    called = dict(first.matched.renamed)
    reasons = {called.get(name, name): why for name, why in read.extraction.absent.items()}
    return ClipStudy(
        name=name,
        model=first.config.model,
        task=first.model.config.task,
        answers=answers,
        used=used,
        absent={
            spec.name: reasons.get(spec.name, "the clip has none that this run reads")
            for spec in first.model.config.modalities
            if spec.name not in used
        },
        units={spec.name: spec.units for spec in first.corpus.modalities},
        sight=sight,
        plan=plan,
        no_plan=no_plan,
        lanes=_lanes(sample, used, plan, sight.seconds),
        notes=(*read.notes, *read.extraction.notes),
    )


def _answer(run: LoadedRun) -> Answer:
    split = run.corpus.split("test")
    rows = np.arange(1)
    present = {spec.name: np.asarray(split.lengths[spec.name]) > 0 for spec in run.modalities}
    if not any(mask[0] for mask in present.values()):
        names = ", ".join(spec.name for spec in run.model.config.modalities)
        raise DataError(f"run {run.stored.path}: expected a clip with at least one of {names}")
    complete = run.predictions(kept_view(split, present, rows))
    without = {
        name: _finite(run, predictions) for name, predictions in without_each(run, split, present, rows)
    }
    task = run.model.config.task
    half = np.full(len(task.classes), HALF)
    return Answer(
        run=run.stored.path.name,
        seed=run.config.seed,
        complete=_finite(run, complete),
        without=without,
        thresholds=run.model.thresholds.get("", half).astype(np.float64)
        if task.kind == "multilabel"
        else None,
        further={
            name: values
            for name, said in complete.further.items()
            if said.lengths is None and np.isfinite(values := np.atleast_1d(said.prediction[0])).all()
        },
    )


def _finite(run: LoadedRun, predictions: Predictions) -> NDArray[np.float64]:
    problem = nonfinite_problem(predictions)
    if problem is not None:
        raise DataError(f"run {run.stored.path}: {problem}; the features may be too large for the model")
    return np.atleast_1d(np.asarray(predictions.prediction[0], dtype=np.float64))


def _plan(run: LoadedRun, split: Split) -> tuple[PlanSample | None, str]:
    """Plan of the clip, or the sentence on why there is none."""
    names = [spec.name for spec in run.modalities if split.lengths[spec.name][0] > 0]
    if len(names) < 2:
        return None, f"There is no transport plan: the clip has {names[0]} alone, so nothing is aligned."
    if sum(int(split.lengths[name][0]) for name in names) > MOST_MATCHES:
        return (
            None,
            f"There is no transport plan on this page: the clip has more than {MOST_MATCHES:,} tokens.",
        )
    (found,) = shown_plans(run.config, run.corpus, run.model.cpu(), split, {0: "asked for"})
    if not found.sources:
        return None, f"There is no transport plan: {run.config.model} aligns no tokens."
    return found, ""


def _lanes(
    sample: Sample, used: Sequence[str], plan: PlanSample | None, seconds: float
) -> tuple[TokenLane, ...]:
    """Tokens of each modality; of a modality in the plan they are those after the stride of its encoder."""
    matched = {} if plan is None else {lane.modality: lane for lane in (plan.anchor, *plan.sources)}
    lanes = []
    for name in used:
        lane = matched.get(name)
        if lane is None:
            length = len(sample.features[name])
            times, words = sample.times.get(name), sample.tokens.get(name)
            lane = TokenLane(
                modality=name,
                length=length,
                tokens=tuple(words) if words else None,
                times=None if times is None else tuple(round(float(time), 4) for time in times),
            )
        if lane.times is None:
            spread = np.linspace(0, seconds, lane.length, endpoint=False)
            lane = replace(lane, times=tuple(spread.round(4).tolist()))
        lanes.append(
            TokenLane(modality=name, length=lane.length, tokens=lane.tokens, times=_rising(lane.times))
        )
    return tuple(lanes)


def _rising(times: Sequence[float | None] | None) -> tuple[float, ...]:
    """Times that never fall, as a page needs them to find a token."""
    known = [0.0 if time is None else float(time) for time in times or ()]
    return tuple(np.maximum.accumulate(np.asarray(known)).tolist())
