"""A small corpus, a finished run on it, and a way to call the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from alignmamba.cli.main import main
from small_run import SETTINGS, write_small_corpus


class Said(NamedTuple):
    """What the command line did."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "small"
    write_small_corpus(path)
    return path


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    path = tmp_path_factory.mktemp("runs") / "finished"
    assert main(["train", "--data", str(corpus), "--out", str(path), "--set", *SETTINGS]) == 0
    return path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def call(*arguments: object) -> Said:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = 0 if stop.code is None else int(stop.code)
        return Said(code, *capsys.readouterr())

    return call
