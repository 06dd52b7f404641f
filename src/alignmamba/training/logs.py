"""Logs of training while it runs: a table of epochs, TensorBoard, Weights & Biases and MLflow."""

import csv
import io
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from alignmamba.errors import ConfigError
from alignmamba.files import replace_file

LOG: Final = "log.csv"

Record = Mapping[str, float]
"""One epoch: ``epoch``, ``step``, ``train/loss/<term>``, ``valid/loss/<term>``, ``valid/<metric>``,
``learning_rate``, ``seconds``."""


def write_table(path: Path, records: Sequence[Record]) -> None:
    """Write all epochs as CSV, replacing the file at once; a resumed run therefore never repeats a line."""
    columns = list(dict.fromkeys(name for record in records for name in record))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(dict(record) for record in records)
    replace_file(path, text.getvalue().encode())


class Log(Protocol):
    """Logger of the epochs of a run."""

    def write(self, record: Record) -> None:
        """Add one epoch."""

    def close(self) -> None:
        """End it in good order."""


class EventLog:
    """TensorBoard events of a run, in ``tensorboard`` of its directory; those from the first epoch on that a
    killed run left are hidden.
    """

    def __init__(self, run_dir: Path, settings: Mapping[str, Any], *, first_epoch: int) -> None:
        del settings
        directory = run_dir / "tensorboard"
        self._writer: Any = import_module("torch.utils.tensorboard").SummaryWriter(
            str(directory), purge_step=first_epoch
        )

    def write(self, record: Record) -> None:
        for name, value in _measured(record).items():
            self._writer.add_scalar(name, value, int(record["epoch"]))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandbLog:
    """A run of Weights & Biases, which a resumed run continues. Its project is ``WANDB_PROJECT``, by default
    ``alignmamba``.

    Raises:
        ConfigError: If the service refuses.
    """

    def __init__(self, run_dir: Path, settings: Mapping[str, Any], *, first_epoch: int) -> None:
        del first_epoch  # the service itself refuses an epoch that it has
        known = _remembered(run_dir, "wandb")
        identity = known or secrets.token_hex(8)
        with _started("wandb"):
            self._run: Any = import_module("wandb").init(
                project=os.environ.get("WANDB_PROJECT", "alignmamba"),
                name=run_dir.name,
                id=identity,
                resume="allow",
                dir=str(run_dir),
                config=dict(settings),
            )
        _remember(run_dir, "wandb", identity)

    def write(self, record: Record) -> None:
        self._run.log(_measured(record), step=int(record["epoch"]))

    def close(self) -> None:
        self._run.finish()


class MlflowLog:
    """A run of MLflow, which a resumed run continues. Its experiment is ``MLFLOW_EXPERIMENT_NAME``, by
    default ``alignmamba``.

    Raises:
        ConfigError: If the server refuses.
    """

    def __init__(self, run_dir: Path, settings: Mapping[str, Any], *, first_epoch: int) -> None:
        del first_epoch  # an epoch that is logged again replaces what was shown of it
        known = _remembered(run_dir, "mlflow")
        with _started("mlflow"):
            self._mlflow: Any = import_module("mlflow")
            self._mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "alignmamba"))
            run = self._mlflow.start_run(run_id=known, run_name=None if known else run_dir.name)
            if known is None:
                self._mlflow.log_params(dict(settings))
        _remember(run_dir, "mlflow", run.info.run_id)

    def write(self, record: Record) -> None:
        """Add one epoch; a value that is not finite is dropped."""
        values = {name: value for name, value in _measured(record).items() if math.isfinite(value)}
        self._mlflow.log_metrics(values, step=int(record["epoch"]))

    def close(self) -> None:
        self._mlflow.end_run()


Tracker = Literal["tensorboard", "wandb", "mlflow"]
LOGS: Final[Mapping[str, Callable[..., Log]]] = {
    "tensorboard": EventLog,
    "wandb": WandbLog,
    "mlflow": MlflowLog,
}
"""Name of a tracker to its log, which is made of the run's directory, the settings and ``first_epoch``."""


def _measured(record: Record) -> dict[str, float]:
    return {name: value for name, value in record.items() if name != "epoch"}


@contextmanager
def _started(name: str) -> Iterator[None]:
    try:
        yield
    # of HTTP, of accounts and of the packages' own settings, which share no narrower root
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(f"fit.loggers: {name} cannot be started: {reason}") from error


def _remembered(run_dir: Path, name: str) -> str | None:
    """Name of the run in a tracker, if it was begun there before."""
    path = run_dir / f".{name}-id"
    return path.read_text(encoding="utf-8").strip() or None if path.exists() else None


def _remember(run_dir: Path, name: str, identity: str) -> None:
    replace_file(run_dir / f".{name}-id", f"{identity}\n".encode())
