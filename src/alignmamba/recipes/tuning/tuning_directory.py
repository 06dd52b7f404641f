"""Directory of a search: what its workers share, who of them is alive, and where Optuna keeps trials.

``tuning.json`` holds what was asked for. Optuna's journal lies beside it, or its database elsewhere. A worker
holds a lock in ``workers`` as long as it lives.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from pydantic import TypeAdapter

from alignmamba.checksums import stamped
from alignmamba.errors import CheckpointError, ConfigError
from alignmamba.extras import require
from alignmamba.files import exclusive, replace_file
from alignmamba.recipes.run_directory import make_directory, plain, to_json
from alignmamba.recipes.run_records import CorpusIdentity, read_record

RECORD: Final = "tuning.json"
JOURNAL: Final = "journal.log"
CLAIM: Final = "claim.lock"
WORKERS: Final = "workers"
_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, AssertionError, RuntimeError)
"""Faults by which Optuna meets a line of a journal that it did not write."""
HEARTBEAT_SECONDS: Final = 30
"""Time between two signs of life that a worker leaves in a database; after six, its trial counts as lost."""


@dataclass(frozen=True, kw_only=True)
class TuningRecord:
    """Content of ``tuning.json``."""

    corpus: CorpusIdentity
    held: dict[str, Any]
    """Settings that are held fixed, by dotted key."""
    metric: str
    """Metric on the valid split that is searched for."""
    repeats: int
    """Trainings of a trial."""
    folds: int = 0
    """Parts of train and valid that take turns as the valid split of these trainings; 0 without."""
    seed: int
    trials: int
    """Trials of each method, as asked for last."""
    spaces: dict[str, dict[str, str]]
    """Method to setting to its values, for people."""
    storage: str
    """URL of the database; empty for the journal beside this file."""
    command: tuple[str, ...] = ()
    environment: dict[str, Any]

    @classmethod
    def of(cls, **facts: Any) -> Self:
        """Record of these facts."""
        return TypeAdapter(cls).validate_python(facts)

    def study(self, method: str) -> str:
        """Name of the study of a method, the same for all workers of this search on any machine."""
        shared = [asdict(self.corpus), self.held, self.metric, self.repeats, self.seed, self.spaces[method]]
        shared += [self.folds] if self.folds else []  # earlier searches had none
        digest = hashlib.sha256(json.dumps(plain(shared), sort_keys=True).encode()).hexdigest()
        return f"{method}-{digest[:16]}"


class _HeldError(Exception):
    """Another process holds the lock."""


@dataclass(frozen=True)
class TuningDirectory:
    """A search on disk."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> "TuningDirectory":
        """The search that lies there; a `CheckpointError` if there is none."""
        if not (path / RECORD).is_file():
            raise CheckpointError(f"tuning {path}: found no {RECORD}, expected the --out of alignmamba tune")
        return cls(path)

    def record(self) -> TuningRecord:
        """Content of ``tuning.json``; a `CheckpointError` if it is damaged."""
        return read_record(self.path / RECORD, TuningRecord)

    def as_begun(self, repeats: int | None, folds: int | None) -> tuple[int | None, int | None]:
        """Trainings and folds of a trial, those of the search that lies there where none are asked for."""
        if repeats is not None or folds is not None or not (self.path / RECORD).is_file():
            return repeats, folds
        begun = self.record()
        return begun.repeats, begun.folds

    def refuse_other(self, asked: TuningRecord) -> None:
        """Refuse, by a `CheckpointError`, a place of something else than the search that is asked for."""
        if self.path.exists() and not self.path.is_dir():
            raise CheckpointError(f"out {self.path}: a file is there, choose another --out")
        own = (CLAIM, WORKERS)  # of a worker that was killed before it wrote the record
        if not self.path.exists() or all(each.name in own for each in self.path.iterdir()):
            return
        if not (self.path / RECORD).is_file():
            raise CheckpointError(
                f"out {self.path}: holds something that is not a search, choose another --out"
            )
        found = self.record()
        shared = found.spaces.keys() & asked.spaces.keys()
        for name in ("corpus", "held", "metric", "folds", "repeats", "seed", "storage"):
            _refuse_difference(self.path, name, getattr(found, name), getattr(asked, name))
        for name in sorted(shared):
            _refuse_difference(self.path, f"space of {name}", found.spaces[name], asked.spaces[name])

    def join(self, asked: TuningRecord) -> TuningRecord:
        """Make the directory, or add what is asked for to the search that lies there; returns the record."""
        make_directory(self.path)
        (self.path / WORKERS).mkdir(exist_ok=True)
        with self.claiming():
            self.refuse_other(asked)
            if (self.path / RECORD).is_file():
                asked = replace(asked, spaces={**self.record().spaces, **asked.spaces})
            elif asked.storage:
                self._storage_at(asked.storage)  # now: the record of one that cannot be opened would stay
            replace_file(self.path / RECORD, to_json(stamped(plain(asdict(asked)))).encode())
        return asked

    @contextmanager
    def claiming(self) -> Iterator[None]:
        """Keep other workers from taking a trial meanwhile."""
        with exclusive(self.path / CLAIM, lambda: None):
            yield

    @contextmanager
    def alive(self, worker: str) -> Iterator[None]:
        """Show others that a worker lives, until this process ends, however it does."""
        path = self._lock(worker)
        with exclusive(path, lambda: None):
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    def is_dead(self, worker: str | None) -> bool:
        """True if a worker of this directory does not live any more. One that is not known here may live on
        another machine, if there is a database.
        """
        known = worker is not None and self._lock(worker).is_file()
        if not known:
            return not self.record().storage
        try:
            with exclusive(self._lock(str(worker)), _held):
                return True
        except _HeldError:
            return False

    def _lock(self, worker: str) -> Path:
        return self.path / WORKERS / f"{worker}.lock"

    def storage(self) -> Any:
        """Optuna's storage, as a `optuna.storages.BaseStorage`."""
        return self._storage_at(self.record().storage)

    def _storage_at(self, url: str) -> Any:
        require("tune", "tune", "optuna")
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)  # progress is reported by the search itself
        with storage_faults(url or str(self.path / JOURNAL)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # heartbeats are marked as experimental
            if url:
                grace = 6 * HEARTBEAT_SECONDS
                return optuna.storages.RDBStorage(
                    url, heartbeat_interval=HEARTBEAT_SECONDS, grace_period=grace
                )
            from optuna.storages.journal import JournalFileBackend

            return optuna.storages.JournalStorage(JournalFileBackend(str(self.path / JOURNAL)))

    def refuse_gone(self) -> None:
        """Refuse, by a `CheckpointError`, a search whose trials are gone."""
        if not self.record().storage and not (self.path / JOURNAL).is_file():
            raise CheckpointError(f"tuning {self.path}: found no {JOURNAL}, expected the search's trials")

    def drop_torn_line(self) -> None:
        """Drop what a full disk or a copy left of the journal's last line, to which more would be written."""
        from optuna.storages.journal import JournalFileSymlinkLock

        journal = self.path / JOURNAL
        if self.record().storage or not journal.exists():
            return
        lock = JournalFileSymlinkLock(str(journal))  # that of whoever appends
        lock.acquire()
        try:
            with journal.open("r+b") as file:
                content = file.read()
                if not content.endswith(b"\n"):
                    file.truncate(content.rfind(b"\n") + 1)
        finally:
            lock.release()


def _held() -> None:
    raise _HeldError


def _refuse_difference(path: Path, name: str, found: Any, asked: Any) -> None:
    if found != asked:
        raise CheckpointError(
            f"out {path}: holds a search whose {name} is {_shown(found)}, found {_shown(asked)}; choose"
            " another --out"
        )


def _shown(value: Any) -> str:
    if isinstance(value, CorpusIdentity):
        return f"{value.name!r} {value.checksum[:12]}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={each}" for key, each in value.items())[:160] or "empty"
    return repr(value)


