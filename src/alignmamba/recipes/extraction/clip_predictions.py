"""Predictions of media files by a run: its own recipe is repeated, and nothing of the files is kept."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignmamba.contracts import Corpus
from alignmamba.errors import ConfigError
from alignmamba.media.recipe import Recipe, repeated
from alignmamba.recipes.extraction.clip_engines import ClipEngine
from alignmamba.recipes.extraction.clip_table import files_alone
from alignmamba.recipes.extraction.extraction import ClipProgress, ClipsFailedError, Extraction, extract
from alignmamba.recipes.finished_run import OpenedRun, predict
from alignmamba.recipes.run_directory import check_table


def recipe_of(run: OpenedRun) -> Recipe:
    """The recipe by which the clips of training were read.

    Raises:
        ConfigError: If the run was trained on features that no recipe made.
    """
    stored = run.stored.identity().get("recipe")
    if not stored:
        raise ConfigError(
            f"run {run.stored.path}: was trained on a corpus that `alignmamba extract` did not make, so its"
            " features cannot be made of media files"
        )
    return Recipe.read(stored, f"run {run.stored.path}")


@dataclass(frozen=True, kw_only=True)
class ReadClips:
    """Media files that were read as the recipe of a run says."""

    run: OpenedRun
    corpus: Corpus
    """The files as samples of the split ``test``."""
    extraction: Extraction
    notes: tuple[str, ...]
    """Sentences on readers of another version than in training."""


@contextmanager
def clips_read(
    run: OpenedRun,
    files: Sequence[Path],
    *,
    models: Path | None = None,
    engine: ClipEngine | None = None,
    max_failed: int = 0,
    progress: ClipProgress | None = None,
) -> Iterator[ReadClips]:
    """Media files as a corpus, which is gone when the block ends. Arguments and errors are those of
    `predict_clips`.
    """
    reader = repeated(recipe_of(run), models=models)  # refuses other weights before any file is opened
    table = replace(files_alone(files), task=run.model.config.task)
    with tempfile.TemporaryDirectory(prefix="alignmamba-") as folder:
        try:
            extraction = extract(
                table,
                reader.recipe,
                Path(folder) / "clips",
                models=models,
                engine=engine,
                max_failed=max_failed,
                name="media files",
                progress=progress,
            )
        except ClipsFailedError as error:
            raise error.unlisted() from None
        assert extraction.corpus is not None
        yield ReadClips(run=run, corpus=extraction.corpus, extraction=extraction, notes=reader.notes)


def predict_clips(
    run: str | Path,
    files: Sequence[Path],
    out: str | Path,
    *,
    models: Path | None = None,
    engine: ClipEngine | None = None,
    max_failed: int = 0,
    rename: Mapping[str, str] = {},
    ignore: Sequence[str] = (),
    progress: ClipProgress | None = None,
) -> dict[str, Any]:
    """Predict media files, or all in folders, with a run that was trained on an extracted corpus.

    Args:
        run: Directory of the run.
        files: Media files and folders of them.
        out: File that ends in ``.csv`` or ``.parquet``; an existing one is replaced.
        models: Folder of the weights that the recipe names, if they were moved.
        engine: Place where clips are read; by default one process of this machine.
        max_failed: Files that may fail; they get no prediction.
        rename: As of `predict`.
        ignore: As of `predict`.
        progress: Observer.

    Returns:
        What `predict` returns, with ``failed``, the number of files without a prediction, and ``notes`` on
        readers of another version than in training.

    Raises:
        AlignMambaError: If the run, a file, weights or the table cannot be used.
    """
    check_table(Path(out))  # now, not after an hour of reading
    with clips_read(
        OpenedRun.open(run), files, models=models, engine=engine, max_failed=max_failed, progress=progress
    ) as read:
        report = predict(read.run, read.corpus, out, rename=rename, ignore=ignore)
    return {**report, "failed": read.extraction.failed, "notes": list(read.notes)}
