import csv
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignmamba.errors import ConfigError
from alignmamba.training.fit_config import FitConfig, require_loggers
from alignmamba.training.logs import LOG, EventLog, MlflowLog, Tracker, WandbLog, write_table


def test_the_table_is_replaced_and_complete(tmp_path: Path) -> None:
    path = tmp_path / LOG
    records: list[dict[str, float]] = [
        {"epoch": 1, "valid/mae": 0.1},
        {"epoch": 2, "valid/mae": 1 / 3, "valid/corr": float("nan")},
    ]
    write_table(path, records[:1])
    write_table(path, records)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["valid/mae"]) == 1 / 3  # every digit
    assert [row["valid/corr"] for row in rows] == ["", "nan"]
    assert [file.name for file in tmp_path.iterdir()] == [LOG]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_logger_without_its_package_says_what_to_install(
    name: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent: Any = None
    monkeypatch.setitem(sys.modules, name, absent)
    with pytest.raises(
        ConfigError,
        match=rf"^fit\.loggers: {name} is not installed, try: pip install 'alignmamba\[{name}\]'$",
    ):
        require_loggers(FitConfig(loggers=(name,)))
    if name == "tensorboard":
        with pytest.raises(ConfigError, match=r"^fit\.tensorboard: tensorboard is not installed"):
            require_loggers(FitConfig(tensorboard=True))


class Service:
    """Stands for ``wandb`` and for ``mlflow``: keeps what it is told."""

    __spec__ = ModuleSpec("stub", None)

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []
        self.info = SimpleNamespace(run_id="r1")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def told(*values: Any, **options: Any) -> "Service":
            self.said.append((name, *values, options))
            return self

        return told


def test_epochs_go_to_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service()
    monkeypatch.setitem(sys.modules, "wandb", service)  # type: ignore[arg-type]
    identities = []
    for epoch in (1, 2):
        log = WandbLog(tmp_path, {"epochs": 2}, first_epoch=epoch)
        log.write({"epoch": epoch, "valid/mae": 0.5})
        log.close()
        identities.append(service.said[-3][1].pop("id"))
    assert identities[0] == identities[1]  # a resumed run goes on
    begun = {
        "project": "alignmamba",
        "name": tmp_path.name,
        "resume": "allow",
        "dir": str(tmp_path),
        "config": {"epochs": 2},
    }
    assert service.said[:3] == [("init", begun), ("log", {"valid/mae": 0.5}, {"step": 1}), ("finish", {})]


def test_epochs_go_to_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service()
    monkeypatch.setitem(sys.modules, "mlflow", service)  # type: ignore[arg-type]
    for epoch in (1, 2):
        log = MlflowLog(tmp_path, {"epochs": 2}, first_epoch=epoch)
        log.write({"epoch": epoch, "valid/mae": 0.5, "valid/corr": float("nan")})
        log.close()
    assert service.said == [
        ("set_experiment", "alignmamba", {}),
        ("start_run", {"run_id": None, "run_name": tmp_path.name}),
        ("log_params", {"epochs": 2}, {}),
        ("log_metrics", {"valid/mae": 0.5}, {"step": 1}),
        ("end_run", {}),
        ("set_experiment", "alignmamba", {}),
        ("start_run", {"run_id": "r1", "run_name": None}),
        ("log_metrics", {"valid/mae": 0.5}, {"step": 2}),
        ("end_run", {}),
    ]


def test_a_service_that_refuses_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(Service):
        def init(self, **_: Any) -> None:
            raise RuntimeError("no account\nlog in")

    monkeypatch.setitem(sys.modules, "wandb", Refusing())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^fit\.loggers: wandb cannot be started: no account log in$"):
        WandbLog(tmp_path, {}, first_epoch=1)


def test_events_of_a_killed_run_are_hidden(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, values in ((1, [0.1, 0.2, 0.3]), (3, [0.4])):
        log = EventLog(tmp_path, {}, first_epoch=first)
        for at, value in enumerate(values):
            log.write({"epoch": first + at, "valid/mae": value})
        log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("valid/mae")] == [1, 2, 3]
    assert [event.value for event in events.Scalars("valid/mae")] == pytest.approx([0.1, 0.2, 0.4])
