"""Sources of words: what a file states, what the sound shows, and what is spread and marked."""

from pathlib import Path

import numpy as np
import pytest

from alignmamba.media.clip import MediaClip
from alignmamba.media.extractor import NoOptions
from alignmamba.media.forced_alignment import Segments, SpeechAligner
from alignmamba.media.readers import WORDS
from alignmamba.media.tracks import Absent, Words
from speech import silence, utterance, write_wav

for module in ("av", "pocketsphinx", "num2words", "webvtt", "praatio"):
    pytest.importorskip(module, reason="words of clips need the extra media")


def words(name: str, clip: MediaClip) -> Words:
    found = WORDS[name].make(None, NoOptions()).words(clip)
    assert isinstance(found, Words)
    times = [time for word in found.words for time in (word.start, word.end)]
    starts = [word.start for word in found.words]
    assert starts == sorted(starts)
    assert min(times) >= 0
    return found


def said(found: Words) -> list[tuple[str, float, float]]:
    return [(word.text, round(word.start, 1), round(word.end, 1)) for word in found.words]


@pytest.fixture
def media(tmp_path: Path) -> Path:
    return write_wav(tmp_path / "a.wav", np.tile(utterance(), 2))


CUES = "1\n00:00:00,000 --> 00:00:02,500\nAh, she\n\n2\n00:00:02,500 --> 00:00:05,000\nAh she\n"
FOUND = [("Ah,", 0.5, 1.0), ("she", 1.5, 2.0), ("Ah", 3.0, 3.5), ("she", 4.0, 4.5)]


@pytest.mark.parametrize("name", ["auto", "align"])
@pytest.mark.parametrize("beside", ["", ".txt", ".srt"])
def test_words_are_aligned_within_their_cues_or_the_clip(media: Path, name: str, beside: str) -> None:
    if beside:
        media.with_suffix(beside).write_text(CUES if beside == ".srt" else "Ah, she Ah she")
    found = words(name, MediaClip(path=media, text=None if beside else "Ah, she — Ah she"))
    assert np.allclose([each[1:] for each in said(found)], [each[1:] for each in FOUND], atol=0.11)
    assert [each[0] for each in said(found)] == [each[0] for each in FOUND]
    assert (found.timing, found.notes) == ("aligned", ())


@pytest.mark.parametrize("name", ["subtitles", "spread"])
def test_words_are_spread_within_their_cues(media: Path, name: str) -> None:
    media.with_suffix(".srt").write_text(CUES)
    found = words(name, MediaClip(path=media))
    assert said(found) == [("Ah,", 0, 1.2), ("she", 1.2, 2.5), ("Ah", 2.5, 3.8), ("she", 3.8, 5.0)]
    assert found.timing == "spread"
    assert found.notes[0].startswith("4 of 4 words are spread evenly: ")


def test_text_is_spread_over_the_clip(media: Path) -> None:
    found = words("spread", MediaClip(path=media, start=1.0, end=3.0, text="我 喜欢"))
    assert said(found) == [("我", 0, 0.7), ("喜", 0.7, 1.3), ("欢", 1.3, 2.0)]
    whole = words("spread", MediaClip(path=media, text="a b"))
    assert said(whole) == [("a", 0, 2.5), ("b", 2.5, 5.0)]


def test_a_segment_ends_with_its_file(media: Path) -> None:
    found = words("spread", MediaClip(path=media, start=4.0, end=1e6, text="a b"))
    assert said(found) == [("a", 0, 0.5), ("b", 0.5, 1.0)]


def test_times_of_words_are_kept_as_they_are_given(media: Path) -> None:
    media.with_suffix(".vtt").write_text(
        "WEBVTT\n\n00:01.000 --> 00:02.000\nAh<00:01.250> she\n\n00:02.500 --> 00:05.000\nAh she\n"
    )
    clip = MediaClip(path=media, text="another text")
    found = words("auto", clip)
    assert said(found)[:2] == [("Ah", 1.0, 1.2), ("she", 1.2, 2.0)]
    assert said(found)[2:] == FOUND[2:]
    assert found.timing == "aligned"
    assert words("subtitles", clip).timing == "spread"
    first = words("auto", MediaClip(path=media, end=2.2))
    assert (first.timing, len(first.words)) == ("given", 2)


@pytest.mark.parametrize("name", ["auto", "align", "subtitles", "spread"])
def test_segments_part_the_words_of_a_file(media: Path, name: str) -> None:
    media.with_suffix(".srt").write_text(CUES)
    whole = words(name, MediaClip(path=media))
    for middle in (1.7, 2.5, 3.9):
        first = words(name, MediaClip(path=media, end=middle))
        last = words(name, MediaClip(path=media, start=middle))
        assert [word.text for word in (*first.words, *last.words)] == [word.text for word in whole.words]
        assert max(word.end for word in first.words) <= middle
        shifted = [word.end + middle for word in last.words]
        assert np.allclose(shifted, [word.end for word in whole.words[len(first.words) :]])


