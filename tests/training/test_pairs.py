"""Terms between two modalities: over the samples that have both, and of two samples at least."""

import torch

from alignmamba.training.pairs import mean_present, over_pairs, total, within


def count_rows(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x.new_tensor(float(len(x))) + 100 * (x - y).abs().max()


def test_pairs_hold_the_samples_that_have_both() -> None:
    present = torch.tensor(
        [[True, True, False], [True, True, True], [True, True, False], [False, True, True]]
    )
    vectors = torch.where(present.unsqueeze(2), 1.0, torch.nan).expand(4, 3, 2)
    # First and second share three samples, first and third one, which is too few, second and third two.
    assert torch.stack(over_pairs(count_rows, vectors, present)).tolist() == [3.0, 2.0]
    assert torch.stack(within(count_rows, vectors, vectors, present)).tolist() == [3.0, 4.0, 2.0]


def test_sums_and_means_of_terms_and_of_nothing() -> None:
    like = torch.zeros(2)
    terms = [torch.tensor(1.0), torch.tensor(3.0)]
    assert total(terms, like) == 4
    assert total(terms, like, mean=True) == 2
    assert total([], like, mean=True) == 0


def test_the_mean_of_a_sample_is_over_what_it_has() -> None:
    values, present = (
        torch.tensor([[2.0, 4.0], [6.0, 9.0], [1.0, 1.0]]),
        torch.tensor([[True, True], [True, False], [False, False]]),
    )
    assert mean_present(values, present).tolist() == [3.0, 6.0, 0.0]
