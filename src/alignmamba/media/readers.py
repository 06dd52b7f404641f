"""Sources of words, and readers that turn words into vectors or token ids, by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from alignmamba.extras import lacking, versions
from alignmamba.media.extractor import SAVED_MODEL, NoOptions, Offer, TextExtractor, WordSource, given
from alignmamba.media.forced_alignment import SpeechAligner
from alignmamba.media.hashed_text import HashedOptions, HashedText
from alignmamba.media.language_text import LanguageText, TokenIds
from alignmamba.media.transcription import Transcribed
from alignmamba.media.word_sources import StatedWords, WordTimer, timed_words


def _auto(_: Path | None, __: NoOptions) -> WordSource:
    refusal = lacking("media", "pocketsphinx", "num2words")
    if refusal:
        return StatedWords("auto", WordTimer(None, refusal=refusal), version="without alignment")
    return StatedWords("auto", WordTimer(SpeechAligner()), version=versions("pocketsphinx"))


def _align(_: Path | None, __: NoOptions) -> WordSource:
    timer = WordTimer(SpeechAligner(), keeps=False)
    return StatedWords("align", timer, version=versions("pocketsphinx"))


def _subtitles(_: Path | None, __: NoOptions) -> WordSource:
    return StatedWords("subtitles", WordTimer(None, refusal="their cue alone has a time"), find=timed_words)


def _spread(_: Path | None, __: NoOptions) -> WordSource:
    return StatedWords("spread", WordTimer(None, refusal="as asked", keeps=False))


def _asr(folder: Path | None, _: NoOptions) -> WordSource:
    return Transcribed(given(folder))


def _hashed(_: Path | None, options: HashedOptions) -> TextExtractor:
    return HashedText(options)


def _hf(folder: Path | None, _: NoOptions) -> TextExtractor:
    return LanguageText(given(folder))


def _ids(folder: Path | None, _: NoOptions) -> TextExtractor:
    return TokenIds(given(folder))


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
