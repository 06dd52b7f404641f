"""Withholding at random from a batch: nothing is lost, and something of each sample stays."""

import torch

from alignmamba.contracts import Batch
from alignmamba.training.withheld_batches import withhold


def batch() -> Batch:
    torch.manual_seed(0)
    lengths = {"a": torch.arange(64) % 3, "b": torch.full((64,), 2)}
    return Batch.of({"a": torch.randn(64, 2, 3), "b": torch.randn(64, 2, 1)}, lengths=lengths)


def test_what_is_withheld_completes_the_batch() -> None:
    whole = batch()
    shown = withhold(whole, 0.5)
    for name, s in shown.complete().modalities.items():
        assert torch.equal(s.mask, whole.modalities[name].mask)
        assert torch.equal(s.features[s.mask], whole.modalities[name].features[s.mask])
    assert any(bool(s.mask.any()) for s in shown.withheld.values())


def test_each_sample_keeps_a_modality_that_it_has() -> None:
    shown = withhold(batch(), 0.99)
    kept = torch.stack([s.mask.any(1) for s in shown.modalities.values()], 1)
    assert kept.any(1).all()


def test_a_batch_from_which_something_was_withheld_stays() -> None:
    shown = withhold(batch(), 0.5)
    assert withhold(shown, 0.5) is shown
