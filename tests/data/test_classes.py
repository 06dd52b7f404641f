"""Meaning of a label: a name, or a number that can only mean one thing."""

from pathlib import Path

import numpy as np
import pytest
import torch

from alignmamba.contracts import Task
from alignmamba.data.archive import write_corpus
from alignmamba.data.classes import Classes, name_of_number
from alignmamba.errors import DataError


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (("no", "yes"), {0: 0, 1: 1, 2: None, -1: None, 0.5: None}),
        (("0", "1", "2"), {0: 0, 1: 1, 2: 2, 3: None}),
        (("none", "1", "2"), {0: 0, 1: 1, 2: 2}),
        (("0", "2", "1"), {0: 0, 1: 2, 2: 1, 3: None}),
        (("1", "2", "3"), {0: None, 1: 0, 2: 1, 3: 2}),
        (("-1", "0", "1"), {-1: 0, 0: 1, 1: 2, 2: None}),
        (("a", "0"), {0: 1, 1: None}),
        (("01", "02"), {1: 0, 2: 1, 0: None}),
        (("1", "01"), {1: 0, 0: None}),
        (("001", "01"), {1: None}),
        (("0.5", "1.5"), {0.5: 0, 1.5: 1, 0: None, 1: None}),
        (("nan", "inf"), {0: 0, 1: 1, float("nan"): None, float("inf"): None}),
    ],
)
def test_a_number_of_a_file_means_one_class(names: tuple[str, ...], places: dict[float, int | None]) -> None:
    assert {number: Classes(names).place_of_number(number) for number in places} == places


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_a_number_of_any_type_is_found_by_its_name(dtype: type) -> None:
    fifths = (np.arange(-5, 6) / 5).astype(dtype).tolist()
    numbers = sorted({*fifths, 1_000_000, 1_000_001, 16_777_217, 1e-9, 0.1, 0.1 + 0.2, 1e300, 2.0**70})
    names = [name_of_number(number) for number in numbers]
    classes = Classes(names)
    assert [classes.place_of_number(number) for number in numbers] == [*range(len(numbers))]
    assert [classes.place_of_name(name) for name in names] == [*range(len(numbers))]


def test_names_of_numbers_are_the_shortest() -> None:
    singles = [float(np.float32(number)) for number in (-0.8, 0.1, 3, 1e-7, 123_456_789)]
    assert [*map(name_of_number, singles)] == ["-0.8", "0.1", "3", "1e-07", "123456792"]
    assert [*map(name_of_number, (0.1 + 0.2, -0.8, -0.0, 7))] == ["0.30000000000000004", "-0.8", "0", "7"]
    # a name that is exact is the class, even where another one rounds to the same
    assert Classes(["0.1", "0.10000000149011612"]).place_of_number(singles[1]) == 1
    assert Classes(["0.1", "0.2"]).place_of_number(singles[1]) == 0


@pytest.mark.parametrize(
    "names", [("0", "2", "1"), ("1", "2", "3"), ("-1", "0", "1"), ("a", "0"), ("01", "02")]
)
def test_an_index_of_classes_that_are_numbers_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    features = {"m": [np.ones((1, 1))] * 2}
    task = Task(kind="classification", classes=names)
    with pytest.raises(
        DataError, match=rf"target 1 may be the index or the name .* for example '{names[0]}'"
    ):
        write_corpus(tmp_path / "corpus", {"train": {"features": features, "targets": [1, 0]}}, task=task)
    corpus = write_corpus(
        tmp_path / "corpus", {"train": {"features": features, "targets": names[:2]}}, task=task
    )
    assert [sample.target for sample in corpus.split("train")] == [0, 1]


@pytest.mark.parametrize(
    "wrap", [np.int8, np.array, torch.tensor, lambda value: torch.tensor([[value]]), int]
)
def test_a_target_may_be_wrapped(tmp_path: Path, wrap: type) -> None:
    features = {"m": [np.ones((1, 1))] * 2}
    for task in (Task(kind="classification", classes=("no", "yes")), Task(kind="regression")):
        split = {"features": features, "targets": [wrap(1), wrap(0)]}
        corpus = write_corpus(tmp_path / "corpus", {"train": split}, task=task, overwrite=True)
        assert [sample.target for sample in corpus.split("train")] == [1, 0]
