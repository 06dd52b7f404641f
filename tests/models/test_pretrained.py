"""Saved models: what is written, and what is refused on loading."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch.utils._python_dispatch import TorchDispatchMode

from alignmamba import capacity
from alignmamba.contracts import ModalitySpec, Task
from alignmamba.errors import CheckpointError
from alignmamba.methods import FAMILIES, from_pretrained
from alignmamba.models import LateFusion
from alignmamba.models.alignmamba import AlignMamba, AlignMambaConfig
from alignmamba.models.pretrained import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, Provenance, quoted


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    modalities = (ModalitySpec(name="zebra", dim=3, units="stripes"), ModalitySpec(name="ant", dim=2))
    config = AlignMambaConfig.preset(
        "default", modalities=modalities, task=Task(kind="regression"), d_model=8, depth=1
    )
    AlignMamba(config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_three_files_and_nothing_else(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted([CARD_FILE, CONFIG_FILE, WEIGHTS_FILE])


def test_the_order_of_modalities_survives(folder: Path) -> None:
    assert [m.name for m in AlignMamba.from_pretrained(folder).config.modalities] == ["zebra", "ant"]


def test_a_loaded_model_is_in_evaluation_mode(folder: Path) -> None:
    assert not AlignMamba.from_pretrained(str(folder)).training


def test_the_card_names_modalities_and_units(folder: Path) -> None:
    card = (folder / CARD_FILE).read_text()
    assert card.startswith("---\n")
    assert "| zebra | features | 3 | `stripes` |" in card
    assert "Regression: one real number" in card
    assert "tags: [multimodal, mamba, optimal-transport, mmd]" in card
    assert (
        "Multimodal fusion by token alignment and Mamba (Li et al., CVPR 2025, arXiv 2412.00833), made with"
        " AlignMamba." in card
    )


@pytest.mark.parametrize("file", [CONFIG_FILE, WEIGHTS_FILE])
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "noise"])
def test_damaged_files_are_named(folder: Path, file: str, damage: str) -> None:
    path = folder / file
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(
            {"empty": b"", "half": content[: len(content) // 2], "noise": bytes(range(256))}[damage]
        )
    with pytest.raises(CheckpointError, match=file) as caught:
        AlignMamba.from_pretrained(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "Other"}, "expected model_type 'AlignMamba', found 'Other'"),
        ({"d_model": 9}, "has shape"),
        ({"d_model": "many"}, "d_model"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    folder: Path, change: dict[str, object], message: str
) -> None:
    path = folder / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        AlignMamba.from_pretrained(folder)


def test_neither_a_folder_nor_a_repository(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a local folder or a readable Hub repository"):
        AlignMamba.from_pretrained(tmp_path / "nothing", local_files_only=True)


def test_saving_twice_replaces_the_weights(folder: Path) -> None:
    model = AlignMamba.from_pretrained(folder)
    with torch.no_grad():
        model.head.bias.fill_(5.0)
    model.save_pretrained(folder)
    assert AlignMamba.from_pretrained(folder).head.bias.item() == 5.0


def test_a_file_in_the_folders_place_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="file: expected a folder"):
        AlignMamba.from_pretrained(folder).save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


# What strangers' folders may hold


def edited(folder: Path, **changes: object) -> None:
    """Change fields of the configuration as a person would, who cannot give it a checksum."""
    path = folder / CONFIG_FILE
    values = {
        name: value for name, value in json.loads(path.read_text()).items() if not name.endswith("sha256")
    }
    path.write_text(json.dumps(values | changes))


def rewritten(folder: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    """Write the weights anew, each one changed, and forget their checksum."""
    weights = load((folder / WEIGHTS_FILE).read_bytes())
    (folder / WEIGHTS_FILE).write_bytes(
        save({name: change(name, tensor) for name, tensor in weights.items()})
    )
    edited(folder)


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        AlignMamba.from_pretrained(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_every_flipped_bit_of_a_bare_folder_is_refused(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    for bit in range(3, 8 * len(whole), 8 * len(whole) // 23):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        (folder / name).write_bytes(damaged)
        refused(folder)


def test_a_folder_of_an_earlier_version_or_edited_without_its_checksum_is_read(folder: Path) -> None:
    edited(folder, dropout=0.25)
    assert AlignMamba.from_pretrained(folder).config.dropout == 0.25


@pytest.mark.parametrize(
    "sizes", [{"d_model": 8192, "depth": 64, "expand": 8}, {"d_model": 8192, "depth": 256, "d_state": 256}]
)
def test_no_memory_is_taken_for_sizes_that_the_weights_do_not_have(
    folder: Path, sizes: dict[str, int]
) -> None:
    edited(folder, **sizes)
    tracked: list[int] = []

    class Allocations(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = func(*args, **(kwargs or {}))
            if isinstance(found, torch.Tensor) and found.device.type != "meta":
                tracked.append(found.numel())
            return found

    with Allocations():
        assert "has shape" in refused(folder)
    assert max(tracked, default=0) < 1000


def test_weights_that_memory_does_not_hold_are_refused_before_they_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (folder / WEIGHTS_FILE).stat().st_size
    monkeypatch.setattr(capacity, "available_bytes", lambda _: 3 * size)
    from_pretrained(folder)
    monkeypatch.setattr(capacity, "available_bytes", lambda _: 3 * size - 1)
    assert re.search(
        (
            rf"model\.safetensors: opening {size:,} bytes of weights needs .* are available; make the"
            " model smaller"
        ),
        refused(folder),
    )


def test_modalities_without_weights_are_refused_before_they_are_made(folder: Path) -> None:
    edited(folder, modalities=[{"name": f"m{number}", "dim": 3} for number in range(3000)], anchor_order=[])
    assert "too few for 3000 modalities" in refused(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_weights_of_an_odd_type_are_refused(folder: Path, dtype: torch.dtype) -> None:
    rewritten(folder, lambda _, tensor: tensor.to(dtype))
    assert "of type" in refused(folder)


def test_one_weight_of_another_type_is_refused(folder: Path) -> None:
    rewritten(folder, lambda name, tensor: tensor.half() if name == "head.weight" else tensor)
    assert "weights have one type, found" in refused(folder)
    rewritten(
        folder,
        lambda name, tensor: (
            tensor.long()
            if name == "head.weight"
            else tensor.float()
            if tensor.dtype == torch.half
            else tensor
        ),
    )
    refused(folder)


def test_a_model_in_half_precision_comes_back_so(folder: Path) -> None:
    AlignMamba.from_pretrained(folder).half().save_pretrained(folder)
    assert AlignMamba.from_pretrained(folder).head.weight.dtype == torch.half


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 5000,
        '{"d_model": ' + "9" * 5000 + "}",
        "[]",
        "null",
        '{"model_type": [[]]}',
        '{"model_type": {}}',
    ],
)
def test_a_strange_configuration_is_one_line(folder: Path, text: str) -> None:
    (folder / CONFIG_FILE).write_text(text)
    assert CONFIG_FILE in refused(folder)


@pytest.mark.parametrize(
    "header",
    [
        {"a": []},
        {"a": {"dtype": "F32", "shape": [1 << 60], "data_offsets": [0, 1 << 62]}},
        {"a": {"dtype": "F32", "shape": [-1]}},
        {"a": {"dtype": "F32", "shape": "x"}},
        {"a": {"dtype": ["F32"], "shape": []}},
        {},
        [],
    ],
)
def test_a_strange_header_of_weights_is_one_line(folder: Path, header: object) -> None:
    content = json.dumps(header).encode()
    (folder / WEIGHTS_FILE).write_bytes(len(content).to_bytes(8, "little") + content)
    assert WEIGHTS_FILE in refused(folder)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
@pytest.mark.parametrize("kind", ["pipe", "device", "sparse", "folder"])
def test_what_is_no_file_of_its_size_is_refused_at_once(folder: Path, name: str, kind: str) -> None:
    path = folder / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(1 << 40)
    assert name in refused(folder)


# The card


HOSTILE = (
    "plain",
    "a, b",
    "`tick`",
    "| pipe",
    "new\nline",
    "esc\x1b[2J",
    "``",
    " ",
    "<b>bold</b>",
    "--- ",
    "## heading",
)


def code_of(card: str) -> str:
    (code,) = re.findall(r"^```python\n(.*?)^```$", card, flags=re.DOTALL | re.MULTILINE)
    return str(code)


def test_the_code_of_the_card_predicts(tmp_path: Path) -> None:
    text = ModalitySpec(name="text", dim=9, kind="tokens")
    for number, made in enumerate(
        (
            AlignMamba.for_classification({"audio": 4, "text": text}, classes=HOSTILE, d_model=8, depth=1),
            LateFusion.for_regression({"audio": 4, "text": text}, d_model=8, depth=1),
        )
    ):
        made.save_pretrained(tmp_path / str(number))
        said: dict[str, Any] = {}
        exec(
            code_of((tmp_path / str(number) / CARD_FILE).read_text()).replace(
                "path/to/this/folder", str(tmp_path / str(number))
            ),
            said,
        )
        assert said["prediction"].isfinite().all()
        assert ("probabilities" in said) == (number == 0)


def test_the_card_says_what_the_model_was_trained_on(folder: Path, tmp_path: Path) -> None:
    model = AlignMamba.from_pretrained(folder)
    assert model.provenance is None
    assert "## Training" not in (folder / CARD_FILE).read_text()
    scores = {"valid": {"mae": 0.5, "corr": None}, "test": {"mae": 0.25, "corr": 0.75}}
    model.provenance = Provenance(
        data="reviews | `x`\n# no", scores=scores, settings={"fit": {"epochs": 3}, "note": "```"}
    )
    model.save_pretrained(tmp_path / "again")
    card = (tmp_path / "again" / CARD_FILE).read_text()
    assert "Trained on ``reviews \\| `x`\\n# no``." in card
    assert "| `mae` | 0.5000 | 0.2500 |\n| `corr` | not defined | 0.7500 |" in card
    assert "\n````yaml\nfit:\n  epochs: 3\nnote: '```'\n````\n" in card
    assert AlignMamba.from_pretrained(tmp_path / "again").provenance == model.provenance


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_of_a_stranger_ends_its_quotation(name: str) -> None:
    said = quoted(name)
    assert "\n" not in said
    assert "\x1b" not in said
    fence = said[: len(said) - len(said.lstrip("`"))]
    inside = said[len(fence) : -len(fence)]
    assert said.endswith(fence)
    assert fence not in re.findall("`+", inside)
    assert not re.search(r"(?<!\\)\|", inside)


def test_a_damaged_provenance_is_named(folder: Path) -> None:
    path = folder / CONFIG_FILE
    whole = {name: value for name, value in json.loads(path.read_text()).items() if name != "sha256"}
    for wrong in ("words", {"data": 3}, {"data": "x", "scores": {"test": {"mae": "low"}}}):
        path.write_text(json.dumps(whole | {"provenance": wrong}))
        with pytest.raises(CheckpointError, match=r"config\.json: provenance: ") as caught:
            AlignMamba.from_pretrained(folder)
        assert "\n" not in str(caught.value)


# Whatever family it is, and the Hub


@pytest.mark.parametrize("name", FAMILIES)
def test_the_family_is_found(name: str, tmp_path: Path) -> None:
    made = FAMILIES[name].network.for_regression({"audio": 2, "video": 3}, d_model=16, depth=1)
    made.save_pretrained(tmp_path / "run" / "model")
    for place in (tmp_path / "run" / "model", str(tmp_path / "run")):
        assert type(from_pretrained(place)) is FAMILIES[name].network


def test_a_family_that_is_not_here_is_named(folder: Path) -> None:
    (folder / CONFIG_FILE).write_text('{"model_type": "Bert"}')
    with pytest.raises(
        CheckpointError,
        match=r"config\.json: model_type: found 'Bert', expected one of AlignMamba, .*LateFusion",
    ):
        from_pretrained(folder)
    (folder / CONFIG_FILE).write_text("[]")
    with pytest.raises(CheckpointError, match=r"model_type: found None"):
        from_pretrained(folder)


class Hub:
    """Stands for `huggingface_hub.HfApi`: keeps what is uploaded."""

    def __init__(self, token: str | None = None) -> None:
        self.token = token
        calls.clear()
        calls.append(("token", token))

    def create_repo(self, repository: str, **options: object) -> None:
        if repository == "no/way":
            raise PermissionError("403 Forbidden\nfor url")
        calls.append((repository, options))

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> SimpleNamespace:
        calls.append((repo_id, commit_message))
        calls.append(("files", sorted(path.name for path in Path(folder_path).iterdir())))
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")


calls: list[object] = []


def test_a_model_is_pushed_to_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    model = AlignMamba.from_pretrained(folder)
    assert (
        model.push_to_hub("me/mine", private=True, token="t", message="First")
        == "https://hub/me/mine/commit/1"
    )
    assert calls == [
        ("token", "t"),
        ("me/mine", {"private": True, "exist_ok": True}),
        ("me/mine", "First"),
        ("files", sorted([CARD_FILE, CONFIG_FILE, WEIGHTS_FILE])),
    ]
    with pytest.raises(CheckpointError, match=r"^no/way: cannot be uploaded to the Hub \(403 Forbidden\)$"):
        model.push_to_hub("no/way")
