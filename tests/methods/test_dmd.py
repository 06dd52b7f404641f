"""DMD: who teaches and who learns, what its losses are zero for, and that a missing modality is in none of
them.
"""

from dataclasses import replace
from itertools import product

import pytest
import torch
from every_method import SPECS, TASKS, batch_of, network
from torch.nn import functional

from alignmamba.contracts import Batch, ModalitySpec, TargetScale
from alignmamba.errors import ConfigError
from alignmamba.methods import METHODS
from alignmamba.methods.dmd import DMD, Distillation, Student
from alignmamba.nn.distillation import Graph, distance_to_prior
from alignmamba.training.objective import Parcel
from alignmamba.training.pairs import margin_triplets
from tolerances import FLOAT32, FLOAT64, MODEL

METHOD = METHODS["dmd"]
REGRESSION, CLASSES = TASKS["regression"], TASKS["classification"]
ALL = torch.ones(8, 3, dtype=torch.bool)
TERMS = {
    "task",
    "unimodal",
    "homogeneous",
    "homogeneous prior",
    "heterogeneous",
    "heterogeneous prior",
    "reconstruction",
    "orthogonality",
    "similarity",
}


def objective(kind: str = "regression", **options: object) -> Distillation:
    made = network(METHOD, TASKS[kind], **options)
    assert isinstance(made, DMD)
    return Distillation(made, TASKS[kind]).eval()


def graph() -> Graph:
    torch.manual_seed(0)
    return Graph(modalities=3, outputs=2, width=4, size=5, prior="order")


def test_edges_are_shares_over_the_pairs_that_a_sample_has() -> None:
    present = torch.tensor([[True, True, True], [True, False, True], [False, True, False]])
    made = graph()
    edges, expected = made(torch.randn(3, 3, 2), torch.randn(3, 3, 4), present)
    for shares in (edges, expected):
        torch.testing.assert_close(shares.sum(1), torch.tensor([1.0, 1.0, 0.0]), **FLOAT32)
        assert (shares[1] > 0).tolist() == [
            {s, t} == {0, 2} for s, t in zip(made.students, made.teachers, strict=True)
        ]
    # The published prior, of three teachers among six: .327 three times and .006 three times.
    torch.testing.assert_close(
        expected[0].sort().values, torch.tensor([0.006] * 3 + [0.327] * 3), rtol=0, atol=5e-4
    )
    taught = [
        (s, t) for s, t, share in zip(made.students, made.teachers, expected[0], strict=True) if share > 0.3
    ]
    assert taught == [(1, 0), (2, 0), (2, 1)]


def test_edges_as_expected_cost_nothing_and_one_sample_is_too_few() -> None:
    expected = torch.tensor([[0.7, 0.3, 0.0], [0.7, 0.3, 0.0], [0.0, 0.0, 1.0]])
    assert distance_to_prior(expected, expected) == 0
    edges = torch.tensor([[0.9, 0.1, 0.0], [0.7, 0.3, 0.0], [0.0, 0.0, 0.2]])
    torch.testing.assert_close(distance_to_prior(edges, expected), torch.tensor(0.02), **FLOAT32)


@pytest.mark.parametrize("kind", TASKS)
def test_teachers_are_not_moved_and_equal_predictions_teach_nothing(kind: str) -> None:
    learner = objective(kind)
    made = learner.homogeneous
    torch.manual_seed(0)
    said = (
        torch.randn(8, 3, 3, requires_grad=True)
        if kind == "classification"
        else torch.randn(8, 3, requires_grad=True)
    )
    weights = torch.tensor([float(teacher == 0) for teacher in made.teachers]).expand(8, -1)
    (moved,) = torch.autograd.grad(learner._taught(made, said, weights).sum(), said)
    assert bool((moved[:, 0] == 0).all())
    assert bool((moved[:, 1:] != 0).any())
    nodes = said if said.ndim == 3 else said.unsqueeze(2)
    edges, _ = made(nodes, torch.randn(8, 3, 8, requires_grad=True), ALL)
    (through,) = torch.autograd.grad(
        learner._taught(made, said.detach(), edges).sum(), said, allow_unused=True
    )
    assert through is None
    same = said[:, :1].expand_as(said)
    torch.testing.assert_close(learner._taught(made, same, weights), torch.zeros(8), **FLOAT32)


def test_students_draw_near_or_move_away_as_released() -> None:
    near, released = objective(), objective(alike="released")
    torch.manual_seed(0)
    vectors, weights = torch.randn(8, 3, 8), torch.ones(8, 6)
    same = vectors[:, :1].expand_as(vectors)
    torch.testing.assert_close(near._agreed(near.heterogeneous, same, weights), torch.zeros(8), **FLOAT32)
    torch.testing.assert_close(
        released._agreed(released.heterogeneous, same, weights), torch.full((8,), 6.0), **FLOAT32
    )


def test_triplets_are_those_of_all_pairs_and_zero_beyond_the_margin() -> None:
    torch.manual_seed(0)
    for count in (1, 2, 9):
        likeness = torch.rand(count, count, dtype=torch.float64, requires_grad=True)
        margin = torch.rand(count, count, dtype=torch.float64)
        kinds = torch.randint(0, 3, (count, count))
        positive, negative = kinds == 0, kinds == 1
        costs = []
        for row in range(count):
            pairs = [
                (p, n) for p, n in product(range(count), repeat=2) if positive[row, p] and negative[row, n]
            ]
            if pairs:
                each = [(margin[row, n] - likeness[row, p] + likeness[row, n]).clamp(min=0) for p, n in pairs]
                costs.append(torch.stack(each).mean())
        expected = torch.stack(costs).mean() if costs else likeness.sum() * 0
        found = margin_triplets(likeness, margin, positive, negative)
        torch.testing.assert_close(found, expected, **FLOAT64)
        for mine, theirs in zip(
            torch.autograd.grad(found, likeness), torch.autograd.grad(expected, likeness), strict=True
        ):
            torch.testing.assert_close(mine, theirs, **FLOAT64)
    positive = torch.tensor([[True, False]])
    assert (
        margin_triplets(torch.tensor([[0.9, 0.6]]), torch.tensor([[0.3, 0.3]]), positive, ~positive) <= 1e-7
    )


