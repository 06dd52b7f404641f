"""The directory of a run: what lies in it, and files that are there whole or not at all."""

import io
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from alignmamba.checksums import LIST, check_listed, checksum, read_listed, write_list
from alignmamba.contracts import Corpus, FurtherPredictions, Predictions, Target, Task
from alignmamba.data.missing_protocols import WithheldSplit
from alignmamba.errors import CheckpointError, ConfigError, shown
from alignmamba.evaluation.metrics import confusion_matrix
from alignmamba.extras import lacking
from alignmamba.files import (
    JSON_BYTES,
    REPLACED,
    csv_text,
    held,
    name_beside,
    new_directory,
    parse_json,
    read_json,
    replace_file,
    settle,
)
from alignmamba.recipes.configuration import RunConfig, read_config, recorded
from alignmamba.training.checkpoints import LAST

CONFIG: Final = "config.yaml"
IDENTITY: Final = "run.json"
ENVIRONMENT: Final = "environment.json"
RESUMED: Final = "resumed.json"
METRICS: Final = "metrics.json"
MODEL: Final = "model"
GROUP: Final = "group"
"""Column of the group of a sample in the tables of predictions of a run."""

TABLE_BYTES: Final = 1 << 28
"""A larger table of a run or an analysis is not read."""
_ORPHANS_SECONDS: Final = 6.0
"""Workers of a killed process, which still hold its lock, notice after 5 seconds that it is gone."""

_OWN: Final = re.compile(
    r"(config\.yaml|run\.json|environment\.json|resumed\.json|metrics\.json|SHA256SUMS|model|tensorboard|wandb|report\.html|log\.csv"
    r"|(last|best)\.ckpt|(predictions|confusion|missing)(_\w+)?\.csv|predictions(_\w+)?-[\w-]+\.csv|\..+)"
)
"""Names of what a run, its evaluation and its report leave in its directory."""

Table = dict[str, list[Any]]
"""Column name to values, all of one length."""


