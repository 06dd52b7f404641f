"""Choice of a converted file's place in the cache; that it is used is tested on the command line."""

import os
import shutil
from pathlib import Path

import damaging
import layouts_arrays
import layouts_gcnet
import numpy as np
import pytest

import stub_reader
from alignmamba.data.archive import load_corpus
from alignmamba.data.storage import MANIFEST
from alignmamba.formats import FORMATS
from alignmamba.formats import conversion_cache as cache
from alignmamba.formats.folds import FoldOptions
from alignmamba.formats.foreign import ReadOptions
from alignmamba.recipes.display import samples_display


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "stub", stub_reader)


def key(format: str, folder: Path) -> str:
    """Key of the seed in that folder."""
    (source,) = (
        (folder,) if format in ("csd", "gcnet") else folder.glob("*.toml" if format == "arrays" else "*")
    )
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
    keys = [
        cache._key("stub", source, options)
        for options in (ReadOptions(), ReadOptions(nonfinite="keep"), FoldOptions(folds=folds))
    ]
    folds.write_text("{ }")
    keys.append(cache._key("stub", source, FoldOptions(folds=folds)))
    monkeypatch.setattr(cache, "__version__", "0.0.0")
    keys.append(cache._key("stub", source, ReadOptions()))
    assert len(set(keys)) == 5


@pytest.mark.parametrize("pattern", ["audio/{id}.npy", "audio/a_{id}.npy", "{id}/{id}-audio.npy"])
def test_every_file_of_a_pattern_decides(tmp_path: Path, pattern: str) -> None:
    """Text before the id hid all of them."""
    path = layouts_arrays.write_everything(tmp_path)
    for identity in layouts_arrays.IDS:
        place = tmp_path / pattern.replace("{id}", identity)
        place.parent.mkdir(exist_ok=True)
        np.save(place, np.ones((2, 3)))
    layouts_arrays.describe(tmp_path, audio=f'files = "{pattern}"\n')
    before = cache._key("arrays", path, ReadOptions())
    (tmp_path / "other.npy").write_bytes(b"not named")
    assert cache._key("arrays", path, ReadOptions()) == before
    np.save(place, np.zeros((2, 3)))
    assert cache._key("arrays", path, ReadOptions()) != before


def test_features_behind_a_link_decide(tmp_path: Path) -> None:
    folder = layouts_gcnet.write_folder(tmp_path / "corpus")
    own = folder / "features" / "hubert-large-FRA"
    elsewhere = own.rename(tmp_path / "elsewhere")
    own.symlink_to(elsewhere)
    before = cache._key("gcnet", folder, ReadOptions())
    np.save(elsewhere / "ses1_u1.npy", np.zeros((2, 3)))
    assert cache._key("gcnet", folder, ReadOptions()) != before
    faces = next(path for path in (folder / "features" / "manet-FRA").iterdir() if path.is_dir())
    before = cache._key("gcnet", folder, ReadOptions())
    np.save(faces / "000.npy", np.full(2, 7.0))
    assert cache._key("gcnet", folder, ReadOptions()) != before


def test_only_files_of_folds_are_read(tmp_path: Path) -> None:
    (source,) = damaging.seed("csd", tmp_path / "seed").sources[:1]
    folder = source if source.is_dir() else source.parent
    before = {name for name, _ in cache._files("csd", folder)}
    assert "folds.json" in before
    os.mkfifo(folder / "folds.toml")
    os.mkfifo(folder / "folds.fifo")
    os.mkfifo(folder / "more.csd")
    (folder / "folds.old").mkdir()
    (folder / "folds.md").write_text("how they were made")
    assert {name for name, _ in cache._files("csd", folder)} == before
    first = next(folder.glob("*.csd"))
    assert {path.name for _, path in cache._files("csd", first)} == {first.name, "folds.json"}


def test_checksums_tell_how_far_they_are(tmp_path: Path) -> None:
    folder = layouts_gcnet.write_folder(tmp_path / "corpus")
    told: list[tuple[int, int]] = []
    cache._key("gcnet", folder, ReadOptions(), lambda done, total: told.append((done, total)))
    assert len(told) > 10
    assert told[-1] == (sum(path.stat().st_size for _, path in cache._files("gcnet", folder)),) * 2


@pytest.mark.parametrize("damage", ["flipped", "no manifest", "a file"])
def test_a_damaged_corpus_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    monkeypatch.setenv(cache.PLACE, str(tmp_path / "cache"))
    (source,) = damaging.seed("stub", tmp_path / "seed").sources
    with samples_display("converted") as told:
        made = cache.cached_corpus(source, ReadOptions(), told=told)
        checksum = load_corpus(made).checksum
        if damage == "no manifest":
            (made / MANIFEST).unlink()
        elif damage == "a file":
            shutil.rmtree(made)
            made.write_text("")
        else:
            shard = max(made.rglob("*"), key=lambda path: path.stat().st_size)
            content = bytearray(shard.read_bytes())
            content[-1] ^= 1
            shard.write_bytes(content)
        capsys.readouterr()
        assert cache.cached_corpus(source, ReadOptions(), told=told) == made
        said = capsys.readouterr().err.splitlines()
        assert said[0].startswith(f"{source}: the corpus that was made of it is damaged and is made again: ")
        assert load_corpus(made).checksum == checksum
        cache.cached_corpus(source, ReadOptions(), told=told)
    assert capsys.readouterr().err.splitlines() == [f"{source}: converted before, using {made}"]


def test_the_place_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    (source,) = damaging.seed("stub", tmp_path / "seed").sources
    for place, root in (("~/kept", "kept"), ("", ".cache/alignmamba")):
        monkeypatch.setenv(cache.PLACE, place)
        with samples_display("converted") as told:
            made = cache.cached_corpus(source, ReadOptions(), told=told)
        assert made.parent == tmp_path / "home" / root / "corpora"
