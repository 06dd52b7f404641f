"""Contrast by order: tokens learn their partners in another sequence where nothing says when these happen."""

import torch
import torch.nn.functional as F
from torch import Tensor

from alignmamba.errors import ConfigError, ShapeError
from alignmamba.ops.backends import without_autocast
from alignmamba.ops.ordered_matching import match_in_order
from alignmamba.ops.pair_tiles import PairLogs
from alignmamba.ops.sequence import masked_mean, unit_tokens
from alignmamba.ops.transport import check_sides

# Similarities of one tile over the whole batch: 8 MB in float32, whatever the lengths.
_TILE_ENTRIES = 2**21
# Least expected share of a class, of what it would have if all had the same: no logarithm runs away.
_LEAST_SHARE = 0.03


def order_contrast(
    source: Tensor,
    anchor: Tensor,
    source_mask: Tensor,
    anchor_mask: Tensor,
    null: Tensor,
    *,
    temperature: float = 0.07,
    correction: float = 0.5,
    flat: bool = False,
) -> Tensor:
    r"""Loss under which content alone finds the token of the other sequence, where nothing but the order of
    both is known: words, and the sound in which they are spoken.

    In each sample, tokens of the longer sequence are classified among the distinct tokens of all the shorter
    sequences of the batch and `null`, for what has no partner. Their classes are those of the best path
    through the sample's shorter sequence, with an optional `null` at both ends (`match_in_order`). With
    ``s(i, k) = cos(x_i, y_k) / temperature``, a path is worth the sum of ``s(i, k) - correction * log q(k)``,
    where ``q(k)`` is the mean probability of the class over the batch: a class that is taken for everything
    counts less. A token costs its cross-entropy. Tokens that are equal, as the same word of a table of
    embeddings, are one class. Memory is linear in the number of tokens, but for that of `match_in_order`.

    Args:
        source: (batch, source time, channel), floating.
        anchor: (batch, anchor time, channel), of the same dtype.
        source_mask: (batch, source time) bool, valid tokens first.
        anchor_mask: (batch, anchor time) bool, valid tokens first.
        null: (channel,), a token for what has no partner.
        temperature: Divisor of cosines; the smaller, the more the likest wrong token counts.
        correction: Share of a class's frequency that is taken away from its worth on a path.
        flat: Cut the longer sequence into parts of equal length instead of looking for a path: a start, from
            which the first similarities are learned.

    Returns:
        (batch,), at least float32; zero for a sample where a side has no valid token. A sample's value
        depends on the others of its batch, whose tokens are its negatives.

    Raises:
        ShapeError: If shapes, dtypes or devices do not fit.
        ConfigError: If `temperature` is not positive and finite, or `correction` is negative or not finite.

    Source:
        Viterbi training of a hidden Markov model from a flat start (Rabiner and Juang, 1993, section 6.15),
        with a softmax over cosines for the densities and scaled by class frequencies (Bourlard and Morgan,
        1994, doi:10.1007/978-1-4615-3210-1); not in Li et al., arXiv:2412.00833.
    """
    check_sides(source, anchor, source_mask, anchor_mask)
    if null.shape != source.shape[2:] or not null.is_floating_point():
        raise ShapeError(
            f"null: expected floating of shape ({source.shape[2]},), found {null.dtype} of shape"
            f" {tuple(null.shape)}"
        )
    if not 0 < temperature < float("inf"):
        raise ConfigError(f"temperature: expected a positive number, found {temperature}")
    if not 0 <= correction < float("inf"):
        raise ConfigError(f"correction: expected at least 0 and finite, found {correction}")
    working = torch.promote_types(source.dtype, torch.float32)
    losses = source.new_zeros(len(source), dtype=working)
    if source.shape[1] == 0 or anchor.shape[1] == 0:
        return losses
    longer = source_mask.sum(1) >= anchor_mask.sum(1)
    both = source_mask.any(1) & anchor_mask.any(1)
    with without_autocast(source.device):
        x, y = (
            unit_tokens(each.to(working), mask)
            for each, mask in ((source, source_mask), (anchor, anchor_mask))
        )
        nothing = F.normalize(null.to(working), dim=0)
        for rows, frames, words, frames_mask, words_mask in (
            (both & longer, x, y, source_mask, anchor_mask),
            (both & ~longer, y, x, anchor_mask, source_mask),
        ):
            if not bool(rows.any()):
                continue
            found = _classified(
                frames[rows],
                words[rows],
                frames_mask[rows],
                words_mask[rows],
                nothing,
                1 / temperature,
                correction,
                flat,
            )
            losses = losses.index_put((rows.nonzero().squeeze(1),), found)
    return losses


