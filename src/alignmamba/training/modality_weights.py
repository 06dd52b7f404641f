"""Weights of modalities in a prediction, chosen on the valid split after training."""

import itertools
from collections.abc import Callable
from typing import Final

import torch
from lightning_fabric import Fabric
from torch import Tensor

from alignmamba.contracts import Batch, WeighsModalities
from alignmamba.training.batches import BatchSource, gather
from alignmamba.training.generators import forked
from alignmamba.training.objective import Objective, has_value

_STEPS: Final = 100


def weigh_modalities(objective: Objective, valid: BatchSource, fabric: Fabric) -> dict[str, float]:
    """Give a model the weights of modalities that make the targets of the valid split most probable.

    The loss of the task as in training, summed over the samples, counts as the negative logarithm of their
    probability, and the logarithms of the weights are normal with mean 0 and deviation 1 beforehand: few
    samples change little. Between them a softmax of weighted scores is a logarithmic pool of what modalities
    say (Genest and Zidek, "Combining probability distributions", Statistical Science 1 (1986), section 4);
    weights of models from samples apart are stacking (Wolpert, "Stacked generalization", Neural Networks 5
    (1992)).

    Args:
        objective: Holds the model and the loss of its task; left in evaluation mode.
        valid: Batches of the valid split.
        fabric: Engine that the model runs in.

    Returns:
        Weight of each vector, the same on every process; nothing from a model that is not to be weighed, or
        that does not learn the target of the task.
    """
    model = objective.model
    if not isinstance(model, WeighsModalities) or not model.weighed:
        return {}
    if not objective.needs_targets or not objective.task_weight:
        return {}
    embedding, present, samples = _read(model, objective, valid, fabric)
    if not len(samples):
        return {}

    def cost(logarithms: Tensor) -> Tensor:
        said = model.weighed_prediction(embedding, present, logarithms.exp())
        return objective.leading_loss(samples, said).double().sum() + logarithms.square().sum() / 2

    objective.training = True  # the loss is that of training, the model stays as it predicts
    found = _least(cost, len(model.weighed), fabric.device).exp()
    objective.training = False
    weights: list[float] = fabric.broadcast(found.tolist())
    model.weigh(torch.tensor(weights))
    return dict(zip(model.weighed, weights, strict=True))


def _read(
    model: WeighsModalities, objective: Objective, valid: BatchSource, fabric: Fabric
) -> tuple[Tensor, Tensor, Batch]:
    """Embedding, and presence of the modality of each vector, of every sample that has a target, (samples,
    ...) in the order of the split, whichever process read it; and their targets.
    """
    objective.eval()
    rows: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    with torch.no_grad(), forked(fabric.device), fabric.autocast():
        for batch in valid:
            batch, output = objective.output_of(batch.to(fabric.device))
            assert batch.targets is not None  # every epoch was scored with them
            present = torch.stack([batch.having(name) for name in model.weighed.values()], 1)
            known = has_value(objective.task, batch.targets).view(len(batch), -1).any(1).tolist()
            # of their own, as a row that is sent elsewhere takes its whole batch along
            columns = [
                [*map(Tensor.clone, each.cpu())] for each in (output.embedding, present, batch.targets)
            ]
            found = zip(batch.ids, zip(*columns, strict=True), strict=True)
            rows.update(itertools.compress(found, known))
    merged = {identity: row for share in gather(rows) for identity, row in share.items()}
    ids = tuple(identity for identity in valid.ids if identity in merged)
    stacked = [torch.stack(each).to(fabric.device) for each in zip(*map(merged.get, ids), strict=True)]
    embedding, present, targets = stacked or [torch.empty(0)] * 3
    return embedding, present, Batch(modalities={}, ids=ids, targets=targets)


def _least(cost: Callable[[Tensor], Tensor], count: int, device: torch.device) -> Tensor:
    """Point of the least cost that a descent from 0 finds."""
    start = torch.zeros(count, dtype=torch.float64, device=device)
    point = start.clone().requires_grad_()
    descent = torch.optim.LBFGS([point], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        value = cost(point)
        # not backward, which would reach the weights of the model too
        (point.grad,) = torch.autograd.grad(value, point)
        return value.detach()

    descent.step(closure)
    found = point.detach()
    with torch.no_grad():
        return found if bool(cost(found) < cost(start)) else start
