"""Extraction of a corpus: every clip of a table is read into a store, then written as one corpus."""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol

from alignmamba.contracts import Corpus, Role
from alignmamba.data.archive import write_corpus
from alignmamba.data.storage import prepare_destination
from alignmamba.data.user_arrays import SplitArrays
from alignmamba.errors import CheckpointError, ConfigError, DataError, counted
from alignmamba.files import csv_text, read_json, replace_file
from alignmamba.formats.plain_files import LazyRows
from alignmamba.media.offered import OFFERS, Slot
from alignmamba.media.recipe import Recipe
from alignmamba.media.tracks import ClipContent
from alignmamba.recipes.extraction.clip_engines import ClipEngine, outcomes
from alignmamba.recipes.extraction.clip_store import ClipStore
from alignmamba.recipes.extraction.clip_table import ClipRow, ClipTable, split_rows
from alignmamba.recipes.extraction.clip_work import ClipOrder, ClipOutcome

STORE_ENDING: Final = ".clips"
"""Ending of the folder beside a corpus that holds the clips that were read."""
FAILED: Final = "failed.csv"
"""Table of the clips that could not be read, in that folder."""
_RECORD = "extraction.json"


class ClipProgress(Protocol):
    """Observer of an extraction."""

    def started(self, *, total: int) -> None:
        """Clips are about to be read."""

    def finished(self, row: ClipRow, outcome: ClipOutcome) -> None:
        """A clip was read, or failed."""


class ClipsFailedError(DataError):
    """More clips failed than may."""

    def __init__(self, reasons: Sequence[str], *, of: int, most: int, listed: Path | None) -> None:
        where = "" if listed is None else f", which {listed} lists"
        counted = f"{len(reasons)} of {of} clips failed{where}, expected at most {most} (--max-failed)"
        super().__init__(f"{counted}; the first: {reasons[0]}" if of > 1 else reasons[0])
        self.reasons, self.of, self.most = tuple(reasons), of, most

    def unlisted(self) -> "ClipsFailedError":
        """The same without the table, which is gone."""
        return ClipsFailedError(self.reasons, of=self.of, most=self.most, listed=None)


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """Result of an extraction."""

    corpus: Corpus | None
    """The corpus; ``None`` for one shard of several."""
    store: Path
    clips: int
    cached: int
    """Clips that were in the store before."""
    failed: int
    present: Mapping[str, int]
    """Modality to the number of clips that have it."""
    absent: Mapping[str, str]
    """Modality that some clip lacks to the reason of the first."""
    notes: Mapping[str, int]
    """Half a sentence on what is imperfect, to the number of clips that it concerns."""
    seconds: float

    def remarks(self) -> list[str]:
        """Sentences without a full stop on what clips lack, and on what is imperfect in them."""
        read = self.clips - self.failed
        lacking = {name: read - self.present.get(name, 0) for name in self.absent}
        return [
            *(
                f"{counted(count, 'clip')} without {name}{', the first' if count > 1 else ''}:"
                f" {self.absent[name]}"
                for name, count in sorted(lacking.items())
            ),
            *(
                f"{counted(count, 'clip')}: {note}"
                for note, count in sorted(self.notes.items(), key=lambda item: -item[1])
            ),
        ]


def store_of(out: Path) -> Path:
    """Folder of the clips of a corpus, beside it."""
    return out.with_name(out.name + STORE_ENDING)


def extract(
    table: ClipTable,
    recipe: Recipe,
    out: Path,
    *,
    models: Path | None = None,
    engine: ClipEngine | None = None,
    shard: tuple[int, int] = (1, 1),
    max_failed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    name: str | None = None,
    progress: ClipProgress | None = None,
) -> Extraction:
    """Read all clips and write them as a corpus that names the recipe.

    Clips that were read stay in a folder beside the corpus. Whoever repeats an extraction, after an
    interruption or with more clips, reads only what is new there.

    Args:
        table: The clips.
        recipe: Tools that read them.
        out: Directory of the corpus.
        models: Folder of weights, where they do not lie as the recipe says.
        engine: Place where clips are read; by default one process of this machine.
        shard: ``(i, n)``: read every n-th clip from the i-th only, and write no corpus; of ``(1, 1)`` all.
        max_failed: Clips that may fail; they are dropped and named in ``failed.csv``.
        resume: Refuse to start without earlier work, or with another recipe.
        overwrite: Replace the corpus that is there.
        name: Name of the corpus; by default that of the directory.
        progress: Observer.

    Raises:
        ConfigError: If the engine or a tool cannot be used.
        DataError: If more clips fail than may, or the corpus cannot be written.
    """
    began = time.perf_counter()
    engine = engine or ClipEngine()
    _check(shard, max_failed, name)
    prepare_destination(out, overwrite=overwrite)
    store = store_of(out)
    index, count = shard
    _record(store, recipe, resume=resume)
    chosen = [(row, each) for row, each in enumerate(table.rows) if row % count == index - 1]
    order = ClipOrder(store=store.absolute(), recipe=recipe.model_dump_json(), models=_absolute(models))
    found: dict[int, ClipOutcome] = {}
    if progress is not None:
        progress.started(total=len(chosen))
    with closing(outcomes(order, [(row, each.clip) for row, each in chosen], engine)) as arriving:
        for outcome in arriving:
            found[outcome.row] = outcome
            if progress is not None:
                progress.finished(table.rows[outcome.row], outcome)
    failed = [(each, found[row]) for row, each in chosen if found[row].failure]
    _report_failed(store, failed)
    if len(failed) > max_failed:
        raise ClipsFailedError(
            [outcome.failure for _, outcome in failed], of=len(chosen), most=max_failed, listed=store / FAILED
        )
    read = {each.id: found[row] for row, each in chosen if not found[row].failure}
    present = Counter(name for outcome in read.values() for name in outcome.present)
    corpus = None
    if shard == (1, 1):
        rows = [row for row in table.rows if row.id in read]
        if not rows:
            raise DataError(f"{table.source}: expected a clip that can be read, found none")
        corpus = _written(table, rows, read, recipe, [*present], out, overwrite=overwrite, name=name)
    return Extraction(
        corpus=corpus,
        store=store,
        clips=len(chosen),
        cached=sum(outcome.cached for outcome in found.values()),
        failed=len(failed),
        present=present,
        absent=dict(reversed([each for outcome in read.values() for each in outcome.absent])),
        notes=Counter(note for outcome in read.values() for note in set(outcome.notes)),
        seconds=time.perf_counter() - began,
    )


