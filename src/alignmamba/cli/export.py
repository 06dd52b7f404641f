"""``alignmamba export``: a corpus in the format of another program."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from alignmamba.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class Export(Verb):
    """Write a corpus as another program reads it."""

    format: Annotated[Positional[Literal["mmsa"]], arg(metavar="FORMAT")]
    """mmsa: the pickle that MMSA trains on."""
    corpus: Annotated[Positional[Path], arg(metavar="CORPUS")]
    """Directory of the corpus."""
    out: Annotated[Positional[Path], arg(metavar="OUT.pkl")]
    """File to write."""
    modalities: Annotated[
        tuple[tuple[str, ...], ...],
        UseAppendAction,
        arg(metavar="ROLE=NAME ...", help_behavior_hint="(default: those of these names)"),
    ] = ()
    """Modalities of the corpus that stand for text, audio and vision, for example vision=video."""
    overwrite: bool = False
    """Replace the file that is there, once the new one is complete."""

    def run(self) -> int:
        """Export."""
        from alignmamba.data.archive import load_corpus
        from alignmamba.data.exporting import export_mmsa
        from alignmamba.errors import ConfigError

        stands: dict[str, str] = {}
        for given in (each for group in self.modalities for each in group):
            role, _, name = given.partition("=")
            if role not in ("text", "audio", "vision") or not name:
                raise ConfigError(f"--modalities: expected text=NAME, audio=NAME or vision=NAME, found {given!r}")
            stands[role] = name
        corpus = load_corpus(self.corpus)
        notes = export_mmsa(corpus, self.out, modalities=stands, overwrite=self.overwrite)
        samples = {role: len(split) for role, split in corpus.splits.items()}
        if self.json:
            self.emit({"out": str(self.out), "samples": samples, "notes": list(notes)})
            return 0
        for note in notes:
            print(note)
        print(f"{', '.join(f'{role} {count}' for role, count in samples.items())} samples in {self.out}")
        return 0
