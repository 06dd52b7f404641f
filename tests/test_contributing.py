"""CONTRIBUTING's walk of a batch through the house, followed."""

import re
import traceback
from pathlib import Path
from typing import Any

import pytest

import alignmamba
from alignmamba.contracts import Batch, Output
from alignmamba.data import loader
from alignmamba.models.network import Network
from alignmamba.recipes.configuration import check_config
from alignmamba.recipes.training_run import train
from small_run import CONFIG, write_small_corpus

PAGE = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
PACKAGE = Path(alignmamba.__file__).parent
MOST_FILES = 5


def _walk() -> str:
    return PAGE.partition("## A batch goes through the house\n")[2].partition("\n## ")[0]


def _files_now() -> set[str]:
    """Files of the package that lie between the caller and whoever asks."""
    names = (Path(frame.filename) for frame in traceback.extract_stack()[:-2])
    return {name.relative_to(PACKAGE).as_posix() for name in names if name.is_relative_to(PACKAGE)}


def test_few_files_lead_from_training_to_the_door_and_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small_corpus(tmp_path / "data")
    met: set[str] = set()
    forward, collate = Network.forward, loader.collate

    def entered(self: Network[Any], batch: Batch, **options: Any) -> Output:
        if self.training:
            met.update(_files_now(), ("models/network.py",))
        return forward(self, batch, **options)

    def collated(*given: Any, **named: Any) -> Batch:
        met.add("data/loader.py")
        return collate(*given, **named)

    monkeypatch.setattr(Network, "forward", entered)
    monkeypatch.setattr(loader, "collate", collated)
    config = check_config({"data": str(tmp_path / "data"), **CONFIG})
    train(config, out=tmp_path / "run", progress=None)
    named = re.findall(r"^\d\. `([\w/]+\.py)`", _walk(), flags=re.MULTILINE)
    assert met == set(named)
    assert len(named) <= MOST_FILES


def test_every_file_of_the_walk_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)`", _walk())
    assert named
    assert [name for name in named if not (PACKAGE / name).is_file()] == []
