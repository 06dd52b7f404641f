"""Concordance of a whole step as a loss."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from test_fitting import QUICK, StopAfter, course, run
from torch import Tensor, nn
from toy import REGRESSION, ToyModel, ToySource

from alignmamba.contracts import Batch, Output, Target, TargetScale
from alignmamba.evaluation.score_formulas import concordance
from alignmamba.training.concordance import Moments, Pairs
from alignmamba.training.interrupts import Interrupted
from alignmamba.training.objective import Objective, Parcel, Supervised
from alignmamba.training.step_moments import looked_ahead

SCALE = TargetScale(mean=1e6, deviation=20.0)
FURTHER = Target(name="own", kind="regression", labels=("own",), weight=0.5)
FABRIC = Fabric(accelerator="cpu", devices=1)


def pairs(count: int = 9, *, weight: Tensor | None = None) -> Pairs:
    random = torch.Generator().manual_seed(count)
    predicted, target = torch.randn(2, count, generator=random, dtype=torch.float64)
    target += 0.5 * predicted
    weight = torch.ones(count, dtype=torch.float64) if weight is None else weight
    return Pairs(
        predicted=predicted.requires_grad_(), target=target + 0.5 * predicted.detach(), weight=weight
    )


def formula(of: Pairs) -> Tensor:
    """1 minus the concordance, by the formula of Lin with weights."""
    share = of.weight / of.weight.sum()
    p, t = share @ of.predicted, share @ of.target
    apart = share @ ((of.predicted - p).square() + (of.target - t).square()) + (p - t).square()
    return 1 - 2 * (share @ ((of.predicted - p) * (of.target - t))) / apart


@pytest.mark.parametrize("weighted", [False, True])
def test_value_and_gradient_are_those_of_the_formula(weighted: bool) -> None:
    weight = torch.tensor([0.0, 0.5, 1, 2, 1, 1, 0, 3, 1], dtype=torch.float64) if weighted else None
    given = pairs(weight=weight)
    each = Moments.of(given).loss(given)
    torch.testing.assert_close(each, formula(given).detach().expand(9))
    (expected,) = torch.autograd.grad(formula(given), given.predicted)
    total = (given.weight * each).sum() / given.weight.sum()
    (found,) = torch.autograd.grad(total, given.predicted)
    torch.testing.assert_close(found, expected)


def test_the_value_is_that_of_the_metric() -> None:
    given = pairs()
    expected = 1 - concordance(given.target.numpy(), given.predicted.detach().numpy())
    assert Moments.of(given).loss(given)[0].item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("predicted", "target"), [([0.3], [0.1]), ([0.1, 0.1], [0.1, 0.1]), ([0.2, 0.4], [1.0, 1.0])]
)
def test_where_nothing_can_agree_the_loss_is_finite(predicted: list[float], target: list[float]) -> None:
    values = torch.tensor(predicted, dtype=torch.float64, requires_grad=True)
    given = Pairs(
        predicted=values, target=torch.tensor(target).double(), weight=torch.ones(len(target)).double()
    )
    each = Moments.of(given).loss(given)
    each.sum().backward()
    assert each.tolist() == [1.0] * len(target)
    assert values.grad is not None
    assert bool(values.grad.isfinite().all())


class TwoTargets(ToyModel):
    """A further target beside the task's own, and a norm that keeps statistics of its batches."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__(dropout=dropout)
        self.kept = nn.BatchNorm1d(8, affine=False)
        self.other = nn.Linear(8, 1)

    def forward(self, batch: Batch, *, return_plans: bool = False) -> Output:
        out = super().forward(batch, return_plans=return_plans)
        self.kept(out.embedding)
        prediction = SCALE.mean + SCALE.deviation * out.prediction.double()
        return replace(out, prediction=prediction, further={"own": self.other(out.embedding)[:, 0]})


def objective(dropout: float = 0.0) -> Supervised:
    task = REGRESSION.model_copy(update={"label_range": None, "further": (FURTHER,)})
    torch.manual_seed(3)
    made = Supervised(TwoTargets(dropout).double(), task, regression_loss="ccc", target_scale=SCALE)
    return made.train()


