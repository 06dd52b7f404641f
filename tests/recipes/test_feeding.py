"""Fitting on a corpus, a torch Dataset and a DataLoader: the same scale and the same score, whatever holds
the samples.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from alignmamba import AlignMamba, Batch, FitConfig, fit
from alignmamba.errors import AlignMambaError, ConfigError, DataError
from small_run import CLASSES, write_small_corpus

CONFIG = FitConfig(epochs=2, warmup_fraction=0.0)


class Rows(Dataset[Any]):
    def __init__(self, split: Any) -> None:
        self.rows = [(dict(sample.features), sample.target) for sample in split]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Any:
        return self.rows[row]


def model(classes: Any = CLASSES) -> AlignMamba:
    torch.manual_seed(0)
    return AlignMamba.for_classification(
        {"text": 4, "audio": 2}, classes=classes, d_model=16, depth=1, d_state=4
    )


def test_whatever_holds_the_samples_the_scale_is_that_of_train(tmp_path: Path) -> None:
    corpus = write_small_corpus(tmp_path / "small")
    train, valid = Rows(corpus.split("train")), Rows(corpus.split("valid"))
    batches = [DataLoader(rows, batch_size=8, collate_fn=Batch.collate) for rows in (train, valid)]
    means = []
    for given in ((corpus,), (train, valid), batches):
        made = model()
        result = fit(made, *given, config=CONFIG)
        assert result.metric == "accuracy"
        assert len(result.history) == 2
        means.append(made.training_means()["audio"].numpy())
    np.testing.assert_allclose(means[1], means[0], rtol=1e-5)
    np.testing.assert_allclose(means[2], means[0], rtol=1e-5)
    kept = model()
    fit(kept, corpus, config=CONFIG, standardise=False)
    assert not kept.training_means()["audio"].any()


def test_targets_of_a_regression_are_scaled(tmp_path: Path) -> None:
    split = write_small_corpus(tmp_path / "small", kind="regression").split("train")
    rows = Rows(split)
    rows.rows = [(features, 500.0 + 100 * target) for features, target in rows.rows]
    made = AlignMamba.for_regression({"text": 4, "audio": 2}, d_model=16, depth=1, d_state=4)
    fit(made, rows, rows, config=CONFIG)
    scale: Any = made.target_scale
    assert scale.mean == pytest.approx(np.mean([target for _, target in rows.rows]), rel=1e-4)


def test_what_cannot_be_fitted(tmp_path: Path) -> None:
    corpus = write_small_corpus(tmp_path / "small")
    rows = Rows(corpus.split("train"))
    floats = DataLoader(rows, batch_size=8, collate_fn=lambda r: Batch.collate([(f, float(t)) for f, t in r]))
    cases: dict[str, tuple[type[AlignMambaError], Any]] = {
        "valid: expected samples": (ConfigError, lambda: fit(model(), rows, config=CONFIG)),
        "train: expected a corpus, a torch Dataset or a DataLoader of Batch, found list": (
            DataError,
            lambda: fit(model(), [1], [2]),
        ),
        "task: found no task in this model": (ConfigError, lambda: fit(torch.nn.Linear(1, 1), corpus)),
        "score: expected it together with higher_is_better": (
            ConfigError,
            lambda: fit(model(), corpus, score=lambda _: {}),
        ),
        "expected class indices from 0 to 2, found": (
            DataError,
            lambda: fit(model(), floats, floats, CONFIG),
        ),
        "give the DataLoader collate_fn=Batch.collate": (
            DataError,
            lambda: fit(model(), *[DataLoader(rows, batch_size=1, collate_fn=list)] * 2, config=CONFIG),
        ),
        "make the model with classes=": (
            DataError,
            lambda: fit(model(("x", "y", "z")), corpus, config=CONFIG),
        ),
        "resume: found a DataLoader": (
            ConfigError,
            lambda: fit(model(), floats, floats, CONFIG, resume=True),
        ),
    }
    for said, (kind, refused) in cases.items():
        with pytest.raises(kind, match=said):
            refused()
