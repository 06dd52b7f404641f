"""Saved models: what is written, and what is refused on loading."""

import json
from pathlib import Path

import pytest
import torch

from alignmamba.contracts import ModalitySpec, Task
from alignmamba.errors import CheckpointError
from alignmamba.models.alignmamba import AlignMamba, AlignMambaConfig
from alignmamba.models.pretrained import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    modalities = (ModalitySpec(name="zebra", dim=3, units="stripes"), ModalitySpec(name="ant", dim=2))
    config = AlignMambaConfig.preset("default", modalities=modalities, task=Task(kind="regression"), d_model=8, depth=1)
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
    assert "| zebra | features | 3 | stripes |" in card
    assert "Regression: one real number" in card
    assert "tags: [multimodal, mamba, optimal-transport, mmd]" in card
    assert "Multimodal fusion by token alignment and Mamba (Li et al., CVPR 2025, arXiv 2412.00833), made with AlignMamba." in card


@pytest.mark.parametrize("file", [CONFIG_FILE, WEIGHTS_FILE])
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "noise"])
def test_damaged_files_are_named(folder: Path, file: str, damage: str) -> None:
    path = folder / file
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "half": content[: len(content) // 2], "noise": bytes(range(256))}[damage])
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
def test_a_configuration_that_does_not_fit_is_refused(folder: Path, change: dict[str, object], message: str) -> None:
    path = folder / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        AlignMamba.from_pretrained(folder)


def test_neither_a_folder_nor_a_repository(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither a local folder nor a Hub repository"):
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
