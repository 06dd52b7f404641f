"""Values that an array marks as masked or null are never numbers, wherever they stand."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.masked import MaskedTensor

from alignmamba.data.archive import load_corpus, write_corpus
from alignmamba.data.validity import NotAnArrayError, plain_array, plain_scalar
from alignmamba.errors import DataError


def masked_tensor(data: torch.Tensor, mask: torch.Tensor) -> MaskedTensor:
    """PyTorch warns that its interface may change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MaskedTensor(data, mask)


VALID = np.array([[True, False], [True, True], [True, True]])
HIDDEN = np.array([[1.0, 777.0], [3.0, 4.0], [5.0, 6.0]])
MASKED: dict[str, Callable[[], Any]] = {
    "numpy": lambda: np.ma.array(HIDDEN, mask=~VALID),
    "numpy, integers": lambda: np.ma.array(HIDDEN.astype(int), mask=~VALID),
    "rows of numpy": lambda: [
        np.ma.array(row, mask=~valid) for row, valid in zip(HIDDEN, VALID, strict=True)
    ],
    "torch": lambda: masked_tensor(torch.tensor(HIDDEN), torch.tensor(VALID)),
    "rows of torch": lambda: [
        masked_tensor(torch.tensor(r), torch.tensor(v)) for r, v in zip(HIDDEN, VALID, strict=True)
    ],
    "Arrow": lambda: pa.table({"a": [1, 3, 5], "b": [None, 4, 6]}),
    "objects": lambda: np.array([[1, None], [3, 4], [5, 6]], dtype=object),
    "a list": lambda: [[1.0, None], [3.0, 4.0], [5.0, 6.0]],
    "a constant": lambda: [[1.0, np.ma.masked], [3.0, 4.0], [5.0, 6.0]],
}


@pytest.mark.parametrize("kind", MASKED)
def test_masked_features_are_not_finite(tmp_path: Path, kind: str) -> None:
    splits = {"train": {"features": {"m": [MASKED[kind]()]}, "targets": [1.0]}}
    with pytest.raises(DataError, match=r"m.*(masked or null|found nan)"):
        write_corpus(tmp_path / "corpus", splits, task={"kind": "regression"})
    write_corpus(tmp_path / "corpus", splits, task={"kind": "regression"}, nonfinite="keep")
    stored = load_corpus(tmp_path / "corpus", nonfinite="mean").split("train")[0].features["m"]
    np.testing.assert_array_equal(stored, [[1, 5], [3, 4], [5, 6]])


