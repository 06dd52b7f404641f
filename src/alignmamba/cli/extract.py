"""``alignmamba extract``: media files into a corpus."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg

from alignmamba.cli.terminal_tables import facts_table, rows_table
from alignmamba.cli.verb import Verb, console, say, write
from alignmamba.errors import ConfigError, counted

if TYPE_CHECKING:
    from alignmamba.media.decoding import ClipFacts
    from alignmamba.media.offered import Slot
    from alignmamba.media.recipe import ClipReader
    from alignmamba.recipes.extraction.clip_engines import ClipEngine
    from alignmamba.recipes.extraction.clip_table import ClipRow, ClipTable
    from alignmamba.recipes.extraction.clip_work import ClipOutcome
    from alignmamba.recipes.extraction.extraction import Extraction


_READERS = {
    "text": "Reader of words",
    "words": "Source of words and their times",
    "audio": "Reader of sound",
    "video": "Reader of pictures",
}
"""Parts of a recipe, in help texts, which name all that can be chosen."""


@dataclass(frozen=True, kw_only=True)
class EngineVerb(Verb):
    """A verb that reads media files, on this machine or on many."""

    workers: Annotated[int, arg(metavar="N")] = 1
    """Clips that are read at the same time, each on one thread."""
    engine: Literal["local", "slurm", "ray"] = "local"
    """Processes of this machine, a SLURM array, or a Ray cluster."""
    cluster: Annotated[
        tuple[tuple[str, ...], ...],
        UseAppendAction,
        arg(metavar="KEY=VALUE ...", help_behavior_hint="(repeatable)"),
    ] = ()
    """Options of submitit's executor or of ray.init, for example address=auto."""
    limit: Annotated[float | None, arg(metavar="SECONDS", help_behavior_hint="(default: none)")] = None
    """Time after which a clip fails, with the engine local."""
    max_failed: Annotated[int, arg(metavar="N")] = 0
    """Clips that may fail; they are named and dropped."""

    def clip_engine(self) -> "ClipEngine":
        """The engine as `recipes` take it."""
        from alignmamba.recipes.configuration import assigned
        from alignmamba.recipes.extraction.clip_engines import ClipEngine

        words = [each for group in self.cluster for each in group]
        if words and self.engine == "local":
            raise ConfigError("cluster: goes with --engine slurm or ray, found the engine local")
        if self.limit is not None and self.engine != "local":
            raise ConfigError(f"limit: goes with --engine local, found the engine {self.engine}")
        return ClipEngine(
            kind=self.engine,
            workers=self.workers,
            limit=self.limit,
            options=assigned(words, option="--cluster"),
        )


