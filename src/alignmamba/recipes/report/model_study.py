"""Transcripts, groups, plans and worth of modalities: what only model and corpus know."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from alignmamba.contracts import Predictions, Split
from alignmamba.data.missing_protocols import WithheldSplit
from alignmamba.errors import ConfigError
from alignmamba.evaluation.metrics import score
from alignmamba.evaluation.sample_errors import sample_errors
from alignmamba.recipes.finished_run import LoadedRun, load_run
from alignmamba.recipes.report.contents import MOST_PLAN_TOKENS
from alignmamba.recipes.report.findings import Study, Tokens, Worth
from alignmamba.recipes.run_records import Samples
from alignmamba.recipes.transport_plans import PlanSample, shown_plans

MOST_TOKENS: Final = 1_000_000
"""Tokens of the samples that are predicted again for a page; of a larger split, evenly spaced samples are."""
MOST_PLANS: Final = (60, 40, 24, 12, 6, 3, 1)
"""Number of samples with plans: the first number whose plans fit into `MOST_PLAN_TOKENS`."""
MOST_CHARACTERS: Final = 2_000_000
"""Characters of all transcripts of a page."""
MOST_WORDS: Final = 300_000
"""Words of tokens that a page shows besides plans; of a larger split, those of evenly spaced samples."""


def study(directory: Path, samples: Samples, *, data: str | None = None) -> Study:
    """Load a finished run with its corpus, from its new place if given, and ask the model again about the
    samples of a split.
    """
    run = load_run(directory, data=data)
    split = _split_of(run, samples, data)
    names = [spec.name for spec in run.modalities]
    counts = np.sum([np.asarray(split.lengths[name]) for name in names], axis=0)
    rows = _spread(counts)
    notes = []
    if len(rows) < len(split):
        notes.append(
            f"What modalities are worth rests on {len(rows):,} of {len(split):,} samples, evenly spaced in"
            " the order of the split."
        )
    present = {name: np.asarray(split.lengths[name]) > 0 for name in names}
    complete = run.predictions(kept_view(split, present, rows))
    without = dict(without_each(run, split, present, rows))
    worth = [_worth(run, name, complete, lacking) for name, lacking in without.items()]
    if complete.targets is not None:
        notes += [
            f"{len(rows) - each.samples:,} samples have no modality but {each.modality}; its line does"
            " without them."
            for each in worth
            if each.samples < len(rows)
        ]
    texts, groups, cut = _words(split)
    if cut:
        notes.append(f"Transcripts are cut to {cut:,} characters to keep this page small.")
    tokens, said = _tokens(split, names, counts)
    plans, without_plan = _plans(run, split, rows, complete, counts)
    return Study(
        texts=texts,
        groups=groups,
        tokens=tokens,
        modalities=tuple(names),
        complete=complete,
        without=without,
        worth=tuple(worth) if complete.targets is not None else (),
        plans=plans,
        without_plan=without_plan,
        notes=(*notes, *said, without_plan),
    )


def _split_of(run: LoadedRun, samples: Samples, data: str | None) -> Split:
    """The split that the samples are of, where the corpus is the one that the run was trained on."""
    expected = run.stored.identity().get("corpus", {}).get("checksum")
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
    return split


# What modalities are worth


def without_each(
    run: LoadedRun, split: Split, present: Mapping[str, NDArray[np.bool_]], rows: NDArray[np.int64]
) -> Iterator[tuple[str, Predictions]]:
    """Each modality with the predictions without it, of those samples that have another one."""
    for name in present:
        kept = {other: mask & (other != name) for other, mask in present.items()}
        some = rows[np.any([mask[rows] for mask in kept.values()], axis=0)]
        if len(some):
            yield name, run.predictions(kept_view(split, kept, some))


def _worth(run: LoadedRun, name: str, complete: Predictions, without: Predictions) -> Worth:
    task, known, ids = run.corpus.task, complete.targets is not None, set(without.ids)
    same = _of(complete, np.array([identity in ids for identity in complete.ids]))
    return Worth(
        modality=name,
        samples=len(without.ids),
        complete=score(task, same) if known else {},
        without=score(task, without) if known else {},
    )


def kept_view(split: Split, kept: Mapping[str, NDArray[np.bool_]], rows: NDArray[np.int64]) -> WithheldSplit:
    return WithheldSplit(split=split, kept={name: mask[rows] for name, mask in kept.items()}, rows=rows)


def _of(predictions: Predictions, chosen: NDArray[np.bool_]) -> Predictions:
    return Predictions(
        ids=tuple(identity for identity, take in zip(predictions.ids, chosen, strict=True) if take),
        prediction=predictions.prediction[chosen],
        targets=None if predictions.targets is None else np.asarray(predictions.targets)[chosen],
        called=None if predictions.called is None else predictions.called[chosen],
    )


def _spread(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """All rows, or as many evenly spaced ones as hold `MOST_TOKENS`, one at least."""
    return _evenly(np.arange(len(counts)), _fitting(counts, MOST_TOKENS))


def _fitting(counts: NDArray[np.int64], most: int) -> int:
    """Number of samples, at least one, that hold at most so many tokens together."""
    size, total = len(counts), int(counts.sum())
    return size if total <= most else max(1, int(size * most / total))


def _evenly(order: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Choose so many of them, the first and the last included."""
    return order[np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(np.int64))]


