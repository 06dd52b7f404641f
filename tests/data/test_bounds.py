"""Corpora of strangers: what they declare is compared with their files before memory or time is taken."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignmamba.checksums import file_checksum
from alignmamba.cli.main import main
from alignmamba.data.archive import load_corpus, write_corpus
from alignmamba.data.storage import MOST_MODALITIES, Manifest
from alignmamba.errors import DataError


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    split = {
        "features": {"audio": [np.ones((2, 3), np.float32)] * 4, "text": [np.array([1, 2])] * 4},
        "targets": [0.0, 1.0, 2.0, 3.0],
    }
    write_corpus(
        tmp_path / "corpus", {"train": split, "valid": split, "test": split}, task={"kind": "regression"}
    )
    return tmp_path / "corpus"


def sealed(corpus: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest and make its checksum right again."""
    path = corpus / "corpus.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    try:
        manifest["checksum"] = Manifest.model_validate(manifest).content_checksum()
    except ValueError:
        return
    path.write_text(json.dumps(manifest))


def resealed(corpus: Path, name: str) -> None:
    """Make size and sum of a file right again."""
    file = corpus / name

    def change(manifest: dict[str, Any]) -> None:
        for split in manifest["splits"]:
            for shard in split["shards"]:
                for entry in (shard["values"], shard["strings"]):
                    if entry["path"] == name:
                        entry.update(bytes=file.stat().st_size, sha256=file_checksum(file))

    sealed(corpus, change)


