"""Components of variance: worked on paper, and found again in simulated scores whose components are known."""

import numpy as np
import pytest

from alignmamba.errors import DataError
from alignmamba.evaluation.variance_sources import crossed, nested


def test_crossed_worked_on_paper() -> None:
    """Rows 1 3 and 5 9: means 2, 7 and 3, 6 around 4.5; mean squares 25, 9, and 1 for the rest."""
    found = crossed([[1.0, 3.0], [5.0, 9.0]])
    assert (found.of_rows, found.of_columns, found.rest) == pytest.approx(((25 - 1) / 2, (9 - 1) / 2, 1.0))


def test_nested_worked_on_paper() -> None:
    """1 3 and 8: means 2 and 8 around 4; MS between 8 + 16 = 24, within 2, n0 = 3 - 5 / 3 = 4 / 3."""
    found = nested([[1.0, 3.0], [8.0]])
    assert (found.between, found.within) == pytest.approx(((24 - 2) / (4 / 3), 2.0))


def test_crossed_finds_known_components() -> None:
    """The mean over many designs of 5 folds by 4 seeds; unbiased, so the mean comes near the truth."""
    random = np.random.default_rng(0)
    of_rows, of_columns, rest = 4.0, 1.0, 2.0
    found = [
        crossed(
            10
            + random.normal(0, of_rows**0.5, (5, 1))
            + random.normal(0, of_columns**0.5, (1, 4))
            + random.normal(0, rest**0.5, (5, 4))
        )
        for _ in range(4000)
    ]
    assert np.mean([each.of_rows for each in found]) == pytest.approx(of_rows, rel=0.08)
    assert np.mean([each.of_columns for each in found]) == pytest.approx(of_columns, rel=0.12)
    assert np.mean([each.rest for each in found]) == pytest.approx(rest, rel=0.05)


def test_nested_finds_known_components_in_groups_of_any_sizes() -> None:
    random = np.random.default_rng(1)
    between, within = 3.0, 1.0
    found = [
        nested(
            [random.normal(0, between**0.5) + random.normal(0, within**0.5, size) for size in (2, 2, 1, 4)]
        )
        for _ in range(4000)
    ]
    assert np.mean([each.between for each in found]) == pytest.approx(between, rel=0.08)
    assert np.mean([each.within for each in found]) == pytest.approx(within, rel=0.05)


def test_a_source_that_does_nothing_is_found_to_do_nothing() -> None:
    random = np.random.default_rng(2)
    found = [crossed(random.normal(size=(5, 3))).of_rows for _ in range(2000)]
    assert abs(np.mean(found)) < 0.05
    assert min(found) < 0, "unbiased estimates of 0 may be negative"


def test_what_shows_no_component_is_refused() -> None:
    for scores in ([[1.0, 2.0]], [[1.0], [2.0]], [[1.0, np.nan], [1.0, 2.0]], [1.0, 2.0]):
        with pytest.raises(DataError, match="expected finite"):
            crossed(scores)
    for groups in ([[1.0, 2.0]], [[1.0], [2.0]], [[1.0, 2.0], []], []):
        with pytest.raises(DataError, match="expected 2 groups or more"):
            nested(groups)
    with pytest.raises(DataError, match="expected finite numbers"):
        nested([[1.0, np.nan], [2.0]])
