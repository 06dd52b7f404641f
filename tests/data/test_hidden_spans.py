"""Which tokens are hidden, and that it depends on nothing but the sample."""

import numpy as np
import pytest
from numpy.typing import NDArray

from alignmamba.data.hidden_spans import hidden_spans
from tolerances import STANDARD_ERRORS

IDS = [f"clip-{row}" for row in range(60)]
LENGTHS = [1 + 7 * row % 40 for row in range(60)]


def drawn(ids: list[str], lengths: list[int], **changes: object) -> NDArray[np.bool_]:
    settings = {"modality": "audio", "share": 0.5, "span": 3, "seed": 1, "epoch": 0}
    return hidden_spans(ids, lengths, **{**settings, **changes})  # type: ignore[arg-type]


def test_nothing_is_hidden_beyond_the_length_of_a_sample() -> None:
    found = drawn([*IDS, "without"], [*LENGTHS, 0], share=0.9)
    assert found.shape == (61, max(LENGTHS))
    for row, length in enumerate([*LENGTHS, 0]):
        assert not found[row, length:].any()
    assert drawn(["without"], [0]).shape == (1, 0)


def test_a_sample_has_its_draw_in_whatever_company() -> None:
    together = drawn(IDS, LENGTHS)
    for row in (0, 17, 59):
        alone = drawn([IDS[row]], [LENGTHS[row]])
        assert np.array_equal(alone[0], together[row, : LENGTHS[row]])


@pytest.mark.parametrize("change", [{"seed": 2}, {"epoch": 1}, {"epoch": None}, {"modality": "video"}])
def test_a_draw_belongs_to_seed_epoch_and_modality(change: dict[str, object]) -> None:
    assert np.array_equal(drawn(IDS, LENGTHS), drawn(IDS, LENGTHS))
    assert not np.array_equal(drawn(IDS, LENGTHS), drawn(IDS, LENGTHS, **change))


@pytest.mark.parametrize("span", [1, 4, 50])
def test_the_share_is_that_which_was_asked_for(span: int) -> None:
    ids = [f"clip-{row}" for row in range(2000)]
    shares = drawn(ids, [20] * 2000, share=0.3, span=span).mean(1)
    assert abs(shares.mean() - 0.3) < STANDARD_ERRORS * shares.std() / 2000**0.5 + 1e-9


def test_hidden_tokens_stand_together() -> None:
    for row in drawn(IDS, [31] * 60, span=5):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
        starts, ends = edges[::2], edges[1::2]
        inside = (starts > 0) & (ends < 31)
        assert ((ends - starts)[inside] % 5 == 0).all()
