"""ConFEDE: the contrast as worked by hand, neighbours that obey their labels, draws by seed, epoch and id."""

import math

import pytest
import torch
from every_method import TASKS, batch_of, learn, network, prepared, sources
from torch import Tensor

from alignmamba.contracts import Task
from alignmamba.errors import ConfigError, DataError
from alignmamba.methods.confede import CONTRASTED_PARTS, ConFEDE, Decomposition, contrast
from alignmamba.training.neighbours import Neighbours
from alignmamba.training.objective import Parcel, Stage
from tolerances import FLOAT32

TASK = TASKS["regression"]


def fusing() -> Decomposition:
    """An objective whose memory the first stage filled, at the start of the second."""
    objective = prepared(CONTRASTED_PARTS, TASK)
    assert isinstance(objective, Decomposition)
    train = sources(CONTRASTED_PARTS, TASK, missing=False)[0]
    objective.prepare(train)
    objective.begin_epoch(Stage(name="alone"), 0)
    objective.train()
    for batch in train:
        objective(Parcel(batch))
        objective.after_step()
    objective.begin_epoch(Stage(name="fuse"), 0)
    return objective


def everyone(modalities: int = 3, batch: int = 2) -> Tensor:
    return torch.ones(batch, 7, modalities, dtype=torch.bool)


def test_the_contrast_of_equal_parts_is_that_of_the_counts_of_negatives() -> None:
    parts = torch.randn(5).expand(2, 7, 2, 3, 5)
    expected = (4 * math.log(8) + 4 * math.log(5) + 12 * math.log(4)) / 20
    torch.testing.assert_close(contrast(parts, everyone(), 0.5), torch.full((2,), expected), **FLOAT32)


def test_the_contrast_is_least_where_positives_agree_and_negatives_oppose() -> None:
    direction = torch.randn(5)
    parts = direction.expand(2, 7, 2, 3, 5).clone()
    parts[:, :, 1] *= -1  # dissimilar parts
    parts[:, 3:, :] *= -1  # neighbours with another label, as a whole
    least = (
        sum(count * math.log1p(negatives * math.exp(-4)) for count, negatives in ((4, 7), (4, 4), (12, 3)))
        / 20
    )
    torch.testing.assert_close(contrast(parts, everyone(), 0.5), torch.full((2,), least), **FLOAT32)


def test_what_is_not_there_changes_no_contrast_and_gets_no_gradient() -> None:
    torch.manual_seed(0)
    parts, there = torch.randn(4, 7, 2, 3, 5), everyone(batch=4)
    there[0, 2] = False  # a neighbour that was not found
    there[1, :, 0] = False  # no first modality anywhere
    there[2, 0, 1] = False
    there[3] = False
    there[3, 0, 1] = True  # alone
    other = torch.where(there[:, :, None, :, None], parts, torch.randn_like(parts)).requires_grad_()
    lost = contrast(other, there, 0.5)
    torch.testing.assert_close(lost, contrast(parts, there, 0.5), **FLOAT32)
    assert lost[3] == 0
    lost.sum().backward()
    assert other.grad is not None
    assert other.grad.isfinite().all()
    assert not other.grad.masked_select(~there[:, :, None, :, None]).any()


def found(*, pool: int = 4, seed: int = 0, count: int = 30) -> tuple[Neighbours, Tensor, Tensor]:
    torch.manual_seed(0)
    vectors, labels = torch.randn(count, 6), torch.randint(-1, 2, (count,))
    neighbours = Neighbours([f"sample-{row}" for row in range(count)], pool, seed)
    known = torch.arange(count) != 7
    neighbours.retrieve(vectors, known, labels)
    return neighbours, torch.nn.functional.normalize(vectors, dim=1), labels


def test_pools_hold_the_nearest_and_farthest_by_label_and_never_the_sample_itself() -> None:
    neighbours, unit, labels = found()
    for row in range(30):
        cosine = unit @ unit[row]
        others = [other for other in range(30) if other not in (row, 7)]
        same = sorted((o for o in others if labels[o] == labels[row]), key=lambda o: -float(cosine[o]))
        differ = sorted((o for o in others if labels[o] != labels[row]), key=lambda o: -float(cosine[o]))
        assert neighbours.pools[row].tolist() == [same[:4], differ[::-1][:4], differ[:4]]


def test_draws_depend_on_seed_epoch_and_id_alone() -> None:
    first, second = found()[0], found()[0]
    first.draw(0)
    torch.rand(5)
    second.draw(0)
    assert torch.equal(first.rows, second.rows)
    for kind in range(3):
        for row in range(30):
            drawn = first.rows[row, 2 * kind : 2 * kind + 2].tolist()
            assert len(set(drawn)) == 2
            assert set(drawn) <= set(first.pools[row, kind].tolist())
    second.draw(1)
    assert not torch.equal(first.rows, second.rows)
    other = found(seed=1)[0]
    other.draw(0)
    assert not torch.equal(first.rows, other.rows)


