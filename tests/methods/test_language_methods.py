"""MAG-BERT and CM-BERT inside a language model from a folder: they step in between its embeddings and its
layers.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alignmamba import Batch
from alignmamba.contracts import ModalitySpec
from alignmamba.methods import METHODS
from alignmamba.models.network import Network
from alignmamba.models.sentence import SentenceFusion
from alignmamba.nn.language import Language, LanguageConfig
from tiny_bert import save_tiny_bert

pytest.importorskip("transformers")

IDS = ModalitySpec(name="text", dim=50, kind="tokens")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("bert"))


def made(name: str, folder: Path, **settings: Any) -> Network[Any]:
    torch.manual_seed(0)
    encoders = {"text": {"kind": "pretrained", "path": str(folder), **settings}}
    network: Any = METHODS[name].network
    built: Network[Any] = network.for_regression(
        {"text": IDS, "audio": 3}, d_model=8, depth=1, encoders=encoders
    )
    return built


def batch(*, audio: float = 1.0) -> Batch:
    random = np.random.default_rng(0)
    text = [random.integers(0, 50, length) for length in (6, 2)] + [None]
    sound = [audio * random.normal(size=(4, 3)).astype(np.float32) for _ in text]
    return Batch.of({"text": text, "audio": sound}, targets=[0.5, -1.0, 2.0])


def test_layers_read_what_was_put_in_the_place_of_embeddings(folder: Path) -> None:
    from transformers import BertModel

    language = Language(LanguageConfig(path=str(folder)).pinned("encoder"), "encoder").eval()
    bert = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    ids, mask = torch.tensor([[5, 9, 2, 7]]), torch.ones(1, 4, dtype=torch.bool)
    shifted = language.embedded(ids, mask) + 0.3
    expected = bert.encoder(shifted).last_hidden_state
    torch.testing.assert_close(language.hidden_states(shifted, mask), expected)
    torch.testing.assert_close(language(ids, mask), bert(input_ids=ids).last_hidden_state)


@pytest.mark.parametrize("name", ["mag-bert", "cm-bert"])
def test_it_stands_inside_the_language_model(name: str, folder: Path, tmp_path: Path) -> None:
    model = made(name, folder).eval()
    assert isinstance(model, SentenceFusion)
    assert not any("reader" in key or "embeddings" in key for key in model.state_dict())
    said = model(batch())
    assert said.embedding.shape == (3, 16)  # the width of the language model
    assert not torch.equal(said.prediction, model(batch(audio=2.0)).prediction)
    model.save_pretrained(tmp_path / "saved")
    assert torch.equal(type(model).from_pretrained(tmp_path / "saved")(batch()).prediction, said.prediction)


@pytest.mark.parametrize("name", ["mag-bert", "cm-bert"])
@pytest.mark.parametrize("frozen", [True, False])
def test_what_steps_in_learns_through_frozen_layers_too(name: str, folder: Path, *, frozen: bool) -> None:
    model = made(name, folder, frozen=frozen)
    model(batch()).prediction.square().sum().backward()
    learned = {
        key
        for key, weight in model.named_parameters()
        if weight.grad is not None and weight.grad.abs().sum() > 0
    }
    assert any(("gate.steps" if name == "mag-bert" else "multimodal.others") in key for key in learned)
    assert any("language.model" in key for key in learned) is not frozen


@pytest.mark.parametrize("name", ["mag-bert", "cm-bert"])
def test_padding_and_neighbours_change_nothing(name: str, folder: Path) -> None:
    model = made(name, folder).eval()
    whole = batch()
    for row in range(3):
        torch.testing.assert_close(model(whole.select([row])).prediction, model(whole).prediction[[row]])
