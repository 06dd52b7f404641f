"""Names of several labels of a clip, and the one of them that is asked for."""

from collections.abc import Sequence
from typing import Final

from alignmamba.formats.foreign import UnknownLabelError

EMOTIONS: Final = ("happy", "sad", "anger", "surprise", "disgust", "fear")
"""Emotions of CMU-MOSEI in the order of its SDK, after the sentiment."""


def column_of(wanted: str, names: Sequence[str], where: str) -> int:
    """Place of the label of that name; the first if nothing is asked for.

    Raises:
        UnknownLabelError: If there is none; the message begins with `where`.
    """
    if not wanted:
        return 0
    if wanted in names:
        return names.index(wanted)
    raise UnknownLabelError(f"{where}: label {wanted!r}: expected one of {list(names)}")