def _classified(
    frames: Tensor,
    words: Tensor,
    frames_mask: Tensor,
    words_mask: Tensor,
    null: Tensor,
    scale: float,
    correction: float,
    flat: bool,
) -> Tensor:
    """(batch,), mean cross-entropy of unit frames among `null` and the distinct unit words of the batch."""
    tokens = words[words_mask]
    distinct, number = tokens.detach().unique(dim=0, return_inverse=True)
    at = torch.arange(len(tokens), device=tokens.device)
    first = at.new_full((len(distinct),), len(tokens)).scatter_reduce(0, number, at, "amin")
    classes = torch.cat([null.unsqueeze(0), tokens[first]]) * scale
    total = _partition(frames, classes)
    # States: null, the words, and null once more right after the last of them.
    lengths = words_mask.sum(1, keepdim=True)
    states = lengths.new_zeros(len(words), words.shape[1] + 2)
    states[:, 1:-1][words_mask] = number + 1
    states_mask = torch.arange(states.shape[1], device=states.device) < lengths + 2
    if flat:
        frame = torch.arange(frames.shape[1], device=states.device)
        path = (frame * (lengths + 2) // frames_mask.sum(1, keepdim=True)).minimum(lengths + 1)
    else:
        shares = _shares(frames, frames_mask, classes, total)
        least = _LEAST_SHARE / len(classes)
        bias = -correction * shares.clamp(min=least).log()[states]
        path = match_in_order(
            frames, classes.detach()[states], frames_mask, states_mask, bias=bias, free_ends=True
        ).clamp(min=0)
    own = (frames * classes[states.gather(1, path)]).sum(2)
    return masked_mean((total - own).unsqueeze(2), frames_mask).squeeze(1)


def _partition(frames: Tensor, classes: Tensor) -> Tensor:
    """(batch, time), logarithm of the sum over classes of exp(similarity)."""
    if frames.shape[0] * frames.shape[1] * len(classes) <= _TILE_ENTRIES:
        return (frames @ classes.T).logsumexp(2)
    similarities = PairLogs(
        frames.flatten(0, 1).unsqueeze(0), classes.unsqueeze(0), tile_entries=_TILE_ENTRIES
    )
    return similarities.logsumexp(2).view(frames.shape[:2])


@torch.no_grad()
def _shares(frames: Tensor, mask: Tensor, classes: Tensor, total: Tensor) -> Tensor:
    """(classes,), the mean probability of each class over all valid frames."""
    sums = frames.new_zeros(len(classes))
    step = max(1, _TILE_ENTRIES // (len(frames) * len(classes)))
    place = frames.new_empty(min(step, frames.shape[1]) * len(frames) * len(classes))
    for rows, logs, valid in zip(*(each.split(step, 1) for each in (frames, total, mask)), strict=True):
        each = place[: logs.numel() * len(classes)].view(*logs.shape, len(classes))
        torch.matmul(rows, classes.T, out=each).sub_(logs.unsqueeze(2)).exp_()
        each.masked_fill_(~valid.unsqueeze(2), 0)
        sums += each.sum((0, 1))
    return sums / mask.sum()
