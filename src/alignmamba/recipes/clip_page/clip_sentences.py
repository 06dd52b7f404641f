"""Rows and sentences of the page about a clip."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from alignmamba.contracts import NO_CLASS
from alignmamba.evaluation.thresholds import HALF
from alignmamba.recipes.clip_page.clip_study import ClipStudy

TITLES: Final = {"text": "Words", "audio": "Sound", "video": "Pictures"}
"""Modalities of media files, for people."""
_PERCENT: Final = "\u00a0%"
MOST_BARS: Final = 8
"""Classes that have a bar of their own."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Probability of one class, or of one of several labels."""

    name: str
    share: float
    """Mean over the runs, from 0 to 1."""
    values: tuple[float, ...]
    """That of each run."""
    said: str
    spread: str
    """Smallest and largest of several runs; empty of one."""
    chosen: bool
    """Mark of what is predicted."""
    threshold: float | None = None
    """Mean probability from which a label is called; ``None`` of a class."""
    called_from: str = ""
    """The same where labels differ in it."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A value on its range."""

    low: str
    high: str
    zero: float | None
    """Place of 0 from 0 to 1, where it lies within the range."""
    mean: float
    """Place of the mean."""
    values: tuple[float, ...]
    """Place of each run."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Prediction without one modality, or with all of them."""

    label: str
    """Modality that is left out, or ``nothing``."""
    prediction: str
    """Prediction; of several labels whether this one is ``called``."""
    said: str
    """Probability of the class that all modalities make most probable, or of the label; empty of a number."""
    change: str
    """Difference to all modalities; empty for them."""
    spread: str
    share: float
    """The same from -1 to 1, for a bar."""


def title(modality: str) -> str:
    """Name of a modality, for people."""
    return TITLES.get(modality, modality)


def headline(study: ClipStudy) -> str:
    """Prediction in one word or number, or the labels that are called."""
    return _prediction(study, study.mean)


def sureness(study: ClipStudy) -> str:
    """Probability of the class that is predicted; empty of other tasks."""
    return percent(float(study.mean[_top(study)])) if study.task.has_one_class else ""


def confidence(study: ClipStudy) -> str:
    """Sentence on how sure the runs are, and whether they agree."""
    answers, task = study.answers, study.task
    if len(answers) == 1:
        return "One run; runs of other seeds may differ."
    values = [float(answer.complete[_top(study)]) for answer in answers]
    if task.kind == "regression":
        return f"Mean of {len(answers)} runs, which predict {_spread(values, number)}."
    if task.kind == "multilabel":
        called = study.called(study.mean)
        agreeing = [study.called(answer.complete, answer) for answer in answers].count(called)
        return f"{_agreeing(agreeing, len(answers), 'call')} {'these labels' if called else 'no label'}."
    agreeing = [int(answer.complete.argmax()) for answer in answers].count(_top(study))
    return f"{_agreeing(agreeing, len(answers), 'predict')} it, with {_spread(values, percent)}."


def _agreeing(count: int, runs: int, verb: str) -> str:
    """Runs that do the same as their mean."""
    who = f"All {runs}" if count == runs else f"{count} of {runs}"
    return f"{who} runs {verb}{'s' if count == 1 else ''}"


def bars(study: ClipStudy) -> list[Bar]:
    """All of several labels, those that are called first; or the most probable classes, the first one first,
    ordered ones in their order, and the others together last.
    """
    task, mean = study.task, study.mean
    if task.kind == "regression":
        return []
    if task.kind == "multilabel":
        return [_bar(study, task.classes[place], [place]) for place in _labels(study)]
    order = np.argsort(-mean, kind="stable")
    shown = order if len(order) <= MOST_BARS else order[: MOST_BARS - 1]
    if task.kind == "ordinal":
        shown = np.sort(shown)
    rows = [(task.classes[place], [place]) for place in shown.tolist()]
    if len(shown) < len(order):
        rest = order[len(shown) :].tolist()
        rows.append((f"{len(rest)} other classes", rest))
    return [_bar(study, name, places) for name, places in rows]


def _labels(study: ClipStudy) -> list[int]:
    """Places of several labels: those that are called, then the others, the most probable first."""
    assert study.thresholds is not None
    places: list[int] = np.lexsort((-study.mean, study.mean < study.thresholds)).tolist()
    return places


