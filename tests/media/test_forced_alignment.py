"""Times of words in sound that tests make, and paths of the decoder that are incomplete."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from alignmamba.media.forced_alignment import Segments, SpeechAligner, complete_path
from speech import silence, utterance

pytest.importorskip("pocketsphinx", reason="the alignment needs the extra media")


@pytest.fixture(scope="module")
def aligner() -> SpeechAligner:
    return SpeechAligner()


def near(found: Sequence[tuple[float, float]], expected: Sequence[tuple[float, float]]) -> bool:
    return np.abs(np.array(found) - np.array(expected)).max() < 0.06


SPOKEN = [(0.5, 1.0), (1.5, 2.0)]


def test_words_are_found_where_they_are_said(aligner: SpeechAligner) -> None:
    found = aligner.fit(utterance(), ["“Ah,”", "she…"])
    assert found is not None
    assert near(found.times, SPOKEN)
    assert found.unknown == 0


def test_a_shown_word_spans_its_spoken_ones(aligner: SpeechAligner) -> None:
    found = aligner.fit(np.tile(utterance(), 2), ["ah-she", "日本", "ah", "she"])
    assert found is not None
    assert near(found.times, [(0.5, 2.0), (0.5, 2.0), (3.0, 3.5), (4.0, 4.5)])


def test_a_word_outside_the_dictionary_is_placed_by_its_letters(aligner: SpeechAligner) -> None:
    found = aligner.fit(utterance(), ["ah", "shee'"])
    assert found is not None
    assert near(found.times, SPOKEN)
    assert found.unknown == 1


@pytest.mark.parametrize(
    ("heard", "end"),
    {
        "two thousand": ([("T", 22, 24), ("UW", 25, 40), ("TH", 50, 52), ("AW", 53, 60)], 1.2),
        "twenty": ([("T", 22, 24), ("W", 25, 30), ("EH", 31, 35), ("N", 36, 40)], 0.9),
    }.values(),
)
def test_a_year_is_read_as_it_is_said(
    aligner: SpeechAligner, monkeypatch: pytest.MonkeyPatch, heard: Segments, end: float
) -> None:
    said: list[str] = []

    def segments(_: object, __: object, words: Sequence[str], ___: object) -> Segments:
        said.append(" ".join(words))
        return [(word, 20 + 30 * place, 49 + 30 * place) for place, word in enumerate(words)]

    monkeypatch.setattr(SpeechAligner, "_segments", segments)
    monkeypatch.setattr(SpeechAligner, "_sounds", lambda *_: heard)
    found = aligner.fit(utterance(), ["2026"])
    assert found is not None
    assert found.times == ((0.0, end),)
    aligner.fit(utterance(), ["2005"])
    assert said == ["twenty twenty six", "two thousand twenty six", "two thousand five"]


def test_each_clip_is_aligned_as_if_it_were_the_first(aligner: SpeechAligner) -> None:
    first = SpeechAligner().fit(utterance(), ["ah", "she"])
    aligner.fit(np.tile(utterance(), 2), ["ah", "shee", "ah", "she"])
    assert aligner.fit(utterance(), ["ah", "she"]) == first


@pytest.mark.parametrize(
    "words",
    [
        ["—"],
        ["日本"],
        ["hello", "world"],
        ["more", "words", "than", "can", "be", "said"] * 9,
        ["a" * 5000],
    ],
)
def test_other_words_are_not_found(aligner: SpeechAligner, words: list[str]) -> None:
    assert aligner.fit(utterance(), words) is None


@pytest.mark.parametrize("seconds", [0.0, 0.01, 1.0])
def test_silence_has_no_words(aligner: SpeechAligner, seconds: float) -> None:
    assert aligner.fit(silence(seconds).astype(np.float32), ["ah"]) is None
    assert aligner.fit(utterance()[: round(seconds * 100)], ["hello"]) is None


WHOLE = [("<s>", 0, 19), ("ah(2)", 20, 69), ("<sil>", 70, 119), ("she", 120, 169), ("[NOISE]", 170, 200)]


def test_a_complete_path_gives_times_without_padding() -> None:
    assert complete_path(WHOLE, ["ah", "she"], 1.45) == ((0.0, 0.5), (1.0, 1.45))


@pytest.mark.parametrize(
    "path",
    {
        "nothing": [],
        "silence": [("<sil>", 0, 200)],
        "fewer words": WHOLE[:3],
        "more words": [*WHOLE, ("she", 180, 190)],
        "others": [("oh", 20, 69), ("she", 120, 169)],
        "another order": [WHOLE[3], WHOLE[1]],
        "falling times": [("ah", 80, 100), ("she", 70, 169)],
        "an end before its start": [("ah", 20, 10), ("she", 70, 169)],
        "before the sound": [("ah", 0, 15), ("she", 120, 169)],
        "after the sound": [("ah", 20, 69), ("she", 220, 230)],
    }.items(),
    ids=lambda case: case[0],
)
def test_an_incomplete_path_is_seen(path: tuple[str, Segments]) -> None:
    assert complete_path(path[1], ["ah", "she"], 1.5) is None


def test_a_path_that_ends_early_is_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tails: list[float] = []

    def segments(*given: Any) -> Segments:
        tails.append(given[-1])
        return WHOLE if len(tails) > 1 else WHOLE[:3]

    monkeypatch.setattr(SpeechAligner, "_segments", segments)
    found = SpeechAligner().fit(utterance(), ["ah", "she"])
    assert found is not None
    assert tails == [0.5, 1.0]
