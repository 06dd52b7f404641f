"""The note on exact alignment: from which length on, and for which models."""

from typing import Any

import numpy as np
import pytest

from alignmamba.contracts import Corpus, Task
from alignmamba.data.archive import write_corpus
from alignmamba.recipes.advice import TOKENS_PER_CHANNEL, alignment_note
from alignmamba.recipes.configuration import check_config, resolve

HALF = 8 * TOKENS_PER_CHANNEL


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    features = {
        name: [np.zeros((factor * HALF, 1)) for _ in range(2)] for name, factor in (("text", 2), ("audio", 3))
    }
    split = {"features": features, "targets": [0.0, 1.0]}
    path = tmp_path_factory.mktemp("long") / "corpus"
    return write_corpus(path, {"train": split, "valid": split}, task=Task(kind="regression"))


def note(corpus: Corpus, model: str = "alignmamba", **options: Any) -> str:
    config = check_config(
        {"data": "anywhere", "model": model, "options": {"d_model": 8, "depth": 1, **options}}
    )
    return alignment_note(resolve(config, corpus), corpus)


def test_long_sequences_are_told_what_makes_them_fast(corpus: Corpus) -> None:
    assert (
        note(corpus)
        == "exact alignment grows with the square of the length: about 67% of a step at 1,200 tokens; --set"
        " options.local.window=256 options.alignment.landmarks=256 makes it linear, about 3.0 times as"
        " fast"
    )


@pytest.mark.parametrize(
    "options",
    [
        {"d_model": 32},
        {"local": {"window": 9}},
        {"alignment": {"landmarks": 9}},
        {"local": {"method": "proportional"}},
    ],
)
def test_what_is_short_or_linear_is_told_nothing(corpus: Corpus, options: dict[str, Any]) -> None:
    assert note(corpus, **options) == ""


def test_other_models_are_told_nothing(corpus: Corpus) -> None:
    assert note(corpus, "late-fusion") == ""
