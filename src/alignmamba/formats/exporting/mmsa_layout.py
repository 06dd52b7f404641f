"""Layout that the reader and the writer of MMSA share: its labels, its words, and what AlignMamba adds beside
the splits.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError

from alignmamba.contracts import Config, Role, Task
from alignmamba.errors import ConfigError, DataError, first_fault
from alignmamba.formats.pickles.pickled_values import readable

EXTRAS = "alignmamba"
"""The key beside the splits, which MMSA does not ask for."""

SCORES = ("regression_labels", "regression_labels_T", "regression_labels_A", "regression_labels_V")
"""Fields of one score per clip."""
CLASSES = ("annotations", "classification_labels")
"""Fields of one class per clip."""
LABELS = (*SCORES, *CLASSES)
"""All fields of labels."""
SENTIMENTS = ("Negative", "Neutral", "Positive")
"""Value of ``annotations`` for a score below, at and above 0, which is 0, 1 and 2 in
``classification_labels``.
"""

JOINT = "$_$"
"""Separator between the parts of an id, the first of which is the video."""

_FIRST, _LAST = "[CLS]", "[SEP]"


class MmsaExtras(Config):
    """Facts of a corpus that have no place in MMSA's layout, as plain values under `EXTRAS`."""

    label_range: tuple[float, float] | None = None
    """Smallest and largest label of a regression task."""
    sentiment: bool | None = None
    """Field of `Task`."""
    classes: tuple[str, ...] = ()
    """Class names in order; empty for regression."""
    units: Mapping[Literal["text", "audio", "vision"], str] = {}
    """Meaning of one feature vector."""
    vocabulary_size: Annotated[int, Field(ge=1)] | None = None
    """Vocabulary size of a text of token ids."""
    derived: Mapping[Role, tuple[Literal["raw_text", "annotations", "classification_labels"], ...]] = {}
    """Fields of a split that were made up for MMSA: the corpus has no such thing."""
    tokens: Mapping[Role, Mapping[str, tuple[str, ...]]] = {}
    """Display tokens of the clips, by id, that `display_words` does not make of their raw text; empty where
    there are none."""
    labels: Mapping[Role, tuple[str, ...]] = {}
    """The order of the labels beside the targets, of splits in which it is not that of `SCORES` and
    `CLASSES`."""
    ungrouped: tuple[Role, ...] = ()
    """Splits whose clips have no groups, though the ids of some name a video."""

    @classmethod
    def of(cls, path: Path, given: Any) -> Self:
        """Content of a file; anything else is refused."""
        try:
            extras = cls.model_validate(given)
            extras.task  # noqa: B018  its parts have to go together
        except ValidationError as error:
            raise DataError(f"{path}: {first_fault(error, EXTRAS)}") from error
        except ConfigError as error:
            raise DataError(f"{path}: {EXTRAS}: {error}") from error
        for name, value in extras.model_dump(mode="json").items():
            found = json.dumps(value, ensure_ascii=False)
            if found != readable(found):
                raise DataError(
                    f"{path}: {EXTRAS}.{name}: expected text in Unicode, found half a character (a lone"
                    " surrogate)"
                )
        return extras

    @property
    def task(self) -> Task:
        """Task to predict."""
        return Task(
            kind="classification" if self.classes else "regression",
            classes=self.classes,
            label_range=self.label_range,
            sentiment=self.sentiment,
        )

    @property
    def label(self) -> str:
        """The field of the targets."""
        return CLASSES[0] if self.classes else SCORES[0]


def display_words(text: str, length: int, *, framed: bool) -> list[str] | None:
    """The words of what was said in a clip, if there is one for each of `length` positions of its text, of
    which the first and the last may be BERT's where it is framed.
    """
    words = text.split()
    if words and len(words) == length:
        return words
    return [_FIRST, *words, _LAST] if words and framed and len(words) + 2 == length else None


def spoken(tokens: Sequence[str]) -> str:
    """Display tokens as a text, of which `display_words` makes them again."""
    framed = len(tokens) > 1 and (tokens[0], tokens[-1]) == (_FIRST, _LAST)
    return " ".join(tokens[1:-1] if framed else tokens)


def video_of(identity: str) -> str | None:
    """The video of an id ``video$_$clip``; ``None`` of another id."""
    video, joint, _ = identity.partition(JOINT)
    return video if joint and video else None
