"""The recipe of a corpus: which tools read its clips, with the versions and checksums that repeat them."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar

from pydantic import Field, ValidationError

from alignmamba.checksums import checksum
from alignmamba.contracts import Config, ModalitySpec
from alignmamba.errors import AlignMambaError, ConfigError, DataError, brief, first_fault, shown, suggestion
from alignmamba.files import refused_by_machine
from alignmamba.media.clip import MediaClip
from alignmamba.media.decoding import facts
from alignmamba.media.extractor import Extractor, Offer, TextExtractor, WordSource
from alignmamba.media.offered import NONE, OFFERS, Offered, Slot, by_name, offered
from alignmamba.media.stream_frames import SHORT_SECONDS
from alignmamba.media.tracks import Absent, ClipContent, Track, Words, track_fault

ResultT = TypeVar("ResultT")

_VERB: Final[Mapping[Slot, str]] = {"text": "read", "words": "words", "audio": "extract", "video": "extract"}
"""Method of a tool that reads."""


class ToolRecipe(Config):
    """One tool, and what decides its values."""

    name: str
    """Name of the tool."""
    package: str = ""
    """Package that adds the tool; empty for one of this package."""
    path: str = ""
    """File or folder of its weights, as it was given; empty without weights."""
    options: dict[str, Any] = Field(default_factory=dict)
    """All options of the tool, defaults included."""
    version: str
    """Version of its software."""
    licence: str
    """Licence of software and weights."""
    weights: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of each file of its weights."""
    width: int = 0
    """Width of one vector, or the size of the vocabulary; 0 for a source of words."""
    kind: Literal["features", "tokens"] = "features"
    """Kind of its values."""
    unit: str = ""
    """Meaning of one vector, for people."""

    def said(self, slot: Slot) -> str:
        """Part, name and package, as messages begin with them."""
        return f"{slot}: {self.name}{f' of the package {self.package}' if self.package else ''}"


class Recipe(Config):
    """Tools that turn media files into a corpus; a prediction repeats them."""

    version: Literal[1] = 1
    """Version of this record."""
    text: ToolRecipe | None = None
    """Reader of the words."""
    words: ToolRecipe | None = None
    """Source of the words and their times."""
    audio: ToolRecipe | None = None
    """Reader of the sound."""
    video: ToolRecipe | None = None
    """Reader of the pictures."""

    def parts(self) -> dict[Slot, ToolRecipe]:
        """The tools that are there, by slot."""
        found: dict[Slot, ToolRecipe] = {}
        for slot in OFFERS:
            part: ToolRecipe | None = getattr(self, slot)
            if part is not None:
                found[slot] = part
        return found

    @property
    def modalities(self) -> tuple[ModalitySpec, ...]:
        """Modalities of a clip, as a corpus has them."""
        return tuple(
            ModalitySpec(name=slot, dim=part.width, kind=part.kind, units=part.unit)
            for slot, part in self.parts().items()
            if slot != "words"
        )

    @property
    def digest(self) -> str:
        """SHA-256 of what decides the values: all but where the weights lie on this machine."""
        content = self.model_dump(mode="json")
        for slot in self.parts():
            del content[slot]["path"]
            if not content[slot]["package"]:  # as before there were others
                del content[slot]["package"]
        return checksum(json.dumps(content, sort_keys=True).encode())

    @classmethod
    def read(cls, given: Any, where: str) -> Self:
        """The recipe that a corpus or a run has stored.

        Raises:
            DataError: If it is none; the message starts with `where`.
        """
        if not isinstance(given, dict) or not given:
            raise DataError(f"{where}: recipe: expected how its clips were read, found {shown(given)}")
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise DataError(f"{where}: recipe: {first_fault(error)}") from error


