"""Terms of a whole batch that compare two modalities: over the samples that have both."""

from collections.abc import Callable, Iterable
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional

Measure = Callable[[Tensor, Tensor], Tensor]


def between(measure: Measure, x: Tensor, y: Tensor, both: Tensor) -> Tensor | None:
    """A measure of two batches of vectors over some of their rows; ``None`` where these are fewer than two.

    Args:
        measure: Of two tensors (samples, channel); returns ().
        x: (batch, channel).
        y: (batch, channel).
        both: (batch,) bool, the rows to compare.
    """
    rows = both.nonzero().flatten()
    return measure(x[rows], y[rows]) if len(rows) >= 2 else None


def over_pairs(measure: Measure, vectors: Tensor, present: Tensor) -> list[Tensor]:
    """A measure of every two modalities, over the samples that have both; pairs with fewer than two such
    samples are left out.

    Args:
        measure: Of two tensors (samples, channel); returns ().
        vectors: (batch, modality, channel).
        present: (batch, modality) bool.
    """
    pairs = combinations(range(vectors.shape[1]), 2)
    return kept(
        between(measure, vectors[:, m], vectors[:, n], present[:, m] & present[:, n]) for m, n in pairs
    )


def within(measure: Measure, one: Tensor, other: Tensor, present: Tensor) -> list[Tensor]:
    """A measure of two parts of each modality, (batch, modality, channel), over samples that have it."""
    modalities = range(one.shape[1])
    return kept(between(measure, one[:, m], other[:, m], present[:, m]) for m in modalities)


def kept(terms: Iterable[Tensor | None]) -> list[Tensor]:
    """Those that there are."""
    return [term for term in terms if term is not None]


def total(terms: list[Tensor], like: Tensor, *, mean: bool = False) -> Tensor:
    """Sum or mean of terms, (); zero where there is none."""
    if not terms:
        return like.new_zeros(())
    stacked = torch.stack(terms)
    return stacked.mean() if mean else stacked.sum()


def mean_present(values: Tensor, present: Tensor) -> Tensor:
    """Mean over the last axis, of modalities or tokens, of what a sample has; 0 where it has nothing."""
    return (values * present).sum(-1) / present.sum(-1).clamp(min=1)


def named(scores: Tensor, present: Tensor) -> Tensor:
    """Cross-entropy of the modality that each part is taken for, (batch,).

    Args:
        scores: (batch, part, modality), as many parts as modalities.
        present: (batch, part) bool.
    """
    truth = torch.arange(scores.shape[1], device=scores.device).expand(len(scores), -1)
    return mean_present(functional.cross_entropy(scores.transpose(1, 2), truth, reduction="none"), present)


def margin_triplets(likeness: Tensor, margin: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Excess by which negatives come nearer to an anchor than its positives less a margin, ().

    The mean over the anchors that have both, and for each over all pairs of a positive p and a negative n, of
    max(0, margin of n - likeness of p + likeness of n). Memory is that of one matrix: a pair counts where it
    costs something, and sorting counts all pairs at once.

    Args:
        likeness: (anchor, other).
        margin: The same shape.
        positive: The same shape, bool.
        negative: The same shape, bool.
    """
    bound = margin + likeness
    with torch.no_grad():
        near = likeness.masked_fill(~positive, torch.inf).contiguous()
        far = bound.masked_fill(~negative, -torch.inf).contiguous()
        beaten = torch.searchsorted(near.sort(1).values, far)  # positives that a negative beats
        # negatives that beat a positive
        beating = far.shape[1] - torch.searchsorted(far.sort(1).values, near, right=True)
        pairs = positive.sum(1) * negative.sum(1)
    cost = (beaten * bound * negative).sum(1) - (beating * likeness * positive).sum(1)
    return (cost / pairs.clamp(min=1)).sum() / (pairs > 0).sum().clamp(min=1)


def contrast_of(x: Tensor, predicted: Tensor, present: Tensor) -> Tensor:
    """InfoNCE of vectors and what is predicted of them, by cosine: () over the samples that are present, 0
    for fewer than two.

    Args:
        x: (batch, width).
        predicted: (batch, width).
        present: (batch,) bool.
    """
    scores = (functional.normalize(x, dim=1) @ functional.normalize(predicted, dim=1).T).float()
    among = scores.masked_fill(~present, -1e9).logsumexp(1)  # far below any cosine, and without gradient
    count = present.sum()
    return ((among - scores.diagonal()) * present).sum() / count.clamp(min=1) * (count > 1)
