"""Sources of words, and readers that turn words into vectors or token ids, by name."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from alignmamba.extras import lacking
from alignmamba.media.extractor import Offer, WordSource
from alignmamba.media.forced_alignment import SpeechAligner
from alignmamba.media.transcription import Transcribed
from alignmamba.media.word_sources import StatedWords, WordTimer, timed_words


def _auto(_: Path | None, options: Any) -> WordSource:
    del options
    refusal = lacking("media", "pocketsphinx", "num2words")
    if refusal:
        return StatedWords("auto", WordTimer(None, refusal=refusal), version="without alignment")
    return StatedWords("auto", WordTimer(SpeechAligner()), version=_aligner_version())


def _align(_: Path | None, options: Any) -> WordSource:
    del options
    timer = WordTimer(SpeechAligner(), keeps=False)
    return StatedWords("align", timer, version=_aligner_version())


def _aligner_version() -> str:
    return f"pocketsphinx {version('pocketsphinx')}"


def _subtitles(_: Path | None, options: Any) -> WordSource:
    del options
    return StatedWords("subtitles", WordTimer(None, refusal="their cue alone has a time"), find=timed_words)


def _spread(_: Path | None, options: Any) -> WordSource:
    del options
    return StatedWords("spread", WordTimer(None, refusal="as asked", keeps=False))


def _asr(folder: Path | None, options: Any) -> WordSource:
    del options
    assert folder is not None  # as the offer says
    return Transcribed(folder)


WORDS: Final[Mapping[str, Offer[WordSource]]] = {
    "auto": Offer(make=_auto, summary="times as a file states them, else found in the sound"),
    "align": Offer(make=_align, summary="times found in the sound, in English"),
    "subtitles": Offer(make=_subtitles, summary="subtitles or a TextGrid and their times alone"),
    "spread": Offer(make=_spread, summary="words spread evenly over their cue or the clip"),
    "asr": Offer(make=_asr, summary="words and times from the sound", weights="FOLDER", extra="asr"),
}
"""Sources of words."""
