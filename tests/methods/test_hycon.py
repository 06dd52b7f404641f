"""HyCon: its contrasts as worked by hand, their least value, and what changes none of them."""

from dataclasses import replace

import pytest
import torch
from every_method import TASKS, batch_of, network

from alignmamba.contracts import Batch, Output, Task
from alignmamba.errors import ConfigError
from alignmamba.methods.hycon import HYBRID_CONTRAST, HybridContrast, HyCon, _contrast
from alignmamba.training.objective import Parcel
from tolerances import FLOAT32, MODEL

TASK = TASKS["regression"]
CONTRASTS = ("within", "across", "same")


def objective(task: Task = TASK) -> HybridContrast:
    return HybridContrast(network(HYBRID_CONTRAST, task), task).eval()


def said(unit: torch.Tensor, present: torch.Tensor | None = None) -> Output:
    there = torch.ones(unit.shape[:2], dtype=torch.bool) if present is None else present
    return Output(
        prediction=torch.zeros(len(unit)), embedding=unit[:, 0], extras={"unit": unit, "present": there}
    )


def labelled(targets: list[float]) -> Batch:
    count = len(targets)
    return Batch.of({"text": torch.zeros(count, 1, 6)}, targets=targets)


def test_where_all_are_alike_the_ratio_is_the_share_of_positives() -> None:
    unit = torch.tensor([1.0, 0.0]).expand(4, 3, 2)
    terms = objective().losses(labelled([1.0, 2.0, 0.0, -1.0]), said(unit))
    # Each of three positive samples has two of them among three others; the negative one has none and is no
    # anchor.
    torch.testing.assert_close(terms["within"], torch.tensor(-2 / 3), **FLOAT32)
    torch.testing.assert_close(terms["across"], torch.tensor(-2 / 3 + 0.2**2), **FLOAT32)
    torch.testing.assert_close(terms["same"], torch.full((4,), 0.2**2), **FLOAT32)


def test_the_least_value_is_minus_one_per_anchor() -> None:
    kinds = torch.tensor([0, 0, 1, 1])
    positive = (kinds[:, None] == kinds[None])[:, None, :, None]
    compared = ~torch.eye(4, dtype=torch.bool)[:, None, :, None]
    likeness = torch.where(positive, 0.8, 0.0)
    torch.testing.assert_close(_contrast(likeness, positive, compared, 0.8), torch.tensor(-1.0), **FLOAT32)
    assert _contrast(torch.full_like(likeness, 0.8), positive, compared, 0.8) > -1


def test_order_and_a_common_rotation_change_nothing() -> None:
    learner, batch = objective(), batch_of(TASK)
    output = learner.model(batch)
    terms = learner.losses(batch, output)
    order = [5, 2, 7, 0, 1, 6, 3, 4]
    turned = learner(Parcel(batch.select(order)))[1]
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))[0]
    rotated = learner.losses(
        batch, replace(output, extras={**output.extras, "unit": output.extras["unit"] @ rotation})
    )
    for name in CONTRASTS:
        torch.testing.assert_close(turned[name], terms[name].expand(8)[order], **MODEL)
        torch.testing.assert_close(rotated[name], terms[name], **MODEL)


def test_a_missing_modality_is_in_no_contrast() -> None:
    learner, batch = objective(), batch_of(TASK)
    output = learner.model(batch)
    present = output.extras["present"]
    assert not present.all()
    other = torch.where(present.unsqueeze(2), output.extras["unit"], torch.eye(8)[0])
    terms = learner.losses(batch, output)
    for name, value in learner.losses(
        batch, replace(output, extras={**output.extras, "unit": other})
    ).items():
        torch.testing.assert_close(value, terms[name], **FLOAT32)


def test_one_sample_is_contrasted_with_itself_alone() -> None:
    learner, batch = objective(), batch_of(TASK).select([0])
    terms = learner(Parcel(batch))[1]
    assert float(terms["within"].detach()) == float(terms["across"].detach()) == 0
    assert float(terms["same"].detach()) > 0


def test_classes_are_contrasted_as_they_are() -> None:
    task = TASKS["classification"]
    unit = torch.nn.functional.normalize(
        torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(1)), dim=2
    )
    learner = objective(task)
    terms = []
    for targets in ([0, 1, 1, 2], [2, 0, 0, 1], [0, 0, 1, 2]):
        batch = Batch.of({"text": torch.zeros(4, 1, 6)}, targets=torch.tensor(targets))
        output = replace(said(unit), prediction=torch.zeros(4, 3))
        terms.append(learner.losses(batch, output)["across"])
    torch.testing.assert_close(terms[0], terms[1], **FLOAT32)
    assert not torch.allclose(terms[0], terms[2])


def test_a_label_of_one_sign_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"neutral: found 0\.0, expected a number within"):
        HyCon.for_regression({"text": 3}, label_range=(1.0, 5.0))
    HyCon.for_regression({"text": 3}, label_range=(1.0, 5.0), neutral=3.0)
