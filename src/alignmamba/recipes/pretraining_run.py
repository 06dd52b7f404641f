"""Parts of a run that learns without labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignmamba.contracts import Corpus, Predictions, Task
from alignmamba.data.hidden_spans import hidden_spans
from alignmamba.errors import ConfigError
from alignmamba.evaluation.metrics import score
from alignmamba.methods import METHODS
from alignmamba.methods.hidden_tokens import Pretraining, why_not_pretrained
from alignmamba.models.encoded import ReadsTokens
from alignmamba.models.network import Network
from alignmamba.recipes.configuration import RunConfig, model_config
from alignmamba.training.fit_config import FitResult
from alignmamba.training.objective import Objective

_VALID_LOSS = "valid/loss/"
"""Beginning of the columns of losses of the valid split."""


def check_pretrainable(config: RunConfig, corpus: Corpus) -> None:
    """Refuse, by a `ConfigError`, a method that cannot learn without labels, or terms that have nothing to do
    with the corpus.
    """
    reason = why_not_pretrained(METHODS[config.model].network, model_config(config, corpus))
    if reason:
        raise ConfigError(f"objective: model {config.model} cannot be pretrained: {reason}")
    if len(corpus.modalities) < 2 and not config.pretrain.reconstruction:
        raise ConfigError(
            "pretrain.reconstruction: found 0 with one modality, which no other matches, expected above 0"
        )


def objective_of(config: RunConfig, model: Network[Any], task: Task) -> Objective:
    """The objective of a run: that of its method, or learning without labels."""
    if config.objective == "task":
        return METHODS[config.model].objective(model, task)

    def draw(ids: Sequence[str], lengths: Sequence[int], name: str, epoch: int | None) -> NDArray[np.bool_]:
        share, span = config.pretrain.share, config.pretrain.span
        return hidden_spans(
            ids, lengths, modality=name, share=share, span=span, seed=config.seed, epoch=epoch
        )

    assert isinstance(model, ReadsTokens)
    return Pretraining(model, task, config.pretrain, draw)


def scores_of(config: RunConfig, task: Task, predictions: Predictions) -> dict[str, float]:
    """Scores of predictions; none where nothing is predicted."""
    return score(task, predictions) if config.objective == "task" else {}


def valid_losses(result: FitResult) -> dict[str, float]:
    """Losses of the valid split in the best epoch, by name."""
    record = result.history[result.best_epoch - 1]
    return {
        name.removeprefix(_VALID_LOSS): value
        for name, value in record.items()
        if name.startswith(_VALID_LOSS)
    }
