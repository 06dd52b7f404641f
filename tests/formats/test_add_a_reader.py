"""The recipe of CONTRIBUTING for a reader: one file and one line, and everything else follows."""

import importlib
import json
import re
from pathlib import Path

import pytest

from alignmamba.cli.main import main
from alignmamba.data.archive import load_corpus
from alignmamba.data.storage import MANIFEST
from alignmamba.formats import FORMATS
from alignmamba.formats.conversion_cache import PLACE
from alignmamba.recipes.assembly import located

PAGE = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of the format of the page, whose reader is known."""
    section = PAGE.read_text(encoding="utf-8").partition("## Add a reader")[2]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert code is not None
    (tmp_path / "clips_example.py").write_text(code[1], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(FORMATS, "clips", importlib.import_module("clips_example"))
    clips = [
        {"split": split, "id": f"{split}{row}", "label": row / 2, "frames": [[row, 1, 2]] * (row + 1)}
        for split in ("train", "dev", "test")
        for row in range(4)
    ]
    path = tmp_path / "corpus.json"
    path.write_text(json.dumps({"clips": clips}), encoding="utf-8")
    return path


def test_it_is_recognised_repaired_and_written(file: Path) -> None:
    content = json.loads(file.read_text())
    content["clips"][0]["frames"] = [[float("nan"), 1, 2]]
    file.write_text(json.dumps(content).replace("NaN", "1e60"))
    corpus = file.with_name("corpus")
    assert main(["convert", "auto", str(file), str(corpus), "--channels", "2"]) == 0
    found = load_corpus(corpus)
    assert [(spec.name, spec.dim) for spec in found.modalities] == [("audio", 2)]
    assert {role: len(split) for role, split in found.splits.items()} == {"train": 4, "valid": 4, "test": 4}
    assert "does not fit float32 in audio, set to 0: 1" in (corpus / MANIFEST).read_text(encoding="utf-8")


def test_its_option_is_a_flag(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("convert", "inspect"):
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        help = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert "arrays, clips" in help
        assert "--channels N Take the first N channels of a frame (clips). (default: 64)" in help
    assert main(["inspect", str(file), "--channels", "2"]) == 0
    capsys.readouterr()
    for given, said in (
        (["auto", "--channels", "0"], "channels: found 0 (int), expected"),
        (["auto", "--align"], "align (--align): the format clips does not read it, only csd"),
        (["mmsa", "--channels", "2"], "channels (--channels): the format mmsa does not read it, only clips"),
        (["auto", "--chanels", "2"], "convert has no such option, perhaps you meant --channels"),
    ):
        format, *options = given
        assert main(["convert", format, str(file), str(file.with_name("corpus")), *options]) == 2
        assert said in capsys.readouterr().err


def test_training_takes_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PLACE, str(file.with_name("cache")))
    made = located(str(file), "error")
    assert load_corpus(made).modalities[0].dim == 3
    assert located(str(file), "error") == made
