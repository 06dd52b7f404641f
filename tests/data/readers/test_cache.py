"""What decides where a converted file lies in the cache; that it is used is tested on the command line."""

from pathlib import Path

import damaging
import pytest

import stub_reader
from alignmamba.data.readers import FORMATS, cache
from alignmamba.data.readers.foreign import ReadOptions


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "stub", stub_reader)


def key(format: str, folder: Path) -> str:
    """Key of the seed in that folder."""
    (source,) = (folder,) if format in ("csd", "gcnet") else folder.glob("*.toml" if format == "arrays" else "*")
    return cache._key(format, source, ReadOptions())


@pytest.mark.parametrize("format", damaging.SEEDS)
def test_the_content_of_what_is_read_decides_and_not_its_place(format: str, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    files = damaging.seed(format, one).files
    damaging.seed(format, two)
    assert key(format, one) == key(format, two)
    changed = one / "all.npz" if format == "arrays" else files[0]
    changed.write_bytes(changed.read_bytes() + b" ")
    assert key(format, one) != key(format, two)


def test_folds_and_options_and_the_version_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = damaging.seed("stub", tmp_path / "seed").sources
    folds = tmp_path / "folds.json"
    folds.write_text("{}")
    keys = [cache._key("stub", source, options) for options in (ReadOptions(), ReadOptions(nonfinite="keep"), ReadOptions(folds=folds))]
    folds.write_text("{ }")
    keys.append(cache._key("stub", source, ReadOptions(folds=folds)))
    monkeypatch.setattr(cache, "__version__", "0.0.0")
    keys.append(cache._key("stub", source, ReadOptions()))
    assert len(set(keys)) == 5