def _bar(study: ClipStudy, name: str, places: Sequence[int]) -> Bar:
    values = [float(answer.complete[list(places)].sum()) for answer in study.answers]
    share, called = float(np.mean(values)), study.called(study.mean)
    threshold = None if study.thresholds is None else float(study.thresholds[places[0]])
    return Bar(
        name=name,
        share=share,
        values=tuple(values),
        said=percent(share),
        spread=_spread(values, percent),
        chosen=name in ((headline(study),) if called is None else called),
        threshold=threshold,
        called_from="" if threshold is None or _called_from_half(study) else f"from {percent(threshold)}",
    )


def _called_from_half(study: ClipStudy) -> bool:
    """True if all of several labels are called from one half on."""
    return study.thresholds is not None and bool((study.thresholds == HALF).all())


def calling(study: ClipStudy) -> str:
    """Sentence on when labels are called; empty of other tasks."""
    if study.thresholds is None:
        return ""
    if _called_from_half(study):
        return f"A label is called from {percent(HALF)} on."
    return "A label is called from its line on, a threshold chosen on the valid split."


def scale(study: ClipStudy) -> Scale | None:
    """Range of a regression with the values on it; ``None`` where no range is known."""
    ends = study.task.label_range
    if study.task.kind != "regression" or ends is None:
        return None
    low, high = ends

    def place(value: float) -> float:
        return min(1.0, max(0.0, (value - low) / (high - low)))

    return Scale(
        low=number(low),
        high=number(high),
        zero=place(0.0) if low < 0 < high else None,
        mean=place(float(study.mean[0])),
        values=tuple(place(float(answer.complete[0])) for answer in study.answers),
    )


def effects(study: ClipStudy) -> list[Effect]:
    """Predictions with all modalities, then without each; empty where the clip has one modality, and of
    several labels.
    """
    left_out = _left_out(study)
    if not left_out or study.task.kind == "multilabel":
        return []
    top, widest = _top(study), _widest(study, left_out)
    regression = study.task.kind == "regression"
    rows = [
        Effect(
            label="nothing",
            prediction=headline(study),
            said="" if regression else percent(float(study.mean[top])),
            change="",
            spread="",
            share=0.0,
        )
    ]
    return rows + [
        _effect(study, name, top, _prediction(study, _without(study, name)), widest) for name in left_out
    ]


def label_effects(study: ClipStudy) -> list[tuple[Bar, list[Effect]]]:
    """Each of several labels with what leaving out each modality changes of it; empty as `effects`, and of
    other tasks.
    """
    left_out = _left_out(study)
    if not left_out or study.task.kind != "multilabel":
        return []
    without = {name: study.called(_without(study, name)) or () for name in left_out}
    return [
        (
            bar,
            [
                _effect(study, name, place, "called" if bar.name in called else "not called", 1.0)
                for name, called in without.items()
            ],
        )
        for place, bar in zip(_labels(study), bars(study), strict=True)
    ]


def _left_out(study: ClipStudy) -> list[str]:
    """Modalities without which all runs predict the clip."""
    return [name for name in study.used if all(name in answer.without for answer in study.answers)]


def _without(study: ClipStudy, name: str) -> NDArray[np.float64]:
    """Mean prediction without a modality."""
    mean: NDArray[np.float64] = np.mean([answer.without[name] for answer in study.answers], axis=0)
    return mean


def _effect(study: ClipStudy, name: str, place: int, prediction: str, widest: float) -> Effect:
    """Effect of leaving out a modality on one value, whose largest change is `widest`."""
    regression = study.task.kind == "regression"
    changes = [float(answer.without[name][place] - answer.complete[place]) for answer in study.answers]
    change = float(np.mean(changes))
    return Effect(
        label=title(name).lower(),
        prediction=prediction,
        said="" if regression else percent(float(_without(study, name)[place])),
        change=signed(change) if regression else points(change),
        spread=_spread(changes, signed if regression else points),
        share=change / widest if widest else 0.0,
    )


def _widest(study: ClipStudy, names: Sequence[str]) -> float:
    """Change that fills a bar: all of a probability, or of a regression the largest change."""
    if study.task.kind != "regression":
        return 1.0
    return max(abs(float(_without(study, name)[0] - study.mean[0])) for name in names)


def effect_words(study: ClipStudy) -> str:
    """Sentence on which modalities decide the prediction."""
    if study.task.kind == "regression":
        return "The value without each, and how far it moves."
    if study.task.kind == "multilabel":
        return _label_effect_words(study)
    rows = effects(study)[1:]
    decisive = [row.label for row in rows if row.prediction != headline(study)]
    if not decisive:
        return "The prediction stays the same whichever one is left out."
    return f"The prediction changes without {_listed(decisive, 'or')}."


