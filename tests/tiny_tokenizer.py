"""A tokenizer that tests make themselves: letters and pairs of letters between [CLS] and [SEP]."""

from itertools import product
from pathlib import Path

LETTERS = "abcdefg"


def save_tiny_tokenizer(folder: Path, *, longest: int | None = None) -> Path:
    """Write ``tokenizer.json`` for the 64 ids of the tiny BERT, and give its folder."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{each}" for each in LETTERS)]
    pieces += [first + second for first, second in product(LETTERS, LETTERS)]
    tokenizer = Tokenizer(WordPiece({piece: i for i, piece in enumerate(pieces[:64])}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    limit = {} if longest is None else {"model_max_length": longest}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, **limit).save_pretrained(folder)
    return folder
