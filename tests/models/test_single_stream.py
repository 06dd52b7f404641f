"""Single-stream models: what stands where in their sequence."""

import torch
from small_models import LENGTHS, batch, model

from tolerances import MODEL


def test_modalities_follow_one_another_with_text_last_and_nothing_between() -> None:
    for name in ("single-stream-mamba", "single-stream-transformer"):
        built, whole = model(name), batch()
        tokens, mask = built.fused_tokens(whole)
        encoded = built._encoded(whole)
        for row in range(len(whole)):
            expected = []
            for modality in ("video", "audio", "text"):
                length = LENGTHS[modality][row]
                own = (
                    encoded[modality].x[row, :length]
                    if length
                    else built.absent_tokens[modality].unsqueeze(0)
                )
                expected.append(own + built.modality_embeddings[modality])
            sequence = torch.cat(expected)
            assert mask[row].tolist() == [True] * len(sequence) + [False] * (mask.shape[1] - len(sequence))
            torch.testing.assert_close(tokens[row, mask[row]], sequence, **MODEL)


def test_the_anchor_order_decides_the_order() -> None:
    built, one = model("single-stream-mamba", anchor_order=("video", "text")), batch().select([0])
    tokens, mask = built.fused_tokens(one)
    encoded = built._encoded(one)
    expected = [
        encoded[m].x[0, : LENGTHS[m][0]] + built.modality_embeddings[m] for m in ("audio", "text", "video")
    ]
    torch.testing.assert_close(tokens[0, mask[0]], torch.cat(expected), **MODEL)


def test_modality_embeddings_start_small() -> None:
    built = model("single-stream-mamba", d_model=512)
    for embedding in built.modality_embeddings.values():
        assert 0.015 < float(embedding.detach().std()) < 0.025