@dataclass(frozen=True)
class RunDirectory:
    """A run on disk.

    ``config.yaml`` (complete), ``run.json`` (digest, corpus, seed) and ``environment.json`` are there from
    the start. ``metrics.json`` is written last, and nothing after it. ``SHA256SUMS`` lists the checksums of
    all files but the checkpoints, which carry their own; runs of before are read without.
    """

    path: Path

    @classmethod
    def create(
        cls, path: Path, *, config: RunConfig, identity: Mapping[str, Any], environment: Mapping[str, Any]
    ) -> "RunDirectory":
        """Make the directory with its first files, at once; a `CheckpointError` if that is not possible."""
        refuse_existing(path)
        try:
            with new_directory(path) as temporary:
                run = cls(temporary)
                run.write(CONFIG, config.to_yaml())
                run.write(IDENTITY, to_json(identity))
                run.write(ENVIRONMENT, to_json(environment))
                write_list(temporary, (CONFIG, IDENTITY, ENVIRONMENT))
        except OSError as error:
            raise CheckpointError(f"out {path}: cannot be made: {error.strerror}") from error
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """The run that lies there; a `CheckpointError` if there is none."""
        if not path.exists():
            raise CheckpointError(f"run {path}: no such directory")
        if not path.is_dir():
            raise CheckpointError(f"run {path}: found a file, expected the directory of a run")
        if not _is_run(path):
            raise CheckpointError(
                f"run {path}: not the directory of a run: it has no {CONFIG} and {IDENTITY}"
                f"{way_to_folds(path)}"
            )
        return cls(path)

    @property
    def finished(self) -> bool:
        """Return whether training ended and was evaluated."""
        return (self.path / METRICS).is_file()

    def require_finished(self) -> None:
        """Refuse, by a `CheckpointError`, a run that has no model yet."""
        if not self.finished:
            raise CheckpointError(
                f"run {self.path}: not finished; resume with: alignmamba train --resume {self.path}"
            )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from training this run; a `CheckpointError` if one does."""
        with held(self.path, wait_seconds=_ORPHANS_SECONDS) as locked:
            if locked is False:
                raise CheckpointError(f"run {self.path}: in use by another process")
            yield

    def config(self) -> RunConfig:
        """The complete configuration; a `CheckpointError` if it was damaged."""
        self.check((CONFIG,))
        try:
            return recorded(read_config(self.path / CONFIG))
        except ConfigError as error:
            raise CheckpointError(f"{self.path / CONFIG}: {error}") from error

    def identity(self) -> dict[str, Any]:
        """Digest, corpus and seed."""
        found = self._read(IDENTITY)
        if not isinstance(found.get("corpus", {}), dict):
            raise CheckpointError(
                f"{self.path / IDENTITY}: corpus: expected a mapping, found {shown(found['corpus'])}"
            )
        return found

    def metrics(self) -> dict[str, Any]:
        """The results of a finished run."""
        return self._read(METRICS)

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        found = parse_json(
            read_listed(self.path, name, limit_bytes=JSON_BYTES), str(path), error=CheckpointError
        )
        if not isinstance(found, dict):
            raise CheckpointError(f"{path}: expected a JSON object, found {type(found).__name__}")
        return cast(dict[str, Any], found)

    def check(self, names: Iterable[str]) -> None:
        """Compare files, by their names relative to the directory, with their checksums."""
        check_listed(self.path, names)

    def write(self, name: str, text: str) -> None:
        """Write or replace one text file."""
        replace_file(self.path / name, text.encode())

    def record_resumption(self, environment: Mapping[str, Any]) -> None:
        """Add the environment of a run that is resumed to ``resumed.json``, if it differs from the last."""
        records = self._resumptions()
        if _differences(records[-1] if records else self._read(ENVIRONMENT), environment):
            self.write(RESUMED, to_json([*records, environment]))

    def resumed_under(self) -> list[str]:
        """Differences each time that the run was resumed under another environment, in one line each."""
        records = [self._read(ENVIRONMENT), *self._resumptions()]
        return [f"resumed under {_differences(before, now)}" for before, now in pairwise(records)]

    def _resumptions(self) -> list[dict[str, Any]]:
        path = self.path / RESUMED
        records = read_json(path, error=CheckpointError) if path.exists() else []
        if not isinstance(records, list) or not all(isinstance(each, dict) for each in records):
            raise CheckpointError(f"{path}: expected a JSON list of objects")
        return records

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the checksums of all files, and then the results: they say that all the rest is there."""
        text = to_json(summary)
        names = [
            each.relative_to(self.path)
            for kept in ("*", f"{MODEL}/*")
            for each in self.path.glob(kept)
            if _is_listed(each)
        ]
        write_list(self.path, map(str, names), ahead={METRICS: checksum(text.encode())})
        self.write(METRICS, text)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Differences of two environments that can change the last digits of a result; empty if nothing does."""

    def decisive(environment: Mapping[str, Any]) -> dict[str, Any]:
        versions = environment.get("versions")
        names = ("platform", "processor", "threads", "gpus", "cuda")
        facts = {name: environment[name] for name in names if name in environment}
        return {**facts, **(versions if isinstance(versions, Mapping) else {})}

    old, new = decisive(before), decisive(now)
    return ", ".join(
        f"{name} {shown(new[name])} after {shown(old[name])}"
        for name in new
        if name in old and old[name] != new[name]
    )


def _is_listed(path: Path) -> bool:
    kept = path.suffix != ".ckpt" and path.name not in (METRICS, LIST)
    return path.is_file() and not path.name.startswith(".") and kept


def refuse_existing(path: Path, *, overwrite: bool = False) -> None:
    """Refuse, by a `CheckpointError` with the way out, to write a new run where anything is but an empty
    directory, or with `overwrite` a run.
    """
    if not path.exists() and not path.is_symlink():
        return
    if path.is_symlink() or not path.is_dir():
        raise CheckpointError(
            f"out {path}: a {'link' if path.is_symlink() else 'file'} is there; choose another directory"
        )
    names = sorted(each.name for each in path.iterdir())
    if not names:
        return
    if not _is_run(path):
        raise CheckpointError(f"out {path}: holds something that is not a run; choose another directory")
    if overwrite:
        stranger = next((name for name in names if not _OWN.fullmatch(name)), None)
        if stranger is not None:
            raise CheckpointError(
                f"out {path}: found {stranger[:80]!r}, which is not a file of a run, so the directory is kept"
            )
        return
    replace = "replace it with overwrite=True (--overwrite)"
    if (path / METRICS).is_file():
        raise CheckpointError(f"out {path}: holds a finished run; choose another directory, or {replace}")
    resume = f"resume it with train(resume={str(path)!r}) (alignmamba train --resume {path})"
    raise CheckpointError(
        f"out {path}: holds an unfinished run; {resume}, choose another directory, or {replace}"
    )


def numbered(path: Path) -> Path:
    """The path, or the first of ``path-2``, ``path-3``... that nothing has but an unfinished run."""
    place, number = path, 1
    while place.is_symlink() or (
        place.exists() and not (place.is_dir() and (not any(place.iterdir()) or _is_unfinished(place)))
    ):
        number += 1
        place = path.with_name(f"{path.name}-{number}")
    return place


@contextmanager
def set_aside(path: Path) -> Iterator[None]:
    """Move a run out of the way while another takes its place: gone if that one got to a checkpoint, back if
    it did not. The next run of the place deals with what a killed process left.
    """
    if not _is_run(path):
        yield
        return
    aside = name_beside(path, REPLACED)
    with RunDirectory(path).alone():
        try:
            path.rename(aside)
        except OSError as error:
            raise CheckpointError(f"out {path}: cannot be replaced: {error.strerror}") from error
        try:
            yield
        finally:
            if path.exists() and not ((path / LAST).exists() or (path / METRICS).exists()):
                shutil.rmtree(path)  # nothing of it could be used
            settle(path, aside)


def fold_path(path: Path, number: int) -> Path:
    """Directory of the run of a fold, in that of all folds."""
    return path / f"fold-{number}"


def way_to_folds(path: Path) -> str:
    """Clause that leads from a directory of folds to a run; empty for anything else."""
    first = fold_path(path, 0)
    if not _is_run(first):
        return ""
    return f"; its folds have them: take one, such as {first}, or repeat train --folds to resume"


def _is_run(path: Path) -> bool:
    return (path / CONFIG).is_file() and (path / IDENTITY).is_file()


def _is_unfinished(path: Path) -> bool:
    return _is_run(path) and not RunDirectory(path).finished


def to_json(value: Any) -> str:
    """Indented JSON; a number that is not finite becomes null, for which JSON has no other word."""
    return json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """The value with every number that is not finite replaced by None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


