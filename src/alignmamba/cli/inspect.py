"""``alignmamba inspect``: what a corpus holds and what is wrong with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from alignmamba.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class Inspect(Verb):
    """Summarise a corpus and list every problem in it; the exit code is 2 if there is one.

    Lengths are counted in tokens.
    """

    path: Annotated[Positional[Path], arg(metavar="PATH")]
    """Directory of the corpus."""

    def run(self) -> int:
        """Inspect."""
        return 0