@dataclass(frozen=True, kw_only=True)
class Extract(EngineVerb):
    """Read media files into a corpus: sound, pictures and words, with the times at which they occur.

    The table has a row for each clip: `file`, or `video_id` and `clip_id`; `label`; perhaps `split`, `text`,
    `start`, `end`, `group`. Other columns are kept as labels. Transcripts are found beside the clips.

    `alignmamba doctor --media` lists the readers. Repeat the command to resume: clips that were read stay in
    DIR.clips. See docs/media.md.
    """

    clips: Annotated[Positional[tuple[Path, ...]], arg(metavar="CLIPS", help_behavior_hint="(required)")]
    """Folder of media files, or files."""
    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(required)")] = None
    """Corpus directory to write."""
    labels: Annotated[
        Path | None, arg(metavar="FILE", help_behavior_hint="(default: labels.csv in CLIPS)")
    ] = None
    """Table of the clips; without one all media files are taken, without labels."""
    label: Annotated[
        tuple[str, ...], arg(metavar="NAME [NAME ...]", help_behavior_hint="(default: label)")
    ] = ()
    """Column to predict; several become one target, or a target and further ones."""
    task: Literal["auto", "regression", "classification", "ordinal", "multilabel"] = "auto"
    """Kind of the target; auto: classes where it is words, else a number, or several labels from 0 on."""
    classes: Annotated[
        tuple[str, ...], arg(metavar="NAME ...", help_behavior_hint="(default: as found)")
    ] = ()
    """Names of the classes, in order."""
    range: Annotated[
        tuple[float, float] | None, arg(metavar="LOW HIGH", help_behavior_hint="(default: any)")
    ] = None
    """Smallest and largest number, for example -3 3."""
    text: str = "hashed"
    words: str = "auto"
    audio: str = "logmel"
    video: str = "pixels"
    fps: Annotated[float | None, arg(metavar="F", help_behavior_hint="(default: of the reader)")] = None
    """Pictures per second; the same as --set video.fps=F."""
    set: Annotated[
        tuple[tuple[str, ...], ...],
        UseAppendAction,
        arg(metavar="KEY=VALUE ...", help_behavior_hint="(repeatable)"),
    ] = ()
    """Options of readers by dotted key, for example audio.bands=40."""
    shard: Annotated[str | None, arg(metavar="i/n", help_behavior_hint="(default: all)")] = None
    """Read every n-th clip from the i-th, and write no corpus; a last call without it does."""
    resume: bool = False
    """Refuse to start without earlier work in DIR.clips, or with other readers than it had."""
    name: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: that of DIR)")] = None
    """Name of the corpus."""
    overwrite: bool = False
    """Replace the corpus at DIR once the new one is complete."""
    show: bool = False
    """Read one clip, print what was found and why something is missing, and write nothing."""

    @classmethod
    def completed(cls) -> type[Verb]:
        """The verb with the names of all readers."""
        from alignmamba.media.offered import NONE, OFFERS, offered

        own: list[Any] = []
        for slot, offers in OFFERS.items():
            names = [f"{name}:{each.weights}" if each.weights else name for name, each in offers.items()]
            names += [each.name for each in offered(slot) if each.package and not each.refusal]
            help = f"{_READERS[slot]}: {', '.join(names)} or {NONE}."
            default = next(each.default for each in fields(cls) if each.name == slot)
            taken = arg(metavar="NAME[:PATH]", help=help)
            own.append((slot, Annotated[str, taken], field(default=default)))
        namespace = {"__doc__": cls.__doc__, "__module__": cls.__module__}
        return make_dataclass(cls.__name__, own, bases=(cls,), namespace=namespace, frozen=True, kw_only=True)

    def run(self) -> int:
        """Extract, or show one clip."""
        from alignmamba.extras import require

        require("extract", "media", "av")
        if self.show:
            return self._show_clip()
        if self.out is None:
            raise ConfigError("out: expected --out DIR, the corpus directory to write, or --show")
        from alignmamba.recipes.experiments.grid_run import shard_from
        from alignmamba.recipes.extraction.extraction import extract

        table = self._table()
        reader = self._reader()  # last, for models may be large
        for note in table.notes:
            say(f"note: {note}")
        for slot, part in reader.recipe.parts().items():
            say(f"{part.said(slot)}, {part.version}; licence: {part.licence}")
        with closing(clip_progress()) as progress:
            done = extract(
                table,
                reader.recipe,
                self.out,
                engine=self.clip_engine(),
                shard=(1, 1) if self.shard is None else shard_from(self.shard),
                max_failed=self.max_failed,
                resume=self.resume,
                overwrite=self.overwrite,
                name=self.name,
                progress=progress,
            )
        if self.json:
            self.emit(_facts(done))
        else:
            _show(done, self.out)
        return 0

    def _reader(self) -> "ClipReader":
        from alignmamba.media.recipe import composed
        from alignmamba.recipes.configuration import assigned

        chosen: dict[Slot, str] = {
            "text": self.text,
            "words": self.words,
            "audio": self.audio,
            "video": self.video,
        }
        nested = assigned([each for group in self.set for each in group])
        settings = {
            f"{slot}.{option}" if option else slot: value
            for slot, own in nested.items()
            for option, value in (own.items() if isinstance(own, Mapping) else {"": own}.items())
        }
        if self.fps is not None:
            settings["video.fps"] = self.fps
        return composed(chosen, settings)

    def _table(self) -> "ClipTable":
        from alignmamba.data.leading_target import LeadingConfig
        from alignmamba.recipes.extraction.clip_table import files_alone, labelled_clips, labels_beside

        if not self.clips:
            raise ConfigError("extract: expected a folder of media files, or files, found none")
        folder = self.clips[0]
        table = self.labels
        if table is None and len(self.clips) == 1 and folder.is_dir():
            table = labels_beside(folder)
        if table is None:
            alone = files_alone(self.clips)
            return replace(alone, notes=(*alone.notes, "There is no table of labels: all clips are in test."))
        if len(self.clips) > 1 or not folder.is_dir():
            raise ConfigError("labels: expected one folder of clips with them, found files")
        kind = None if self.task == "auto" else self.task
        leading = LeadingConfig(labels=self.label, kind=kind, classes=self.classes, label_range=self.range)
        return labelled_clips(folder, table, leading, max_missing=max(0, self.max_failed))

    def _show_clip(self) -> int:
        from alignmamba.media.clip import MediaClip
        from alignmamba.media.decoding import facts

        if len(self.clips) != 1 or self.clips[0].is_dir():
            given = f"{len(self.clips)} paths" if len(self.clips) != 1 else f"the folder {self.clips[0]}"
            raise ConfigError(f"show: expected one media file, found {given}")
        clip, reader = MediaClip(path=self.clips[0]), self._reader()
        about, content = facts(clip), reader.read(clip)
        head = ("modality", "length", "per second", "width", "note")
        rows = []
        for name in (spec.name for spec in reader.recipe.modalities):
            track = content.tracks.get(name)
            if track is None:
                rows.append((name, "missing", "", "", content.absent[name]))
                continue
            span = float(track.times[-1] - track.times[0])
            rate = f"{(len(track.times) - 1) / span:.2f}" if span > 0 else ""
            width = 1 if track.values.ndim == 1 else track.values.shape[1]
            rows.append((name, str(len(track.values)), rate, str(width), "; ".join(track.notes)))
        if self.json:
            found = [dict(zip(head, row, strict=True)) for row in rows]
            self.emit(
                {
                    "clip": str(clip.path),
                    "facts": _shown_facts(about),
                    "modalities": found,
                    "text": content.text,
                    "notes": list(content.notes),
                }
            )
            return 0
        screen = console()
        screen.print(facts_table(clip.path.name, _shown_facts(about)))
        screen.print(rows_table("modalities", head, rows))
        if content.text:
            screen.print(f"said: {content.text}", soft_wrap=True)
        for note in content.notes:
            screen.print(f"note: {note}", soft_wrap=True)
        return 0


