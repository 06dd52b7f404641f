"""Words read by a text encoder of `transformers`, or made into the token ids that such an encoder reads."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch

from alignmamba.errors import ConfigError, brief
from alignmamba.extras import require, versions
from alignmamba.files import read_json
from alignmamba.media.model_folder import LICENCE, checksums, opened, opened_model
from alignmamba.media.tracks import Track, Words

_SHAPE = "config.json"
_TOKENIZER: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
)
_MODEL: Final = ("model.safetensors", _SHAPE, *_TOKENIZER)
_AFTER_PADDING: Final = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Types of models that count places from the padding id on."""
_MOST_TOKENS: Final = 1 << 20
"""Tokenizers without a limit name a number beyond this."""
_UNUSED: Final = r"pooler\.|position_ids$"
"""Names of weights that no hidden state depends on."""


class _Tokenizer:
    """Parts of the words of a clip, within what the model can read at once."""

    def __init__(self, what: str, folder: Path) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = opened(what, folder, AutoTokenizer.from_pretrained)
        if not self.tokenizer.is_fast:
            raise ConfigError(
                f"{what}:{folder}: expected a tokenizer with tokenizer.json, found an older one"
            )
        self.longest = min(_longest(folder), int(self.tokenizer.model_max_length))
        self.special = int(self.tokenizer.num_special_tokens_to_add())
        if self.longest <= self.special + 1:
            raise ConfigError(f"{what}:{folder}: expected a model of more than {self.longest} tokens")

    def __call__(self, words: Words, **options: Any) -> Any:
        """Ids of the words as one text, with the characters that each stands for."""
        text = " ".join(word.text for word in words.words)
        return self.tokenizer(
            text,
            truncation=self.longest < _MOST_TOKENS,
            max_length=self.longest,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            verbose=False,
            **options,
        )


def _longest(folder: Path) -> int:
    """Tokens of the longest sequence that the model of a folder reads, if it says so."""
    shape = read_json(folder / _SHAPE, error=ConfigError) if (folder / _SHAPE).is_file() else {}
    places = shape.get("max_position_embeddings") if isinstance(shape, dict) else None
    if not isinstance(places, int) or places < 1:
        return _MOST_TOKENS
    padding = shape.get("pad_token_id", 1) if shape.get("model_type") in _AFTER_PADDING else -1
    return places - (padding + 1 if isinstance(padding, int) else 0)


