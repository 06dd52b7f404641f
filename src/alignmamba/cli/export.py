"""``alignmamba export``: a corpus in the format of another program."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from alignmamba.cli.verb import Verb, write


@dataclass(frozen=True, kw_only=True)
class Export(Verb):
    """Write a corpus in the format of another program."""

    format: Annotated[Positional[Literal["mmsa"]], arg(metavar="FORMAT")]
    """mmsa, the pickle that MMSA trains on."""
    corpus: Annotated[Positional[Path], arg(metavar="CORPUS")]
    """Directory of the corpus."""
    out: Annotated[Positional[Path], arg(metavar="OUT.pkl")]
    """File to write."""
    text: Annotated[str, arg(metavar="MODALITY")] = "text"
    """Modality to write as MMSA's text."""
    audio: Annotated[str, arg(metavar="MODALITY")] = "audio"
    """Modality to write as MMSA's audio."""
    vision: Annotated[str, arg(metavar="MODALITY")] = "vision"
    """Modality to write as MMSA's vision."""
    overwrite: bool = False
    """Replace an existing file once the new one is complete."""

    def run(self) -> int:
        """Export."""
        from alignmamba.data.archive import load_corpus
        from alignmamba.formats.exporting.mmsa_export import export_mmsa

        modalities = {"text": self.text, "audio": self.audio, "vision": self.vision}
        done = export_mmsa(
            load_corpus(self.corpus), self.out, modalities=modalities, overwrite=self.overwrite
        )
        if self.json:
            self.emit({"out": str(self.out), "samples": dict(done.samples), "notes": list(done.notes)})
        else:
            write(
                f"{', '.join(f'{role} {count}' for role, count in done.samples.items())} samples in"
                f" {self.out}"
            )
            for note in done.notes:
                write(f"note: {note}")
        return 0
