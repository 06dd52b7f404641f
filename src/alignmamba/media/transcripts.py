"""Transcripts that lie beside a media file: plain text, subtitles, and Praat's TextGrids."""

import html
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Final

from alignmamba.errors import DataError
from alignmamba.extras import require
from alignmamba.files import read_bounded

MOST_BYTES: Final = 8 << 20
"""Words of two hours of speech, each with its times, take a tenth of it."""
_LONGEST_LINE = 20_000
"""Characters of a line of subtitles."""

_MARKUP = re.compile(r"<[^<>]*>|\{[^{}]*\}|\[[^\[\]]*\]|[♪♫]")
_ASIDE = re.compile(r"\([^()]*\)")
_SPEAKER = re.compile(
    r"\s*(?:<(?!\d)[^<>]*>)*(?:[-–—>]+\s*)?(?:(?:[A-Z][A-Z.' -]{0,30}|[Ss]peaker \w{1,8}):\s)?"
)
"""Tags, a dash and a name at the beginning of a line."""
_STAMP = re.compile(r"<((?:\d{1,4}:)?\d{1,2}:\d{1,2}\.\d{1,3})>")
_NO_WORD = re.compile(r"<.*>|\(.*\)|\[.*\]|\{.*\}|#|sil|sp|spn|")
_OTHER_TIERS = re.compile(r"phon|syll|pos|tone|break|pitch|segment", re.IGNORECASE)
_IDEOGRAPH = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_IDEOGRAPH}]|[^\s{_IDEOGRAPH}]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cue:
    """Text with its time, in seconds from the start of the file."""

    text: str
    start: float
    end: float
    one_word: bool = False
    """The text is one word, and the file states the times of words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """Words that a file states."""

    text: str
    """All spoken words, in order; empty where nobody speaks."""
    cues: tuple[Cue, ...] = ()
    """Parts with their times, ordered by start; empty where the file has no times."""
    notes: tuple[str, ...] = ()
    """Half a sentence each on what is imperfect."""


def shown_words(text: str) -> tuple[str, ...]:
    """Words of a text as people see them, punctuation within; a token of punctuation alone is no word.

    Chinese and Japanese characters are a word each.
    """
    return tuple(token for token in _TOKEN.findall(text) if any(map(str.isalnum, token)) or token == "&")


def transcript_path(media: Path) -> Path | None:
    """File with the words of a media file: of its name, with the ending that states most of times."""
    for ending in READERS:
        for each in (ending, ending.lower(), ending.upper()):
            path = media.with_suffix(each)
            if path != media and path.is_file():
                return path
    return None


def read_transcript(path: Path) -> Transcript:
    """Words of one file.

    Raises:
        DataError: If it is no such file, or larger than `MOST_BYTES`.
        ConfigError: If the package that reads its format is not installed.
    """
    text, notes = _decoded(path)
    reader = next(read for ending, read in READERS.items() if ending.lower() == path.suffix.lower())
    found = reader(path, text)
    return Transcript(text=found.text, cues=found.cues, notes=(*notes, *found.notes))


def _decoded(path: Path) -> tuple[str, tuple[str, ...]]:
    content = read_bounded(path, limit_bytes=MOST_BYTES)
    notes: tuple[str, ...] = ()
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
        notes = (f"{path.name} is not in UTF-8 and was read as Windows-1252",)
    if "\0" in text:
        raise DataError(f"{path}: found binary data, expected text")
    return "\n".join(text.splitlines()), notes


# Plain text


def _read_text(path: Path, text: str) -> Transcript:
    del path  # any text is one
    return Transcript(text=" ".join(_plain(text).split()))


def _plain(text: str) -> str:
    return _MARKUP.sub(" ", html.unescape(text))


# Subtitles


def _read_subtitles(path: Path, text: str) -> Transcript:
    require(str(path), "media", "webvtt")
    import webvtt

    text = text.strip()
    if not text:  # tools write such a file where nobody speaks
        return Transcript(text="")
    if path.suffix.lower() == ".srt" and "-->" in text.partition("\n")[0]:
        text = f"1\n{text}"
    if max(map(len, text.split("\n"))) > _LONGEST_LINE:
        raise DataError(f"{path}: found a line of more than {_LONGEST_LINE} characters, expected subtitles")
    kind = path.suffix[1:].lower()
    try:
        captions = webvtt.from_buffer(StringIO(text), format=kind).captions
        if not captions and "-->" in text:
            raise webvtt.errors.MalformedFileError
    except (webvtt.errors.MalformedFileError, webvtt.errors.MalformedCaptionError):
        raise DataError(f"{path}: expected {kind} subtitles, found something else") from None
    found = [(_seconds(each.start), _seconds(each.end), each.raw_text.split("\n")) for each in captions]
    notes, lost = [], text.count("-->") - len(found)
    if lost > 0:
        notes.append(f"{lost} of {len(found) + lost} cues of {path.name} cannot be read")
    turned = sum(end < start for start, end, _ in found)
    if turned:
        notes.append(f"{turned} cues of {path.name} end before they start, their times are exchanged")
    return _of_cues(_stamped(_rolled(found)), notes)


def _seconds(stamp: str) -> float:
    """Seconds of ``1:02:03.456``; of ``02:03.456`` too."""
    total = 0.0
    for part in stamp.replace(",", ".").split(":"):
        total = total * 60 + float(part)
    return total


Lines = tuple[float, float, Sequence[str]]


def _rolled(cues: Sequence[Lines]) -> Iterable[Lines]:
    """Cues without the lines that they repeat of the cue before, as captions do that roll upwards.

    Only captions with time stamps within the text roll: elsewhere people say the same thing twice.
    """
    if not any(_STAMP.search(line) for _, _, lines in cues for line in lines):
        yield from cues
        return
    before: list[str] = []
    last_end = -math.inf
    for start, end, lines in cues:
        bare = [" ".join(_plain(line).split()) for line in lines]
        repeated = 0
        if start - last_end < 0.1:
            longest = min(len(before), len(bare))
            repeated = max(n for n in range(longest + 1) if before[len(before) - n :] == bare[:n])
        yield start, end, lines[repeated:]
        before, last_end = [line for line in bare if line], end


def _stamped(cues: Iterable[Lines]) -> Iterable[Cue]:
    """Cues cut at the time stamps within their text, if they have any."""
    for given_start, given_end, lines in cues:
        start, end = sorted((given_start, given_end))
        said = "\n".join(_SPEAKER.sub("", line, count=1) for line in lines)
        parts = _STAMP.split(f"<{_clock(start)}>{said}")[1:]
        stamps = [min(max(_seconds(each), start), end) for each in parts[::2]]
        for text, (begins, ends) in zip(parts[1::2], pairwise([*stamps, end]), strict=True):
            spoken = " ".join(_ASIDE.sub(" ", _plain(text)).split())
            one_word = len(parts) > 2 and len(shown_words(spoken)) == 1
            yield Cue(text=spoken, start=begins, end=max(begins, ends), one_word=one_word)


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60):02d}:{seconds % 60:06.3f}"


def _of_cues(cues: Iterable[Cue], notes: Iterable[str]) -> Transcript:
    spoken = sorted((cue for cue in cues if shown_words(cue.text)), key=lambda cue: (cue.start, cue.end))
    single = sum(len(shown_words(cue.text)) == 1 for cue in spoken)
    if single >= 5 and single >= 0.9 * len(spoken):  # subtitles of one word each are times of words
        spoken = [replace(cue, one_word=len(shown_words(cue.text)) == 1) for cue in spoken]
    return Transcript(text=" ".join(cue.text for cue in spoken), cues=tuple(spoken), notes=tuple(notes))


# TextGrids


@dataclass(frozen=True, slots=True)
class _Tier:
    name: str
    entries: tuple[tuple[float, float, str], ...]

    @property
    def of_words(self) -> bool:
        """Each of nine in ten labels is one word."""
        single = sum(len(label.split()) == 1 for *_, label in self.entries)
        return single >= 0.9 * len(self.entries)

    @property
    def letters(self) -> int:
        return sum(len(label) for *_, label in self.entries)


def _read_textgrid(path: Path, text: str) -> Transcript:
    require(str(path), "media", "praatio")
    from praatio.utilities.textgrid_io import parseTextgridStr

    try:
        grid = parseTextgridStr(text + "\n")
        tiers = [
            _Tier(str(tier["name"]), tuple(_intervals(tier["entries"])))
            for tier in grid["tiers"]
            if tier["class"] == "IntervalTier"
        ]
    except Exception:  # of a parser that checks little, which share no narrower root
        raise DataError(f"{path}: expected a TextGrid, found something else") from None
    tiers = [tier for tier in tiers if tier.entries]
    named = [tier for tier in tiers if re.search(r"\bwords?\b", tier.name, re.IGNORECASE)]
    others = [tier for tier in tiers if not _OTHER_TIERS.search(tier.name)]
    single = [tier for tier in others if tier.of_words]
    # Words are longer than phones, and a tier of phrases has more letters than one of remarks.
    by_words = named or sorted(single, key=lambda tier: tier.letters / len(tier.entries))[-1:]
    phrases = [tier for tier in others if not tier.of_words]
    chosen = by_words or sorted(phrases, key=lambda tier: tier.letters)[-1:]
    cues = [
        Cue(text=label, start=start, end=end, one_word=bool(by_words) and len(shown_words(label)) == 1)
        for tier in chosen
        for start, end, label in tier.entries
    ]
    names = ", ".join(tier.name for tier in chosen)
    return _of_cues(cues, [f"words of {path.name} are those of its tier {names}"] if len(tiers) > 1 else [])


def _intervals(entries: Iterable[Sequence[str]]) -> Iterable[tuple[float, float, str]]:
    for begins, ends, label in entries:
        start, end = float(begins), float(ends)
        if not 0 <= start <= end < math.inf:
            raise ValueError(f"{begins} to {ends}")
        said = " ".join(_plain(label).split())
        if not _NO_WORD.fullmatch(label.strip()) and said:
            yield start, end, said


READERS: Final[dict[str, Callable[[Path, str], Transcript]]] = {
    ".TextGrid": _read_textgrid,
    ".vtt": _read_subtitles,
    ".srt": _read_subtitles,
    ".txt": _read_text,
}
"""Readers by the ending of a file, those first whose files state most of times."""
