"""A way to call the command line."""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from alignmamba.cli.main import main


class Said(NamedTuple):
    """Result of a command line."""

    code: int
    out: str
    err: str


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
