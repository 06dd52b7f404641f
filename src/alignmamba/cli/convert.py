"""``alignmamba convert``: other people's files into a corpus."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from alignmamba.cli.reader_options import ReadingVerb
from alignmamba.cli.terminal_tables import faults_table, rows_table
from alignmamba.cli.verb import console
from alignmamba.errors import ConfigError, counted

if TYPE_CHECKING:
    from alignmamba.formats.conversion import Conversion


@dataclass(frozen=True, kw_only=True)
class Convert(ReadingVerb):
    """Convert files of another format into a corpus, without running anything that is in them.

    Faults that can be repaired are repaired, counted and listed. Any other fault refuses the file, and
    nothing is written. Preview both with `alignmamba inspect FILE` and the same options.
    """

    format: Annotated[Positional[str], arg(metavar="FORMAT")]
    """Name of the format; auto: what the files look like."""
    paths: Annotated[
        Positional[tuple[Path, ...]], arg(metavar="SRC [SRC ...] DST", help_behavior_hint="(required)")
    ]
    """Files or folders to read, then the corpus directory to write."""
    name: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: that of the file)")] = None
    """Name of the corpus."""
    overwrite: bool = False
    """Replace the corpus at DST once the new one is complete."""

    def run(self) -> int:
        """Convert."""
        from alignmamba.formats.conversion import convert
        from alignmamba.recipes.display import samples_display

        if len(self.paths) < 2:
            raise ConfigError(
                f"expected at least one file and the directory to write, found"
                f" {counted(len(self.paths), 'path')}"
            )
        *sources, destination = self.paths
        options = self.read_options()
        with samples_display("converted") as progress:
            done = convert(
                self.format,
                sources,
                destination,
                options,
                name=self.name,
                progress=progress,
                overwrite=self.overwrite,
            )
        if self.json:
            self.emit(_facts(done, destination))
        else:
            _show(done, destination)
        return 0


def fault_rows(faults: tuple[tuple[str, str, str, int], ...]) -> list[dict[str, Any]]:
    """Faults as JSON has them."""
    return [
        {"kind": kind, "where": where, "done": done, "count": count} for kind, where, done, count in faults
    ]


def _facts(done: "Conversion", destination: Path) -> dict[str, Any]:
    corpus = done.corpus
    return {
        "corpus": str(destination),
        "name": corpus.name,
        "format": done.format,
        "task": corpus.task.model_dump(mode="json"),
        "modalities": [spec.model_dump(mode="json") for spec in corpus.modalities],
        "samples": {role: len(split) for role, split in corpus.splits.items()},
        "present": {
            role: {name: int((each > 0).sum()) for name, each in split.lengths.items()}
            for role, split in corpus.splits.items()
        },
        "faults": fault_rows(done.faults),
        "notes": list(done.notes),
        "checksum": corpus.checksum,
        "seconds": done.seconds,
    }


def _show(done: "Conversion", destination: Path) -> None:
    screen, corpus = console(), done.corpus
    rows: list[tuple[Any, ...]] = [
        (
            spec.name,
            f"{spec.kind} {spec.dim}",
            *(int((split.lengths[spec.name] > 0).sum()) for split in corpus.splits.values()),
        )
        for spec in corpus.modalities
    ]
    rows.append(("samples", "", *(len(split) for split in corpus.splits.values())))
    screen.print(
        rows_table(
            f"{corpus.name}, read as {done.format}: what was kept",
            ("modality", "kind, width", *corpus.splits),
            rows,
        )
    )
    screen.print(faults_table("what was wrong", done.faults))
    for note in done.notes:
        screen.print(note, soft_wrap=True)
    screen.print(f"corpus: {destination} ({done.seconds:.1f} s)", soft_wrap=True)
