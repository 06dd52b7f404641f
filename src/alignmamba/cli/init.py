"""``alignmamba init``: a first description of a table or of arrays."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from alignmamba.cli.verb import Verb, write


@dataclass(frozen=True, kw_only=True)
class Init(Verb):
    """Look at a table (CSV, TSV, Parquet) or at arrays (.npy, .npz, HDF5) and write the TOML file that
    describes them.

    What each column is, is guessed by its name and its cells; every guess stands in a line of its own, to be
    corrected. `alignmamba inspect` then shows what is read by it. docs/arrays.md has all keys.
    """

    path: Annotated[Positional[Path], arg(metavar="FILE")]
    """The table or the arrays."""
    out: Annotated[
        Path | None, arg(metavar="OUT.toml", help_behavior_hint="(default: corpus.toml beside FILE)")
    ] = None
    """File to write, in the folder of FILE or above it. One that is there is not replaced."""

    def run(self) -> int:
        """Look and write."""
        from alignmamba.formats.tables.draft import write_draft

        out = write_draft(self.path, self.out)
        if self.json:
            self.emit({"out": str(out)})
        else:
            write(f"{out}: check its guesses, then run: alignmamba inspect {out}")
        return 0
