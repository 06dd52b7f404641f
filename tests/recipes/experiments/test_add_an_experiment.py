"""The recipe of CONTRIBUTING for an experiment: one file and one line, and everything else follows."""

import importlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignmamba.cli.main import main
from alignmamba.recipes.experiments.catalogue import EXPERIMENTS, any_option
from alignmamba.recipes.experiments.experiment_kind import Experiment, GridOptions
from small_run import SETTINGS, write_small_corpus

PAGE = Path(__file__).resolve().parents[3] / "CONTRIBUTING.md"
Said = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture
def widths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment[Any]:
    """The example, read off the page."""
    section = PAGE.read_text(encoding="utf-8").partition("## Add an experiment")[2]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert code is not None
    (tmp_path / "widths_example.py").write_text(code[1], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "widths_example", raising=False)
    made: Experiment[Any] = importlib.import_module("widths_example").Widths()
    return made


@pytest.fixture
def said(
    widths: Experiment[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Said:
    """A command line that knows it."""
    monkeypatch.setitem(EXPERIMENTS, widths.name, widths)

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main(["experiment", *map(str, arguments)])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return call


def test_its_options_are_flags(said: Said) -> None:
    code, out, _ = said("--help")
    told = " ".join(out.replace("│", " ").split())
    assert code == 0
    assert "`widths`: the model at several numbers of channels." in told
    assert "--widths N ... Channels of a token (widths). (default: 32 64)" in told
    assert "--seeds N Runs of each cell, with seeds 0 to N-1. (default: 5)" in told
    code, _, err = said("widths", "--out", "x", "--widths", "wide")
    assert (code, err) == (
        2,
        "error: --widths: found 'wide', expected whole numbers; see alignmamba experiment --help\n",
    )


def test_it_has_cells_and_tables_and_resumes(said: Said, tmp_path: Path) -> None:
    write_small_corpus(tmp_path / "small")
    command = ["widths", "--data", tmp_path / "small", "--out", tmp_path / "grid", "--widths", 8, 16]
    command += ["--seeds", 1, "--set", *SETTINGS, "fit.epochs=1", "--json"]
    code, out, err = said(*command, "--dry-run")
    assert code == 0, err
    assert [cell["run"] for cell in json.loads(out)["cells"]] == ["8 channels, seed 0", "16 channels, seed 0"]
    assert not (tmp_path / "grid").exists()
    code, out, err = said(*command)
    assert code == 0, err
    (table,) = json.loads(out)["tables"]
    assert (table["name"], table["rows"]) == ("widths", ["8 channels", "16 channels"])
    assert all(entry["mean"] is not None for row in table["entries"] for entry in row)
    assert (tmp_path / "grid" / "tables" / "widths.csv").is_file()
    code, again, err = said(*command)
    assert "2 runs, 2 of them finished before" in err
    assert json.loads(again)["tables"] == [table]


def test_two_experiments_agree_on_an_option(widths: Experiment[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(GridOptions):
        widths: tuple[int, ...] = (1,)

    class Required(GridOptions):
        depth: int

    other = type(widths)()
    monkeypatch.setitem(EXPERIMENTS, widths.name, widths)
    monkeypatch.setitem(EXPERIMENTS, "other", other)
    assert any_option()["widths"].default == (32, 64)
    for options in (Other, Required):
        monkeypatch.setattr(other, "options", options)
        with pytest.raises(TypeError, match=rf"{options.__name__}\.\w+: expected a default, and the same"):
            any_option()