def _check(shard: tuple[int, int], max_failed: int, name: str | None) -> None:
    index, count = shard
    if not 1 <= index <= count:
        raise ConfigError(f"shard: found {index}/{count}, expected i/n with i from 1 to n")
    if max_failed < 0:
        raise ConfigError(f"max_failed: found {max_failed}, expected 0 or more")
    if name is not None and not name.strip():
        raise ConfigError(f"name: found {name!r}, expected text that is not empty")


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


def _record(store: Path, recipe: Recipe, *, resume: bool) -> None:
    """Make the store, or find it with the work of the same recipe where that is to be resumed."""
    path = store / _RECORD
    if resume:
        if not path.is_file():
            raise ConfigError(f"resume: found no {path}, expected an extraction that was begun there")
        before = Recipe.read(read_json(path, error=CheckpointError), str(path))
        if before.digest != recipe.digest:
            slot = next(slot for slot in OFFERS if _values(before, slot) != _values(recipe, slot))
            raise ConfigError(
                f"resume: {slot}: found {_said(recipe, slot)}, expected {_said(before, slot)} as before; drop"
                " --resume to read all clips again"
            )
    try:
        store.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{store}: cannot be made: {error.strerror or error}") from error
    content = json.dumps(recipe.model_dump(mode="json"), indent=1, ensure_ascii=False)
    replace_file(path, content.encode() + b"\n")


def _values(recipe: Recipe, slot: Slot) -> Any:
    part = recipe.parts().get(slot)
    return None if part is None else part.model_dump(exclude={"path"})


def _said(recipe: Recipe, slot: Slot) -> str:
    part = recipe.parts().get(slot)
    if part is None:
        return "none"
    options = ", ".join(f"{name}={value}" for name, value in part.options.items())
    package = f" of {part.package}" if part.package else ""
    return f"{part.name}{package} {part.version}{f' ({options})' if options else ''}"


def _report_failed(store: Path, failed: Sequence[tuple[ClipRow, ClipOutcome]]) -> None:
    rows = [
        (row.id, str(row.clip.path), row.clip.start, row.clip.end, outcome.failure) for row, outcome in failed
    ]
    replace_file(store / FAILED, csv_text([("id", "file", "start", "end", "reason"), *rows]).encode())


def _written(
    table: ClipTable,
    rows: Sequence[ClipRow],
    read: Mapping[str, ClipOutcome],
    recipe: Recipe,
    names: Sequence[str],
    out: Path,
    *,
    overwrite: bool,
    name: str | None,
) -> Corpus:
    """The corpus of clips in the store, each of which is in memory once."""
    specs = [spec for spec in recipe.modalities if spec.name in names]
    store = ClipStore(store_of(out))

    @lru_cache(maxsize=2)
    def content(key: str) -> ClipContent:
        found = store.get(key)
        if found is None:
            raise DataError(
                f"{store.path(key)}: was removed or damaged since it was read; repeat the command"
            )
        return found

    def of_split(own: Sequence[ClipRow]) -> SplitArrays:
        keys = [read[row.id].key for row in own]

        def lazy(get: Callable[[ClipContent], Any]) -> LazyRows:
            return LazyRows(len(keys), lambda at: get(content(keys[at])))

        def of_track(field: str, spec_name: str) -> LazyRows:
            return lazy(lambda clip: _field(clip, spec_name, field))

        return SplitArrays(
            features={spec.name: of_track("values", spec.name) for spec in specs},
            times={spec.name: of_track("times", spec.name) for spec in specs},
            tokens={spec.name: of_track("tokens", spec.name) for spec in specs},
            targets=None if all(row.target is None for row in own) else [row.target for row in own],
            ids=[row.id for row in own],
            texts=lazy(lambda clip: clip.text),
            groups=[row.group for row in own],
            labels={key: [row.labels[key] for row in own] for key in own[0].labels},
        )

    splits: dict[Role, SplitArrays] = {role: of_split(own) for role, own in split_rows(rows)}
    return write_corpus(
        out,
        splits,
        task=table.task,
        name=name,
        units={spec.name: spec.units for spec in specs if spec.units},
        vocabulary_sizes={spec.name: spec.dim for spec in specs if spec.kind == "tokens"},
        source=f"media files, by {table.source.name}",
        recipe=recipe.model_dump(mode="json"),
        overwrite=overwrite,
    )


def _field(clip: ClipContent, name: str, field: str) -> Any:
    track = clip.tracks.get(name)
    found = None if track is None else getattr(track, field)
    return None if field == "tokens" and not found else found
