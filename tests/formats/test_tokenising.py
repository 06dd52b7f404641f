"""Texts of a foreign file as token ids, by a tokenizer that the test makes."""

from pathlib import Path

import layouts_pickled
import numpy as np
import pytest
from layouts_pickled import write

from alignmamba.errors import DataError
from alignmamba.formats.conversion import convert
from alignmamba.formats.pickles import mmsa_pickle as mmsa

pytest.importorskip("transformers")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer of the words of the file's train split; all others are unknown to it."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    content, _ = layouts_pickled.mmsa()
    words = sorted({word for text in content["train"]["raw_text"] for word in text.split()})
    vocabulary = {word: place for place, word in enumerate(["[UNK]", "[CLS]", "[SEP]", *words])}
    made = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = WhitespaceSplit()
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]").save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def test_what_was_said_becomes_ids_and_words(folder: Path, tmp_path: Path) -> None:
    content, _ = layouts_pickled.mmsa()
    content["train"]["raw_text"][1] = None
    done = convert(
        "mmsa", [write(tmp_path / "mosi.pkl", content)], tmp_path / "corpus", mmsa.Options(tokenizer=folder)
    )
    text = next(spec for spec in done.corpus.modalities if spec.name == "text")
    assert text.kind == "tokens"
    said = content["train"]["raw_text"][0].split()
    first = done.corpus.split("train")[0]
    ids = first.features["text"][:, 0]
    assert first.tokens["text"] == ("[CLS]", *said, "[SEP]")
    assert (ids[0], ids[-1]) == (1, 2)
    assert len(set(ids[1:-1].tolist())) == len(set(said))
    assert 0 < int(ids.max()) < text.dim
    assert not len(done.corpus.split("train")[1].features.get("text", ()))
    assert {"audio", "vision"} < {spec.name for spec in done.corpus.modalities}
    np.testing.assert_array_equal(
        done.corpus.split("test")[0].features["audio"],
        convert("mmsa", [tmp_path / "mosi.pkl"], tmp_path / "other")
        .corpus.split("test")[0]
        .features["audio"],
    )
    assert any(
        note == "text: token ids of what was said, by the tokenizer in tokenizer" for note in done.notes
    )


def test_what_cannot_be_tokenised_is_refused(folder: Path, tmp_path: Path) -> None:
    content, _ = layouts_pickled.mmsa()
    file = write(tmp_path / "mosi.pkl", content)
    (tmp_path / "empty").mkdir()
    for place, said in (
        ("nowhere", "found no such folder"),
        ("empty", "expected a tokenizer that transformers opens, found "),
    ):
        with pytest.raises(
            DataError, match=f"tokenizer: {tmp_path / place}: .*{said}|tokenizer: {tmp_path / place}: {said}"
        ) as caught:
            convert("mmsa", [file], tmp_path / "corpus", mmsa.Options(tokenizer=tmp_path / place))
        assert "\n" not in str(caught.value)
    with pytest.raises(
        DataError, match=r"tokenizer \(--tokenizer\): found beside text ids \(--text ids\), expected one"
    ):
        convert("mmsa", [file], tmp_path / "corpus", mmsa.Options(tokenizer=folder, text="ids"))
    for split in content.values():
        del split["raw_text"]
    write(file, content)
    with pytest.raises(
        DataError, match="tokenizer: found no texts in split 'train', expected what was said in its samples"
    ):
        convert("mmsa", [file], tmp_path / "corpus", mmsa.Options(tokenizer=folder))
    assert not (tmp_path / "corpus").exists()