def _label_effect_words(study: ClipStudy) -> str:
    """Sentences on which labels are called without a modality and not with all of them, or the other way."""
    complete, sentences = study.called(study.mean) or (), []
    for name in _left_out(study):
        called = study.called(_without(study, name)) or ()
        lost = [label for label in complete if label not in called]
        gained = [label for label in called if label not in complete]
        said = [f"{_listed(lost, 'and')} {_are(lost)} not called"] if lost else []
        said += [f"{_listed(gained, 'and')} {_are(gained)}{'' if lost else ' called'}"] if gained else []
        if said:
            sentences.append(f"Without {title(name).lower()}, {', and '.join(said)}.")
    sentences = sentences or ["The same labels are called whichever one is left out."]
    return f"{' '.join(sentences)} Beside each probability stands its change in points."


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def further_targets(study: ClipStudy) -> list[tuple[str, str, str]]:
    """Name of each further target that all runs predict, what they predict, and the spread over several."""
    rows = []
    for target in study.task.further:
        if not all(target.name in answer.further for answer in study.answers):
            continue
        values = np.stack([answer.further[target.name] for answer in study.answers])
        mean = values.mean(axis=0)
        if target.kind == "regression":
            rows.append((target.name, number(float(mean[0])), _spread(values[:, 0].tolist(), number)))
        elif target.kind == "multilabel":
            shares = zip(target.classes, mean.tolist(), strict=True)
            rows.append((target.name, ", ".join(f"{name} {percent(share)}" for name, share in shares), ""))
        else:
            top = int(mean.argmax())
            said = f"{target.classes[top]} {percent(float(mean[top]))}"
            rows.append((target.name, said, _spread(values[:, top].tolist(), percent)))
    return rows


def runs_words(study: ClipStudy) -> str:
    """Method, runs and seeds in a sentence."""
    names = ", ".join(f"{answer.run} (seed {answer.seed})" for answer in study.answers)
    return f"Predicted by {study.model}, {'run' if len(study.answers) == 1 else 'runs'} {names}."


def facts(study: ClipStudy) -> Iterator[tuple[str, str]]:
    """Facts of the file and of how it was read."""
    sight = study.sight
    yield "Length", f"{sight.seconds:.2f} s"
    codecs = ", ".join(
        f"{'pictures' if kind == 'video' else 'sound'} {codec}" for kind, codec in sight.codecs
    )
    yield "Format", f"{sight.container}; {codecs}"
    for lane in study.lanes:
        unit = study.units.get(lane.modality, "")
        yield title(lane.modality), f"{lane.length:,} tokens{f' of {unit}' if unit else ''}"
    for name, why in study.absent.items():
        yield title(name), f"missing: {why}"


def percent(share: float) -> str:
    """Probability in percent, one digit near the ends."""
    value = 100 * share
    digits = 1 if 0.05 <= value < 1 or 99 < value < 99.95 else 0
    return f"{value:.{digits}f}{_PERCENT}"


def points(change: float) -> str:
    """Difference of two probabilities in percentage points."""
    whole = round(100 * change)
    return f"{whole:+d}".replace("-", "\u2212") if whole else "0"


def number(value: float) -> str:
    """Value of a label with the digits that a reader needs."""
    return (f"{value:.2f}" if abs(value) < 1000 else f"{value:.0f}").replace("-", "\u2212")


def signed(change: float) -> str:
    """Difference of two labels."""
    return f"{change:+.2f}".replace("-", "\u2212")


def _spread(values: Sequence[float], said: Callable[[float], str]) -> str:
    ends = said(min(values)), said(max(values))
    if len(values) == 1:
        return ""
    low = ends[0].removesuffix(_PERCENT)
    return ends[0] if ends[0] == ends[1] else f"{low} to {ends[1]}"


def _top(study: ClipStudy) -> int:
    """Place of the value that stands for the prediction."""
    return int(study.mean.argmax()) if study.task.kind != "regression" else 0


def _prediction(study: ClipStudy, values: NDArray[np.float64]) -> str:
    called = study.called(values)
    if called is not None:
        return ", ".join(called) or NO_CLASS
    if study.task.kind != "regression":
        return study.task.classes[int(values.argmax())]
    return number(float(values[0]))


def _listed(names: Sequence[str], last: str) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"
