"""Q-Former: as many vectors as queries for any length and order; neither padding nor missing streams are
read.
"""

from dataclasses import replace

import pytest
import torch
from every_method import SPECS, TASKS, batch_of, network
from torch import Tensor

from alignmamba.errors import ConfigError
from alignmamba.methods import METHODS
from alignmamba.methods.q_former import QFormer, QFormerBlock, QFormerConfig
from alignmamba.nn.alignment import Tokens
from tolerances import EXACT, MODEL

METHOD = METHODS["q-former"]
TASK = TASKS["regression"]
COUNT, QUERIES, WIDTH = 2, 3, 8


def block(*sides: str) -> QFormerBlock:
    torch.manual_seed(0)
    config = QFormerConfig(modalities=SPECS, task=TASK, d_model=WIDTH, heads=2, queries=QUERIES)
    return QFormerBlock(config, sides).eval()


def side(length: int, *, valid: int | None = None) -> Tokens:
    mask = (torch.arange(length) < (length if valid is None else valid)).expand(COUNT, -1)
    return Tokens(
        torch.randn(COUNT, length, WIDTH), mask, torch.full((COUNT, length), torch.nan, dtype=torch.float64)
    )


def state(count: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries of `count` modalities and four anchor tokens, with masks."""
    every, words = torch.randn(COUNT, count * QUERIES, WIDTH), torch.randn(COUNT, 4, WIDTH)
    return every, words, torch.ones(every.shape[:2], dtype=torch.bool), torch.ones(COUNT, 4, dtype=torch.bool)


@torch.no_grad()
def test_any_length_becomes_as_many_vectors_as_there_are_queries_in_whatever_order_it_is_read() -> None:
    made, given = block("audio", "video"), state()
    audio, video = side(5), side(11)
    queries, words = made(*given, {"audio": audio, "video": video})
    assert queries.shape == given[0].shape
    assert words.shape == given[1].shape
    order = torch.randperm(11)
    turned = replace(video, x=video.x[:, order])
    torch.testing.assert_close(made(*given, {"audio": audio, "video": turned})[0], queries, **MODEL)
    masked = side(5, valid=3)
    dirty = replace(masked, x=torch.where(masked.mask.unsqueeze(2), masked.x, 1e3))
    torch.testing.assert_close(
        made(*given, {"audio": dirty, "video": video})[0],
        made(*given, {"audio": masked, "video": video})[0],
        **MODEL,
    )


@torch.no_grad()
def test_queries_read_their_own_modality_and_the_anchor_meets_it_through_them_alone() -> None:
    made, given = block("audio", "video"), state()
    audio, video = side(5), side(6)
    (queries, words), (changed, same) = (
        made(*given, {"audio": audio, "video": each}) for each in (video, side(6))
    )
    torch.testing.assert_close(changed[:, :QUERIES], queries[:, :QUERIES], **EXACT)
    assert not torch.allclose(changed[:, QUERIES:], queries[:, QUERIES:], atol=1e-3)
    # Within a block self-attention comes first; the anchor hears of what was read in the next block.
    torch.testing.assert_close(same, words, **EXACT)
    after = block()
    assert not torch.allclose(
        after(changed, same, *given[2:], {})[1], after(queries, words, *given[2:], {})[1], atol=1e-3
    )


def test_cross_attention_stands_in_the_first_of_every_two_blocks() -> None:
    made = network(METHOD, TASK, depth=5)
    assert isinstance(made, QFormer)
    assert [len(one.cross) for one in made.blocks if isinstance(one, QFormerBlock)] == [2, 0, 2, 0, 2]


@torch.no_grad()
def test_queries_of_a_missing_modality_are_masked_and_so_is_a_missing_anchor() -> None:
    made = network(METHOD, TASK, depth=3).eval()
    batch = batch_of(TASK).select([0, 1, 2])
    without = batch.without("audio")
    assert isinstance(made, QFormer)
    expected, alone = made(without).prediction, made(batch.without("audio").without("video")).prediction
    made.queries["audio"].add_(1)
    torch.nn.init.normal_(made.absent_tokens["audio"])
    torch.testing.assert_close(made(without).prediction, expected, **EXACT)
    assert not torch.allclose(made(batch.without("audio").without("video")).prediction, alone, atol=1e-4)
    assert not torch.allclose(made(batch).prediction, expected, atol=1e-4)
    # An absent anchor is pooled; no query sees it.
    lost = batch.without("text")
    before = made(lost).embedding
    torch.nn.init.normal_(made.absent_tokens["text"])
    after = made(lost).embedding
    torch.testing.assert_close(after[:, :WIDTH], before[:, :WIDTH], **EXACT)
    assert not torch.allclose(after[:, WIDTH:], before[:, WIDTH:], atol=1e-4)


def test_refuses_one_modality() -> None:
    with pytest.raises(ConfigError, match="q-former needs at least 2"):
        network(METHOD, TASK, modalities=SPECS[:1])