def refusal(corpus: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Lines that `inspect` and `train` print alike: one line, exit code 2."""
    with pytest.raises(DataError) as raised:
        load_corpus(corpus)
    assert main(["inspect", str(corpus)]) == 2
    capsys.readouterr()
    assert main(["train", "--data", str(corpus), "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert said == f"error: {raised.value}\n"
    return said


def _first(manifest: dict[str, Any]) -> dict[str, Any]:
    shard: dict[str, Any] = manifest["splits"][0]["shards"][0]
    return shard


def _with_absent(manifest: dict[str, Any], **spec: Any) -> None:
    manifest["modalities"].append({"name": "absent", "dim": 3, "kind": "features", "units": "", **spec})


DECLARED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a vocabulary beyond 32 bits": (
        lambda manifest: manifest["modalities"][1].update(dim=2**40),
        "modalities.1.dim: ",
    ),
    "a vocabulary of 1e30": (
        lambda manifest: manifest["modalities"][1].update(dim=1e30),
        "modalities.1.dim: ",
    ),
    "a modality of any width": (
        lambda manifest: _with_absent(manifest, dim=2**31),
        "'absent': no sample of any split has it",
    ),
    "billions of samples": (
        lambda manifest: _first(manifest).update(samples=2 * 10**9),
        "expected at most 200000000 together",
    ),
    "samples beyond 64 bits": (
        lambda manifest: _first(manifest).update(samples=2**62),
        "expected at most 200000000 together",
    ),
    "more samples than bytes": (
        lambda manifest: _first(manifest).update(samples=10**7),
        "expected 10000000 lines, found",
    ),
    "more, and a modality that is nowhere": (
        lambda manifest: (_with_absent(manifest), _first(manifest).update(samples=10**7)),
        "expected 10000000 lines, found",
    ),
    "thousands of modalities": (
        lambda manifest: [_with_absent(manifest, name=f"m{number}") for number in range(20_000)],
        f"modalities: Tuple should have at most {MOST_MODALITIES} items",
    ),
    "hundreds of thousands of classes": (
        lambda manifest: manifest.update(
            task={"kind": "classification", "classes": [str(number) for number in range(300_000)]}
        ),
        "task.classes: Tuple should have at most 100000 items",
    ),
    "a digit too many": (
        lambda manifest: manifest["references"].update(best=int("9" * 3000)),
        "an integer of 3000 digits",
    ),
    "half a character": (lambda manifest: manifest.update(licence="\ud800"), "a lone surrogate"),
}


@pytest.mark.parametrize("case", DECLARED)
def test_what_is_declared_is_compared_with_the_files(
    corpus: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change, expected = DECLARED[case]
    sealed(corpus, change)
    assert expected in refusal(corpus, capsys)


@pytest.mark.parametrize(("preset", "weights"), [("0.1", "8,796,505,038,849"), ("default", "17,59")])
def test_a_vocabulary_that_memory_does_not_hold_is_refused(
    corpus: Path, preset: str, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sealed(corpus, lambda manifest: manifest["modalities"][1].update(dim=2**31))
    assert main(["inspect", str(corpus)]) == 0
    capsys.readouterr()
    assert (
        main(
            ["train", "--data", str(corpus), "--dry-run", "--preset", preset, "--set", "options.d_model=4096"]
        )
        == 2
    )
    said = capsys.readouterr().err
    assert f"model alignmamba: training {weights}" in said
    assert (
        "GB are available; the largest part is modality 'text', of vocabulary 2147483648; drop"
        " it from modalities, or lower" in said
    )


def _header(corpus: Path, change: Callable[[str], str]) -> None:
    path = corpus / "train-00000.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = change(content[8 : 8 + size].decode()).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])
    resealed(corpus, path.name)


HEADERS: dict[str, tuple[Callable[[str], str], str]] = {
    "a key twice": (
        lambda text: text.replace('{"', '{"targets":{"dtype":"F64","shape":[4],"data_offsets":[0,32]},"', 1),
        "appears twice",
    ),
    "many names": (
        lambda text: text.rstrip()[:-1] + "".join(f',"{number:060}":{{}}' for number in range(80_000)) + "}",
        "expected at most 4194304",
    ),
    "deep": (
        lambda text: text.rstrip()[:-1] + ',"x":' + "[" * 9000 + "]" * 9000 + "}",
        "more than 64 nested",
    ),
    "a huge shape": (
        lambda text: text.replace("[8,3]", "[8000000000000,3]"),
        "not a readable safetensors file",
    ),
    "no object": (lambda _: "[1]", "expected a header of arrays by name"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_the_header_of_a_shard_is_bounded(
    corpus: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change, expected = HEADERS[case]
    _header(corpus, change)
    said = refusal(corpus, capsys)
    assert "train-00000.safetensors: " in said
    assert expected in said


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
@pytest.mark.parametrize("name", ["corpus.json", "train-00000.safetensors", "train-00000.jsonl"])
@pytest.mark.parametrize("thing", ["pipe", "device", "folder", "circle", "sparse"])
def test_something_else_in_the_place_of_a_file(
    corpus: Path, name: str, thing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = corpus / name
    path.unlink()
    if thing == "sparse":
        with path.open("wb") as file:
            file.truncate(1 << 40)
        if name != "corpus.json":
            sealed(
                corpus,
                lambda manifest: [
                    entry.update(bytes=1 << 40)
                    for entry in _first(manifest).values()
                    if isinstance(entry, dict)
                ],
            )
    else:
        make: dict[str, Callable[[], object]] = {
            "pipe": lambda: os.mkfifo(path),
            "device": lambda: path.symlink_to("/dev/zero"),
            "folder": path.mkdir,
            "circle": lambda: path.symlink_to(path),
        }
        make[thing]()
    refusal(corpus, capsys)


def test_a_line_without_end_is_not_held_in_memory(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = corpus / "train-00000.jsonl"
    with path.open("wb") as file:
        file.truncate(17 << 20)
    resealed(corpus, path.name)
    assert "line 1: expected at most 16777216 bytes, found more" in refusal(corpus, capsys)


TEXTS: dict[str, dict[str, Any]] = {
    "name": {"name": "a\ud800"},
    "licence": {"licence": "a\ud800"},
    "source": {"source": "a\ud800"},
    "units of audio": {"units": {"audio": "a\ud800"}},
    "reference 0": {"references": {"a\ud800": 1.0}},
}


@pytest.mark.parametrize("field", TEXTS)
def test_half_a_character_is_not_written(tmp_path: Path, field: str) -> None:
    split = {"features": {"audio": [np.ones((2, 3), np.float32)] * 2}, "targets": [0.0, 1.0]}
    with pytest.raises(DataError, match=rf"{field}: .*(Unicode|unicode)") as raised:
        write_corpus(tmp_path / "corpus", {"train": split}, task={"kind": "regression"}, **TEXTS[field])
    str(raised.value).encode()
    assert list(tmp_path.iterdir()) == []


SAMPLES: dict[str, tuple[dict[str, Any], str]] = {
    "id": ({"ids": ["a", "b\ud800"]}, "ids: expected text"),
    "name of a label": ({"labels": {"a\ud800": [1, 2]}}, "name of a label: expected text"),
    "label": ({"labels": {"a": ["x", "\ud800"]}}, "label 'a': expected text"),
    "digits of a label": (
        {"labels": {"a": [1, 10**5000]}},
        "expected a number of at most 256 bits, found a number of more than 256 bits",
    ),
    "digits of a target": ({"targets": [0.0, 10**5000]}, "expected a number that float64 holds"),
}


@pytest.mark.parametrize("case", SAMPLES)
def test_what_a_file_could_not_hold_is_not_written(tmp_path: Path, case: str) -> None:
    split = {"features": {"audio": [np.ones((2, 3), np.float32)] * 2}, "targets": [0.0, 1.0]}
    change, expected = SAMPLES[case]
    with pytest.raises(DataError, match=expected) as raised:
        write_corpus(tmp_path / "corpus", {"train": {**split, **change}}, task={"kind": "regression"})
    str(raised.value).encode()


def test_a_class_that_is_a_huge_number_is_named(tmp_path: Path) -> None:
    split = {"features": {"audio": [np.ones((2, 3), np.float32)] * 2}, "targets": [0, 10**5000]}
    with pytest.raises(DataError, match="target a number of more than 256 bits, expected a class index"):
        write_corpus(
            tmp_path / "corpus", {"train": split}, task={"kind": "classification", "classes": ["a", "b"]}
        )


def test_a_corpus_of_as_many_classes_as_may_be_is_inspected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = [f"c{number}" for number in range(100_000)]
    split = {"features": {"audio": [np.ones((2, 3), np.float32)] * 3}, "targets": [7, 7, 99_999]}
    write_corpus(tmp_path / "corpus", {"train": split}, task={"kind": "classification", "classes": classes})
    assert main(["inspect", str(tmp_path / "corpus")]) == 0
    out = capsys.readouterr().out
    assert "99960 further classes have as many samples or fewer" in out
    rows = [line.split() for line in out.splitlines()]
    assert ["c7", "2"] in rows
    assert ["c99999", "1"] in rows
