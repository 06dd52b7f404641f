"""Predictions of media files by a run: its own recipe is repeated, and nothing of the files is kept."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alignmamba.contracts import Corpus
from alignmamba.errors import ConfigError
from alignmamba.media.recipe import Recipe, repeated
from alignmamba.recipes.extraction.clip_engines import ClipEngine
from alignmamba.recipes.extraction.clip_table import files_alone
from alignmamba.recipes.extraction.extraction import ClipProgress, ClipsFailedError, Extraction, extract
from alignmamba.recipes.finished_run import LoadedRun, OpenedRun, load_run, predict
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
class ClipReading:
    """Choices of how media files are read for a run."""

    models: Path | None = None
    """Folder of the weights that the recipe names, if they were moved."""
    engine: ClipEngine = field(default_factory=ClipEngine)
    """Place where clips are read; by default one process of this machine."""
    max_failed: int = 0
    """Files that may fail; they get no prediction."""
    rename: Mapping[str, str] = field(default_factory=dict)
    """Name of a modality of the files to the one that it had in training."""
    ignore: Sequence[str] = ()
    """Modalities of the files to drop."""
    progress: ClipProgress | None = None
    """Observer."""


@dataclass(frozen=True, kw_only=True)
class ReadClips:
    """Media files that were read as the recipe of a run says."""

    run: OpenedRun
    reading: ClipReading
    corpus: Corpus
    """The files as samples of the split ``test``."""
    extraction: Extraction
    notes: tuple[str, ...]
    """Sentences on readers of another version than in training."""

    def table(self, out: str | Path) -> dict[str, Any]:
        """Write the predictions of the run; the report is that of `predict`."""
        return predict(self.run, self.corpus, out, rename=self.reading.rename, ignore=self.reading.ignore)

    def loaded(self, run: OpenedRun) -> LoadedRun:
        """A run with the files as its corpus."""
        return load_run(run, data=self.corpus, rename=self.reading.rename, ignore=self.reading.ignore)


@contextmanager
def clips_read(run: OpenedRun, files: Sequence[Path], reading: ClipReading) -> Iterator[ReadClips]:
    """Media files as a corpus, which is gone when the block ends; errors are those of `predict_clips`."""
    # refuses other weights before any file is opened
    reader = repeated(recipe_of(run), models=reading.models)
    table = replace(files_alone(files), task=run.model.config.task)
    with tempfile.TemporaryDirectory(prefix="alignmamba-") as folder:
        try:
            extraction = extract(
                table,
                reader.recipe,
                Path(folder) / "clips",
                models=reading.models,
                engine=reading.engine,
                max_failed=reading.max_failed,
                name="media files",
                progress=reading.progress,
            )
        except ClipsFailedError as error:
            raise error.unlisted() from None
        assert extraction.corpus is not None
        yield ReadClips(
            run=run, reading=reading, corpus=extraction.corpus, extraction=extraction, notes=reader.notes
        )


def predict_clips(
    run: str | Path,
    files: Sequence[Path],
    out: str | Path,
    reading: ClipReading,
) -> dict[str, Any]:
    """Predict media files, or all in folders, with a run that was trained on an extracted corpus.

    Args:
        run: Directory of the run.
        files: Media files and folders of them.
        out: File that ends in ``.csv`` or ``.parquet``; an existing one is replaced.
        reading: How they are read.

    Returns:
        What `predict` returns, with ``failed``, the number of files without a prediction, and ``notes`` on
        readers of another version than in training, and on what files lack or hold imperfectly.

    Raises:
        AlignMambaError: If the run, a file, weights or the table cannot be used.
    """
    check_table(Path(out))  # now, not after an hour of reading
    with clips_read(OpenedRun.open(run), files, reading) as read:
        report = read.table(out)
    return {**report, "failed": read.extraction.failed, "notes": [*read.notes, *read.extraction.remarks()]}