# What the corpus says of samples


def _words(split: Split) -> tuple[tuple[str | None, ...], tuple[str | None, ...], int]:
    """Transcripts, or else the words of tokens, groups, and the most characters of one; 0 where all are
    whole.
    """
    texts, groups = [], []
    for sample in split:
        spoken = (" ".join(filter(None, tokens)) for tokens in sample.tokens.values() if any(tokens))
        texts.append(sample.text or next(spoken, None))
        groups.append(sample.group)
    if sum(len(text or "") for text in texts) <= MOST_CHARACTERS:
        return tuple(texts), tuple(groups), 0
    most = MOST_CHARACTERS // len(texts)
    short = (text if text is None or len(text) <= most else f"{text[:most]}…" for text in texts)
    return tuple(short), tuple(groups), most


def _tokens(
    split: Split, names: Sequence[str], counts: NDArray[np.int64]
) -> tuple[tuple[Mapping[str, Tokens], ...], list[str]]:
    """Lengths, times and words of every sample, and the sentence about words for which there is no room."""
    room = _fitting(counts, MOST_WORDS)
    roomy = set(_evenly(np.arange(len(counts)), room).tolist())
    made, cut = [], False
    for row, sample in enumerate(split):
        held = {}
        for name in names:
            length, times, words = split.lengths[name][row], sample.times.get(name), sample.tokens.get(name)
            if not length:
                continue
            finite = times is not None and len(times) > 0 and np.isfinite(times[[0, -1]]).all()
            held[name] = Tokens(
                length=int(length),
                seconds=(float(times[0]), float(times[-1])) if times is not None and finite else None,
                words=tuple(words) if words and row in roomy else None,
            )
            cut = cut or (bool(words) and row not in roomy)
        made.append(held)
    note = f"Words of tokens are shown of {room:,} of {len(made):,} samples to keep this page small."
    return tuple(made), [note] if cut else []


# Plans


def _plans(
    run: LoadedRun, split: Split, rows: NDArray[np.int64], complete: Predictions, counts: NDArray[np.int64]
) -> tuple[tuple[PlanSample, ...], str]:
    """Plans of samples from the best to the worst predicted, and the sentence on those without."""
    known = complete.targets is not None
    errors = sample_errors(run.corpus.task, complete) if known else np.arange(len(rows))
    order = rows[errors.argsort(kind="stable")]
    fitting = (_evenly(order, count) for count in MOST_PLANS)
    chosen = next((some for some in fitting if 2 * counts[some].sum() <= MOST_PLAN_TOKENS), None)
    if chosen is None:
        much = f"those of one sample would hold more than {MOST_PLAN_TOKENS:,} matched tokens"
        return (), f"Plans are not shown: {much}."
    rank = {int(row): place + 1 for place, row in enumerate(order)}
    why = {row: _rank_words(rank[row], len(order)) if known else "unlabelled" for row in chosen.tolist()}
    made = shown_plans(run.config, run.corpus, run.model.cpu(), split, why)
    plans = tuple(plan for plan in made if plan.sources)
    if not plans:
        held = [np.asarray(split.lengths[spec.name])[chosen] > 0 for spec in run.modalities]
        several = np.sum(held, axis=0).max() > 1
        reason = (
            f"{run.config.model} aligns no tokens"
            if several
            else "no sample here has a second modality to align"
        )
        return (), f"There are no plans: {reason}."
    how = "evenly spaced from the best to the worst predicted" if known else "evenly spaced"
    return plans, f"Plans of {len(plans):,} of {len(split):,} samples are on this page, {how}."


def _rank_words(rank: int, of: int) -> str:
    """Rank of a sample among all that were predicted, the best being the first."""
    if rank in (1, of):
        return f"{'best' if rank == 1 else 'worst'} predicted of {of:,}"
    ending = "th" if rank % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    return f"{rank:,}{ending} best predicted of {of:,}"