def test_similarity_measures_labels_in_their_deviations() -> None:
    learner, batch = objective(), batch_of(REGRESSION)
    assert batch.targets is not None
    torch.manual_seed(0)
    vectors = torch.randn(8, 3, 8)
    cost = learner._similarity(vectors, ALL, batch.targets)
    learner.target_scale = TargetScale(mean=0.0, deviation=1e6)
    torch.testing.assert_close(learner._similarity(vectors, ALL, 1e6 * batch.targets), cost, **FLOAT32)
    # With all labels apart, the positives are the other modalities of the sample: equal ones, far from all
    # else, cost nothing.
    far = functional.one_hot(torch.arange(8)).float().unsqueeze(1).expand(-1, 3, -1)
    assert learner._similarity(far, ALL, 0.1 * batch.targets / 1e6) == 0


@pytest.mark.parametrize("kind", TASKS)
def test_the_order_of_a_batch_changes_no_loss_and_one_sample_has_no_batch_terms(kind: str) -> None:
    learner, batch = objective(kind), batch_of(TASKS[kind])
    order = [5, 2, 7, 0, 1, 6, 3, 4]
    straight, turned = learner(Parcel(batch))[1], learner(Parcel(batch.select(order)))[1]
    assert set(straight) == TERMS
    for name, values in straight.items():
        torch.testing.assert_close(turned[name], values[order], **MODEL)
        assert float(values.detach().max()) > 0, name
    single = learner(Parcel(batch.select([0])))[1]
    assert all(
        float(single[name].detach()) == 0
        for name in ("homogeneous prior", "heterogeneous prior", "similarity")
    )


def test_a_missing_modality_is_in_no_loss() -> None:
    learner, whole = objective(), batch_of(REGRESSION)
    output = learner.model(whole)
    present = output.extras["present"]
    assert not present.all()
    other = {"read": output.extras["read"].masked_fill(~present.unsqueeze(2), 7.0)}
    for number, name in enumerate(learner.model.config.anchors):
        for part in ("tokens", "own", "common"):
            key = f"{part} {name}"
            other[key] = output.extras[key].masked_fill(~present[:, number, None, None], 3.0)
    terms = learner.losses(whole, output)
    for name, value in learner.losses(whole, replace(output, extras={**output.extras, **other})).items():
        torch.testing.assert_close(value, terms[name], **FLOAT32)


@pytest.mark.parametrize("gate", ["replace", "multiply"])
def test_gates_stand_for_what_was_read_or_weigh_it(gate: str) -> None:
    made = network(METHOD, REGRESSION, gate=gate).eval()
    assert isinstance(made, DMD)
    output = made(batch_of(REGRESSION))
    read = output.extras["read"]
    weights = torch.cat(
        [made.gates[name](read[:, n]) for n, name in enumerate(made.config.anchors)], 1
    ).sigmoid()
    expected = weights if gate == "replace" else weights * read.flatten(1)
    torch.testing.assert_close(output.embedding[:, : read[0].numel()], expected, **FLOAT32)


@pytest.mark.parametrize("count", [2, 4])
def test_it_takes_any_number_of_modalities_from_two(count: int) -> None:
    specs = tuple(ModalitySpec(name=f"sensor-{n}", dim=2 + n) for n in range(count))
    made = network(METHOD, CLASSES, modalities=specs)
    assert isinstance(made, DMD)
    torch.manual_seed(0)
    batch = Batch.of({spec.name: torch.randn(3, 6, spec.dim) for spec in specs}, targets=[0, 1, 0])
    output, terms = Distillation(made, CLASSES)(Parcel(batch))
    assert output.values.shape == (3, 3)
    assert set(terms) == TERMS
    assert made(batch).embedding.shape == (3, count**2 * 8)


def test_one_modality_is_refused() -> None:
    with pytest.raises(ConfigError, match="modalities: dmd needs at least 2"):
        network(METHOD, REGRESSION, modalities=SPECS[:1])


@torch.no_grad()
def test_parts_that_rebuild_a_token_and_point_apart_cost_nothing() -> None:
    learner = objective()
    assert isinstance(learner.model, DMD)
    one, zero = torch.eye(8), torch.zeros(8, 8)
    learner.model.common.weight.copy_(-one)
    for name, decoder in learner.decoders.items():
        learner.model.specific[name].weight.copy_(one)
        decoder.weight.copy_(torch.cat([one, zero], 1))
    terms = learner(Parcel(batch_of(REGRESSION)))[1]
    for name in ("reconstruction", "orthogonality"):
        torch.testing.assert_close(terms[name], torch.zeros(8), **FLOAT32)


@torch.no_grad()
def test_each_present_modality_has_two_heads_and_all_have_one() -> None:
    learner, batch = objective(), batch_of(REGRESSION)
    assert batch.targets is not None
    for head in (module.head for module in learner.modules() if isinstance(module, Student)):
        head.weight.zero_()
        head.bias.zero_()
    learner.target_scale = TargetScale(mean=1.0, deviation=2.0)
    output = learner.model(batch)
    heads = 2 * output.extras["present"].sum(1) + 1
    expected = heads * (batch.targets - 1).abs() / 2
    torch.testing.assert_close(
        learner.losses(batch, output)["unimodal"].double(), expected.double(), **FLOAT32
    )
