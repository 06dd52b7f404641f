"""``alignmamba inspect``: what a corpus or a foreign file holds and what is wrong with it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from alignmamba.cli.convert import fault_rows
from alignmamba.cli.reader_options import ReadingVerb
from alignmamba.cli.terminal_tables import facts_table, faults_table, rows_table
from alignmamba.cli.verb import console
from alignmamba.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from alignmamba.contracts import Task
    from alignmamba.data.inspection import Inspection, SplitSummary, Training
    from alignmamba.formats.foreign_inspection import ForeignInspection

_CLASSES_ACROSS = 12
"""Most classes shown as columns of a table; more are its rows."""
_CLASSES_SHOWN = 40


@dataclass(frozen=True, kw_only=True)
class Inspect(ReadingVerb):
    """Summarise a corpus or a file, list its problems, and preview what training would meet.

    A corpus gets a list of every problem. Any other file gets a list of the repairs that `alignmamba convert`
    would make with the same options. A published file is also named. Both get notes on what training would
    meet: missing splits or targets, modalities or classes without samples, constant channels. Labels out of
    range are counted; `convert` refuses them without --clip-labels. Exit code 2 means that the corpus has a
    problem, or that `convert` would refuse the file. Lengths are in tokens.
    """

    path: Annotated[Positional[Path], arg(metavar="PATH|synthetic")]
    """Corpus directory, file or folder that `alignmamba convert` reads, or `synthetic`."""
    format: Annotated[str, arg(metavar="FORMAT")] = "auto"
    """Name of the format; auto: what the file looks like."""

    def run(self) -> int:
        """Inspect."""
        from alignmamba.data.storage import MANIFEST, check_path
        from alignmamba.formats.known_formats import recognised

        check_path(self.path)
        if self.path == Path("synthetic") and not self.path.exists():
            return self._inspect_synthetic()
        if (self.path / MANIFEST).exists() or not self.path.exists():
            return self._inspect_corpus()
        if self.path.is_dir() and self.format == "auto" and not recognised([self.path]):
            return self._inspect_corpus()
        return self._inspect_foreign()

    def _inspect_corpus(self) -> int:
        from alignmamba.data.inspection import inspect_corpus
        from alignmamba.data.storage import MANIFEST

        if self.path.exists():
            known = (self.path / MANIFEST).exists()
            self._refuse_options(
                f"{self.path} is a corpus already"
                if known
                else f"the format of {self.path} is not recognised"
            )
        return self._show(inspect_corpus(self.path))

    def _inspect_synthetic(self) -> int:
        from alignmamba.data.inspection import inspect_loaded
        from alignmamba.data.synthetic import synthetic_corpus

        self._refuse_options("synthetic is made in memory")
        return self._show(inspect_loaded(synthetic_corpus(), source="made in memory from a seed"))

    def _refuse_options(self, reason: str) -> None:
        if given := [*self.given_options(), *(["--format"] if self.format != "auto" else [])]:
            raise ConfigError(f"{', '.join(given)}: expected a file of another format, found that {reason}")

    def _show(self, found: "Inspection") -> int:
        if self.json:
            self.emit({**asdict(found), "task": found.task.model_dump(mode="json")})
        else:
            _show_corpus(found)
        return 2 if found.problems else 0

    def _inspect_foreign(self) -> int:
        from alignmamba.formats.foreign_inspection import inspect_foreign
        from alignmamba.recipes.display import samples_display

        with samples_display("read") as progress:
            found = inspect_foreign(
                self.path, self.read_options(), format=self.format, hashed=progress.hashed, progress=progress
            )
        if self.json:
            self.emit(
                {
                    **asdict(found),
                    "task": found.task.model_dump(mode="json"),
                    "faults": fault_rows(found.faults),
                }
            )
        else:
            _show_foreign(found)
        return 0


def _show_corpus(found: "Inspection") -> None:
    screen = console()
    facts = {
        "task": _task(found.task),
        "size": f"{found.bytes / 1e6:.1f} MB",
        "source": found.source or "not stated",
        "licence": found.licence or "not stated",
        "checksum": found.checksum,
    }
    screen.print(facts_table(found.name, facts))
    _show_splits(screen, found.splits, found.task)
    _show_groups(screen, found.splits, found.shared_groups)
    for problem in found.problems:
        screen.print(f"problem: {problem}", soft_wrap=True)
    count = len(found.problems)
    screen.print("no problems" if not count else f"{count} problem{'s' if count > 1 else ''}")
    _show_training(screen, found.training)


def _show_foreign(found: "ForeignInspection") -> None:
    screen = console()
    facts: Mapping[str, Any] = {
        "format": f"{found.format} ({found.layout})",
        "data set": "not a published file that is known" if found.known is None else found.known.dataset,
        **(
            {}
            if found.known is None
            else {"version": found.known.version, "known faults": "; ".join(found.known.faults)}
        ),
        "task": _task(found.task),
        "size": f"{found.bytes / 1e6:.1f} MB",
        "source": found.source or "not stated",
        "SHA-256": found.sha256 or "not computed for a folder",
    }
    screen.print(facts_table(found.path, facts))
    _show_splits(screen, found.splits, found.task)
    _show_groups(screen, found.splits, found.shared_groups)
    screen.print(faults_table("what a conversion repairs", found.faults))
    for note in found.notes:
        screen.print(note, soft_wrap=True)
    _show_training(screen, found.training)


def _show_training(screen: "Console", training: "Training") -> None:
    for note in training.notes:
        screen.print(f"note: {note}", soft_wrap=True)
    if training.hindrance:
        screen.print(f"training is not possible as it is: {training.hindrance}", soft_wrap=True)


def _task(task: "Task") -> str:
    what = "labels" if task.kind == "multilabel" else "classes"
    return task.kind if not task.classes else f"{task.kind}, {len(task.classes)} {what}"


def _show_splits(screen: "Console", splits: Sequence["SplitSummary"], task: "Task") -> None:
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
        for split in splits
        for modality in split.modalities
    ]
    header = (
        "split (samples)",
        "modality",
        "kind, width",
        "tokens min / median / max",
        "missing",
        "times",
        "units",
    )
    screen.print(rows_table("modalities", header, rows))
    known = [split for split in splits if split.targets]
    if known and len(task.classes) > _CLASSES_ACROSS:
        shown = sorted(task.classes, key=lambda name: -sum(split.targets[name] for split in known))[
            :_CLASSES_SHOWN
        ]
        by_class = [(name, *(f"{split.targets[name]:g}" for split in known)) for name in shown]
        screen.print(rows_table("samples by class", ("class", *(split.role for split in known)), by_class))
        if len(shown) < len(task.classes):
            screen.print(
                f"{len(task.classes) - len(shown)} further classes have as many samples or fewer; --json"
                " has all"
            )
    elif known:
        targets = [(split.role, *(f"{value:g}" for value in split.targets.values())) for split in known]
        screen.print(
            rows_table(
                "samples by class" if task.classes else "targets", ("split", *known[0].targets), targets
            )
        )
    unlabelled = [split.role for split in splits if not split.targets]
    if unlabelled:
        screen.print(f"unlabelled: {', '.join(unlabelled)}")


def _show_groups(screen: "Console", splits: Sequence["SplitSummary"], shared: Sequence[str]) -> None:
    if any(split.groups for split in splits):
        counts = ", ".join(f"{split.groups} in {split.role}" for split in splits)
        screen.print(f"groups (conversations, videos): {counts}; {_shared(shared)}", soft_wrap=True)


def _shared(groups: Sequence[str]) -> str:
    if not groups:
        return "none in more than one split"
    return f"{len(groups)} in more than one split, {groups[0]!r} among them"
