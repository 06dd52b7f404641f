"""Texts of samples as token ids, by a tokenizer from a local folder."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from alignmamba.data.user_arrays import SplitArrays
from alignmamba.errors import DataError, brief
from alignmamba.extras import require
from alignmamba.formats.foreign import Foreign
from alignmamba.formats.plain_files import LazyRows

TEXT: Final = "text"
"""The modality that token ids become; of a file that has one, its features are replaced."""


def tokenised(foreign: Foreign, folder: Path) -> Foreign:
    """The same with token ids in place of features of the text, made from what was said in each sample.

    A sample without a text lacks the modality. The special tokens of the tokenizer are kept: its first one
    gathers the sentence. Nothing is fetched from a network.

    Raises:
        ConfigError: If `transformers` is not installed.
        DataError: If the folder holds no tokenizer, or a split no texts.
    """
    require("tokenizer", "text")
    tokenizer = _opened(folder)
    silent = [
        role
        for role, split in foreign.splits.items()
        if split.texts is None or not any(map(_said, split.texts))
    ]
    if silent:
        raise DataError(
            f"tokenizer: found no texts in split {silent[0]!r}, expected what was said in its samples"
        )
    others = foreign.without({TEXT})
    return replace(
        others,
        splits={role: _with_ids(split, tokenizer) for role, split in others.splits.items()},
        vocabulary_sizes={**foreign.vocabulary_sizes, TEXT: len(tokenizer)},
        notes=(*foreign.notes, f"text: token ids of what was said, by the tokenizer in {folder.name}"),
    )


def _with_ids(split: SplitArrays, tokenizer: Any) -> SplitArrays:
    texts = split.texts
    assert texts is not None

    @lru_cache(maxsize=1)  # the ids of a sample and their words are asked for one after the other
    def read(row: int) -> list[int]:
        said = _said(texts[row])
        return list(tokenizer(said, verbose=False)["input_ids"]) if said else []

    def ids(row: int) -> np.ndarray | None:
        return np.array(read(row), dtype=np.int64) if read(row) else None

    def words(row: int) -> list[str] | None:
        return list(tokenizer.convert_ids_to_tokens(read(row))) if read(row) else None

    size = len(texts)
    return replace(
        split,
        features={TEXT: LazyRows(size, ids), **split.features},
        tokens={**split.tokens, TEXT: LazyRows(size, words)},
    )


def _said(text: Any) -> str:
    """The text of a sample; empty where it is unknown."""
    return text.strip() if isinstance(text, str) else ""


def _opened(folder: Path) -> Any:
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise DataError(
            f"tokenizer: {folder}: found no such folder, expected one with the files of a tokenizer"
        )
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of files and versions, which share no narrower root
        raise DataError(
            f"tokenizer: {folder}: expected a tokenizer that transformers opens, found {brief(error)}"
        ) from None