# Tables of predictions


def prediction_tables(
    predictions: Predictions, task: Task, *, groups: Sequence[str | None] = ()
) -> dict[str, Table]:
    """The table of samples under an empty name, and under the name of each modality whose tokens have a
    target that of its tokens. That of samples has a column of `groups`, where one is named.
    """
    of_samples = prediction_table(predictions, task)
    if any(groups):
        of_samples = {"id": of_samples["id"], GROUP: list(groups), **of_samples}
    modalities = dict.fromkeys(target.tokens for target in task.further if target.tokens is not None)
    tables = {name: _token_table(name, predictions, task) for name in modalities}
    return {"": of_samples, **{name: each for name, each in tables.items() if each}}


def beside(path: Path, modality: str) -> Path:
    """Place of the table of the tokens of a modality beside that of samples."""
    return path.with_name(f"{path.stem}-{modality}{path.suffix}") if modality else path


def _token_table(modality: str, predictions: Predictions, task: Task) -> Table:
    """Id of the sample, place from 0 and time in seconds of each token, and the columns of each target of
    these tokens, which begin with its name and a dot; empty where nothing was predicted of them.
    """
    table: Table = {}
    for target in task.further:
        said = predictions.further.get(target.name) if target.tokens == modality else None
        if said is None or said.lengths is None or said.times is None:
            continue
        if not table:
            lengths = said.lengths.tolist()
            table["id"] = [
                identity for identity, size in zip(predictions.ids, lengths, strict=True) for _ in range(size)
            ]
            table["token"] = [place for size in lengths for place in range(size)]
            table["time"] = [None if math.isnan(time) else time for time in said.times.tolist()]
        columns = _columns(target, said)
        table |= {f"{target.name}.{name}": values for name, values in columns.items()}
    return table


def prediction_table(predictions: Predictions, task: Task) -> Table:
    """Ids, known targets, predictions, and of classes the probability of each; the same of each further
    target of samples, whose columns begin with its name and a dot. Each class of a multilabel has a target
    and a prediction, 1 where it is there.
    """
    table: Table = {"id": list(predictions.ids), **_columns(task, predictions)}
    for target in task.further:
        if target.name in predictions.further and target.tokens is None:
            columns = _columns(target, predictions.further[target.name])
            table |= {f"{target.name}.{name}": values for name, values in columns.items()}
    return table


