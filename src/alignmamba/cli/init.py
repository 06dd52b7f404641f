"""``alignmamba init``: a first description of a table or of arrays."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from alignmamba.cli.verb import Verb, write


@dataclass(frozen=True, kw_only=True)
class Init(Verb):
    """Draft the TOML file that describes a table (CSV, TSV, Parquet) or arrays (.npy, .npz, HDF5).

    The draft guesses the role of each column from its name and its cells. Correct the guesses, one a line,
    then check them with `alignmamba inspect`. See docs/arrays.md for all keys.
    """

    path: Annotated[Positional[Path], arg(metavar="FILE")]
    """Table or arrays to describe."""
    out: Annotated[
        Path | None, arg(metavar="OUT.toml", help_behavior_hint="(default: corpus.toml beside FILE)")
    ] = None
    """New file to write, in the folder of FILE or above it."""

    def run(self) -> int:
        """Look and write."""
        from alignmamba.formats.tables.draft import write_draft

        out = write_draft(self.path, self.out)
        if self.json:
            self.emit({"out": str(out)})
        else:
            write(f"{out}: check its guesses, then run: alignmamba inspect {out}")
        return 0
