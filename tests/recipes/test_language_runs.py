"""Runs whose text is read by a language model from a folder."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alignmamba.contracts import Corpus, Task, configurations
from alignmamba.data.archive import write_corpus
from alignmamba.errors import AlignMambaError, ConfigError, TrainingError
from alignmamba.methods import METHODS
from alignmamba.models.encoded import Fusion
from alignmamba.recipes.configuration import RunConfig, check_config, read_config, resolve
from alignmamba.recipes.training_run import RunInterrupted, plan, train
from alignmamba.training import checkpoints
from tiny_bert import save_tiny_bert

pytest.importorskip("transformers")


def corpus(path: Path, length: int = 6) -> Corpus:
    random = np.random.default_rng(0)

    def split(size: int) -> dict[str, Any]:
        return {
            "features": {
                "text": [random.integers(1, 50, length) for _ in range(size)],
                "audio": [random.normal(size=(4, 3)).astype(np.float32) for _ in range(size)],
            },
            "targets": random.normal(size=size).tolist(),
        }

    splits: Any = {"train": split(16), "valid": split(6), "test": split(6)}
    return write_corpus(path, splits, task=Task(kind="regression"), vocabulary_sizes={"text": 60})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny_bert(tmp_path / "bert")


def settings(tmp_path: Path, folder: Path, **encoder: Any) -> RunConfig:
    if not (tmp_path / "data").exists():
        corpus(tmp_path / "data")
    text = {"kind": "pretrained", "path": str(folder), **encoder}
    options = {"d_model": 16, "depth": 1, "encoders": {"text": text}}
    return check_config(
        {
            "data": str(tmp_path / "data"),
            "options": options,
            "fit": {"epochs": 2},
            "loader": {"batch_size": 8},
        }
    )


class Stop:
    """Ctrl-C within the second epoch."""

    def started(self, **_: Any) -> None: ...
    def epoch_finished(self, *_: Any, **__: Any) -> None: ...
    def stepped(self, *, step: int, **_: Any) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_run_trains_resumes_and_opens(tmp_path: Path, folder: Path, frozen: bool) -> None:
    config = settings(tmp_path, folder, frozen=frozen)
    whole = train(config, out=tmp_path / "whole", progress=None)
    stored = torch.load(tmp_path / "whole" / checkpoints.LAST, weights_only=True)["model"]
    assert sum("language.model" in name for name in stored) == (0 if frozen else 37)
    assert ("model.encoders.text.language.weights_sha256" in stored) == frozen
    with pytest.raises(RunInterrupted):
        train(config, out=tmp_path / "cut", progress=None, callbacks=[Stop()])
    again = train(resume=tmp_path / "cut", progress=None)
    for role in ("valid", "test"):
        assert again.metrics[role] == whole.metrics[role]


def test_a_folder_of_other_weights_is_refused_before_training(tmp_path: Path, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match=r"^options\.encoders\.text\.path: .*that transformers opens"):
        plan(settings(tmp_path, folder), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_rate_of_an_encoder_that_is_too_high_is_blamed(tmp_path: Path, folder: Path) -> None:
    config = settings(tmp_path, folder, frozen=False, learning_rate=1e30)
    with pytest.raises(TrainingError, match=r"rate of encoders\.text is probably too high, found 1e\+30"):
        train(config, out=tmp_path / "run", progress=None)


def test_settings_are_checked_in_words(tmp_path: Path, folder: Path) -> None:
    made = read_config(
        assignments=["options.encoder.kind=pretrained", f"options.encoder.path={folder}", "model=misa"]
    )
    assert made.options["encoder"] == {"kind": "pretrained", "path": str(folder)}
    for given, message in (
        ({"path": 3}, "options.encoders.text.path: found 3 "),
        ({"frozn": True}, "options.encoders.text.frozn: unknown key"),
    ):
        with pytest.raises(ConfigError, match=message):
            settings(tmp_path, folder, **given)
    with pytest.raises(ConfigError, match=r"options\.encoder\.kind: found 'bert'"):
        read_config(assignments=["options.encoder.kind=bert"])


@pytest.mark.parametrize(
    "model", [name for name, method in METHODS.items() if issubclass(method.network, Fusion)]
)
def test_every_method_takes_it(folder: Path, model: str) -> None:
    encoders = {"text": {"kind": "pretrained", "path": str(folder)}}
    assert check_config({"model": model, "options": {"encoders": encoders}}).options["encoders"] == encoders
    field = METHODS[model].network.config_class.model_fields["encoder"]
    assert {each.__name__ for each in configurations(field)} == {"EncoderConfig", "LanguageConfig"}


def test_the_digest_is_of_the_weights_not_of_their_place(tmp_path: Path, folder: Path) -> None:
    there, here = (
        settings(tmp_path, place) for place in (folder, Path(shutil.copytree(folder, tmp_path / "copy")))
    )
    data = corpus(tmp_path / "same")
    assert resolve(there, data).digest(data) == resolve(here, data).digest(data)
    (tmp_path / "copy/model.safetensors").write_bytes(
        (tmp_path / "copy/model.safetensors").read_bytes() + b"\0"
    )
    assert resolve(there, data).digest(data) != resolve(here, data).digest(data)


def test_what_does_not_fit_is_refused_before_training(tmp_path: Path, folder: Path) -> None:
    corpus(tmp_path / "data", length=13)
    with pytest.raises(AlignMambaError, match="found a sequence of 13 tokens, its encoder reads at most 12"):
        plan(settings(tmp_path, folder), out=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"options\.encoders\.text\.path: .*: found no such folder"):
        plan(settings(tmp_path, folder / "no"), out=tmp_path / "run")
