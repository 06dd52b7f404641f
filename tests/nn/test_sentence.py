"""Encoder of sentences: padding says nothing, places count, and streams are brought to tokens by time."""

import torch

from alignmamba.nn.attention import AttentionConfig
from alignmamba.nn.sentence_encoder import SentenceEncoder, beside
from tolerances import MODEL


def encoder() -> SentenceEncoder:
    torch.manual_seed(0)
    return SentenceEncoder(5, AttentionConfig(d_model=8, depth=2, heads=2)).eval()


def test_padding_changes_nothing_and_order_does() -> None:
    made = encoder()
    x = torch.randn(2, 4, 5)
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    said = made.hidden_states(*made.embedded(x, mask))
    assert said.shape == (2, 5, 8)
    short = made.hidden_states(*made.embedded(x[1:, :2], mask[1:, :2]))
    torch.testing.assert_close(said[1:, :3], short, **MODEL)
    turned = made.hidden_states(*made.embedded(x.flip(1), mask))
    assert not torch.allclose(turned[0, 0], said[0, 0], atol=1e-4)


def test_a_stream_stands_beside_the_tokens_of_its_time() -> None:
    mask = torch.tensor([[True, True, True], [True, True, False], [True, True, True]])
    side = torch.arange(4.0).expand(3, 4).unsqueeze(2)
    side_mask = torch.tensor([[True] * 4, [True, True, False, False], [False] * 4])
    found = beside(side, side_mask, mask).squeeze(2)
    assert found.tolist() == [[0, 0.5, 2.5], [0, 0.5, 0], [0, 0, 0]]