def _shown_facts(about: "ClipFacts") -> dict[str, str]:
    """Facts of a file, for people."""
    seconds = "" if about.declared is None else f", {about.declared:.2f} s declared"
    shown = {"container": about.container, "length": f"{about.found:.2f} s{seconds}"}
    for stream in about.streams:
        size = f"{stream.size[0]} x {stream.size[1]}, " if stream.size else ""
        turned = f", turned by {stream.rotation} degrees" if stream.rotation else ""
        span = f"{stream.start:.2f} to {stream.end:.2f} s"
        what = f"{stream.codec}, {size}{stream.rate:g} a second{turned}, {span}"
        shown[stream.kind] = stream.unreadable or what
    return shown


def _facts(done: "Extraction") -> dict[str, Any]:
    corpus = done.corpus
    known = (
        {}
        if corpus is None
        else {
            "corpus": corpus.location,
            "name": corpus.name,
            "task": corpus.task.model_dump(mode="json"),
            "samples": {role: len(split) for role, split in corpus.splits.items()},
            "modalities": [spec.model_dump(mode="json") for spec in corpus.modalities],
            "checksum": corpus.checksum,
        }
    )
    return {
        **known,
        "store": str(done.store),
        "clips": done.clips,
        "cached": done.cached,
        "failed": done.failed,
        "present": dict(done.present),
        "absent": dict(done.absent),
        "notes": dict(done.notes),
        "seconds": done.seconds,
    }


def _show(done: "Extraction", out: Path) -> None:
    screen = console()
    read = done.clips - done.failed
    names = sorted({*done.present, *done.absent})
    rows = [(name, f"{done.present.get(name, 0)} of {read}") for name in names]
    screen.print(rows_table("modalities", ("modality", "clips"), rows))
    for remark in first_of(done.remarks()):
        screen.print(remark, soft_wrap=True)
    if done.failed:
        screen.print(f"failed and dropped: {counted(done.failed, 'clip')}, see {done.store}", soft_wrap=True)
    if done.corpus is None:
        write(
            f"{counted(read, 'clip')} in {done.store}; write the corpus with the same command without --shard"
        )
        return
    sizes = ", ".join(f"{role} {len(split)}" for role, split in done.corpus.splits.items())
    step = f"; next: alignmamba train --data {out} --out runs/{out.name}"
    write(f"corpus: {out} ({sizes}){step if {'train', 'valid'} <= done.corpus.splits.keys() else ''}")


_MOST_REMARKS = 8


def first_of(remarks: Sequence[str]) -> list[str]:
    """Remarks that a person reads, and the number of others."""
    others = len(remarks) - _MOST_REMARKS
    more = [f"and {counted(others, 'other note')}; --json has them"] if others > 0 else []
    return [*remarks[:_MOST_REMARKS], *more]


def clip_progress() -> "ClipLines":
    """Progress of clips on standard error."""
    return ClipBar() if sys.stderr.isatty() else ClipLines()


class ClipLines:
    """Writes a line for each clip that fails, and one at every tenth of the clips."""

    def __init__(self) -> None:
        self._total = self._done = self._said = 0

    def started(self, *, total: int) -> None:
        """Remember how many there are."""
        self._total = total

    def finished(self, row: "ClipRow", outcome: "ClipOutcome") -> None:
        """Count a clip."""
        self._done += 1
        if outcome.failure:
            self._tell(f"failed: {row.id}: {outcome.failure}")
        self._moved()

    def _moved(self) -> None:
        tenth = 10 * self._done // self._total
        if tenth > self._said:
            self._said = tenth
            self._tell(f"{self._done}/{self._total} clips")

    def _tell(self, line: str) -> None:
        say(line)

    def close(self) -> None:
        """Do nothing: no state was changed."""


class ClipBar(ClipLines):
    """A bar over all clips, gone when all is done."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        super().__init__()
        self._screen = console(stderr=True)
        columns = (TextColumn("clips"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._screen, transient=True)
        self._task: Any = None

    def started(self, *, total: int) -> None:
        """Show the bar."""
        super().started(total=total)
        self._task = self._bar.add_task("", total=total)
        self._bar.start()

    def _moved(self) -> None:
        self._bar.update(self._task, completed=self._done)

    def _tell(self, line: str) -> None:
        self._screen.print(line, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()