def checked_storage(url: str) -> str:
    """URL of a database as it is recorded, where no password may stand; a `ConfigError` refuses it."""
    if not url:
        return ""
    require("storage", "tune", "optuna")
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    form = "expected the URL of a database, such as sqlite:///tuning.db"
    try:
        parts = make_url(url)
    except (SQLAlchemyError, ValueError):
        raise ConfigError(f"storage: found {url.partition(':')[0]!r} and more, {form}") from None
    if parts.password is not None or any(_is_secret(*each) for each in parts.query.items()):
        raise ConfigError(
            "storage: found a password, which would be recorded; let the client of the database read it from"
            " its own file"
        )
    try:
        parts.get_dialect()
    except (SQLAlchemyError, ImportError) as error:
        raise ConfigError(f"storage: found {url!r}, {form}; {str(error).splitlines()[0]}") from None
    if parts.get_backend_name() == "sqlite":
        if not parts.database or parts.database == ":memory:":
            raise ConfigError("storage: found a database in memory, expected a file, as workers share it")
        parts = parts.set(database=str(Path(parts.database).resolve()))
    return parts.render_as_string()


def _is_secret(name: str, value: Any) -> bool:
    """True for a part of a URL that is a password, or holds one as those of ODBC do."""
    named = name.lower() in ("password", "passwd", "pwd", "sslpassword")
    return named or re.search(r"(?i)\b(pwd|password)\s*=", str(value)) is not None


@contextmanager
def storage_faults(where: str) -> Iterator[None]:
    """Report in one line a storage that cannot be opened, read or written."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError, ImportError) as error:
        raise CheckpointError(f"storage {where}: {str(error).splitlines()[0]}") from error
    except _DAMAGE as error:
        raise CheckpointError(f"storage {where}: damaged, or not of this version of Optuna") from error
