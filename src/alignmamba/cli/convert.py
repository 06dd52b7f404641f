"""``alignmamba convert``: other people's files into a corpus."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg

from alignmamba.cli.verb import Verb

if TYPE_CHECKING:
    from alignmamba.data.readers.converting import Conversion
    from alignmamba.data.readers.foreign import ReadOptions


@dataclass(frozen=True, kw_only=True)
class Convert(Verb):
    """Convert files of another format into a corpus, without running anything that is in them.

    What is wrong with a file and can be repaired is repaired, counted and listed; what cannot be repaired is refused, and then
    nothing is written. `alignmamba inspect FILE` tells beforehand.
    """

    format: Annotated[Positional[str], arg(metavar="FORMAT")]
    """mmsa, mult, mag-bert, csd, gcnet or arrays; auto: what the files look like."""
    paths: Annotated[Positional[tuple[Path, ...]], arg(metavar="SRC [SRC ...] DST", help_behavior_hint="(required)")]
    """The files or folders, and last the directory of the corpus to make."""
    dims: Annotated[tuple[tuple[str, ...], ...], UseAppendAction, arg(metavar="MODALITY=N ...", help_behavior_hint="(repeatable)")] = ()
    """Expected width of a modality, for example audio=5 vision=20; another one is refused."""
    nonfinite: Literal["zero", "mean", "error", "keep"] = "zero"
    """Features that are not finite, or too large for float32: put 0 or the channel's mean over the train split instead, refuse the file,
    or keep them for training to be told."""
    text: Literal["features", "ids"] = "features"
    """MMSA: the text's features, or its token ids for an encoder."""
    label: Annotated[str, arg(metavar="NAME", help_behavior_hint="(default: the format's first)")] = ""
    """Label to take where there are several, for example regression_labels_T, or a column of a table."""
    folds: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    """CSD: JSON or TOML file with the ids of train, valid and test."""
    align: bool = False
    """CSD: one vector for each frame of the text, the mean over the frames that overlap it."""
    clip_labels: bool = False
    """Move a label that is out of range to the nearer end, instead of refusing the file."""
    name: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: that of the file)")] = None
    """Name of the corpus."""
    overwrite: bool = False
    """Replace the corpus at DST, once the new one is complete."""

    def run(self) -> int:
        """Convert."""
        from alignmamba.cli.progress import samples_display
        from alignmamba.data.readers.converting import convert
        from alignmamba.errors import ConfigError

        if len(self.paths) < 2:
            raise ConfigError(f"expected at least one file and the directory to make, found {len(self.paths)} path")
        *sources, destination = self.paths
        options = self._options()
        with samples_display("converted") as progress:
            done = convert(self.format, sources, destination, options, name=self.name, progress=progress, overwrite=self.overwrite)
        if self.json:
            self.emit(_facts(done, destination))
        else:
            _show(done, destination)
        return 0

    def _options(self) -> "ReadOptions":
        from alignmamba.data.readers.foreign import ReadOptions
        from alignmamba.errors import ConfigError

        dims: dict[str, int] = {}
        for given in (each for group in self.dims for each in group):
            name, _, width = given.partition("=")
            if not name or not width.isascii() or not width.isdigit() or not 0 < int(width[:12]) < 1 << 31:
                raise ConfigError(f"--dims: expected MODALITY=N with a width from 1, found {given!r}")
            dims[name] = int(width)
        return ReadOptions(
            dims=dims,
            nonfinite=self.nonfinite,
            text=self.text,
            label=self.label,
            folds=self.folds,
            align=self.align,
            clip_labels=self.clip_labels,
        )


def fault_rows(faults: tuple[tuple[str, str, str, int], ...]) -> list[dict[str, Any]]:
    """Faults as JSON has them."""
    return [{"kind": kind, "where": where, "done": done, "count": count} for kind, where, done, count in faults]


def _facts(done: "Conversion", destination: Path) -> dict[str, Any]:
    corpus = done.corpus
    return {
        "corpus": str(destination),
        "name": corpus.name,
        "format": done.format,
        "task": corpus.task.model_dump(mode="json"),
        "modalities": [spec.model_dump(mode="json") for spec in corpus.modalities],
        "samples": {role: len(split) for role, split in corpus.splits.items()},
        "present": {role: {name: int((each > 0).sum()) for name, each in split.lengths.items()} for role, split in corpus.splits.items()},
        "faults": fault_rows(done.faults),
        "notes": list(done.notes),
        "checksum": corpus.checksum,
        "seconds": done.seconds,
    }


def _show(done: "Conversion", destination: Path) -> None:
    from alignmamba.cli.tables import faults_table, rows_table
    from alignmamba.cli.verb import console

    screen, corpus = console(), done.corpus
    rows: list[tuple[Any, ...]] = [
        (spec.name, f"{spec.kind} {spec.dim}", *(int((split.lengths[spec.name] > 0).sum()) for split in corpus.splits.values()))
        for spec in corpus.modalities
    ]
    rows.append(("samples", "", *(len(split) for split in corpus.splits.values())))
    screen.print(rows_table(f"{corpus.name}, read as {done.format}: what was kept", ("modality", "kind, width", *corpus.splits), rows))
    screen.print(faults_table("what was wrong", done.faults))
    for note in done.notes:
        screen.print(note, soft_wrap=True)
    screen.print(f"corpus: {destination} ({done.seconds:.1f} s)", soft_wrap=True)
