"""``alignmamba export``: a corpus in the format of another program."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from alignmamba.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class Export(Verb):
    """Write a corpus as another program reads it."""

    format: Annotated[Positional[Literal["mmsa"]], arg(metavar="FORMAT")]
    """mmsa: the pickle that MMSA trains on."""
    corpus: Annotated[Positional[Path], arg(metavar="CORPUS")]
    """Directory of the corpus."""
    out: Annotated[Positional[Path], arg(metavar="OUT.pkl")]
    """File to write; nothing that exists is overwritten."""

    def run(self) -> int:
        """Export."""
        from importlib import import_module

        written = import_module("alignmamba.data.readers.exporting").export_mmsa(self.corpus, self.out)
        if self.json:
            self.emit({"out": str(self.out), "samples": dict(written)})
        else:
            print(f"{', '.join(f'{role} {count}' for role, count in written.items())} samples in {self.out}")
        return 0
