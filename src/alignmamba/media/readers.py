"""Sources of words, and readers that turn words into vectors or token ids, by name."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from alignmamba.extras import lacking
from alignmamba.media.extractor import SAVED_MODEL, Offer, TextExtractor, WordSource
from alignmamba.media.forced_alignment import SpeechAligner
from alignmamba.media.hashed_text import HashedOptions, HashedText
from alignmamba.media.language_text import LanguageText, TokenIds
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


def _hashed(_: Path | None, options: HashedOptions) -> TextExtractor:
    return HashedText(options)


def _hf(folder: Path | None, options: Any) -> TextExtractor:
    del options
    assert folder is not None  # as the offer says
    return LanguageText(folder)


def _ids(folder: Path | None, options: Any) -> TextExtractor:
    del options
    assert folder is not None  # as the offer says
    return TokenIds(folder)


TEXT: Final[Mapping[str, Offer[TextExtractor]]] = {
    "hashed": Offer(make=_hashed, summary="hashed spelling of each word", options=HashedOptions),
    "hf": Offer(
        make=_hf,
        summary="a vector for each word, by a text encoder",
        weights="FOLDER",
        extra="text",
        whence=SAVED_MODEL,
    ),
    "ids": Offer(
        make=_ids,
        summary="token ids for an encoder that is trained",
        weights="FOLDER",
        extra="text",
        whence=SAVED_MODEL,
    ),
}
"""Readers of words."""

WORDS: Final[Mapping[str, Offer[WordSource]]] = {
    "auto": Offer(make=_auto, summary="times as a file states them, else found in the sound"),
    "align": Offer(make=_align, summary="times found in the sound, in English"),
    "subtitles": Offer(make=_subtitles, summary="subtitles or a TextGrid and their times alone"),
    "spread": Offer(make=_spread, summary="words spread evenly over their cue or the clip"),
    "asr": Offer(
        make=_asr,
        summary="words and times from the sound",
        weights="FOLDER",
        extra="asr",
        whence="a Whisper model for CTranslate2, such as faster-whisper-tiny.en, 75 MB, MIT",
    ),
}
"""Sources of words."""
