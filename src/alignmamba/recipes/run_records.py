"""JSON files of runs and experiments as records; tables and pages read them by one function."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from alignmamba.checksums import read_listed, unstamped
from alignmamba.contracts import Role, Task
from alignmamba.errors import CheckpointError, first_fault
from alignmamba.files import parse_json
from alignmamba.recipes.run_directory import TABLE_BYTES


@dataclass(frozen=True, kw_only=True)
class CorpusIdentity:
    """Corpus of the run, see `run_directory.corpus_identity`."""

    name: str
    checksum: str


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """Content of ``run.json``."""

    digest: str
    corpus: CorpusIdentity
    seed: int

    def __post_init__(self) -> None:
        if len(self.digest) < 16 or not set(self.digest[:16]) <= set("0123456789abcdef"):
            raise ValueError(f"digest: found {self.digest[:60]!r}, expected hexadecimal digits")


@dataclass(frozen=True, kw_only=True)
class RunEnvironment:
    """Content of ``environment.json``."""

    versions: dict[str, str]
    command: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """Content of ``metrics.json``."""

    metrics: dict[Role, dict[str, float | None]]
    references: dict[str, float]
    selected_by: str
    best_epoch: int
    epochs: int
    num_parameters: int


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """Content of ``model/config.json``."""

    task: Task


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Content of ``failed/<key>.json`` of an experiment."""

    error: str


_Form = TypeVar("_Form")


def read_record(path: Path, form: type[_Form]) -> _Form:
    """A JSON file, compared with its checksum where there is one.

    Args:
        path: The file.
        form: A dataclass with the fields that are needed; others may be there.

    Raises:
        CheckpointError: If the file is missing or damaged, or a field is missing or of another type; the
            message names it.
    """
    content = read_listed(path.parent, path.name, limit_bytes=TABLE_BYTES)
    found: Any = parse_json(content, str(path), error=CheckpointError)
    try:
        return TypeAdapter(form).validate_python(
            unstamped(found, str(path)) if isinstance(found, dict) else found
        )
    except ValidationError as error:
        raise CheckpointError(f"{path}: {first_fault(error)}") from error
