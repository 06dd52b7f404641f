"""IMDer: the diffusion is the published one, noise belongs to the sample, and what is there is never
drawn.
"""

from dataclasses import replace

import pytest
import torch
from every_method import SPECS, TASKS, batch_of, network, prepared, sources

from alignmamba.errors import ConfigError
from alignmamba.methods.imder import SCORE_RECOVERY
from alignmamba.nn.diffusion import Score
from alignmamba.training.objective import Parcel
from tolerances import FLOAT32

TASK = TASKS["regression"]


def test_noise_grows_from_nothing_as_worked_by_hand() -> None:
    score = Score(2, 4, 25.0)
    torch.testing.assert_close(
        score.deviation(torch.tensor([0.0, 1.0])), torch.tensor([0.0, 9.8457]), rtol=1e-4, atol=0
    )


def test_the_exact_score_of_normal_vectors_recovers_their_deviation() -> None:
    class Exact(Score):
        def forward(self, x: torch.Tensor, time: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
            del condition
            return -x / (1 + self.deviation(time).square().unsqueeze(1))

    torch.manual_seed(0)
    found = Exact(2, 4, 25.0).recover(torch.zeros(2000, 2), torch.randn(2000, 101, 2))
    assert 0.85 < float(found.std()) < 1.15
    assert abs(float(found.mean())) < 0.1


@torch.no_grad()
def test_noise_depends_on_the_seed_and_the_sample_alone() -> None:
    model = network(SCORE_RECOVERY, TASK).eval()
    batch = batch_of(TASK).without("audio")
    rows = [row for row in range(8) if any(bool(s.mask[row].any()) for s in batch.modalities.values())][::-1]
    expected = model(batch.select(rows)).prediction
    torch.manual_seed(7)
    assert torch.equal(model(batch.select(rows)).prediction, expected)
    torch.testing.assert_close(model(batch.select(rows[2:3])).prediction, expected[2:3], **FLOAT32)
    other = replace(batch, ids=tuple(f"other-{identity}" for identity in batch.ids))
    assert not torch.equal(model(other.select(rows)).prediction, expected)
    assert not torch.equal(
        network(SCORE_RECOVERY, TASK, seed=1).eval()(batch.select(rows)).prediction, expected
    )


@torch.no_grad()
def test_nothing_is_drawn_where_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(SCORE_RECOVERY, TASK).eval()
    batch = batch_of(TASK).select([0, 1, 2])
    expected = model(batch).prediction
    monkeypatch.setattr(Score, "recover", lambda *_: pytest.fail("something was drawn"))
    assert torch.equal(model(batch).prediction, expected)


def test_only_what_was_withheld_is_a_target() -> None:
    objective = prepared(SCORE_RECOVERY, TASK).train()
    batch = next(iter(sources(SCORE_RECOVERY, TASK, missing=True)[0]))
    hidden = torch.stack([s.mask.any(1) for s in batch.withheld.values()], 1).any(1)
    _, losses = objective(Parcel(batch))
    for name in ("score", "refinement"):
        assert torch.equal(losses[name] > 0, hidden)
    assert set(objective.eval()(Parcel(batch))[1]) == {"task"}


def test_a_run_that_withholds_nothing_has_something_withheld() -> None:
    assert prepared(SCORE_RECOVERY, TASK).train()(Parcel(batch_of(TASK)))[1]["score"].any()


def test_one_modality_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"IMDer needs at least 2, found \['text'\]"):
        network(SCORE_RECOVERY, TASK, modalities=SPECS[:1])
