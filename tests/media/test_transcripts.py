"""Transcripts beside a clip: formats, times, markup, and files that are no transcripts."""

from contextlib import suppress
from pathlib import Path

import pytest

from alignmamba.errors import DataError
from alignmamba.media.transcripts import (
    MOST_BYTES,
    Transcript,
    read_transcript,
    shown_words,
    transcript_path,
)

pytest.importorskip("webvtt", reason="subtitles need the extra media")
pytest.importorskip("praatio", reason="TextGrids need the extra media")


def read(tmp_path: Path, name: str, content: str | bytes) -> Transcript:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_transcript(path)


def cues(found: Transcript) -> list[tuple[str, float, float, bool]]:
    return [(cue.text, round(cue.start, 3), round(cue.end, 3), cue.one_word) for cue in found.cues]


SRT = """1
00:00:00,500 --> 00:00:02,000
<i>Hello</i> {\\an8}there,
BOB: you &amp; me

2
00:01:02,250 --> 00:01:03,000
2014

3
00:00:04,000 --> 00:00:03,000
- late (laughs) [music]
42
"""


def test_subtitles_keep_words_and_times(tmp_path: Path) -> None:
    expected = [
        ("Hello there, you & me", 0.5, 2.0, False),
        ("late 42", 3.0, 4.0, False),
        ("2014", 62.25, 63.0, False),
    ]
    found = read(tmp_path, "a.srt", SRT)
    assert cues(found) == expected
    assert found.text == "Hello there, you & me late 42 2014"
    assert found.notes == ("1 cues of a.srt end before they start, their times are exchanged",)
    assert cues(read(tmp_path, "b.vtt", "WEBVTT\n\n" + SRT.replace(",", "."))) != []


@pytest.mark.parametrize(
    "content",
    [
        SRT.replace("\n", "\r\n").encode("utf-8-sig"),
        SRT.replace("\n", "\r").encode(),
        SRT.encode("utf-16"),
        b"\n\n" + SRT.encode(),
        SRT.removeprefix("1\n").encode(),
    ],
)
def test_other_line_ends_and_encodings_are_the_same(tmp_path: Path, content: bytes) -> None:
    assert cues(read(tmp_path, "a.srt", content)) == cues(read(tmp_path, "b.srt", SRT))


def test_latin_text_is_read_and_reported(tmp_path: Path) -> None:
    found = read(tmp_path, "a.txt", "Café \x96 très bon".encode("latin-1"))
    assert found.text == "Café – très bon"
    assert found.notes == ("a.txt is not in UTF-8 and was read as Windows-1252",)


def test_stamps_within_a_cue_are_times_of_words(tmp_path: Path) -> None:
    text = """WEBVTT - a title

NOTE a remark

STYLE
::cue { color: red }

first
00:00:00.500 --> 00:00:02.000 align:start
<v Ann>Hello<00:00:01.000><c> big</c><00:01.500><c.x> wide world</c>

00:00:03.000 --> 00:00:04.000
plain words
"""
    assert cues(read(tmp_path, "a.vtt", text)) == [
        ("Hello", 0.5, 1.0, True),
        ("big", 1.0, 1.5, True),
        ("wide world", 1.5, 2.0, False),
        ("plain words", 3.0, 4.0, False),
    ]


def test_rolling_captions_count_once(tmp_path: Path) -> None:
    text = """WEBVTT

00:00:00.000 --> 00:00:01.000
&nbsp;
no<00:00:00.500><c> no</c>

00:00:01.000 --> 00:00:01.010
no no
&nbsp;

00:00:01.010 --> 00:00:02.000
no no
yes<00:00:01.500><c> yes</c>
"""
    found = read(tmp_path, "a.vtt", text)
    assert found.text == "no no yes yes"
    assert [cue[1] for cue in cues(found)] == [0, 0.5, 1.01, 1.5]
    still = "1\n00:00:00,000 --> 00:00:01,000\nNo.\n\n2\n00:00:01,000 --> 00:00:02,000\nNo.\n"
    assert read(tmp_path, "b.srt", still).text == "No. No."


def test_subtitles_of_single_words_are_times_of_words(tmp_path: Path) -> None:
    blocks = [f"{i}\n00:00:0{i},000 --> 00:00:0{i},400\nword{i}\n" for i in range(1, 7)]
    assert all(cue.one_word for cue in read(tmp_path, "a.srt", "\n".join(blocks)).cues)
    assert not read(tmp_path, "b.srt", blocks[0]).cues[0].one_word


def test_cues_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    text = SRT + "\n4\n00:00:xx,000 --> 00:00:05,000\nlost\n"
    assert "1 of 4 cues of a.srt cannot be read" in read(tmp_path, "a.srt", text).notes