def test_pools_of_few_samples_leave_places_empty() -> None:
    neighbours = Neighbours(["a", "b", "c"], 4, 0)
    neighbours.retrieve(torch.randn(3, 2), torch.ones(3, dtype=torch.bool), torch.tensor([0, 0, 1]))
    neighbours.draw(0)
    assert neighbours.rows.tolist()[0] == [1, -1, 2, -1, 2, -1]
    assert neighbours.rows.tolist()[2][:2] == [-1, -1]


def test_neighbours_are_of_rounded_labels_and_stay_for_a_resumed_epoch() -> None:
    objective = fusing()
    labels, rows = objective.truth.round(), objective.neighbours.rows
    same, other = rows[:, :2], rows[:, 2:]
    assert (same >= 0).any()
    assert ((labels[same] == labels.unsqueeze(1)) | (same < 0)).all()
    assert ((labels[other] != labels.unsqueeze(1)) & (other >= 0)).all()
    before = rows.clone()
    objective.memory.vectors("vectors").normal_()
    objective.begin_epoch(Stage(name="fuse"), 0)
    assert torch.equal(objective.neighbours.rows, before)
    pools = objective.neighbours.pools.clone()
    objective.begin_epoch(Stage(name="fuse"), 1)
    assert torch.equal(objective.neighbours.pools, pools)
    assert not torch.equal(objective.neighbours.rows, before)
    objective.begin_epoch(Stage(name="fuse"), 2)
    assert not torch.equal(objective.neighbours.pools, pools)


def test_the_task_is_learned_from_samples_and_neighbours_alike() -> None:
    objective = fusing()
    objective.eval()
    objective.training = True  # no dropout, but a step of training
    batch = next(iter(sources(CONTRASTED_PARTS, TASK, missing=False)[0]))
    _, losses = objective(Parcel(batch))
    row = int(objective.memory.rows(batch.ids, torch.device("cpu"))[0])
    near = [int(other) for other in objective.neighbours.rows[row] if other >= 0]
    vectors = objective.memory.vectors("vectors")[near].unflatten(1, (3, -1))
    scale = objective.target_scale
    said = scale.mean + scale.deviation * objective.model.fuse(vectors)[1].double()
    errors = objective.task_loss(said, objective.truth[near])
    own = objective.task_loss(objective.model(batch).prediction, batch.targets)[:1]
    torch.testing.assert_close(losses["task"][0], torch.cat([own, errors]).mean(), **FLOAT32)
    assert set(losses) == {"task", "contrast", "unimodal"}
    assert all(value.isfinite().all() for value in losses.values())


def test_neighbours_change_no_prediction() -> None:
    objective = fusing().eval()
    predicted, losses = objective(Parcel(batch_of(TASK)))
    objective.neighbours.rows.fill_(-1)
    objective.memory.forget()
    again, _ = objective(Parcel(batch_of(TASK)))
    assert torch.equal(predicted.values, again.values)
    assert set(losses) == {"task"}


def test_each_stage_leaves_the_weights_of_the_other() -> None:
    objective = prepared(CONTRASTED_PARTS, TASK)
    assert isinstance(objective, Decomposition)
    alone, fuse = (stage.optimisers[0] for stage in objective.stages)
    for part in ("similar.text", "dissimilar.audio", "whole", "part"):
        assert not alone.rate(f"model.{part}.0.weight")
        assert fuse.rate(f"model.{part}.0.weight")
    assert not fuse.rate("model.streams.text.first")
    assert fuse.rate("model.streams.audio.first")
    assert not fuse.rate("model.alone.audio.0.weight")
    learn(objective, *sources(CONTRASTED_PARTS, TASK, missing=False))
    assert isinstance(objective.model, ConFEDE)
    assert objective.model.fuses


def test_labels_without_two_signs_are_refused() -> None:
    with pytest.raises(
        ConfigError,
        match=(
            "task: ConFEDE needs a regression with labels on both sides of a neutral one, found 3 classes"
        ),
    ):
        network(CONTRASTED_PARTS, TASKS["classification"])
    task = Task(kind="regression")
    objective = CONTRASTED_PARTS.objective(network(CONTRASTED_PARTS, task, neutral=9.0), task)
    with pytest.raises(DataError, match="found them on one"):
        objective.prepare(sources(CONTRASTED_PARTS, task, missing=False)[0])
