"""``alignmamba export``: a corpus in the format of another program, or a run as a program."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from alignmamba.cli.verb import Verb, write
from alignmamba.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Export(Verb):
    """Write a corpus in the format of another program, or the model of a run as a program of its own.

    `alignmamba export mmsa CORPUS OUT.pkl` writes the pickle that MMSA trains on.
    `alignmamba export onnx RUN OUT.onnx` and `alignmamba export pt2 RUN OUT.pt2` write the model.
    """

    format: Annotated[Positional[Literal["mmsa", "onnx", "pt2"]], arg(metavar="FORMAT")]
    """mmsa, onnx, or pt2, the format of torch.export."""
    source: Annotated[Positional[Path], arg(metavar="CORPUS|RUN")]
    """Directory of the corpus or of the run."""
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """File to write."""
    text: Annotated[str | None, arg(metavar="MODALITY", help_behavior_hint="(default: text)")] = None
    """Modality to write as MMSA's text."""
    audio: Annotated[str | None, arg(metavar="MODALITY", help_behavior_hint="(default: audio)")] = None
    """Modality to write as MMSA's audio."""
    vision: Annotated[str | None, arg(metavar="MODALITY", help_behavior_hint="(default: vision)")] = None
    """Modality to write as MMSA's vision."""
    int8: bool = False
    """Store weights of linear maps in 8 bits; onnx alone."""
    overwrite: bool = False
    """Replace an existing file once the new one is complete."""

    def run(self) -> int:
        """Export."""
        chosen = {"text": self.text, "audio": self.audio, "vision": self.vision}
        if self.format != "mmsa":
            given = next((name for name, value in chosen.items() if value is not None), None)
            if given is not None:
                raise ConfigError(f"{given}: goes with mmsa alone, found the format {self.format}")
            return self._export_program(self.format)
        if self.int8:
            raise ConfigError("int8: goes with onnx alone, found the format mmsa")
        return self._export_corpus({place: name or place for place, name in chosen.items()})

    def _export_corpus(self, modalities: dict[str, str]) -> int:
        from alignmamba.data.archive import load_corpus
        from alignmamba.formats.exporting.mmsa_export import export_mmsa

        done = export_mmsa(
            load_corpus(self.source), self.out, modalities=modalities, overwrite=self.overwrite
        )
        if self.json:
            self.emit({"out": str(self.out), "samples": dict(done.samples), "notes": list(done.notes)})
            return 0
        write(f"{', '.join(f'{role} {count}' for role, count in done.samples.items())} samples in {self.out}")
        for note in done.notes:
            write(f"note: {note}")
        return 0

    def _export_program(self, form: Literal["onnx", "pt2"]) -> int:
        from alignmamba.recipes.program_export import export_program

        made = export_program(self.source, self.out, form=form, int8=self.int8, overwrite=self.overwrite)
        if self.json:
            self.emit(made)
            return 0
        inputs = ", ".join(place["name"] for place in made["inputs"])
        write(f"{made['method']} in {made['out']} ({made['bytes'] / 1e6:.1f} MB)")
        write(f"takes {inputs}; gives {', '.join(made['outputs'])}")
        write(f"differs from the model by at most {made['difference']:.1e} on samples drawn at random")
        return 0
