"""The contract of an extractor: a file of some forty lines turns clips, or their words, into one modality."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Literal, Protocol, TypeVar

from alignmamba.contracts import Config
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
    def kind(self) -> Literal["features", "tokens"]:
        """Kind of the values: vectors, or token ids."""
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
        """All spoken words.

        Raises:
            DataError: If a file cannot be read; the message names it.
        """
        ...


class NoOptions(Config):
    """Options of a tool that has none."""


SAVED_MODEL: Final = (
    "a folder that transformers has saved, with weights as safetensors; its licence is that of the model"
)
"""Whence of weights that any folder of transformers may hold."""

ToolT = TypeVar("ToolT", bound=Tool, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer(Generic[ToolT]):
    """A tool that can be asked for by name, before anything heavy is imported."""

    make: Callable[[Path | None, Any], ToolT]
    """Makes it from its weights, if it has any, and its options.

    Raises:
        ConfigError: If a package is missing, or the weights are not what it reads; the message names them.
    """
    summary: str
    """Purpose in a few words, for help and tables."""
    options: type[Config] = NoOptions
    """Class of its options."""
    weights: Literal["", "FILE", "FOLDER"] = ""
    """Kind of weights that it needs, named after a colon: ``hf:FOLDER``."""
    extra: str = "media"
    """Optional extra that installs what it needs."""
    licence: str = "Apache-2.0"
    """Licence of its software, for people; weights have their own."""
    whence: str = ""
    """Sentence on where weights can be had, with size, licence and checksum where known."""


def given(weights: Path | None) -> Path:
    """The weights of a tool that has some: whoever makes it checks that they are named."""
    assert weights is not None
    return weights
