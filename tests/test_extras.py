"""Optional packages: the table is that of the package's own metadata, and a missing one is one line."""

import sys
import tomllib
from pathlib import Path

import pytest

from alignmamba.errors import ConfigError
from alignmamba.extras import EXTRAS, lacking, require

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def test_extras_are_those_of_the_package() -> None:
    listed = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]
    names = {
        extra: tuple(
            each.partition(">")[0].lower().replace("-", "_").removesuffix("_py").replace("pillow", "PIL")
            for each in listed[extra]
        )
        for extra in EXTRAS
    }
    assert names == EXTRAS


def test_a_missing_module_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lacking("experiments", "scipy") == ""
    monkeypatch.setitem(sys.modules, "h5py", None)  # type: ignore[arg-type] # how Python marks a module as absent
    assert lacking("formats", "pyarrow") == ""
    assert lacking("formats") == "h5py is not installed, try: pip install 'alignmamba[formats]'"
    with pytest.raises(
        ConfigError, match=r"^a\.csd: h5py is not installed, try: pip install 'alignmamba\[formats\]'$"
    ):
        require("a.csd", "formats", "h5py")
