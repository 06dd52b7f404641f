"""What only the model and the corpus of a run know: transcripts, groups, plans, and what each modality is
worth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from alignmamba.contracts import Predictions, Split
from alignmamba.data.missing_protocols import WithheldSplit
from alignmamba.errors import ConfigError
from alignmamba.evaluation.metrics import score
from alignmamba.recipes.finished_run import LoadedRun, load_run
from alignmamba.recipes.report.gathering import PlanSample, Samples
from alignmamba.recipes.transport_plans import shown_plans

MOST_TOKENS: Final = 1_000_000
"""Tokens of the samples that are predicted again for a page; of a larger split, evenly spaced samples are."""
MOST_PLANS: Final = (60, 40, 24, 12, 6, 3, 1)
"""How many samples bring their plans: the first number whose plans fit into `MOST_PLAN_TOKENS`."""
MOST_PLAN_TOKENS: Final = 60_000
"""Matched tokens of all plans of a page, each way of matching counted."""
MOST_CHARACTERS: Final = 2_000_000
"""Characters of all transcripts of a page."""
MOST_WORDS: Final = 300_000
"""Words of tokens that a page shows besides plans; of a larger split, those of evenly spaced samples."""


@dataclass(frozen=True, kw_only=True)
class Worth:
    """Scores without one modality, beside those of the same samples with everything."""

    modality: str
    samples: int
    """Samples that have another modality."""
    complete: Mapping[str, float]
    without: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What a sample has of one modality, as the corpus has it."""

    length: int
    seconds: tuple[float, float] | None
    """Times of the first and of the last token, where they are known."""
    words: tuple[str, ...] | None
    """One per token, where the corpus has them and the page has room."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """What model and corpus add to the files of a run; everything is in the order of the samples."""

    texts: tuple[str | None, ...]
    groups: tuple[str | None, ...]
    tokens: tuple[Mapping[str, Tokens], ...]
    """Of each sample, by modality; those that it lacks are not in it."""
    modalities: tuple[str, ...]
    complete: Predictions
    """Of the samples that were predicted again, with all of their modalities."""
    without: Mapping[str, Predictions]
    """Modality to the predictions without it, of those samples that have another one."""
    worth: tuple[Worth, ...]
    """Empty where no target is known, or there is one modality only."""
    plans: tuple[PlanSample, ...]
    without_plan: str
    """Why a sample has none here, in a sentence."""
    notes: tuple[str, ...]
    """How the work was bounded, in sentences."""


def study(directory: Path, samples: Samples, *, data: str | None = None) -> Study:
    """Load a finished run with its corpus and ask the model again.

    Args:
        directory: Of the run.
        samples: What the run's files hold of the split to study.
        data: Where the corpus of the run lies now; by default where it lay in training.

    Raises:
        AlignMambaError: If the run or the corpus cannot be loaded, or the corpus is not that of the run.
    """
    run = load_run(directory, data=data)
    expected = run.directory.identity().get("corpus", {}).get("checksum")
    if run.corpus.checksum != expected:
        raise ConfigError(
            f"data {data}: found a corpus with checksum {run.corpus.checksum[:12]}, "
            f"expected {str(expected)[:12]}, the one that the run was trained on"
        )
    split = next((part for role, part in run.corpus.splits.items() if role == samples.split), None)
    if split is None or split.ids != samples.ids:
        raise ConfigError(
            f"data {data or run.config.data}: found other ids than in the predictions of the run"
        )
    names = [spec.name for spec in run.modalities]
    present = {name: np.asarray(split.lengths[name]) > 0 for name in names}
    tokens = np.sum([np.asarray(split.lengths[name]) for name in names], axis=0)
    rows = _spread(tokens)
    notes = []
    if len(rows) < len(split):
        notes.append(
            f"What modalities are worth rests on {len(rows):,} of {len(split):,} samples, evenly spaced in"
            " the order of the split."
        )
    complete = run.predictions(_view(split, present, rows))
    without, worth = {}, []
    for name in names if len(names) > 1 else ():
        kept = {other: mask & (other != name) for other, mask in present.items()}
        some = rows[np.any([mask[rows] for mask in kept.values()], axis=0)]
        if not len(some):
            continue
        without[name] = run.predictions(_view(split, kept, some))
        if complete.targets is not None:
            worth.append(
                Worth(
                    modality=name,
                    samples=len(some),
                    complete=score(run.corpus.task, _of(complete, np.isin(rows, some))),
                    without=score(run.corpus.task, without[name]),
                )
            )
            if len(some) < len(rows):
                notes.append(
                    f"{len(rows) - len(some):,} samples have no modality but {name}; its line does without"
                    " them."
                )
    texts, groups, cut = _words(split)
    if cut:
        notes.append(f"Transcripts are cut to {cut:,} characters to keep this page small.")
    shown, told = _tokens(split, names, tokens)
    notes += told
    plans, without_plan = _plans(run, split, rows, complete, tokens)
    return Study(
        texts=texts,
        groups=groups,
        tokens=shown,
        modalities=tuple(names),
        complete=complete,
        without=without,
        worth=tuple(worth),
        plans=plans,
        without_plan=without_plan,
        notes=(*notes, without_plan),
    )


def _spread(tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """All rows, or as many evenly spaced ones as hold `MOST_TOKENS`, one at least."""
    size, total = len(tokens), int(tokens.sum())
    if total <= MOST_TOKENS:
        return np.arange(size)
    return _evenly(np.arange(size), max(1, int(size * MOST_TOKENS / total)))


def _evenly(order: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """So many of them, the first and the last included."""
    return order[np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(np.int64))]


def _view(split: Split, kept: Mapping[str, NDArray[np.bool_]], rows: NDArray[np.int64]) -> WithheldSplit:
    return WithheldSplit(split=split, kept={name: mask[rows] for name, mask in kept.items()}, rows=rows)


def _of(predictions: Predictions, chosen: NDArray[np.bool_]) -> Predictions:
    return Predictions(
        ids=tuple(identity for identity, take in zip(predictions.ids, chosen, strict=True) if take),
        prediction=predictions.prediction[chosen],
        targets=None if predictions.targets is None else np.asarray(predictions.targets)[chosen],
    )


def _words(split: Split) -> tuple[tuple[str | None, ...], tuple[str | None, ...], int]:
    """Transcripts and groups, and how long a transcript may be; 0 where all are whole.

    Where the corpus has no text, the words of the tokens stand in for it.
    """
    texts, groups = [], []
    for sample in split:
        words = next(
            (" ".join(word for word in tokens if word) for tokens in sample.tokens.values() if any(tokens)),
            None,
        )
        texts.append(sample.text or words)
        groups.append(sample.group)
    most = MOST_CHARACTERS // max(1, len(texts))
    if sum(len(text or "") for text in texts) <= MOST_CHARACTERS:
        return tuple(texts), tuple(groups), 0
    return (
        tuple(text if text is None or len(text) <= most else f"{text[:most]}…" for text in texts),
        tuple(groups),
        most,
    )


def _tokens(
    split: Split, names: Sequence[str], counts: NDArray[np.int64]
) -> tuple[tuple[Mapping[str, Tokens], ...], list[str]]:
    """Lengths, times and words of every sample, and the sentence about words for which there is no room."""
    total = int(counts.sum())
    room = len(counts) if total <= MOST_WORDS else max(1, int(len(counts) * MOST_WORDS / total))
    roomy = set(_evenly(np.arange(len(counts)), room).tolist())
    made = []
    cut = 0
    for row, sample in enumerate(split):
        held = {}
        for name in names:
            length = int(split.lengths[name][row])
            if not length:
                continue
            times, words = sample.times.get(name), sample.tokens.get(name)
            finite = times is not None and len(times) > 0 and np.isfinite(times[[0, -1]]).all()
            held[name] = Tokens(
                length=length,
                seconds=(float(times[0]), float(times[-1])) if times is not None and finite else None,
                words=tuple(words) if words and row in roomy else None,
            )
            cut += bool(words) and row not in roomy
        made.append(held)
    return tuple(made), [
        f"Words of tokens are shown of {room:,} of {len(made):,} samples to keep this page small."
    ] if cut else []


def _plans(
    run: LoadedRun, split: Split, rows: NDArray[np.int64], complete: Predictions, tokens: NDArray[np.int64]
) -> tuple[tuple[PlanSample, ...], str]:
    """Plans of samples evenly spaced from the best to the worst predicted, and the sentence that says which
    samples have none.
    """
    ranked = _errors(complete).argsort(kind="stable")
    order = rows[ranked]
    chosen = next(
        (some for count in MOST_PLANS if 2 * tokens[some := _evenly(order, count)].sum() <= MOST_PLAN_TOKENS),
        None,
    )
    if chosen is None:
        return (
            (),
            (
                f"Plans are not shown: those of one sample would hold more than {MOST_PLAN_TOKENS:,} matched"
                " tokens."
            ),
        )
    rank = {int(row): place + 1 for place, row in enumerate(order)}
    form = TypeAdapter(PlanSample)
    model = run.model.cpu()
    known = complete.targets is not None
    plans = []
    for row, plan in zip(
        chosen.tolist(), shown_plans(run.config, run.corpus, model, split, chosen.tolist()), strict=True
    ):
        if plan["sources"]:
            why = _rank_words(rank[row], len(order)) if known else "unlabelled"
            plans.append(form.validate_python({**plan, "why": why}))
    if not plans:
        several = (
            np.sum(
                [np.asarray(split.lengths[spec.name])[chosen] > 0 for spec in run.modalities], axis=0
            ).max()
            > 1
        )
        why = (
            f"{run.config.model} aligns no tokens"
            if several
            else "no sample here has a second modality to align"
        )
        return (), f"There are no plans: {why}."
    how = "evenly spaced from the best to the worst predicted" if known else "evenly spaced"
    return tuple(plans), f"Plans of {len(plans):,} of {len(split):,} samples are on this page, {how}."


def _errors(predictions: Predictions) -> NDArray[np.float64]:
    """(samples,), absolute error, or one minus the probability of the true class; the order of the split
    without targets.
    """
    values = np.asarray(predictions.prediction, dtype=np.float64)
    if predictions.targets is None:
        return np.arange(len(values), dtype=np.float64)
    targets = np.asarray(predictions.targets)
    if values.ndim == 1:
        return np.asarray(np.abs(values - targets))
    return 1 - np.take_along_axis(values, targets.astype(np.int64)[:, None], axis=1)[:, 0]


def _rank_words(rank: int, of: int) -> str:
    """Where a sample stands among all that were predicted, the best being the first."""
    if rank == 1:
        return f"best predicted of {of:,}"
    if rank == of:
        return f"worst predicted of {of:,}"
    ending = "th" if rank % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    return f"{rank:,}{ending} best predicted of {of:,}"
