"""Targets of tokens: which a network can have, and the vectors of tokens that they are predicted from."""

from collections.abc import Sequence

import torch
from torch import Tensor

from alignmamba.contracts import Task, TokenVectors


def refuse_tokens(task: Task, modalities: Sequence[str], *, method: str, reason: str) -> None:
    """Refuse targets of tokens that a network cannot have: any with a reason, else those of no modality.

    Raises:
        ValueError: With the target and the way out.
    """
    for target in task.further:
        if target.tokens is not None and reason:
            raise ValueError(
                f"targets.{target.name}: found a value for each token of {target.tokens!r}, expected one"
                f" for each sample: {method} {reason}"
            )
        if target.tokens not in (None, *modalities):
            raise ValueError(
                f"targets.{target.name}: found tokens {target.tokens!r}, expected of {list(modalities)}"
            )


def of_raw_tokens(encoded: TokenVectors, stride: int, there: Tensor | None) -> TokenVectors:
    """Vectors of the tokens of a batch, each that of the encoded token that it became part of.

    Args:
        encoded: Of the encoded tokens.
        stride: Tokens of the batch that became one.
        there: (batch, time) bool, valid tokens of the batch; ``None`` where it lacks the modality.
    """
    x, mask = encoded.x, encoded.mask
    if there is None:
        return TokenVectors(x=x[:, :0], mask=mask[:, :0])
    if stride > 1:
        place = torch.arange(there.shape[1], device=there.device) // stride
        x, mask = x[:, place], mask[:, place]
    return TokenVectors(x=x, mask=mask & there)
