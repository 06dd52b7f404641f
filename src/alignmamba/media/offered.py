"""Readers that can be asked for: those of this package, and those that installed packages add.

A package adds one by an entry point of the group of its part, for example ``alignmamba.media.audio``: the
name of the reader, and the place of its `Offer`.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, Literal

from alignmamba.errors import ConfigError, brief
from alignmamba.extras import EXTRAS
from alignmamba.media.extractor import Offer
from alignmamba.media.extractors import AUDIO, VIDEO
from alignmamba.media.readers import TEXT, WORDS

NONE: Final = "none"
"""Word for a modality that is not read."""
Slot = Literal["text", "words", "audio", "video"]
"""Part of a recipe: the three modalities, and the source of word times that text needs."""
OFFERS: Final[Mapping[Slot, Mapping[str, Offer[Any]]]] = {
    "text": TEXT,
    "words": WORDS,
    "audio": AUDIO,
    "video": VIDEO,
}
"""Every reader of this package, by its part of a recipe and its name."""
GROUPS: Final[Mapping[Slot, str]] = {slot: f"alignmamba.media.{slot}" for slot in OFFERS}
"""Group of entry points by which other packages add readers, by part of a recipe."""

_NAME = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """A reader that can be asked for; the code of other packages runs when it is."""

    slot: Slot
    name: str
    package: str = ""
    """Name of the package that adds it; empty for a reader of this package."""
    version: str = ""
    """Version of that package."""
    entry: EntryPoint | None = None
    """Place of its offer in that package."""
    refusal: str = ""
    """Reason why it is never used, for example that its name is taken."""

    @property
    def said(self) -> str:
        """Part, name and package, as messages begin with them."""
        return f"{self.slot}: {self.name}{f' of the package {self.package}' if self.package else ''}"

    def offer(self) -> Offer[Any]:
        """The offer itself.

        Raises:
            ConfigError: If the name is taken, or the package cannot be imported or holds no offer there.
        """
        if self.refusal:
            raise ConfigError(f"{self.said}: {self.refusal}")
        if self.entry is None:
            return OFFERS[self.slot][self.name]
        try:
            found = self.entry.load()
        except Exception as error:  # of a stranger's module, which may raise anything
            raise ConfigError(f"{self.said}: cannot be imported: {brief(error)}") from error
        if not isinstance(found, Offer):
            kind = type(found).__name__
            raise ConfigError(f"{self.said}: {self.entry.value}: found a {kind}, expected an Offer")
        if found.extra not in EXTRAS:
            raise ConfigError(
                f"{self.said}: extra: found {found.extra!r}, expected one of {', '.join(EXTRAS)}"
            )
        return found


def offered(slot: Slot) -> tuple[Offered, ...]:
    """Readers of a part: first those of this package, then those of others by package and name."""
    others = sorted(entry_points(group=GROUPS[slot]), key=lambda entry: (_package(entry), entry.name))
    names = Counter(entry.name for entry in others)
    found = [Offered(slot=slot, name=name) for name in OFFERS[slot]]
    for entry in others:
        refusal = ""
        if entry.name in OFFERS[slot] or entry.name == NONE:
            refusal = f"found a name that alignmamba itself uses, expected another than {entry.name!r}"
        elif names[entry.name] > 1:
            packages = ", ".join(_package(each) for each in others if each.name == entry.name)
            refusal = f"found one name in several packages ({packages}), expected one of them installed"
        elif not _NAME.fullmatch(entry.name):
            refusal = f"found the name {entry.name!r}, expected letters, digits, '.', '-' and '_'"
        version = "" if entry.dist is None else entry.dist.version
        found.append(
            Offered(
                slot=slot,
                name=entry.name,
                package=_package(entry),
                version=version,
                entry=entry,
                refusal=refusal,
            )
        )
    return tuple(found)


def _package(entry: EntryPoint) -> str:
    return "" if entry.dist is None else entry.dist.name


def by_name(slot: Slot, name: str) -> Offered | None:
    """The reader of a name; ``None`` where there is none. Readers of this package come first."""
    return next((each for each in offered(slot) if each.name == name), None)
