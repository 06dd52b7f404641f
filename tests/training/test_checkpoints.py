import io
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from alignmamba.errors import CheckpointError
from alignmamba.training import checkpoints


@pytest.fixture
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


def test_what_is_saved_comes_back(fabric: Fabric, tmp_path: Path) -> None:
    module = fabric.setup(nn.Linear(3, 2))
    path = tmp_path / checkpoints.LAST
    checkpoints.save(fabric, path, {"model": module, "note": {"epoch": 4, "names": ["a"]}})
    other = fabric.setup(nn.Linear(3, 2))
    assert checkpoints.load(fabric, path, {"model": other}) == {"note": {"epoch": 4, "names": ["a"]}}
    assert torch.equal(other.weight, module.weight)
    assert [file.name for file in tmp_path.iterdir()] == [checkpoints.LAST]


def test_a_failed_save_leaves_the_old_file(fabric: Fabric, tmp_path: Path) -> None:
    module = fabric.setup(nn.Linear(3, 2))
    path = tmp_path / checkpoints.LAST
    checkpoints.save(fabric, path, {"model": module})
    before = path.read_bytes()
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        checkpoints.save(fabric, path, {"model": module, "bad": lambda: None})
    assert path.read_bytes() == before


def test_a_directory_of_shards_is_replaced_whole(tmp_path: Path) -> None:
    for content in ("old", "new"):
        partial = tmp_path / ".last.ckpt.partial"
        partial.mkdir()
        (partial / "shard").write_text(content)
        checkpoints._replace(partial, tmp_path / "last.ckpt")
    assert [path.name for path in tmp_path.rglob("*")] == ["last.ckpt", "shard"]
    assert (tmp_path / "last.ckpt" / "shard").read_text() == "new"


class Evil:
    """Unpickling it would run something."""

    def __reduce__(self) -> Any:
        return (print, ("pickle ran code",))


def _whole(path: Path) -> bytes:
    torch.save({"model": nn.Linear(3, 2).state_dict(), "format_version": checkpoints.FORMAT_VERSION}, path)
    return path.read_bytes()


@pytest.mark.parametrize(
    "kind", ["empty", "truncated", "half", "text", "pickle", "other model", "foreign dict", "list", "version"]
)
def test_a_damaged_or_foreign_file_is_one_line(
    kind: str, fabric: Fabric, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "last.ckpt"
    whole = _whole(path)
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(whole[:-40])
    elif kind == "half":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "text":
        path.write_text("not a checkpoint\n" * 10)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Evil()))
    elif kind == "other model":
        torch.save(
            {"model": nn.Linear(5, 2).state_dict(), "format_version": checkpoints.FORMAT_VERSION}, path
        )
    elif kind == "foreign dict":
        torch.save({"weights": torch.zeros(2)}, path)
    elif kind == "list":
        torch.save([1, 2], path)
    else:
        torch.save({"model": nn.Linear(3, 2).state_dict(), "format_version": 99}, path)
    with pytest.raises(CheckpointError) as error:
        checkpoints.load(fabric, path, {"model": fabric.setup(nn.Linear(3, 2))})
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert "pickle ran code" not in capsys.readouterr().out


def test_an_absent_file_is_named(fabric: Fabric, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"last\.ckpt: no such checkpoint"):
        checkpoints.load(fabric, tmp_path / "last.ckpt", {"model": fabric.setup(nn.Linear(3, 2))})


def test_every_kind_of_flipped_bit_is_refused(fabric: Fabric, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    module = fabric.setup(nn.Linear(3, 2))
    checkpoints.save(fabric, path, {"model": module})
    whole = path.read_bytes()
    for bit in [*range(0, 8 * len(whole), 997), *range(8 * len(whole) - 800, 8 * len(whole), 7)]:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"last\.ckpt: "):
            checkpoints.load(fabric, path, {"model": module})


@pytest.mark.parametrize("pieces", [1, 2, 3, 7, 1000])
def test_an_archive_is_sealed_in_pieces_of_any_size(tmp_path: Path, pieces: int) -> None:
    whole = io.BytesIO()
    torch.save({"weight": torch.arange(9.0)}, whole)
    content = whole.getvalue()
    with (tmp_path / "last.ckpt").open("wb") as file:
        sealing = checkpoints._Sealing(file)
        assert sum(sealing.write(content[at : at + pieces]) for at in range(0, len(content), pieces)) == len(
            content
        )
        sealing.finish()
    assert checkpoints._check_seal(tmp_path / "last.ckpt")
    assert (tmp_path / "last.ckpt").read_bytes()[: len(content) - 2] == content[:-2]
    assert torch.equal(torch.load(tmp_path / "last.ckpt", weights_only=True)["weight"], torch.arange(9.0))


def test_a_checkpoint_without_a_seal_is_compared_with_the_sums_of_its_archive(
    fabric: Fabric, tmp_path: Path
) -> None:
    path = tmp_path / "last.ckpt"
    module = fabric.setup(nn.Linear(3, 2))
    torch.save({"model": module.state_dict(), "format_version": 1}, path)
    assert checkpoints.load(fabric, path, {"model": module}) == {}
    whole = path.read_bytes()
    at = whole.index(module.weight.detach().numpy().tobytes())
    path.write_bytes(whole[: at + 1] + bytes([whole[at + 1] ^ 4]) + whole[at + 2 :])
    with pytest.raises(CheckpointError, match="damaged, 'last/data/0' in it"):
        checkpoints.load(fabric, path, {"model": module})


def test_nothing_goes_through_the_temporary_folder(
    fabric: Fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    io = fabric.strategy.checkpoint_io
    checkpoints.save(fabric, tmp_path / "last.ckpt", {"model": fabric.setup(nn.Linear(3, 2))})
    assert fabric.strategy.checkpoint_io is io
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def _shards(path: Path) -> None:
    """Checkpoints as a strategy that shards a model would write them."""
    path.mkdir()
    for name in ("__0_0.distcp", ".metadata"):
        (path / name).write_text(name)
    checkpoints._seal(path)


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "SHA256SUMS"])
def test_shards_are_sealed_too(fabric: Fabric, tmp_path: Path, name: str) -> None:
    path = tmp_path / "last.ckpt"
    _shards(path)
    assert checkpoints._check_seal(path)
    (path / name).write_bytes(bytes([(path / name).read_bytes()[0] ^ 1]) + (path / name).read_bytes()[1:])
    with pytest.raises(CheckpointError, match=f"{name}: .*damaged"):
        checkpoints.load(fabric, path, {})
    (path / name).unlink()
    if name != "SHA256SUMS":
        with pytest.raises(CheckpointError, match=f"{name}: missing"):
            checkpoints.load(fabric, path, {})


def test_what_another_way_of_writing_made_is_sealed(
    fabric: Fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_by_torch", lambda _: False)
    module = fabric.setup(nn.Linear(3, 2))
    (tmp_path / ".last.ckpt.partial").mkdir()  # a killed process left it
    for _ in range(2):
        checkpoints.save(fabric, tmp_path / "last.ckpt", {"model": module})
    assert checkpoints._check_seal(tmp_path / "last.ckpt")
    assert checkpoints.load(fabric, tmp_path / "last.ckpt", {"model": module}) == {}
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_pipe_is_not_waited_for(fabric: Fabric, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="found a pipe"):
        checkpoints.load(fabric, tmp_path / "last.ckpt", {})
