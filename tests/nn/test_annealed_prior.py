"""How much of a prior is left, and that it travels with the weights."""

import pytest

from alignmamba.nn.annealed_prior import AnnealConfig, AnnealedPrior


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({"to": 0.0}, [1.0, 0.5625, 0.25, 0.0625, 0.0]),
        ({"to": 0.25}, [1.0, 0.765625, 0.5625, 0.390625, 0.25]),
        ({"to": 0.0, "over": 0.5}, [1.0, 0.25, 0.0, 0.0, 0.0]),
    ],
)
def test_the_root_of_the_share_falls_linearly(options: dict[str, float], shares: list[float]) -> None:
    prior, found = AnnealedPrior(AnnealConfig.model_validate(options)), []
    for progress in (0.0, 0.25, 0.5, 0.75, 1.0):
        prior.follow(progress)
        found.append(prior.share)
    assert found == pytest.approx(shares)


def test_the_share_travels_with_the_weights() -> None:
    prior, other = (AnnealedPrior(AnnealConfig(to=0.3)) for _ in range(2))
    prior.follow(1.0)
    other.load_state_dict(prior.state_dict())
    assert other.share == prior.share == pytest.approx(0.3)
    half = prior.half()
    assert half.share == pytest.approx(0.3, rel=1e-12)  # half precision is about weights
