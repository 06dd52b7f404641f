import csv
import sys
from pathlib import Path
from typing import Any

import pytest

from alignmamba.errors import ConfigError
from alignmamba.training.logs import LOG, EventLog, write_table


def test_the_table_is_replaced_and_complete(tmp_path: Path) -> None:
    path = tmp_path / LOG
    records: list[dict[str, float]] = [{"epoch": 1, "valid/mae": 0.1}, {"epoch": 2, "valid/mae": 1 / 3, "valid/corr": float("nan")}]
    write_table(path, records[:1])
    write_table(path, records)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["valid/mae"]) == 1 / 3  # every digit
    assert [row["valid/corr"] for row in rows] == ["", "nan"]
    assert [file.name for file in tmp_path.iterdir()] == [LOG]


def test_events_without_tensorboard_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent: Any = None
    monkeypatch.setitem(sys.modules, "tensorboard", absent)
    with pytest.raises(
        ConfigError, match=r"^fit\.tensorboard: tensorboard is not installed, try: pip install 'alignmamba\[tensorboard\]'$"
    ):
        EventLog(tmp_path, first_epoch=1)


def test_events_of_a_killed_run_are_hidden(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, values in ((1, [0.1, 0.2, 0.3]), (3, [0.4])):
        log = EventLog(tmp_path, first_epoch=first)
        for at, value in enumerate(values):
            log.write({"epoch": first + at, "valid/mae": value})
        log.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Scalars("valid/mae")] == [1, 2, 3]
    assert [event.value for event in events.Scalars("valid/mae")] == pytest.approx([0.1, 0.2, 0.4])