def group(size: int, *, lacking: int = -1) -> list[Batch]:
    """Twelve samples in batches of a size; every third lacks the further target, and weights differ. One may
    lack the target of the task.
    """
    source = ToySource("train", samples=12, batch_size=size, scale=SCALE)
    found = []
    for number, batch in enumerate(source):
        assert batch.targets is not None
        rows = torch.arange(len(batch)) + number * size
        own = torch.where(rows % 3 == 0, torch.nan, (batch.targets - SCALE.mean) / SCALE.deviation + rows % 2)
        targets = torch.where(rows == lacking, torch.nan, batch.targets.double())
        weights = 0.5 + (rows % 4).double()
        found.append(replace(batch, targets=targets, further={"own": own.double()}, weights=weights))
    return found


def stepped(made: Objective, batches: list[Batch]) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Losses of all samples of a step, in order, and its gradient."""
    losses: dict[str, list[Tensor]] = {}
    for batch in looked_ahead(made, batches, FABRIC):
        terms = made(Parcel(batch))[1]
        sum(value.sum() for value in terms.values()).backward()
        for name, value in terms.items():
            losses.setdefault(name, []).append(value.detach())
    gradient = [p.grad for p in made.parameters() if p.grad is not None]
    return {name: torch.cat(values) for name, values in losses.items()}, gradient


@pytest.mark.parametrize("size", [2, 4, 5])
def test_a_step_is_the_same_however_it_is_divided(size: int) -> None:
    expected, gradient = stepped(objective(), group(12, lacking=4))
    found, divided = stepped(objective(), group(size, lacking=4))
    assert expected["task"][4] == 0
    assert torch.count_nonzero(expected["task"]) == 11
    assert expected.keys() == {"task", "size", "task.own"}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    for left, right in zip(divided, gradient, strict=True):
        torch.testing.assert_close(left, right)


def test_both_passes_draw_alike_and_leave_statistics_as_one_does() -> None:
    made = objective(dropout=0.5)
    seen: list[Any] = []
    hook = made.model.register_forward_hook(lambda *called: seen.append(called[2].prediction.detach()))
    torch.manual_seed(7)
    stepped(made, group(4))
    hook.remove()
    assert len(seen) == 6
    for ahead, then in zip(seen[:3], seen[3:], strict=True):
        torch.testing.assert_close(ahead, then, rtol=0, atol=0)
    assert not torch.equal(seen[0], seen[1])
    assert isinstance(made.model, TwoTargets)
    assert int(made.model.kept.num_batches_tracked) == 3
    assert made.moments is None


def test_without_concordance_nothing_is_computed_ahead() -> None:
    made = objective()
    made.regression_loss = "mse"
    calls: list[int] = []
    hook = made.model.register_forward_hook(lambda *_: calls.append(1))
    stepped(made, group(4))
    hook.remove()
    assert len(calls) == 3


def test_the_loss_of_validation_is_half_the_squared_error() -> None:
    made = objective().eval()
    (batch,) = group(12)
    predicted, losses = made(Parcel(batch))
    assert batch.targets is not None
    error = (predicted.values - batch.targets) / SCALE.deviation
    torch.testing.assert_close(losses["task"], 0.5 * error.square())


def test_a_run_learns_by_it_and_resumes_exactly(tmp_path: Any) -> None:
    config = QUICK.model_copy(update={"regression_loss": "ccc", "accumulate": 2})
    expected, _ = run(config, model=ToyModel())
    first, last = expected.history[0], expected.history[-1]
    assert last["train/loss/task"] < first["train/loss/task"] < 1.5
    with pytest.raises(Interrupted):
        run(config, model=ToyModel(), run_dir=tmp_path, progress=StopAfter(5))
    found, _ = run(config, model=ToyModel(seed=9), seed=77, run_dir=tmp_path, resume=True)
    assert course(found) == course(expected)
