"""The best constant says the median or the shares of the classes, and nothing else."""

import numpy as np
import pytest
import torch
from every_method import TASKS, batch_of, learn, prepared, sources, split

from alignmamba.contracts import Batch
from alignmamba.errors import DataError
from alignmamba.methods import METHODS

METHOD = METHODS["best-constant"]


def test_a_regression_gets_the_median_of_train() -> None:
    task = TASKS["regression"]
    objective = prepared(METHOD, task)
    result = learn(objective, *sources(METHOD, task, missing=False))
    median = np.median([sample.target for sample in split("train", 24, task)])  # type: ignore[misc]
    said = objective.model.eval()(batch_of(task)).prediction
    np.testing.assert_allclose(said.detach().numpy(), median, rtol=1e-6)
    assert (result.metric, result.best_epoch, len(result.history)) == ("loss", 1, 1)


def test_a_classification_gets_the_shares_of_the_classes() -> None:
    task = TASKS["classification"]
    objective = prepared(METHOD, task)
    learn(objective, *sources(METHOD, task, missing=False))
    targets = [sample.target for sample in split("train", 24, task)]
    counts = np.bincount(np.array(targets, dtype=np.int64), minlength=3)
    said = objective.model.eval()(batch_of(task)).prediction.softmax(1)
    expected = torch.tensor((counts + 1) / (counts + 1).sum(), dtype=torch.float32)
    torch.testing.assert_close(said, expected.expand_as(said))
    assert int(said[0].argmax()) == counts.argmax()


def test_it_refuses_what_any_network_refuses() -> None:
    model = prepared(METHOD, TASKS["regression"]).model
    with pytest.raises(DataError, match="modality 'smell' is unknown to this model"):
        model(Batch.of({"smell": [np.zeros((2, 3), dtype=np.float32)]}))
