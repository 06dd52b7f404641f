"""``alignmamba inspect``: what a corpus holds and what is wrong with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from alignmamba.cli.verb import Verb

if TYPE_CHECKING:
    from alignmamba.data.inspection import Inspection


@dataclass(frozen=True, kw_only=True)
class Inspect(Verb):
    """Summarise a corpus and list every problem in it; the exit code is 2 if there is one.

    Lengths are counted in tokens.
    """

    path: Annotated[Positional[Path], arg(metavar="PATH")]
    """Directory of the corpus."""

    def run(self) -> int:
        """Inspect."""
        from dataclasses import asdict

        from alignmamba.data.inspection import inspect_corpus

        found = inspect_corpus(self.path)
        if self.json:
            self.emit({**asdict(found), "task": found.task.model_dump(mode="json")})
        else:
            self._show(found)
        return 2 if found.problems else 0

    def _show(self, found: "Inspection") -> None:
        from alignmamba.cli.tables import facts_table, rows_table
        from alignmamba.cli.verb import console

        screen = console()
        facts = {
            "task": found.task.kind if not found.task.classes else f"{found.task.kind}, {len(found.task.classes)} classes",
            "size": f"{found.bytes / 1e6:.1f} MB",
            "source": found.source or "not stated",
            "licence": found.licence or "not stated",
            "checksum": found.checksum,
        }
        screen.print(facts_table(found.name, facts))
        rows = [
            (
                f"{split.role} ({split.samples})",
                modality.name,
                f"{modality.kind} {modality.dim}",
                f"{modality.shortest} / {modality.median:g} / {modality.longest}",
                f"{modality.missing:.1%}",
                "yes" if modality.timed else "no",
                modality.units or "not stated",
            )
            for split in found.splits
            for modality in split.modalities
        ]
        header = ("split (samples)", "modality", "kind, width", "tokens min / median / max", "missing", "times", "units")
        screen.print(rows_table("modalities", header, rows))
        targets = [(split.role, *(f"{value:g}" for value in split.targets.values())) for split in found.splits if split.targets]
        if targets:
            names = next(tuple(split.targets) for split in found.splits if split.targets)
            what = "samples by class" if found.task.classes else "targets"
            screen.print(rows_table(what, ("split", *names), targets))
        for problem in found.problems:
            screen.print(f"problem: {problem}", soft_wrap=True)
        count = len(found.problems)
        screen.print("no problems" if not count else f"{count} problem{'s' if count > 1 else ''}")