@pytest.mark.filterwarnings("default")
def test_pandas(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    features = pandas.DataFrame(
        {"a": pandas.array([1, 3, 5], dtype="Int64"), "b": pandas.array([None, 4, 6], dtype="Float64")}
    )
    table = pandas.DataFrame(
        {"y": [5.0, 6.0, 7.0], "who": ["ann", None, "bob"], "said": ["x", pandas.NA, "z"]}, index=[2, 0, 1]
    )
    split = {
        "features": {"m": [features] * 3},
        "targets": table.y,
        "groups": table.who,
        "texts": table.said,
        "labels": {"also": table.y},
    }
    corpus = write_corpus(
        tmp_path / "corpus", {"train": split}, task={"kind": "regression"}, nonfinite="keep"
    )
    repaired = load_corpus(tmp_path / "corpus", nonfinite="zero").split("train")
    np.testing.assert_array_equal(repaired[0].features["m"], [[1, 0], [3, 4], [5, 6]])
    found = [
        (sample.target, sample.group, sample.text, sample.labels["also"]) for sample in corpus.split("train")
    ]
    assert found == [(5.0, "ann", "x", 5.0), (6.0, None, None, 6.0), (7.0, "bob", "z", 7.0)]
    assert plain_scalar(pandas.NA) is plain_scalar(pandas.NaT) is None
    np.testing.assert_array_equal(plain_array(pandas.Series([1, None], dtype="Int64"))[0], [1, np.nan])


def test_a_mask_that_hides_nothing_is_none(tmp_path: Path) -> None:
    given = [
        np.ma.array(HIDDEN),
        np.ma.array(HIDDEN, mask=np.zeros_like(VALID)),
        masked_tensor(torch.tensor(HIDDEN), torch.ones(3, 2) > 0),
    ]
    corpus = write_corpus(
        tmp_path / "c",
        {"train": {"features": {"m": given}, "targets": [1.0] * 3}},
        task={"kind": "regression"},
    )
    for sample in corpus.split("train"):
        np.testing.assert_array_equal(sample.features["m"], HIDDEN)


FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "tokens": (
        {"features": {"m": [np.ma.array([1, 2], mask=[0, 1])]}},
        "the entry at 1 is masked or null (1 of 2 are), expected token ids",
    ),
    "times": (
        {"times": {"m": [np.ma.array([0.0, 1.0], mask=[0, 1])]}},
        "times: the entry at 1 is masked or null, expected seconds",
    ),
    "complex times": (
        {"times": {"m": [np.array([0, 1j])]}},
        "times: expected 2 numbers of seconds, found dtype complex128",
    ),
    "dates as times": (
        {"times": {"m": [np.array([0, 1], dtype="M8[s]")]}},
        "times: expected 2 numbers of seconds, found dtype datetime64",
    ),
    "complex": ({"features": {"m": [np.ones((2, 1)) * 1j]}}, "expected real numbers, found dtype complex128"),
    "sparse": (
        {"features": {"m": [torch.eye(2).to_sparse()]}},
        "found a sparse tensor; give tensor.to_dense()",
    ),
    "nested": (
        {
            "features": {
                "m": [
                    torch.nested.as_nested_tensor([torch.ones(2, 2), torch.ones(3, 2)], layout=torch.jagged)
                ]
            }
        },
        "found a nested tensor; give one tensor for each sample",
    ),
}


@pytest.mark.parametrize("case", FIELDS)
def test_what_is_hidden_is_refused_where_there_is_no_repair(tmp_path: Path, case: str) -> None:
    changed, said = FIELDS[case]
    split: dict[str, Any] = {"features": {"m": [np.ones((2, 1))]}, "targets": [1.0], **changed}
    with pytest.raises(DataError) as raised:
        write_corpus(tmp_path / "corpus", {"train": split}, task={"kind": "regression"}, nonfinite="keep")
    assert said in str(raised.value)


@pytest.mark.parametrize(
    "targets",
    [
        np.ma.array([7.0, 1.0], mask=[True, False]),
        [masked_tensor(torch.tensor(7.0), torch.tensor(False)), 1.0],
        pa.array([None, 1.0], type=pa.float64()),
        [None, 1.0],
    ],
    ids=["numpy", "torch", "Arrow", "none"],
)
def test_a_target_that_is_hidden_is_unknown(tmp_path: Path, targets: Any) -> None:
    split = {"features": {"m": [np.ones((2, 1))] * 2}, "targets": targets}
    corpus = write_corpus(tmp_path / "corpus", {"train": split}, task={"kind": "regression"})
    assert [sample.target for sample in corpus.split("train")] == [None, 1.0]


def test_labels_that_are_hidden_are_unknown(tmp_path: Path) -> None:
    split = {
        "features": {"m": [np.ones((2, 1))]},
        "targets": pa.array([2]),
        "labels": {"a": np.ma.array([7], mask=[1]), "b": pa.array([3])},
    }
    corpus = write_corpus(tmp_path / "corpus", {"train": split}, task={"kind": "regression"})
    assert corpus.split("train")[0].labels == {"b": 3}
    assert corpus.split("train")[0].target == 2


def test_what_is_no_array() -> None:
    for given in ([[1.0], [1.0, 2.0]], [np.ones(2), np.ones(3)]):
        with pytest.raises(NotAnArrayError, match="found a ragged list"):
            plain_array(given)
    assert plain_array(np.array([[object()]]))[0].dtype == object
    assert plain_array([1, 2])[0].dtype.kind == "i"
