"""Rows and sentences of the page about a clip."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from alignmamba.recipes.clip_page.clip_study import ClipStudy

TITLES: Final = {"text": "Words", "audio": "Sound", "video": "Pictures"}
"""Modalities of media files, for people."""
_PERCENT: Final = "\u00a0%"
MOST_BARS: Final = 8
"""Classes that have a bar of their own."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Probability of one class."""

    name: str
    share: float
    """Mean over the runs, from 0 to 1."""
    values: tuple[float, ...]
    """That of each run."""
    said: str
    spread: str
    """Smallest and largest of several runs; empty of one."""


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
    said: str
    """Probability of the class that all modalities make most probable; empty of a regression."""
    change: str
    """Difference to all modalities; empty for them."""
    spread: str
    share: float
    """The same from -1 to 1, for a bar."""


def title(modality: str) -> str:
    """Name of a modality, for people."""
    return TITLES.get(modality, modality)


def headline(study: ClipStudy) -> str:
    """Prediction in one word or number."""
    return _prediction(study, study.mean)


def confidence(study: ClipStudy) -> str:
    """Sentence on how sure the runs are, and whether they agree."""
    answers, task = study.answers, study.task
    several = len(answers) > 1
    values = [float(answer.complete[_top(study)]) for answer in answers]
    if task.kind == "regression":
        if not several:
            return "One run; runs of other seeds may differ."
        return f"Mean of {len(answers)} runs, which predict {_spread(values, number)}."
    if not several:
        return "One run; runs of other seeds may differ."
    chosen = [int(answer.complete.argmax()) for answer in answers]
    agreeing = chosen.count(_top(study))
    who = (
        f"All {len(answers)} runs predict it"
        if agreeing == len(answers)
        else (f"{agreeing} of {len(answers)} runs {'predicts' if agreeing == 1 else 'predict'} it")
    )
    return f"{who}, with {_spread(values, percent)}."


def bars(study: ClipStudy) -> list[Bar]:
    """Most probable classes, the first one first; the others together come last."""
    if study.task.kind == "regression":
        return []
    mean = study.mean
    order = np.argsort(-mean, kind="stable")
    shown = order if len(order) <= MOST_BARS else order[: MOST_BARS - 1]
    rows = [(study.task.classes[place], [place]) for place in shown.tolist()]
    if len(shown) < len(order):
        rest = order[len(shown) :].tolist()
        rows.append((f"{len(rest)} other classes", rest))
    return [_bar(study, name, places) for name, places in rows]


def _bar(study: ClipStudy, name: str, places: Sequence[int]) -> Bar:
    values = [float(answer.complete[list(places)].sum()) for answer in study.answers]
    share = float(np.mean(values))
    return Bar(
        name=name, share=share, values=tuple(values), said=percent(share), spread=_spread(values, percent)
    )


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
    """Predictions with all modalities, then without each; empty where the clip has one modality."""
    left_out = [name for name in study.used if all(name in answer.without for answer in study.answers)]
    if not left_out:
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
    for name in left_out:
        without = np.mean([answer.without[name] for answer in study.answers], axis=0)
        changes = [float(answer.without[name][top] - answer.complete[top]) for answer in study.answers]
        change = float(np.mean(changes))
        rows.append(
            Effect(
                label=title(name).lower(),
                prediction=_prediction(study, without),
                said="" if regression else percent(float(without[top])),
                change=signed(change) if regression else points(change),
                spread=_spread(changes, signed if regression else points),
                share=change / widest if widest else 0.0,
            )
        )
    return rows


def _widest(study: ClipStudy, names: Sequence[str]) -> float:
    """Change that fills a bar: all of a probability, or of a regression the largest change."""
    if study.task.kind != "regression":
        return 1.0
    means = [np.mean([answer.without[name] for answer in study.answers]) for name in names]
    return max(abs(float(mean - study.mean[0])) for mean in means)


def effect_words(study: ClipStudy) -> str:
    """Sentence on which modalities decide the prediction."""
    if study.task.kind == "regression":
        return "The value without each, and how far it moves."
    rows = effects(study)[1:]
    decisive = [row.label for row in rows if row.prediction != headline(study)]
    if not decisive:
        return "The prediction stays the same whichever one is left out."
    return f"The prediction changes without {_listed(decisive, 'or')}."


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
    return int(study.mean.argmax()) if study.task.kind != "regression" else 0


def _prediction(study: ClipStudy, values: NDArray[np.float64]) -> str:
    if study.task.kind != "regression":
        return study.task.classes[int(values.argmax())]
    return number(float(values[0]))


def _listed(names: Sequence[str], last: str) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"
