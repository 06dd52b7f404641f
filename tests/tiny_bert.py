"""A language model that tests make themselves: a BERT of two layers, 64 token ids and 12 places."""

from pathlib import Path
from typing import Any


def save_tiny_bert(folder: Path, **shape: Any) -> Path:
    """Write it with the same weights each time, and give its folder."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(3)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": 64,
    }
    BertModel(BertConfig(**{**sizes, **shape}, max_position_embeddings=12)).save_pretrained(folder)
    return folder
