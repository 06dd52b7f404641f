"""ULGM: labels stay where features agree, move as worked by hand and never further than the scale;
recalibration may be nothing.
"""

import pytest
import torch
from every_method import TASKS, learn, network, prepared, sources
from torch import Tensor

from alignmamba.errors import ConfigError
from alignmamba.methods.ulgm import UNIMODAL_LABELS, Recalibration, ULGMLabels
from alignmamba.nn.alignment import Tokens
from alignmamba.training.objective import Stage
from alignmamba.training.refinement import FUSED, of
from alignmamba.training.sample_memory import Seen
from tolerances import EXACT, FLOAT32

TASK = TASKS["regression"]


def begun(width: int) -> ULGMLabels:
    """An objective in its second epoch, with an empty memory of features of that width."""
    objective = prepared(UNIMODAL_LABELS, TASK)
    assert isinstance(objective, ULGMLabels)
    objective.remembered = {FUSED: width}
    objective.prepare(sources(UNIMODAL_LABELS, TASK, missing=False)[0])
    objective.begin_epoch(Stage(), 1)
    return objective


def seen(objective: ULGMLabels, rows: Tensor, fused: Tensor, own: Tensor) -> Seen:
    """Samples with a fused feature, and one of every modality."""
    vectors = {FUSED: fused, **{of(name): own for name in objective.heads}}
    return Seen(rows, vectors, dict.fromkeys(vectors, torch.ones(len(rows), dtype=torch.bool)))


def test_recalibration_with_weights_of_zero_changes_nothing() -> None:
    torch.manual_seed(0)
    streams = {
        name: Tokens(torch.randn(2, time, 4), torch.ones(2, time, dtype=torch.bool), torch.zeros(2, time))
        for name, time in (("text", 3), ("audio", 5))
    }
    recalibrate = Recalibration({"text": 4, "audio": 4})
    scaled = recalibrate(streams)
    assert not torch.equal(scaled["text"], streams["text"].x)
    assert ((scaled["text"] / streams["text"].x) > 0).all()
    assert ((scaled["text"] / streams["text"].x) < 2).all()
    for layer in recalibrate.excite.values():
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    for name, x in recalibrate(streams).items():
        torch.testing.assert_close(x, streams[name].x, **EXACT)


def test_labels_stay_where_features_agree_and_move_by_the_width_of_the_scale_at_most() -> None:
    objective = begun(4)
    torch.manual_seed(0)
    rows = torch.arange(len(objective.truth))
    features = torch.randn(len(rows), 4)
    objective.memory.write(seen(objective, rows, features, features))
    objective._refine(seen(objective, rows, features, features))
    torch.testing.assert_close(
        objective.labels, objective.truth.unsqueeze(1).expand_as(objective.labels), **FLOAT32
    )
    far = objective._new_labels("text", features, features + 1e3, objective.truth, objective.truth)
    assert far is not None
    assert ((far - objective.truth).abs() <= 6 + 1e-4).all()
    objective._refine(seen(objective, rows, features, features + 1e3))
    assert float(objective.labels.abs().max()) <= 3


def test_a_label_moves_as_worked_by_hand() -> None:
    objective = begun(2)
    rows = torch.arange(len(objective.truth))
    objective.truth[:2] = torch.tensor([3.0, -3.0])
    # Positive samples lie at (2, 0), negative ones at (-2, 0): centres are 4 apart, and so are the extremes.
    at = torch.where(objective.truth.unsqueeze(1) > 0, torch.tensor([2.0, 0.0]), torch.tensor([-2.0, 0.0]))
    objective.memory.write(seen(objective, rows, at, at))
    objective.truth[5] = 1.5
    objective.labels[5] = torch.tensor([1.5, 0.0, 3.0])
    # The own feature lies 1 from the fused one, on the negative side: the new label is 1.5 - 6 * 1 / 4 = 0.
    one = torch.tensor([5])
    objective._refine(seen(objective, one, torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]])))
    torch.testing.assert_close(objective.labels[5], torch.tensor([0.5, 0.0, 1.0]), **FLOAT32)
    # And on the positive side: 1.5 + 1.5 = 3.
    objective._refine(seen(objective, one, torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])))
    torch.testing.assert_close(objective.labels[5], torch.tensor([0.5, 0.0, 1.0]) / 3 + 2.0, **FLOAT32)


def test_only_fused_features_are_remembered_and_labels_move_from_the_second_epoch_on() -> None:
    objective = prepared(UNIMODAL_LABELS, TASK)
    assert isinstance(objective, ULGMLabels)
    learn(objective, *sources(UNIMODAL_LABELS, TASK, missing=False))
    assert set(objective.memory.state_dict()) == {"vectors_fused", "known_fused"}
    assert ((objective.labels - objective.truth.unsqueeze(1)).abs() > 0).any(0).all()


def test_a_missing_modality_has_no_part_in_the_loss() -> None:
    objective = begun(8).train()
    batch = next(iter(sources(UNIMODAL_LABELS, TASK, missing=False)[0])).without("audio")
    objective.labels += 1
    output = objective.model(batch)
    objective.losses(batch, output)["unimodal"].sum().backward()
    assert any(parameter.grad.any() for parameter in objective.heads["text"].parameters())
    assert not any(parameter.grad.any() for parameter in objective.heads["audio"].parameters())


def test_classes_are_refused() -> None:
    with pytest.raises(
        ConfigError,
        match=("task: ULGM needs a regression with labels on both sides of a neutral one, found 3 classes"),
    ):
        network(UNIMODAL_LABELS, TASKS["classification"])