def _columns(target: Task | Target, said: Predictions | FurtherPredictions) -> Table:
    """Columns of one target, without those of the truth where it is unknown in all samples; what a sample
    lacks is empty.
    """
    of_tokens = said.lengths is not None  # of which there are many: as few digits as single precision has

    def number(value: float) -> float | None:
        return None if math.isnan(value) else float(str(value) if of_tokens else value)

    def by_class(what: str, values: NDArray[Any]) -> Table:
        return {
            f"{what}({name})": [number(value) for value in values[:, index]]
            for index, name in enumerate(target.classes)
        }

    def name(index: float) -> str | None:
        return target.classes[int(index)] if index >= 0 else None

    truth, values, table = said.targets, said.prediction, Table()
    if target.kind == "multilabel":
        called = np.where(np.isnan(values), np.nan, values >= 0.5 if said.called is None else said.called)
        table = {} if truth is None else by_class("target", truth)
        return {**table, **by_class("prediction", called), **by_class("p", values)}
    of = number if target.kind == "regression" else name
    if truth is not None:
        table["target"] = [of(value) for value in truth]
    if target.kind == "regression":
        return {**table, "prediction": [number(value) for value in values]}
    table["prediction"] = [None if np.isnan(row).any() else name(row.argmax()) for row in values]
    return {**table, **by_class("p", values)}


def missing_table(split: WithheldSplit) -> Table:
    """Ids, and per modality 1 where the sample keeps it, 0 where not; one digit per token where single tokens
    are withheld.
    """
    table: Table = {"id": list(split.ids)}
    for name, kept in split.kept.items():
        if split.kept_tokens is None:
            table[name] = kept.astype(int).tolist()
        else:
            table[name] = ["".join(map(str, mask.astype(int).tolist())) for mask in split.kept_tokens[name]]
    return table


def confusion_table(predictions: Predictions, task: Task) -> Table:
    """Samples by true class, one row each, and predicted class, one column each."""
    counts = confusion_matrix(task, predictions)
    return {
        "true class": list(task.classes),
        **{f"predicted {name}": counts[:, column].tolist() for column, name in enumerate(task.classes)},
    }


def joined(label: str, tables: Sequence[tuple[str, Table]]) -> Table:
    """Tables with ids below each other, after a column of that label that names the part."""
    names = dict.fromkeys(name for _, table in tables for name in table)
    sized = [(part, table, len(table["id"])) for part, table in tables]
    return {
        label: [part for part, _, size in sized for _ in range(size)],
        **{name: [each for _, of, size in sized for each in of.get(name, [None] * size)] for name in names},
    }


def to_csv(table: Table) -> str:
    """The table as CSV with a header; what is not known stays empty."""
    rows: Iterable[tuple[Any, ...]] = zip(*table.values(), strict=True)
    return csv_text([[*table], *rows])


def check_file(path: Path, *endings: str) -> None:
    """Refuse, by a `ConfigError`, a file of another ending, or one that could not be written."""
    problem = ""
    if path.is_dir():
        problem = "a directory is there, expected a file"
    elif path.suffix not in endings:
        problem = f"found the ending {path.suffix!r}, expected {' or '.join(endings)}"
    elif not path.parent.is_dir():
        problem = f"there is no directory {path.parent}"
    elif not os.access(path.parent, os.W_OK):
        problem = f"directory {path.parent} cannot be written to"
    elif path.suffix == ".parquet" and (why := lacking("formats", "pyarrow")):
        problem = f"{why}; or choose a .csv file"
    if problem:
        raise ConfigError(f"out {path}: {problem}")


def check_table(path: Path) -> None:
    """Refuse a file that `write_table` could not write."""
    check_file(path, ".csv", ".parquet")


def write_table(path: Path, table: Table) -> None:
    """Write a table as ``.csv`` or ``.parquet``, at once."""
    check_table(path)
    if path.suffix == ".csv":
        content = to_csv(table).encode()
    else:
        import pyarrow
        import pyarrow.parquet

        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table(table), buffer)
        content = buffer.getvalue()
    replace_file(path, content)


def make_directory(path: Path) -> None:
    """Make a directory where there is none; a `ConfigError` if it cannot be made or written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"out {path}: cannot be made: {error.strerror}") from error
    if not os.access(path, os.W_OK):
        raise ConfigError(f"out {path}: cannot be written to")


def corpus_identity(corpus: Corpus) -> dict[str, str]:
    """Name and checksum, as a run directory records them."""
    return {"name": corpus.name, "checksum": corpus.checksum}