def test_words_of_a_segment_lie_in_it(media: Path) -> None:
    found = words("auto", MediaClip(path=media, start=2.5, end=5.0, text="ah she"))
    assert said(found) == [("ah", 0.5, 1.0), ("she", 1.5, 2.0)]


class Lost(SpeechAligner):
    """An aligner whose decoder has a wrong path."""

    path: Segments = ()

    def _segments(self, *_: object) -> Segments:
        return self.path


@pytest.mark.parametrize(
    "path", [[], [("ah", 70, 120)], [("ah", 170, 180), ("she", 70, 120)], [("<sil>", 0, 300)]]
)
def test_a_failed_alignment_is_spread_and_marked(
    media: Path, monkeypatch: pytest.MonkeyPatch, path: Segments
) -> None:
    monkeypatch.setattr(Lost, "path", path)
    monkeypatch.setattr("alignmamba.media.readers.SpeechAligner", Lost)
    media.with_suffix(".srt").write_text(CUES)
    found = words("auto", MediaClip(path=media))
    assert found.words == words("spread", MediaClip(path=media)).words
    assert found.timing == "spread"
    assert found.notes == ("4 of 4 words are spread evenly: no complete alignment was found",)


def test_one_failed_cue_spoils_no_other(media: Path) -> None:
    media.with_suffix(".srt").write_text(CUES.replace("Ah, she", "Something else altogether"))
    found = words("auto", MediaClip(path=media))
    assert said(found)[-2:] == FOUND[-2:]
    assert found.timing == "spread"
    assert found.notes == ("3 of 5 words are spread evenly: no complete alignment was found",)


@pytest.mark.parametrize(
    ("text", "reason"),
    {
        "я не говорю по-русски": "their letters are not English",
        "words " * 3: "no complete alignment was found",
    }.items(),
)
def test_words_that_cannot_be_aligned_are_marked(media: Path, text: str, reason: str) -> None:
    found = words("auto", MediaClip(path=media, text=text))
    assert found.timing == "spread"
    assert found.notes[0].endswith(reason)


def test_without_the_aligner_auto_spreads_and_gives_the_reason(
    media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alignmamba.media.readers.lacking", lambda *_: "pocketsphinx is not installed")
    found = words("auto", MediaClip(path=media, text="ah she"))
    assert found.timing == "spread"
    assert found.notes == ("2 of 2 words are spread evenly: pocketsphinx is not installed",)


def test_silence_and_long_clips_are_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = write_wav(tmp_path / "q.wav", silence(2.0))
    assert words("auto", MediaClip(path=quiet, text="hello")).timing == "spread"
    monkeypatch.setattr("alignmamba.media.word_sources._MOST_SECONDS", 1.0)
    (note,) = words("auto", MediaClip(path=quiet, text="hello")).notes
    assert note == "1 of 1 words are spread evenly: 1 s without a time are too long to align"


@pytest.mark.parametrize("name", ["auto", "align", "subtitles", "spread"])
def test_words_may_be_absent(media: Path, name: str) -> None:
    source = WORDS[name].make(None, NoOptions())
    assert isinstance(source.words(MediaClip(path=media)), Absent)
    assert isinstance(source.words(MediaClip(path=media, text=" — ")), Absent)
    media.with_suffix(".srt").write_text(CUES)
    assert source.words(MediaClip(path=media, start=6.0)) == Absent("nobody speaks in it")
    media.with_suffix(".srt").write_text("")
    assert source.words(MediaClip(path=media)) == Absent("its transcript has no words")


def test_doubtful_words_are_noted(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["bluxor", "quimble", "zorblax", "ah"] * 2
    monkeypatch.setattr(Lost, "path", [(name, 20 + 50 * i, 60 + 50 * i) for i, name in enumerate(names)])
    monkeypatch.setattr("alignmamba.media.readers.SpeechAligner", Lost)
    found = words("align", MediaClip(path=media, text=" ".join(names)))
    assert found.timing == "aligned"
    assert found.notes[0] == "6 of 8 words are in no English dictionary, times may be wrong"


@pytest.mark.parametrize(("order", "notes"), [("ah she", 0), ("she ah", 1)])
def test_words_that_are_not_heard_where_they_lie_are_noted(
    media: Path, monkeypatch: pytest.MonkeyPatch, order: str, notes: int
) -> None:
    path = [(name, 70 + 100 * i, 119 + 100 * i) for i, name in enumerate(order.split())]
    monkeypatch.setattr(Lost, "path", path)
    monkeypatch.setattr("alignmamba.media.readers.SpeechAligner", Lost)
    found = words("align", MediaClip(path=media, end=2.5, text=order))
    assert found.timing == "aligned"
    assert len(found.notes) == notes
    assert all("0% of the sounds of the aligned words are heard near them" in note for note in found.notes)


def test_every_source_states_what_it_is() -> None:
    for name in ("auto", "align", "subtitles", "spread"):
        source = WORDS[name].make(None, NoOptions())
        assert source.name == name
        assert source.version
        assert source.licence
        assert source.weights == {}