@dataclass(frozen=True, kw_only=True)
class ClipReader:
    """The tools of a recipe, made for many clips."""

    recipe: Recipe
    text: TextExtractor | None = None
    words: WordSource | None = None
    audio: Extractor | None = None
    video: Extractor | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)
    """Sentences on what differs from the recipe, such as versions of software."""

    def read(self, clip: MediaClip) -> ClipContent:
        """Read all modalities of a clip.

        Raises:
            DataError: If the file cannot be read; the message names it.
        """
        about = facts(clip)
        if clip.start > 0 and clip.start >= about.found:
            raise DataError(
                f"{clip.path}: found {about.found:.2f} s of media, expected a segment that begins before"
                f" their end, not at {clip.start:g} s"
            )
        found: dict[str, Track | Absent] = {}
        said: Words | Absent = Absent("nothing reads words")
        if self.text is not None and self.words is not None:
            said = self._result(clip, "words", partial(self.words.words, clip))
            found["text"] = (
                said if isinstance(said, Absent) else self._track(clip, "text", partial(self.text.read, said))
            )
        if self.audio is not None:
            found["audio"] = self._track(clip, "audio", partial(self.audio.extract, clip))
        if self.video is not None:
            found["video"] = self._track(clip, "video", partial(self.video.extract, clip))
        notes = [*about.notes, *_beyond_the_end(clip, about.found, said)]
        notes += said.notes if isinstance(said, Words) else ()
        return ClipContent(
            tracks={name: each for name, each in found.items() if isinstance(each, Track)},
            absent={name: each.reason for name, each in found.items() if isinstance(each, Absent)},
            text=" ".join(word.text for word in said.words) if isinstance(said, Words) else clip.text,
            notes=tuple(dict.fromkeys(notes)),
        )

    def _track(self, clip: MediaClip, slot: Slot, read: Callable[[], Track | Absent]) -> Track | Absent:
        """A modality of a clip, if it is what its tool declares."""
        found, part = self._result(clip, slot, read), self.recipe.parts()[slot]
        fault = "" if isinstance(found, Absent) else track_fault(found, kind=part.kind, width=part.width)
        if fault:
            raise DataError(f"{clip.path}: {part.said(slot)}: {fault}")
        return found

    def _result(self, clip: MediaClip, slot: Slot, read: Callable[[], ResultT]) -> ResultT:
        """Result of a tool; any fault of a tool of another package names clip and tool."""
        part = self.recipe.parts()[slot]
        try:
            return read()
        except Exception as error:
            if not part.package or isinstance(error, AlignMambaError) or refused_by_machine(error):
                raise
            said = f"{type(error).__name__}: {brief(error)}"
            raise DataError(f"{clip.path}: {part.said(slot)}: cannot read the clip ({said})") from error


def _beyond_the_end(clip: MediaClip, found: float, said: Words | Absent) -> list[str]:
    """Notes on a segment or words of which a part lies after the end of the file."""
    notes = []
    if clip.end is not None and clip.end > found + SHORT_SECONDS:
        notes.append(f"the segment ends at {clip.end:g} s, and the file at {found:.1f} s")
    words = said.words if isinstance(said, Words) else ()
    late = sum(clip.start + word.start > found for word in words)
    if late:
        notes.append(f"{late} of {len(words)} words begin after the end of the file")
    return notes


def composed(chosen: Mapping[Slot, str], settings: Mapping[str, Any]) -> ClipReader:
    """Tools by their names, and the recipe that repeats them.

    Args:
        chosen: Slot to ``NAME``, ``NAME:PATH`` of weights, or ``none``.
        settings: ``SLOT.OPTION`` to its value, for example ``{"video.fps": 5}``.

    Raises:
        ConfigError: If a tool or an option is unknown, or its package or weights are missing.
    """
    given: dict[Slot, tuple[Offered, str]] = {}
    pairs: dict[Slot, Slot] = {"words": "text", "text": "words"}  # one is nothing without the other
    for slot, said in chosen.items():
        if said != NONE and (slot not in pairs or chosen.get(pairs[slot]) != NONE):
            given[slot] = _asked_for(slot, said)
    if not any(slot != "words" for slot in given):
        raise ConfigError("text, audio, video: found none for all of them, expected at least one modality")
    offers = {slot: which.offer() for slot, (which, _) in given.items()}
    for slot, (which, path) in given.items():
        _check_path(which, offers[slot], path)
    options: dict[Slot, dict[str, Any]] = {slot: {} for slot in given}
    for key, value in settings.items():
        slot, option = _setting(key, offers)
        options[slot][option] = value
    made, recipes = {}, {}
    for slot, (which, path) in given.items():
        own = _options(which, offers[slot], options[slot])
        made[slot], recipes[slot] = _made(which, offers[slot], path, own)
    return ClipReader(recipe=Recipe(**recipes), **made)


def repeated(recipe: Recipe, *, models: Path | None = None) -> ClipReader:
    """The tools of a recipe, made again.

    Args:
        recipe: As a corpus or a run has stored it.
        models: Folder in which files and folders of weights lie now, under the names that they had.

    Raises:
        ConfigError: If a tool is not there, or its weights are others than those of the recipe, or `models`
            is given for tools without weights.
    """
    if models is not None and not any(part.path for part in recipe.parts().values()):
        raise ConfigError(f"models: found {models}, expected none, as no reader of the recipe has weights")
    made, notes = {}, []
    for slot, part in recipe.parts().items():
        which = by_name(slot, part.name)
        if which is None or which.package != part.package:
            place = f"the package {part.package}" if part.package else "this release"
            found = f"found it in the package {which.package}" if which and which.package else "found none"
            raise ConfigError(f"{slot}: {part.name}: {found}, expected that of {place}, as in the recipe")
        offer, path = which.offer(), _place(slot, part, models)
        own = _options(which, offer, part.options)
        made[slot], now = _made(which, offer, "" if path is None else str(path), own)
        _check_same(slot, part, now, path)
        if now.version != part.version:
            notes.append(f"{slot}: {part.name} is {now.version} here and was {part.version} in training")
    return ClipReader(recipe=recipe, notes=tuple(notes), **made)


