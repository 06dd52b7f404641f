"""The contract of an extractor: a file of some forty lines turns clips, or their words, into one modality."""

from collections.abc import Mapping
from typing import Protocol

from alignmamba.media.clip import MediaClip
from alignmamba.media.tracks import Absent, Track, Words


class Tool(Protocol):
    """Facts that a recipe keeps of whatever reads clips, so that a prediction repeats what training saw."""

    @property
    def name(self) -> str:
        """Name on the command line, for example ``logmel``."""
        ...

    @property
    def version(self) -> str:
        """Version of the software that decides the values, for example ``opensmile 2.6.0``."""
        ...

    @property
    def licence(self) -> str:
        """Licence of software and weights, for people, for example ``Apache-2.0``."""
        ...

    @property
    def weights(self) -> Mapping[str, str]:
        """SHA-256 of each file of weights by its name within the given file or folder; empty without any."""
        ...


class Reading(Tool, Protocol):
    """A tool that makes vectors. It is made once for many clips, and keeps nothing from one to the next."""

    @property
    def width(self) -> int:
        """Width of one vector; of token ids the size of the vocabulary."""
        ...

    @property
    def unit(self) -> str:
        """Meaning of one vector, for people, for example ``log-mel energy, 80 bands at 100 Hz``."""
        ...


class Extractor(Reading, Protocol):
    """Reads sound or pictures of a clip."""

    def extract(self, clip: MediaClip) -> Track | Absent:
        """The modality of a clip.

        Raises:
            DataError: If the file cannot be read; the message names it.
        """
        ...


class TextExtractor(Reading, Protocol):
    """Reads the words of a clip."""

    def read(self, words: Words) -> Track:
        """A vector, or a token id, for each word or part of one, with the time of its word."""
        ...


class WordSource(Tool, Protocol):
    """Finds the words of a clip and their times."""

    def words(self, clip: MediaClip) -> Words | Absent:
        """All words that are said.

        Raises:
            DataError: If a file cannot be read; the message names it.
        """
        ...
