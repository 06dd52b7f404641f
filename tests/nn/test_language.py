"""Language models from a folder as encoders of token ids."""

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alignmamba import Batch
from alignmamba.contracts import ModalitySpec
from alignmamba.errors import AlignMambaError, CheckpointError, ConfigError, DataError
from alignmamba.methods import METHODS
from alignmamba.models.alignmamba import AlignMamba
from alignmamba.training.objective import Supervised
from alignmamba.training.stages import optimiser
from tiny_bert import save_tiny_bert

pytest.importorskip("transformers")
TEXT = ModalitySpec(name="text", dim=50, kind="tokens")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 layers; its dropout is high, so that it is seen where it acts."""
    return save_tiny_bert(tmp_path_factory.mktemp("bert"), hidden_dropout_prob=0.5)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "bert"))


def network(folder: Path, **settings: Any) -> AlignMamba:
    torch.manual_seed(0)
    encoders = {"text": {"kind": "pretrained", "path": str(folder), **settings}}
    return AlignMamba.for_regression({"text": TEXT, "audio": 3}, d_model=16, depth=1, encoders=encoders)


def batch(length: int = 5) -> Batch:
    random = np.random.default_rng(0)
    text = [random.integers(0, 50, length), random.integers(0, 50, 2), None]
    return Batch.of(
        {"text": text, "audio": [random.normal(size=(4, 3)).astype(np.float32) for _ in text]},
        targets=[0.5, -1.0, 2.0],
    )


def same(one: AlignMamba, other: AlignMamba) -> bool:
    with torch.no_grad():
        return torch.equal(one.eval()(batch()).prediction, other.eval()(batch()).prediction)


def test_states_are_those_of_the_folder(folder: Path) -> None:
    from transformers import BertModel

    reference = BertModel.from_pretrained(folder, local_files_only=True).eval()
    ids = torch.randint(0, 50, (2, 7))
    mask = torch.arange(7) < torch.tensor([[7], [3]])
    language = network(folder).encoders["text"].language
    with torch.no_grad():
        expected = reference(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        torch.testing.assert_close(language(ids, mask)[mask], expected[mask])


def test_frozen_weights_do_not_learn_and_are_not_saved(folder: Path, tmp_path: Path) -> None:
    model = network(folder).train()
    language = model.encoders["text"].language
    assert not language.model.training
    model(batch()).prediction.sum().backward()
    assert all(weight.grad is None for weight in language.parameters())
    assert [name for name in model.state_dict() if "language" in name] == [
        "encoders.text.language.weights_sha256"
    ]
    model.save_pretrained(tmp_path / "saved")
    loaded = AlignMamba.from_pretrained(tmp_path / "saved")
    assert same(model, loaded)
    assert (
        json.loads((tmp_path / "saved/config.json").read_text())["encoders"]["text"]["sha256"]
        == loaded.config.encoders["text"].sha256
    )


def test_fine_tuned_weights_learn_at_their_own_rate_and_are_saved(folder: Path, tmp_path: Path) -> None:
    model = network(folder, frozen=False, learning_rate=5e-5).train()
    inner = {id(weight) for weight in model.encoders["text"].language.parameters()}
    objective = Supervised(model, model.config.task)
    groups = optimiser(
        objective, objective.stages[0].optimisers[0], learning_rate=1e-3, weight_decay=0.01
    ).param_groups
    rates = {(id(weight) in inner): group["factor"] * 1e-3 for group in groups for weight in group["params"]}
    assert rates == {True: pytest.approx(5e-5), False: 1e-3}
    model(batch()).prediction.sum().backward()
    assert any(weight.grad is not None for weight in model.encoders["text"].language.parameters())
    with torch.no_grad():
        model.encoders["text"].language.model.embeddings.word_embeddings.weight.mul_(1.5)
    model.save_pretrained(tmp_path / "saved")
    shutil.rmtree(folder)
    assert same(model, AlignMamba.from_pretrained(tmp_path / "saved"))


def test_a_copy_learns_at_the_same_rates(folder: Path) -> None:
    model = network(folder, frozen=False, learning_rate=5e-5)
    marks = [vars(weight) for weight in model.parameters()]
    assert {} in marks
    assert any("_learning_rate" in each for each in marks)
    assert any("_no_weight_decay" in each for each in marks)
    twin = copy.deepcopy(model)
    assert [vars(weight) for weight in twin.parameters()] == marks
    assert same(model, twin)


def test_dropout_is_that_of_the_folder(folder: Path) -> None:
    for frozen in (True, False):
        language = network(folder, frozen=frozen).train().encoders["text"].language
        ids, mask = torch.ones(1, 5, dtype=torch.int64), torch.ones(1, 5, dtype=torch.bool)
        assert torch.equal(language(ids, mask), language(ids, mask)) == frozen


def test_padding_does_not_change_predictions(folder: Path) -> None:
    model = network(folder).eval()
    longer = Batch(
        **{
            **{name: getattr(batch(), name) for name in ("targets", "ids")},
            "modalities": {name: sequences.padded(9) for name, sequences in batch().modalities.items()},
        }
    )
    torch.testing.assert_close(model(batch()).prediction, model(longer).prediction, rtol=1e-4, atol=1e-5)


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _other_type(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "gpt2"}')


def _less(folder: Path) -> None:
    shape = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**shape, "num_hidden_layers": 3}))


def _cut(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:1000])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "found no such folder, expected a folder with config.json"),
        (_no_weights, "found a folder without it, expected a folder with model.safetensors"),
        (_other_type, "model_type: found 'gpt2', expected one of bert,"),
        (_less, "expected all weights of its config.json, found no fitting 'encoder.layer.2"),
        (_cut, "expected a model that transformers opens, found "),
    ],
)
def test_a_folder_that_is_no_model_is_refused(folder: Path, spoil: Any, message: str) -> None:
    spoil(folder)
    with pytest.raises(ConfigError, match=message) as caught:
        network(folder)
    assert "encoders.text.path: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_saved_model_keeps_its_shape_whatever_the_folder_says_by_now(
    folder: Path, tmp_path: Path, *, frozen: bool
) -> None:
    model = network(folder, frozen=frozen)
    model.save_pretrained(tmp_path / "saved")
    shape = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**shape, "num_attention_heads": 4, "hidden_act": "relu"}))
    assert same(model, AlignMamba.from_pretrained(tmp_path / "saved"))


def test_a_layer_that_the_shape_lacks_is_not_dropped(folder: Path) -> None:
    shape = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**shape, "num_hidden_layers": 1}))
    with pytest.raises(
        ConfigError, match=r"expected the layers of its config\.json and no others, found 'encoder\.layer\.1"
    ):
        network(folder)


def test_settings_that_the_folder_fills_in_are_checked(folder: Path) -> None:
    with pytest.raises(ConfigError, match="sha256"):
        network(folder, sha256="abc")
    shape = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**shape, "model_type": "roberta", "pad_token_id": None}))
    with pytest.raises(ConfigError, match="pad_token_id: found None, expected a number"):
        network(folder)


@pytest.mark.parametrize("name", ["mag-bert", "misa"])
def test_the_longest_sequence_is_known_before_training(folder: Path, name: str) -> None:
    encoders = {"text": {"kind": "pretrained", "path": str(folder)}}
    assert METHODS[name].network.for_regression({"text": TEXT, "audio": 3}, encoders=encoders).longest == {
        "text": 12
    }


def test_what_does_not_fit_the_model_is_refused(folder: Path) -> None:
    with pytest.raises(
        DataError, match="modality 'text': found a sequence of 13 tokens, its encoder reads at most 12"
    ):
        network(folder)(batch(13))
    with pytest.raises(ConfigError, match="found a vocabulary of 64, expected 70 as the corpus has"):
        AlignMamba.for_regression(
            {"text": TEXT.model_copy(update={"dim": 70})}, encoder={"kind": "pretrained", "path": str(folder)}
        )
    with pytest.raises(
        ConfigError, match="'pretrained' reads token ids, found a modality of kind 'features'"
    ):
        AlignMamba.for_regression({"text": 4}, encoder={"kind": "pretrained", "path": str(folder)})


def test_a_machine_without_the_package_is_told_how_to_get_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alignmamba.extras.find_spec", lambda _: None)
    needed = (
        r"encoders\.text\.kind: pretrained: transformers is not installed, try: pip install"
        r" 'alignmamba\[text\]'$"
    )
    with pytest.raises(ConfigError, match=needed):
        network(folder)


def test_a_method_that_hides_tokens_before_they_are_read_refuses_it(folder: Path) -> None:
    aobert = METHODS["aobert"].network
    with pytest.raises(ConfigError, match=r"found pretrained .*which encode tokens one by one"):
        aobert.for_regression(
            {"text": TEXT, "audio": 3}, encoders={"text": {"kind": "pretrained", "path": str(folder)}}
        )


def test_other_frozen_weights_than_at_training_are_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = network(folder)
    model.save_pretrained(tmp_path / "saved")
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.LayerNorm.bias"] = weights["embeddings.LayerNorm.bias"] + 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="found weights of checksum"):
        network(folder).load_state_dict(model.state_dict())
    with pytest.raises(AlignMambaError, match=r"found weights with the checksum .*, expected"):
        AlignMamba.from_pretrained(tmp_path / "saved")
    (folder / "model.safetensors").unlink()
    with pytest.raises(AlignMambaError, match="found nothing, expected weights with the checksum"):
        AlignMamba.from_pretrained(tmp_path / "saved")


def test_a_folder_that_was_moved_is_found_by_its_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network(folder)
    model.save_pretrained(tmp_path / "saved")
    other = save_tiny_bert(tmp_path / "models" / "another", intermediate_size=16)
    folder.rename(tmp_path / "models" / "moved")
    monkeypatch.setenv("ALIGNMAMBA_MODELS", os.pathsep.join([str(tmp_path / "none"), str(other)]))
    with pytest.raises(AlignMambaError, match="ALIGNMAMBA_MODELS may name folders to look in"):
        AlignMamba.from_pretrained(tmp_path / "saved")
    for place in ("models", "models/moved"):
        monkeypatch.setenv("ALIGNMAMBA_MODELS", str(tmp_path / place))
        assert same(model, AlignMamba.from_pretrained(tmp_path / "saved"))


def test_weights_that_are_lacking_stay_so_until_all_are_loaded(folder: Path) -> None:
    model = network(folder, frozen=False)
    saved = model.state_dict()
    settings = model.config.encoders["text"].model_dump()
    shutil.rmtree(folder)
    again = network(folder, **{key: settings[key] for key in ("frozen", "sha256", "architecture")})
    again.load_state_dict({}, strict=False)
    with pytest.raises(CheckpointError, match="found nothing"):
        again.eval()(batch())
    again.load_state_dict(saved)
    assert same(model, again)
