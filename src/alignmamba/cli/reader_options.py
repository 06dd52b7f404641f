"""The options of how other people's files are read, which several verbs take."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import UseAppendAction, arg

from alignmamba.cli.verb import Verb

if TYPE_CHECKING:
    from alignmamba.formats.foreign import ReadOptions


@dataclass(frozen=True, kw_only=True)
class ReadingVerb(Verb):
    """A verb that reads a file of another format. An option that the format does not read is refused."""

    dims: Annotated[
        tuple[str, ...],
        UseAppendAction,
        arg(metavar="MODALITY=N[,MODALITY=N]", help_behavior_hint="(repeatable)"),
    ] = ()
    """Expected width of a modality, for example audio=5,vision=20; another one is refused."""
    nonfinite: Literal["zero", "mean", "error", "keep"] = "zero"
    """Features that are not finite, or too large for float32: put 0 or the channel's mean over the train
    split instead, refuse the file, or keep them, and training needs --nonfinite."""
    text: Literal["features", "ids"] = "features"
    """MMSA: the text's features, or its token ids for an encoder."""
    tokenizer: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="(default: none)")] = None
    """Make token ids of what was said in each sample, by the tokenizer of a language model in a folder."""
    label: Annotated[str, arg(metavar="NAME", help_behavior_hint="(default: the format's first)")] = ""
    """Label to take where there are several, for example regression_labels_T, or a column of a table."""
    folds: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    """CSD, GCNet: JSON or TOML file with the ids of train, valid and test."""
    align: bool = False
    """CSD: one vector for each frame of the text, the mean over the frames that overlap it."""
    padding: Literal["auto", "front", "back"] = "auto"
    """MMSA, MulT: the side on which clips are padded, where their zeros do not show it."""
    clip_labels: bool = False
    """Move a label that is out of range to the nearer end, instead of refusing the file."""

    def read_options(self) -> "ReadOptions":
        """The options as the readers take them."""
        from alignmamba.errors import ConfigError
        from alignmamba.formats.foreign import ReadOptions

        dims: dict[str, int] = {}
        for given in (each for group in self.dims for each in group.split(",")):
            name, _, width = given.partition("=")
            if not name or not width.isascii() or not width.isdigit() or not 0 < int(width[:12]) < 1 << 31:
                raise ConfigError(
                    "--dims: expected MODALITY=N with a width from 1, several with commas between them,"
                    f" found {given!r}"
                )
            if dims.setdefault(name, int(width)) != int(width):
                raise ConfigError(f"--dims: {name} has the widths {dims[name]} and {width}, expected one")
        return ReadOptions(
            dims=dims,
            nonfinite=self.nonfinite,
            text=self.text,
            tokenizer=self.tokenizer,
            label=self.label,
            folds=self.folds,
            align=self.align,
            padding=self.padding,
            clip_labels=self.clip_labels,
        )

    def given_options(self) -> list[str]:
        """Those of the options of reading that are not at their default, as they are written."""
        return [
            f"--{field.name.replace('_', '-')}"
            for field in fields(ReadingVerb)
            if field.name not in Verb.__dataclass_fields__ and getattr(self, field.name) != field.default
        ]
