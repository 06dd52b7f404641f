"""Words as vectors and as token ids: hashed, and by a tiny encoder from a folder."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from alignmamba.errors import ConfigError
from alignmamba.media.extractor import TextExtractor
from alignmamba.media.hashed_text import HashedOptions, HashedText
from alignmamba.media.language_text import words_of
from alignmamba.media.readers import TEXT
from alignmamba.media.tracks import Word, Words
from tiny_bert import save_tiny_bert
from tiny_tokenizer import save_tiny_tokenizer

needs_text = pytest.mark.usefixtures("_transformers")


@pytest.fixture(scope="module")
def _transformers() -> None:
    pytest.importorskip("transformers", reason="text encoders need the extra text")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers", reason="text encoders need the extra text")
    return save_tiny_tokenizer(save_tiny_bert(tmp_path_factory.mktemp("models") / "tiny"))


def spoken(text: str) -> Words:
    found = tuple(Word(each, i * 0.5, i * 0.5 + 0.4) for i, each in enumerate(text.split()))
    return Words(words=found, timing="aligned")


def made(name: str, folder: Path) -> TextExtractor:
    return TEXT[name].make(folder, TEXT[name].options())


# Hashed


def test_hashed_words_are_the_same_on_every_machine() -> None:
    reader = HashedText(HashedOptions(width=16))
    track = reader.read(spoken("Hi, hi h"))
    assert track.tokens == ("Hi,", "hi", "h")
    assert np.array_equal(track.times, [0.0, 0.5, 1.0])
    assert track.values.shape == (3, reader.width)
    assert track.values.dtype == np.float32
    assert np.allclose(np.linalg.norm(track.values, axis=1), 1)
    assert np.array_equal(track.values[0], track.values[1])
    parts = ["=hi", "<hi", "hi>", "<hi>"]
    expected = np.array([0, 0, 0, 1, 0, 0, 0, 0, -1, 0, -1, 0, 0, 0, -1, 0])
    assert np.abs(expected).sum() == len(parts)
    assert np.allclose(track.values[0] * np.linalg.norm(expected), expected)


def test_hashed_words_that_are_spelled_alike_are_near() -> None:
    values = HashedText(HashedOptions()).read(spoken("wonderful wonderfully terrible 我 %")).values
    near, far = values[0] @ values[1], values[0] @ values[2]
    assert near > 0.5 > 0.3 > abs(far)
    assert np.isfinite(values).all()


def test_signs_of_hashes_keep_vectors_unbiased() -> None:
    """Without signs, unlike words would share a direction."""
    words = spoken(" ".join(f"{i * 7919 % 10_007:x}zq{i}" for i in range(200)))
    values = HashedText(HashedOptions(width=64)).read(words).values
    likeness = values @ values.T
    assert abs(likeness[np.triu_indices(200, 1)].mean()) < 0.1


def test_a_long_word_takes_no_long_time() -> None:
    assert np.isfinite(HashedText(HashedOptions()).read(spoken("a" * 1_000_000)).values).all()


# An encoder


@needs_text
def test_a_word_is_the_mean_of_its_parts(folder: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    track = made("hf", folder).read(spoken("abc, x fa"))
    tokens = AutoTokenizer.from_pretrained(folder)("abc, x fa", return_tensors="pt")
    states = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state[0].detach().numpy()
    assert [tokens.word_ids()[i] for i in range(7)] == [None, 0, 0, 1, 2, 3, None]
    expected = [states[1:4].mean(0), states[4], states[5]]
    assert np.allclose(track.values, expected, atol=1e-6)
    assert track.tokens == ("abc,", "x", "fa")
    assert np.array_equal(track.times, [0, 0.5, 1])


@needs_text
def test_a_long_text_is_read_in_windows(folder: Path) -> None:
    """The tiny encoder reads ten parts at once, so windows begin every five parts."""
    reader, text = made("hf", folder), "a b c d e f g ab bc cd de ef fg a c e g b d f a"
    whole = reader.read(spoken(text)).values
    words = text.split()
    assert whole.shape == (21, 16)
    windows = [reader.read(spoken(" ".join(words[first : first + 10]))).values for first in (0, 5, 10, 15)]
    assert np.allclose(whole[:8], windows[0][:8])
    assert np.allclose(whole[8:13], windows[1][3:8])
    assert np.allclose(whole[13:18], windows[2][3:8])
    assert np.allclose(whole[18:], windows[3][3:6])


@needs_text
def test_clips_do_not_change_one_another(folder: Path) -> None:
    reader = made("hf", folder)
    first = reader.read(spoken("ab c")).values
    reader.read(spoken("d e f g " * 9))
    threads = torch.get_num_threads()
    assert np.array_equal(reader.read(spoken("ab c")).values, first)
    assert np.array_equal(made("hf", folder).read(spoken("ab c")).values, first)
    assert torch.get_num_threads() == threads


@needs_text
def test_ids_have_the_times_of_their_words(folder: Path) -> None:
    reader = made("ids", folder)
    track = reader.read(spoken("abc x fa"))
    assert track.tokens == ("[CLS]", "ab", "##c", "[UNK]", "fa", "[SEP]")
    assert np.array_equal(track.times, [0, 0, 0, 0.5, 1, 1])
    assert track.values.dtype == np.int64
    assert max(track.values) < reader.width
    assert track.notes == ()


@needs_text
def test_ids_beyond_the_encoder_are_cut_off_and_reported(folder: Path) -> None:
    track = made("ids", folder).read(spoken("a " * 30))
    assert len(track.values) == 12
    assert track.tokens[-1] == "[SEP]"
    assert track.notes == ("the encoder reads 12 tokens, the last 20 words are cut off",)


@needs_text
def test_an_encoder_states_its_weights(folder: Path) -> None:
    encoder, ids = made("hf", folder), made("ids", folder)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(encoder.weights)
    assert "model.safetensors" not in ids.weights
    assert (encoder.width, encoder.kind, ids.width, ids.kind) == (16, "features", 64, "tokens")


@needs_text
@pytest.mark.parametrize("name", ["hf", "ids"])
def test_a_wrong_folder_is_refused_in_one_line(tmp_path: Path, folder: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for wrong in ("nothing", "file", "empty"):
        with pytest.raises(ConfigError, match=f"^text: {name}:.*{wrong}: expected .*found") as error:
            made(name, tmp_path / wrong)
        assert "\n" not in str(error.value)
    for broken in sorted(each.name for each in folder.iterdir()):
        copy = tmp_path / broken.replace(".", "_")
        copy.mkdir()
        for each in folder.iterdir():
            (copy / each.name).write_bytes(each.read_bytes()[: 40 if each.name == broken else None])
        try:
            made(name, copy)
        except ConfigError as error:
            assert str(copy) in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017


@needs_text
def test_an_encoder_without_all_its_weights_is_refused(tmp_path: Path, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    for each in folder.iterdir():
        (tmp_path / each.name).write_bytes(each.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    lost = next(key for key in weights if "layer.1" in key)
    kept = {key: value for key, value in weights.items() if key != lost}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=f"expected all weights, found no fitting '{lost}'"):
        made("hf", tmp_path)


def test_parts_belong_to_words() -> None:
    words = ["ab", "c", "def"]  # "ab c def"
    assert words_of(words, [(0, 1), (1, 2), (3, 4), (5, 8)]) == [0, 0, 1, 2]
    assert words_of(words, [(0, 2), (2, 4), (4, 6), (6, 8)]) == [0, 1, 2, 2]
    assert words_of(words, [(0, 0), (8, 8)]) == [0, 2]


@pytest.mark.parametrize("place", [os.environ.get("ALIGNMAMBA_MEDIA_WEIGHTS")])
def test_a_sentence_encoder_of_the_machine(place: str | None) -> None:
    if place is None or not (Path(place) / "minilm").is_dir():
        pytest.skip("$ALIGNMAMBA_MEDIA_WEIGHTS names no folder with minilm, a sentence encoder")
    reader = made("hf", Path(place) / "minilm")
    values = reader.read(spoken("good great awful")).values
    assert values.shape == (3, 384)
    mean = reader.read(spoken("the movie was wonderful " * 200)).values
    assert mean.shape == (800, 384)
