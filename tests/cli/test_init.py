"""A first description of a table or of arrays, which `inspect` then takes as it is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from conftest import Said

Cli = Callable[..., Said]


IDS = [f"{number:03d}" for number in range(6)]
SPLITS = ["train"] * 3 + ["dev", "test", "test"]


def csv(path: Path, columns: dict[str, list[Any]], *, separator: str = ",", header: bool = True) -> Path:
    rows = [separator.join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join([*([separator.join(columns)] if header else []), *rows]) + "\n")
    return path


def clips(folder: Path, suffix: str) -> None:
    (folder / "face").mkdir()
    for number, identity in enumerate(IDS):
        if suffix == ".npy":
            np.save(folder / "face" / f"{identity}.npy", np.ones((2 + number, 3)))
        else:
            columns = {"name": ["'unknown'"] * 3, "frameTime": [0.0, 0.1, 0.2], "f0": [1, 2, number]}
            csv(folder / "face" / f"{identity}{suffix}", columns, separator=";")


def table(folder: Path, kind: str) -> Path:
    columns: dict[str, list[Any]] = {
        "id": IDS,
        "split": SPLITS,
        "label": ["no", "yes"] * 3,
        "f1": [0.5] * 6,
        "f2": [*range(6)],
    }
    if kind == "parquet":
        parquet.write_table(pa.table(columns), folder / "clips.parquet")
        return folder / "clips.parquet"
    if kind == "npy per clip":
        clips(folder, ".npy")
    if kind == "csv per clip":
        clips(folder, ".csv")
    if kind == "two columns":
        (folder / "audio" / "v").mkdir(parents=True)
        for identity in IDS:
            np.save(folder / "audio" / "v" / f"{identity}.npy", np.ones((2, 3)))
        columns = {
            "video_id": ["v"] * 6,
            "clip_id": IDS,
            "mode": SPLITS,
            "label": [-0.5, 0.5, 1, 2, 0.25, 3],
            "text": ["well said"] * 6,
        }
    if kind == "no names":
        return csv(folder / "points.csv", {"a": [0, 1, 2] * 2, "x": [0.5] * 6, "y": [1.5] * 6}, header=False)
    if kind == "white space":
        return csv(
            folder / "points.txt",
            {"a": [0, 1, 2] * 2, "x": [0.5] * 6, "y": [1.5] * 6},
            header=False,
            separator="  ",
        )
    if kind == "names and white space":
        return csv(folder / "points.txt", {"label": [1, 2, 3] * 2, "x": [0.5] * 6}, separator=" ")
    if kind == "no split":
        del columns["split"]
    if kind == "other splits":
        columns["split"] = ["one", "one", "two", "two", "two", "two"]
    if kind == "one word":
        columns["label"] = ["yes"] * 6
    if kind == "no label":
        del columns["label"]
    return csv(folder / "clips.csv", columns)


def arrays(folder: Path, kind: str) -> Path:
    ragged = np.empty(6, dtype=object)
    ragged[:] = [np.ones((2 + number, 4)) for number in range(6)]
    content: dict[str, Any] = {
        "id": np.array(IDS),
        "y": np.arange(6) % 2,
        "split": np.array(SPLITS),
        "audio": np.ones((6, 5, 3)),
    }
    content |= {
        "text": np.array(["said"] * 6),
        "speaker": np.arange(6),
        "video": np.ones((21, 2)),
        "video_lengths": np.arange(1, 7),
    }
    if kind == "objects":
        content |= {"audio": ragged}
    if kind == "no ids":
        del content["id"]
    if kind == "npy":
        np.save(folder / "all.npy", content["audio"])
        return folder / "all.npy"
    if kind == "h5":
        with h5py.File(folder / "all.h5", "w") as file:
            for name, array in content.items():
                file[f"data/{name}"] = array.tolist() if array.dtype.kind == "U" else array
        return folder / "all.h5"
    np.savez(folder / "all.npz", **content)
    return folder / "all.npz"


TABLES = (
    "plain", "parquet", "npy per clip", "csv per clip", "two columns", "no names", "white space",
    "names and white space", "no split", "other splits", "no label", "one word",
)  # fmt: skip
ARRAYS = ("npz", "objects", "no ids", "npy", "h5")


@pytest.mark.parametrize("kind", [*TABLES, *ARRAYS])
def test_what_init_writes_is_inspected(cli: Cli, tmp_path: Path, kind: str) -> None:
    path = (table if kind in TABLES else arrays)(tmp_path, kind)
    said = cli("init", path)
    assert said.code == 0, said.err
    written = tmp_path / "corpus.toml"
    inspected = cli("inspect", written, "--json")
    assert inspected.code == 0, inspected.err + written.read_text()
    found = json.loads(inspected.out)
    assert sum(split["samples"] for split in found["splits"]) == 6, written.read_text()
    roles = [split["role"] for split in found["splits"]]
    alone = ("no names", "white space", "names and white space", "no split", "other splits", "npy")
    assert roles == (["train"] if kind in alone else ["train", "valid", "test"])
    again = cli("init", path)
    assert again.code == 2
    assert "corpus.toml: exists already" in again.err
    if kind == "two columns":
        assert 'id = ["video_id", "clip_id"]' in written.read_text()
        assert 'files = "audio/{video_id}/{clip_id}.npy"' in written.read_text()
        assert 'text = "text"' in written.read_text()
        assert 'group = "video_id"' in written.read_text()
    if kind == "one word":
        assert found["task"]["classes"] == ["yes", "not yes"]
    if kind == "csv per clip":
        assert found["splits"][0]["modalities"][0]["timed"]
        assert 'exclude = ["name"]' in written.read_text()
    if kind in ("npz", "h5"):
        assert {modality["name"] for modality in found["splits"][0]["modalities"]} == {"audio", "video"}
        assert found["splits"][0]["groups"] == 3


def test_where_init_may_write(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = table(tmp_path / "data", "plain")
    assert cli("init", path, "--out", tmp_path / "above.toml").code == 0
    assert 'table = "data/clips.csv"' in (tmp_path / "above.toml").read_text()
    assert cli("inspect", tmp_path / "above.toml").code == 0
    (tmp_path / "other").mkdir()
    for arguments, said in (
        ((path, "--out", tmp_path / "other" / "c.toml"), "expected a place in the folder of"),
        ((path, "--out", tmp_path / "c.txt"), "expected a name that ends in .toml"),
        ((tmp_path / "absent.csv",), "absent.csv: expected a file, found nothing"),
        ((tmp_path / "clip.mp4",), "clip.mp4: expected a table (.csv, .tsv, .txt, .parquet) or arrays"),
    ):
        refused = cli("init", *arguments)
        assert (refused.code, len(refused.err.splitlines())) == (2, 1)
        assert said in refused.err
    (tmp_path / "words.csv").write_text("id,said\na,well\n")
    assert "found no columns of numbers" in cli("init", tmp_path / "words.csv").err
    np.savez(tmp_path / "unequal.npz", audio=np.ones((10, 5, 3)), label=np.arange(9) % 2)
    assert "with 9 entries, one for each sample, found 10 of 'audio'\n" in (
        cli("init", tmp_path / "unequal.npz").err
    )
    (tmp_path / "empty.csv").write_text("")
    assert cli("init", tmp_path / "empty.csv").code == 2
    assert not (tmp_path / "corpus.toml").exists()


@pytest.mark.parametrize("verb", [("inspect",), ("train", "--out", "run", "--data")])
def test_a_plain_table_leads_to_init(
    cli: Cli, tmp_path: Path, verb: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = table(tmp_path, "plain")
    refused = cli(*verb, path)
    assert refused.code == 2
    assert f"docs/arrays.md): `alignmamba init {path}` writes one" in refused.err
