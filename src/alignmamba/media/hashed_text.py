"""Vectors of words without any weights: words that are spelled alike are near to one another."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from alignmamba.contracts import Config
from alignmamba.media.tracks import Track, Words

_SIZES = range(3, 6)
"""Characters of a part of a word."""
_LONGEST = 64
"""Characters of a word that are read."""


class HashedOptions(Config):
    """Settings of `HashedText`."""

    width: Annotated[int, Field(ge=8, le=1 << 16)] = 256
    """Width of a vector; in a wider one fewer parts share a place."""


class HashedText:
    """A word as the sum of its character n-grams, each at a place and with a sign that its hash decides.

    Vectors have unit length and are the same on every machine. Weinberger et al., "Feature Hashing for Large
    Scale Multitask Learning", ICML 2009, arXiv 0902.2206, section 2.
    """

    name = "hashed"
    version = "1"
    licence = "Apache-2.0"
    weights: Mapping[str, str] = {}
    kind: Literal["features"] = "features"
    unit = "hashed character n-grams of a word"

    def __init__(self, options: HashedOptions) -> None:
        self.width = options.width

    def read(self, words: Words) -> Track:
        """A vector for each word."""
        return Track(
            values=np.stack([self._vector(word.text) for word in words.words]),
            times=np.array([word.start for word in words.words]),
            tokens=tuple(word.text for word in words.words),
        )

    def _vector(self, word: str) -> np.ndarray:
        vector = np.zeros(self.width)
        for part in _parts(word):
            number = int.from_bytes(hashlib.blake2b(part.encode("utf-8", "replace"), digest_size=8).digest())
            vector[(number >> 1) % self.width] += 1 if number & 1 else -1
        length = float(np.linalg.norm(vector))
        if length == 0:  # its parts cancel
            vector[0] = length = 1
        return np.asarray(vector / length, np.float32)


def _parts(word: str) -> Iterator[str]:
    """The word between marks of its ends, without punctuation and case, and its n-grams."""
    bare = re.sub(r"[^\w']", "", word.casefold()) or word
    marked = f"<{bare[:_LONGEST]}>"
    yield f"={bare}"
    for size in _SIZES:
        for first in range(len(marked) - size + 1):
            yield marked[first : first + size]
