"""Words that nobody wrote down: transcription by faster-whisper from a local folder."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from alignmamba.checksums import file_checksum
from alignmamba.errors import ConfigError, brief
from alignmamba.extras import require, versions
from alignmamba.media.clip import MediaClip
from alignmamba.media.decoding import waveform
from alignmamba.media.forced_alignment import RATE, SpeechAligner
from alignmamba.media.tracks import Absent, Words
from alignmamba.media.transcripts import Cue, Transcript
from alignmamba.media.word_sources import WordTimer

_NEEDED: Final = ("config.json", "model.bin", "tokenizer.json")
"""Files of a model in the format of CTranslate2: without a tokenizer, one would be fetched from a network."""


class Transcribed:
    """Source of words that are heard, each then found in the sound again where the language is English.

    Args:
        folder: A model that faster-whisper reads; nothing is fetched from a network.

    Raises:
        ConfigError: If a package is missing, or the folder holds no such model.
    """

    name = "asr"
    licence = "MIT (faster-whisper); the weights have their own"

    def __init__(self, folder: Path) -> None:
        require("words: asr", "asr", "faster_whisper")
        absent = [name for name in _NEEDED if not (folder / name).is_file()]
        if absent:
            raise ConfigError(f"words: asr:{folder}: expected a folder with {absent[0]}, found no such file")
        aligner = SpeechAligner()
        self.version = versions("faster-whisper", "pocketsphinx")
        self.weights: Mapping[str, str] = {
            each.name: file_checksum(each) for each in sorted(folder.iterdir()) if _of_model(each)
        }
        self._model = _opened(folder)
        self._english = WordTimer(aligner)
        self._other = WordTimer(None, refusal="words are aligned in English alone")

    def words(self, clip: MediaClip) -> Words | Absent:
        """All spoken words.

        Raises:
            DataError: If the file cannot be read; the message names it.
        """
        sound = waveform(clip, RATE)
        if isinstance(sound, Absent):
            return sound
        segments, heard = self._model.transcribe(
            sound.samples, beam_size=5, temperature=0.0, condition_on_previous_text=False, vad_filter=True
        )
        cues = tuple(_cues(segments, clip.start + sound.start, len(sound.samples) / RATE))
        if not cues:
            return Absent("no speech was heard")
        timer = self._english if heard.language == "en" else self._other
        return timer.words(clip, Transcript(text=" ".join(cue.text for cue in cues), cues=cues))


def _cues(segments: Any, first: float, seconds: float) -> Iterator[Cue]:
    """Segments as cues of the file, whose sound begins at `first` and has a length."""
    for each in segments:
        start, end = (first + min(max(float(time), 0.0), seconds) for time in (each.start, each.end))
        yield Cue(text=" ".join(each.text.split()), start=start, end=max(start, end))


def _of_model(path: Path) -> bool:
    return path.name in (*_NEEDED, "preprocessor_config.json") or path.name.startswith("vocabulary.")


def _opened(folder: Path) -> Any:
    from faster_whisper import WhisperModel

    try:
        return WhisperModel(str(folder), device="cpu", compute_type="int8", local_files_only=True)
    except Exception as error:  # of files and versions, which share no narrower root
        raise ConfigError(
            f"words: asr:{folder}: expected a model that faster-whisper opens, found {brief(error)}"
        ) from None