def grid(*tiers: tuple[str, list[tuple[float, float, str]]]) -> str:
    body = "".join(
        f'    item [{i}]:\n        class = "IntervalTier"\n        name = "{name}"\n        xmin = 0\n'
        f"        xmax = 9\n        intervals: size = {len(entries)}\n"
        + "".join(
            f'intervals [{j}]:\n            xmin = {a}\n            xmax = {b}\n            text = "{t}"\n'
            for j, (a, b, t) in enumerate(entries, 1)
        )
        for i, (name, entries) in enumerate(tiers, 1)
    )
    head = f"xmin = 0\nxmax = 9\ntiers? <exists>\nsize = {len(tiers)}\nitem []:\n"
    return f'File type = "ooTextFile"\nObject class = "TextGrid"\n\n{head}{body}'


PHONES = [(0.0, 0.1, "AY1"), (0.1, 0.2, "S"), (0.2, 0.3, "IY1")]
WORDS = [(0.0, 0.1, "I"), (0.1, 0.3, "see"), (0.3, 0.5, "sil"), (0.5, 0.9, "&quot;you")]


@pytest.mark.parametrize("name", ["words", "Ann - words", "Mary"])
def test_a_grid_has_a_tier_of_words(tmp_path: Path, name: str) -> None:
    phrases = ("what", [(0.0, 0.9, "I see you")])
    found = read(tmp_path, "a.TextGrid", grid(("phones", PHONES), (name, WORDS), phrases))
    assert cues(found) == [("I", 0, 0.1, True), ("see", 0.1, 0.3, True), ('"you', 0.5, 0.9, True)]
    assert found.notes == (f"words of a.TextGrid are those of its tier {name}",)


def test_a_grid_without_words_gives_its_phrases(tmp_path: Path) -> None:
    text = grid(("phones", PHONES), ("Ann", [(0.0, 0.9, "I see you"), (1.0, 2.0, ""), (2.0, 3.0, "yes")]))
    for name, content in {"a.TextGrid": text, "b.TextGrid": text.encode("utf-16")}.items():
        found = read(tmp_path, name, content)
        assert cues(found) == [("I see you", 0, 0.9, False), ("yes", 2, 3, False)]


@pytest.mark.parametrize("name", ["a.srt", "a.vtt", "a.TextGrid", "a.txt"])
@pytest.mark.parametrize("content", [b"\x00\x01\x02", bytes(range(256)), b"x\x00" * 9])
def test_binary_data_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(DataError, match=f"{name}: .*found"):
        read(tmp_path, name, content)


@pytest.mark.parametrize("name", ["a.srt", "a.vtt", "a.TextGrid"])
@pytest.mark.parametrize("content", ["hello", "[1]", '{"start": 1}', "1\n2\n3\n4\n5\n6\n", "-->\n" * 9])
def test_a_stray_format_is_refused(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(DataError, match=f"{name}: expected .*, found something else") as error:
        read(tmp_path, name, content)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "content"), [("a.srt", "\n"), ("a.vtt", "WEBVTT\n\n"), ("a.txt", " ")])
def test_a_transcript_may_say_that_nobody_speaks(tmp_path: Path, name: str, content: str) -> None:
    assert read(tmp_path, name, content) == Transcript(text="")


@pytest.mark.parametrize("times", [("nan", "1"), ("2", "1"), ("0", "inf")])
def test_impossible_times_of_a_grid_are_refused(tmp_path: Path, times: tuple[str, str]) -> None:
    text = grid(("words", WORDS)).replace("xmin = 0.1\n", f"xmin = {times[0]}\n")
    with pytest.raises(DataError, match="expected a TextGrid"):
        read(tmp_path, "a.TextGrid", text.replace("xmax = 0.3\n", f"xmax = {times[1]}\n"))


@pytest.mark.parametrize("unit", ["<", "(", "[", "{", "<v ", "&", "-->", "1:", "00:00:01.000 --> ", "♪ "])
@pytest.mark.parametrize("name", ["a.srt", "a.vtt", "a.txt", "a.TextGrid"])
def test_a_hostile_text_takes_no_long_time(tmp_path: Path, name: str, unit: str) -> None:
    """Each of these would take minutes with an expression that begins again at each character."""
    heads = {"a.srt": SRT, "a.vtt": "WEBVTT\n\n00:00.000 --> 00:01.000\n", "a.TextGrid": grid(("w", WORDS))}
    text = heads.get(name, "") + unit * (400_000 // len(unit))
    with suppress(DataError):
        read(tmp_path, name, text)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(DataError, match="expected at most"):
        read_transcript(path)


def test_the_file_with_most_times_is_taken(tmp_path: Path) -> None:
    media = tmp_path / "a.b.mp4"
    assert transcript_path(media) is None
    for ending in (".txt", ".SRT", ".vtt", ".textgrid"):
        (tmp_path / f"a.b{ending}").touch()
        assert transcript_path(media) == tmp_path / f"a.b{ending}"


def test_words_are_shown_as_they_are_written() -> None:
    assert shown_words('"Well," he — said... R&B & 5% of it!') == (
        '"Well,"', "he", "said...", "R&B", "&", "5%", "of", "it!",
    )  # fmt: skip
    assert shown_words("我喜欢 Python3。") == ("我", "喜", "欢", "Python3。")
    assert shown_words(" — ...") == ()