def words_of(words: Sequence[str], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Number of the word to which each part of the text belongs; the words are joined by spaces.

    Args:
        words: As they are in the text.
        offsets: First character of each part, and the one after its last; a leading space may be among them.
    """
    starts = [0, *accumulate(len(word) + 1 for word in words)][:-1]
    return [bisect_right(starts, max(end - 1, first)) - 1 for first, end in offsets]


class LanguageText:
    """A vector for each word: the mean of the last hidden states of its parts.

    Devlin et al., "BERT", arXiv 1810.04805, by way of `transformers`. A long text is read in windows that
    overlap by half; each part is taken from the window in which it is farthest from an edge.

    Args:
        folder: ``config.json``, ``model.safetensors`` and ``tokenizer.json``.

    Raises:
        ConfigError: If a package is missing, or the folder holds no such encoder.
    """

    name = "hf"
    kind: Literal["features"] = "features"
    licence = LICENCE

    def __init__(self, folder: Path) -> None:
        what = "text: hf"
        require(what, "text")
        from transformers import AutoModel

        self.weights = checksums(what, folder, _MODEL)
        self.version = versions("transformers")
        self._tokenizer = _Tokenizer(what, folder)
        self._model = opened_model(what, folder, AutoModel.from_pretrained, unused=_UNUSED)
        try:
            self.width = self._states([self._tokenizer.tokenizer.unk_token_id or 0]).shape[1]
        except Exception as error:  # of models that read something else
            raise ConfigError(f"{what}:{folder}: expected an encoder of text, found {brief(error)}") from None
        self.unit = f"last hidden state of {folder.name}, mean over a word"

    def read(self, words: Words) -> Track:
        """A vector for each word."""
        sums = np.zeros((len(words.words), self.width))
        counts = np.zeros((len(words.words), 1))
        for word, state in self._parts(words):
            sums[word] += state
            counts[word] += 1
        lacking = int((counts == 0).sum())
        notes = (f"{lacking} of {len(counts)} words have no token of the encoder",) if lacking else ()
        return Track(
            values=(sums / np.maximum(counts, 1)).astype(np.float32),
            times=np.array([word.start for word in words.words]),
            tokens=tuple(word.text for word in words.words),
            notes=notes,
        )

    def _parts(self, words: Words) -> Iterator[tuple[int, np.ndarray]]:
        """The word and the state of each part of the text, in order."""
        tokenizer = self._tokenizer
        step = max((tokenizer.longest - tokenizer.special) // 2, 1)
        overlap = tokenizer.longest - tokenizer.special - step
        cut = (
            {"return_overflowing_tokens": True, "stride": overlap} if tokenizer.longest < _MOST_TOKENS else {}
        )
        found = tokenizer(words, **cut)
        windows = range(len(found["input_ids"])) if cut else [None]
        texts, done = [word.text for word in words.words], 0
        for number in windows:
            ids, offsets, special = (
                found[key] if number is None else found[key][number]
                for key in ("input_ids", "offset_mapping", "special_tokens_mask")
            )
            inner = [place for place, is_special in enumerate(special) if not is_special]
            first = 0 if number is None else number * step
            is_last = number is None or number == windows[-1]
            until = len(inner) if is_last else len(inner) - overlap // 2
            states = self._states(ids)
            parts = inner[done - first : until]
            done = first + until
            yield from zip(words_of(texts, [offsets[place] for place in parts]), states[parts], strict=True)

    def _states(self, ids: list[int]) -> np.ndarray:
        """(time, width) last hidden states."""
        with torch.inference_mode():
            tokens = torch.tensor([ids])
            states = self._model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
        if states.ndim != 3 or states.shape[1] != len(ids) or not bool(states.isfinite().all()):
            raise ValueError(f"states of shape {tuple(states.shape)} for {len(ids)} tokens")
        return np.asarray(states[0].double().numpy())


class TokenIds:
    """Token ids of the words, special tokens included, for an encoder that is trained along.

    Args:
        folder: ``tokenizer.json``, and the ``config.json`` of the model if it limits the length.

    Raises:
        ConfigError: If a package is missing, or the folder holds no tokenizer.
    """

    name = "ids"
    kind: Literal["tokens"] = "tokens"
    licence = LICENCE

    def __init__(self, folder: Path) -> None:
        what = "text: ids"
        require(what, "text")
        self._tokenizer = _Tokenizer(what, folder)
        self.weights = checksums(what, folder, _TOKENIZER)
        self.version = versions("transformers")
        self.width = len(self._tokenizer.tokenizer)
        self.unit = f"token ids of {folder.name}"

    def read(self, words: Words) -> Track:
        """An id for each part of a word, with the time of the word."""
        found = self._tokenizer(words)
        places = words_of([word.text for word in words.words], found["offset_mapping"])
        newest, times = 0, []
        for place, special in zip(places, found["special_tokens_mask"], strict=True):
            newest = newest if special else max(newest, place)
            times.append(words.words[newest].start)
        lost = len(words.words) - 1 - newest
        note = f"the encoder reads {self._tokenizer.longest} tokens, the last {lost} words are cut off"
        return Track(
            values=np.array(found["input_ids"], np.int64),
            times=np.array(times),
            tokens=tuple(self._tokenizer.tokenizer.convert_ids_to_tokens(found["input_ids"])),
            notes=(note,) if lost else (),
        )
