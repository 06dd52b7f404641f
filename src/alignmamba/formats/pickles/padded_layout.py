"""Modalities of a pickle of padded clips, and the rule that separates their content from padding."""

from collections.abc import Callable, Collection, Mapping
from typing import Literal

import numpy as np

from alignmamba.errors import DataError
from alignmamba.formats.foreign import Faults, LabelOptions
from alignmamba.formats.pickles.declared_lengths import declared_content, declared_padding
from alignmamba.formats.pickles.padded_clips import (
    Clips,
    Side,
    masked_content,
    side_of_padding,
    zero_rows,
)
from alignmamba.formats.pickles.pickled_splits import MODALITIES, ParallelFields, SplitTable
from alignmamba.formats.pickles.text_bert import TextBert
from alignmamba.formats.plain_files import LazyRows

MASK = "text_bert"
LENGTHS = {name: f"{name}_lengths" for name in MODALITIES}


class PaddedOptions(LabelOptions):
    """Options to read a file of padded clips."""

    padding: Literal["auto", "front", "back"] = "auto"
    """Padded side of clips; auto: the side that their zeros show."""


class PaddedLayout:
    """Modalities of a file, each read from a field, and the rule that separates their content from padding.
    Clips are padded on the side that they show, or else that the user states, or else on the usual one.

    Raises:
        DataError: If there is no modality, or a field is not what it should be.
    """

    def __init__(
        self,
        content: ParallelFields,
        fields: Mapping[str, str],
        padding: Literal["auto", "front", "back"],
        *,
        usual: Side,
    ) -> None:
        if not fields:
            raise DataError(
                f"{content.path}: expected at least one of the fields {', '.join(MODALITIES)}, found"
                f" {sorted(content.names)}"
            )
        stated: Side | None = None if padding == "auto" else padding
        parts = content.splits
        self.fields = fields
        self.has_ids = fields.get("text") == MASK
        """True if the text is that of the token ids."""
        self.clips = {
            role: {name: Clips(*part.given(field)) for name, field in fields.items() if field != MASK}
            for role, part in parts.items()
        }
        has_mask = MASK in content.names
        self.encoded = {role: TextBert(*part.given(MASK)) for role, part in parts.items() if has_mask}
        first = next(iter(self.clips.values()))
        self.lengths = {
            name: {role: _declared(part, LENGTHS[name]) for role, part in parts.items()}
            for name in first
            if LENGTHS[name] in content.names
        }
        """Declared lengths, by modality and split."""
        self.paddings = {
            name: declared_padding(name, ((self.clips[role][name], own[role]) for role in parts), stated)
            for name, own in self.lengths.items()
        }
        """Padding of each modality with declared lengths."""
        several = "text" in fields and len(fields) > 1
        self.aligned = (
            several and not self.lengths and self._agree(parts.values(), first, encoded=self.has_ids)
        )
        """True if every modality has the positions of the text."""
        fitting = has_mask and "text" in first and "text" not in self.lengths
        self.masked = self.has_ids or (fitting and self._agree(parts.values(), ["text"], encoded=True))
        """True if the positions of the text are those of the attention mask."""
        masked = first if self.aligned and self.masked else ["text"] if self.masked else []
        self.by_zeros = [name for name in first if name not in self.lengths and name not in masked]
        """Modalities of which nothing but zeros says what is padding."""
        self.side = side_of_padding([first[name] for name in self.by_zeros], usual=stated or usual)
        self.kept = {*fields.values(), *(LENGTHS[name] for name in self.lengths), *([MASK] * self.masked)}
        """The fields of the file that are read."""

    def _agree(self, parts: Collection[SplitTable], names: Collection[str], *, encoded: bool) -> bool:
        """Return whether these modalities have as many positions in every clip, and the attention mask if
        asked.
        """
        for part in parts:
            steps = [self.clips[part.role][name].steps for name in names]
            steps += [self.encoded[part.role].steps] if encoded else []
            if not all(len({of(row) for of in steps}) == 1 for row in range(part.count)):
                return False
        return True

    def zeros_note(self) -> str:
        """Rule for a file of which nothing but zeros says what is padding, for people."""
        shared = (
            "aligned: all modalities of a clip have the positions of the longest, " if self.aligned else ""
        )
        return f"{shared}zeros at the {self.side} taken for padding"

    def note(self) -> str:
        """Rule that separates content from padding, for people."""
        if self.aligned and self.masked:
            return "aligned: all modalities of a clip have the positions of its attention mask"
        if self.aligned:
            return self.zeros_note()
        rules = {"the attention mask": ["text"] if self.masked else []}
        for padding in dict.fromkeys(sorted(self.paddings.values(), key=lambda each: each.side)):
            rules[f"declared lengths, {padding.note()}"] = [
                name for name, each in self.paddings.items() if each == padding
            ]
        rules[f"zeros at the {self.side}"] = self.by_zeros
        return "content: " + "; ".join(
            f"{', '.join(names)} by {rule}" for rule, names in rules.items() if names
        )

    def features(self, part: SplitTable, faults: Faults) -> dict[str, LazyRows]:
        """The content of a split's modalities, by name."""
        clips = self.clips[part.role]
        found: dict[str, LazyRows] = {}
        for group in [self.by_zeros] if self.aligned else [[name] for name in self.by_zeros]:
            found |= zero_rows({name: clips[name] for name in group}, self.side, faults)
        for name in self.fields.keys() - found.keys():
            found[name] = LazyRows(part.count, self._content(name, part, faults))
        return {name: found[name] for name in self.fields}

    def _content(self, name: str, part: SplitTable, faults: Faults) -> Callable[[int], np.ndarray]:
        """Content of a modality by its declared lengths, or by the attention mask, in each clip."""
        clips = self.clips[part.role]
        if name in self.lengths:
            own, lengths, padding = clips[name], self.lengths[name][part.role], self.paddings[name]
            return lambda row: declared_content(name, own, lengths[row], row, padding, faults)
        encoded = self.encoded[part.role]
        if name != "text":
            return lambda row: masked_content(name, clips[name], encoded.windows[row], row, faults)
        positions = encoded.ids if self.has_ids else clips[name].part
        return lambda row: positions(row, *encoded.windows[row])


def _declared(part: SplitTable, field: str) -> list[int]:
    values = part.numbers(field)
    wrong = np.flatnonzero(~((values >= 0) & (values == np.floor(values)) & (values < 1 << 48)))
    if len(wrong):
        raise DataError(
            f"{part.where}: {field}: row {wrong[0]}: expected a whole number from 0, found"
            f" {values[wrong[0]]:g}"
        )
    lengths: list[int] = values.astype(np.int64).tolist()
    return lengths