def _place(slot: Slot, part: ToolRecipe, models: Path | None) -> Path | None:
    """The file or folder of the weights of a tool on this machine."""
    if not part.path:
        return None
    places = [Path(part.path)] if models is None else [models / Path(part.path).name, models]
    found = next((place for place in places if _holds(place, part.weights)), None)
    if found is None:
        raise ConfigError(
            f"{slot}: {part.name}: found no {Path(part.path).name} with {', '.join(part.weights)[:80]} in"
            f" {models or Path(part.path).parent}; --models FOLDER names the place of the weights"
        )
    return found


def _holds(place: Path, weights: Iterable[str]) -> bool:
    return place.is_file() or (place.is_dir() and all((place / name).is_file() for name in weights))


def _check_same(slot: Slot, was: ToolRecipe, now: ToolRecipe, path: Path | None) -> None:
    """Refuse other weights, and values of another shape."""
    if was.weights != now.weights:
        names = sorted(
            name for name in {*was.weights, *now.weights} if was.weights.get(name) != now.weights.get(name)
        )
        before, after = (each.weights.get(names[0], "none") for each in (was, now))
        raise ConfigError(
            f"{slot}: {was.name}: {path}: {names[0]}: found SHA-256 {after[:12]}, expected {before[:12]}, the"
            " weights that the clips of training were read with"
        )
    for name in ("kind", "width", "unit"):
        before, after = getattr(was, name), getattr(now, name)
        if before != after:
            raise ConfigError(f"{slot}: {was.name}: {name}: found {after!r}, expected {before!r}")


def _asked_for(slot: Slot, said: str) -> tuple[Offered, str]:
    """The reader and the path of weights that a choice stands for."""
    name, _, path = said.partition(":")
    found = by_name(slot, name)
    if found is None:
        names = [*(each.name for each in offered(slot)), NONE]
        raise ConfigError(
            f"{slot}: found {name!r}, expected one of {', '.join(names)}{suggestion(name, names)}"
        )
    return found, path


def _check_path(which: Offered, offer: Offer[Any], path: str) -> None:
    """Refuse weights of a reader that has none, and a reader without its weights."""
    if offer.weights and not path:
        raise ConfigError(f"{which.said}: found no weights, expected {which.name}:{offer.weights}")
    if path and not offer.weights:
        raise ConfigError(f"{which.slot}: {which.name}:{path}: found weights, but {which.name} has none")


def _setting(key: str, offers: Mapping[Slot, Offer[Any]]) -> tuple[Slot, str]:
    known: dict[str, tuple[Slot, str]] = {
        f"{slot}.{option}": (slot, option)
        for slot, offer in offers.items()
        for option in offer.options.model_fields
    }
    if key not in known:
        names = list(known)
        raise ConfigError(
            f"{key}: expected one of {', '.join(names) or 'no option of these tools'}{suggestion(key, names)}"
        )
    return known[key]


def _options(which: Offered, offer: Offer[Any], given: Mapping[str, Any]) -> Config:
    try:
        return offer.options.model_validate(given)
    except ValidationError as error:
        raise ConfigError(f"{which.said}: {first_fault(error)}") from error


def _made(which: Offered, offer: Offer[Any], path: str, options: Config) -> tuple[Any, ToolRecipe]:
    """A tool, and its record.

    Raises:
        ConfigError: If a tool of another package cannot be made, or lacks what every tool has.
    """
    try:
        tool = offer.make(Path(path) if path else None, options)
    except Exception as error:
        if not which.package or isinstance(error, AlignMambaError) or refused_by_machine(error):
            raise
        raise ConfigError(f"{which.said}: cannot be made: {brief(error)}") from error
    try:
        recorded = _recorded(which, tool, path, options)
    except Exception as error:
        if not which.package:
            raise
        raise ConfigError(f"{which.said}: {brief(error)}") from error
    verb = _VERB[which.slot]
    if not callable(getattr(tool, verb, None)):
        raise ConfigError(f"{which.said}: {type(tool).__name__}: expected a method {verb}, found none")
    if recorded.name != which.name:
        raise ConfigError(f"{which.said}: name: found {recorded.name!r}, expected {which.name!r}")
    if which.slot != "words" and recorded.width < 1:
        raise ConfigError(f"{which.said}: width: found {recorded.width}, expected at least 1")
    return tool, recorded


def _recorded(which: Offered, tool: Any, path: str, options: Config) -> ToolRecipe:
    shape = {} if which.slot == "words" else {"width": tool.width, "unit": tool.unit, "kind": tool.kind}
    return ToolRecipe(
        name=tool.name,
        package=which.package,
        path=path,
        options=options.model_dump(mode="json"),
        version=tool.version,
        licence=tool.licence,
        weights=dict(tool.weights),
        **shape,
    )
