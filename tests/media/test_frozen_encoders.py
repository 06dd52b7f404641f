"""Encoders of sound and pictures from a folder: tiny ones with random weights, made here."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alignmamba.checksums import file_checksum
from alignmamba.errors import ConfigError
from alignmamba.media.clip import MediaClip
from alignmamba.media.decoding import Waveform, waveform
from alignmamba.media.extractors import AUDIO, VIDEO
from alignmamba.media.image_model import ImageModel, ImageModelOptions
from alignmamba.media.sound_windows import sound_windows
from alignmamba.media.speech_model import SpeechModel
from alignmamba.media.tracks import Absent, Track
from made_clips import tone, write_clip

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def speech_folder(folder: Path) -> Path:
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    torch.manual_seed(3)
    shape = {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    Wav2Vec2Model(Wav2Vec2Config(**SMALL, **shape, vocab_size=8)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


def image_folder(folder: Path, kind: str) -> Path:
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPVisionConfig,
        Dinov2Config,
        Dinov2Model,
    )

    torch.manual_seed(3)
    vision = CLIPVisionConfig(**SMALL, image_size=32, patch_size=8, projection_dim=12)
    model: Any
    if kind == "clip":
        text = {**SMALL, "vocab_size": 30}
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision.to_dict(), projection_dim=12))
    else:
        small = {name: value for name, value in SMALL.items() if name != "intermediate_size"}
        model = Dinov2Model(Dinov2Config(**small, image_size=28, patch_size=14))
    model.save_pretrained(folder)
    side = 32 if kind == "clip" else 28
    CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    ).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("block", [700, 1000, 10_000])
def test_the_middles_of_windows_are_the_whole(block: int) -> None:
    whole = np.arange(5000, dtype=np.float32)
    pieces = (Waveform(whole[i : i + block], 1000, 0.5 + i / 1000) for i in range(0, 5000, block))
    windows = list(sound_windows(pieces, 1000, 200))
    assert (
        np.concatenate([each.samples[each.first : each.last] for each in windows]).tolist() == whole.tolist()
    )
    assert max(len(each.samples) for each in windows) <= 1400
    for each in windows:
        assert each.samples[0] == pytest.approx((each.start - 0.5) * 1000, abs=1e-3)
        assert each.first in (0, 200)


def test_a_model_of_speech_gives_its_own_hidden_states(tmp_path: Path) -> None:
    from transformers import AutoFeatureExtractor, AutoModel

    folder = speech_folder(tmp_path / "model")
    tool = SpeechModel(folder=folder)
    assert (tool.width, tool.stride, tool.shortest, tool.rate) == (16, 320, 400, 16_000)
    assert tool.unit == "hidden state of wav2vec2, 50 Hz"
    assert tool.weights["model.safetensors"] == file_checksum(folder / "model.safetensors")
    assert set(tool.weights) == {"model.safetensors", "config.json", "preprocessor_config.json"}
    clip = MediaClip(path=write_clip(tmp_path / "a.mp4", 1.0, offsets=(0.0, 0.5)))
    found = tool.extract(clip)
    assert isinstance(found, Track)
    sound = waveform(clip)
    assert isinstance(sound, Waveform)
    given = AutoFeatureExtractor.from_pretrained(folder)(
        sound.samples, sampling_rate=16_000, return_tensors="pt"
    )
    expected = AutoModel.from_pretrained(folder).eval()(**given).last_hidden_state[0].detach().numpy()
    assert found.values == pytest.approx(expected, abs=1e-5)
    assert found.times == pytest.approx(sound.start + 0.02 * np.arange(len(expected)))


def test_long_sound_is_read_in_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.wav", 3.0, rate=16_000)
    tool = SpeechModel(folder=speech_folder(tmp_path / "model"))
    whole = tool.extract(MediaClip(path=path))
    monkeypatch.setattr("alignmamba.media.speech_model._MIDDLE_SECONDS", 0.7)
    monkeypatch.setattr("alignmamba.media.speech_model._AROUND_SECONDS", 0.2)
    parts = tool.extract(MediaClip(path=path))
    assert isinstance(whole, Track)
    assert isinstance(parts, Track)
    assert parts.times == pytest.approx(whole.times)
    assert parts.values.shape == whole.values.shape


def test_sound_that_is_too_short_or_missing_is_absent(tmp_path: Path) -> None:
    tool = SpeechModel(folder=speech_folder(tmp_path / "model"))
    short = write_clip(tmp_path / "a.wav", sound=tone(0.02, 16_000)[None], rate=16_000)
    assert tool.extract(MediaClip(path=short)) == Absent(
        "its sound is shorter than the 25 ms that the model hears at once"
    )
    silent = write_clip(tmp_path / "b.mp4", 0.3, audio=None)
    assert tool.extract(MediaClip(path=silent)) == Absent("no sound in the file")


@pytest.mark.parametrize(("kind", "width"), [("clip", 12), ("dinov2", 16)])
def test_an_image_encoder_reads_each_picture(tmp_path: Path, kind: str, width: int) -> None:
    tool = ImageModel(folder=image_folder(tmp_path / "model", kind), options=ImageModelOptions(fps=10.0))
    assert tool.width == width
    assert tool.unit == f"image embedding of {kind}, 10 Hz"
    found = tool.extract(MediaClip(path=write_clip(tmp_path / "a.mp4", 2.0, offsets=(0.3, 0.0))))
    assert isinstance(found, Track)
    assert found.values.shape == (20, width)
    assert found.times == pytest.approx(0.3 + np.arange(20) / 10)
    assert np.abs(np.diff(found.values, axis=0)).max() > 1e-4
    alone = tool.extract(MediaClip(path=tmp_path / "a.mp4", start=1.75, end=1.85))
    assert isinstance(alone, Track)
    assert alone.values[0] == pytest.approx(found.values[15], abs=1e-5)


def test_every_mistake_in_a_folder_is_one_line(tmp_path: Path) -> None:
    folder = speech_folder(tmp_path / "model")
    for place in (tmp_path / "none", folder / "config.json"):
        with pytest.raises(ConfigError, match=r"^hf:.*: expected a folder with config\.json, found no such"):
            AUDIO["hf"].make(place, AUDIO["hf"].options())
    with pytest.raises(ConfigError, match=r"model_type: found 'wav2vec2', expected one of clip"):
        VIDEO["hf"].make(folder, VIDEO["hf"].options())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))
    with pytest.raises(ConfigError, match=r"hf:.*expected .* weights|hf:.*transformers opens"):
        SpeechModel(folder=folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"expected weights as \*\.safetensors, found no such file"):
        SpeechModel(folder=folder)


def test_a_folder_runs_no_code_of_its_own(tmp_path: Path) -> None:
    folder = speech_folder(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoModel": "mine.Mine", "AutoConfig": "mine.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ConfigError, match="model_type: found 'mine'"):
        SpeechModel(folder=folder)
    assert not (tmp_path / "ran").exists()
