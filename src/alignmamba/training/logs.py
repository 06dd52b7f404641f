"""What training writes down while it runs: a table of epochs, and TensorBoard events on request."""

import csv
import io
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from alignmamba.extras import require
from alignmamba.files import replace_file

LOG: Final = "log.csv"

Record = Mapping[str, float]
"""One epoch: ``epoch``, ``step``, ``train/loss/<term>``, ``valid/loss/<term>``, ``valid/<metric>``, ``learning_rate``, ``seconds``."""


def write_table(path: Path, records: Sequence[Record]) -> None:
    """Write all epochs as CSV, replacing the file at once; a resumed run therefore never repeats a line."""
    columns = list(dict.fromkeys(name for record in records for name in record))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(dict(record) for record in records)
    replace_file(path, text.getvalue().encode())


class EventLog:
    """TensorBoard events of a run.

    Args:
        directory: Where the event files go.
        first_epoch: Epoch that will be written next; events of it and of later epochs, left by a run that was killed, are hidden.

    Raises:
        ConfigError: If TensorBoard is not installed.
    """

    def __init__(self, directory: Path, *, first_epoch: int) -> None:
        require("fit.tensorboard", "tensorboard")
        self._writer: Any = import_module("torch.utils.tensorboard").SummaryWriter(str(directory), purge_step=first_epoch)

    def write(self, record: Record) -> None:
        """Add one epoch."""
        for name, value in record.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, int(record["epoch"]))
        self._writer.flush()

    def close(self) -> None:
        """Finish the event file."""
        self._writer.close()
