"""Readers of other packages: CONTRIBUTING's example as it stands, and packages that are broken or collide."""

import csv
import json
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignmamba import load_corpus
from alignmamba.cli.main import main
from alignmamba.errors import ConfigError, DataError
from alignmamba.media.clip import MediaClip
from alignmamba.media.offered import GROUPS
from alignmamba.media.recipe import Recipe, composed, repeated
from alignmamba.media.tracks import Track, track_fault
from made_clips import write_clip

pytest.importorskip("av", reason="media files need the extra media")

PAGE = (Path(__file__).resolve().parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## A new reader in 40 lines\n")[2].partition("\n## ")[0]
Install = Callable[..., None]
CHOSEN: dict[Any, str] = {"text": "none", "words": "none", "audio": "loudness", "video": "none"}


def example(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", SECTION, flags=re.DOTALL)
    return str(found)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a package as pip would: its module, and what its project file states."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def put(project: str = "", code: str = "", **changes: str) -> None:
        project, code = project or example("toml"), code or example("python")
        for before, after in changes.items():
            assert before in project
            project = project.replace(before, after)
        stated = tomllib.loads(project)["project"]
        module = stated["name"].replace("-", "_")
        (site / f"{module}.py").write_text(code, encoding="utf-8")
        facts = site / f"{module}-{stated['version']}.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Name: {stated['name']}\nVersion: {stated['version']}\n")
        lines = []
        for group, entries in stated["entry-points"].items():
            lines += [f"[{group}]", *(f"{name} = {place}" for name, place in entries.items())]
        (facts / "entry_points.txt").write_text("\n".join([*lines, ""]))
        monkeypatch.delitem(sys.modules, module, raising=False)

    return put


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    """Rows of other packages, by the name of the reader."""
    capsys.readouterr()
    assert main(["doctor", "--media", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["readers"]
    return {row["name"]: row for row in rows if row["package"]}


def test_the_example_has_forty_lines() -> None:
    assert 30 <= len([line for line in example("python").splitlines() if line]) <= 45


def test_the_example_reads_trains_and_predicts(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install()
    clips = tmp_path / "clips"
    clips.mkdir()
    rows = ["file,label,split"]
    for number, split in enumerate(["train"] * 4 + ["valid"] * 2 + ["test"]):
        write_clip(clips / f"c{number}.wav", 0.5)
        rows.append(f"c{number}.wav,{number},{split}")
    (clips / "labels.csv").write_text("\n".join([*rows, ""]))
    corpus, run, table = tmp_path / "corpus", tmp_path / "run", tmp_path / "p.csv"
    chosen = [
        "--text",
        "none",
        "--video",
        "none",
        "--audio",
        "loudness",
        "--set",
        "audio.window_seconds=0.05",
    ]
    assert main(["extract", str(clips), "--out", str(corpus), *chosen]) == 0
    assert "audio: loudness of the package loud-clips, 1; licence: MIT" in capsys.readouterr().err
    found = load_corpus(corpus)
    assert [(spec.name, spec.dim) for spec in found.modalities] == [("audio", 1)]
    assert found.split("train")[0].features["audio"].shape == (10, 1)
    assert found.recipe["audio"]["package"] == "loud-clips"
    small = ["fit.epochs=1", "options.d_model=16", "options.depth=1"]
    assert main(["train", "--data", str(corpus), "--out", str(run), "--set", *small]) == 0
    assert main(["predict", str(run), str(clips / "c6.wav"), "--out", str(table)]) == 0
    (row,) = csv.DictReader(table.read_text().splitlines())
    assert np.isfinite(float(row["prediction"]))
    assert listed(capsys)["loudness"]["package"] == "loud-clips 0.1"
    assert listed(capsys)["loudness"]["ready"] == "yes"
    with pytest.raises(SystemExit):
        main(["extract", "--help"])
    assert "egemaps, hf:FOLDER, loudness or none" in " ".join(
        capsys.readouterr().out.replace("│", " ").split()
    )


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nothing_of_the_kind", "cannot be imported: No module named 'nothing_of_the_kind'"),
        ("LOUDNESS = 3 / 0", "cannot be imported: division by zero"),
        ("other = 1", "cannot be imported: "),
        ("LOUDNESS = len", "loud_clips:LOUDNESS: found a builtin_function_or_method, expected an Offer"),
        (('summary="', 'extra="loud", summary="'), "extra: found 'loud', expected one of"),
        (('"loudness", "1"', '"noise", "1"'), "name: found 'noise', expected 'loudness'"),
        (('"features", 1,', '"features", 0,'), "width: found 0, expected at least 1"),
        (('"features", 1,', '"words", 1,'), "kind: found 'words' (str), expected 'features' or 'tokens'"),
        (("width, unit", "width, units"), "'Loudness' object has no attribute 'unit'"),
        (("def extract", "def extracts"), "Loudness: expected a method extract, found none"),
        (("self.size = ", "self.size = 1 / 0 * "), "cannot be made: division by zero"),
    ],
)
def test_a_broken_package_is_refused_by_its_name(
    install: Install, code: str | tuple[str, str], said: str
) -> None:
    install(code=code if isinstance(code, str) else example("python").replace(*code))
    with pytest.raises(ConfigError, match=re.escape(said)) as refusal:
        composed(CHOSEN, {})
    assert str(refusal.value).startswith("audio: loudness of the package loud-clips: ")
    composed({**CHOSEN, "audio": "logmel"}, {})  # which other readers do not feel


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("np.float32", "np.float64"), "values: found float64, expected an array of float32"),
        (("keepdims=True", "keepdims=False"), r"values: found the shape \(5,\), expected \(time, 1\)"),
        (("return Track", "values /= 0\n        return Track"), "values: found some that are not finite"),
        (("times=sound.start +", "times=sound.start -"), "times: found some that fall"),
        (("return Track(", "return values or Track("), "cannot read the clip .ValueError: The truth value"),
        (("return Track(", "return [values] or Track("), "found list, expected a Track or an Absent"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_wrong_result_names_the_clip_and_the_reader(
    install: Install, tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    code = example("python")
    assert change[0] in code
    install(code=code.replace(*change))
    path = write_clip(tmp_path / "a.wav", 0.5)
    with pytest.raises(DataError, match=rf"a\.wav: audio: loudness of the package loud-clips: {said}"):
        composed(CHOSEN, {}).read(MediaClip(path=path))


def test_names_that_are_taken_are_refused(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install(**{"loudness =": "logmel ="})
    assert listed(capsys)["logmel"]["ready"].startswith(
        "refused: found a name that alignmamba itself uses, expected another than 'logmel'"
    )
    assert composed({**CHOSEN, "audio": "logmel"}, {}).recipe.audio is not None
    code = example("python")
    for name in ("first-clips", "second-clips"):
        install(**{"loud-clips": name, "loud_clips": name.replace("-", "_")}, code=code)
    said = "found one name in several packages (first-clips, second-clips), expected one of them installed"
    with pytest.raises(ConfigError, match=re.escape(said)):
        composed(CHOSEN, {})
    assert listed(capsys)["loudness"]["ready"] == f"refused: {said}"


def test_a_recipe_knows_the_package(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="audio: found 'loudness', expected one of logmel"):
        composed(CHOSEN, {})
    install()
    recipe = composed(CHOSEN, {}).recipe
    assert repeated(recipe).recipe == recipe
    stored = recipe.model_dump(mode="json")
    stored["audio"]["package"] = "quiet-clips"
    with pytest.raises(
        ConfigError, match="found it in the package loud-clips, expected that of the package q"
    ):
        repeated(Recipe.read(stored, "run"))
    monkeypatch.setattr("alignmamba.media.offered.entry_points", lambda **_: ())
    with pytest.raises(
        ConfigError, match="found none, expected that of the package loud-clips, as in the rec"
    ):
        repeated(recipe)


def test_every_part_has_a_group() -> None:
    assert sorted(GROUPS) == ["audio", "text", "video", "words"]
    assert all(group in SECTION or f"`.{slot}`" in SECTION for slot, group in GROUPS.items())


def test_faults_of_token_ids_are_found() -> None:
    ids, times = np.array([0, 4]), np.array([0.0, 1.0])
    assert track_fault(Track(values=ids, times=times), kind="tokens", width=5) == ""
    assert "found ids from 0 to 4" in track_fault(Track(values=ids, times=times), kind="tokens", width=4)
    assert "tokens: found 1" in track_fault(
        Track(values=ids, times=times, tokens=("a",)), kind="tokens", width=5
    )
    assert "times: expected 2" in track_fault(Track(values=ids, times=times[:1]), kind="tokens", width=5)
