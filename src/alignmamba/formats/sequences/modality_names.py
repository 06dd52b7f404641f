"""Names of modalities, from what files and folders of features are called."""

import re
from collections.abc import Sequence


def told_by(name: str, hints: Sequence[tuple[str, str]]) -> str:
    """Meaning of a name by the first pattern of `hints` that is found in it, in letters of any case; empty if
    it shows nothing.
    """
    return next((told for told, pieces in hints if re.search(pieces, name.lower())), "")


def as_modality(name: str) -> str:
    """A name as one of a modality: a letter first, then letters, digits and `_`."""
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)
    return (plain if plain[:1].isalpha() else f"s{plain}")[:64]
