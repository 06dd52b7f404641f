"""Running a model over a split: one pass, one result in the order of the split."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from alignmamba.contracts import (
    Batch,
    FurtherPredictions,
    Predictions,
    ScalesTargets,
    Target,
    TargetScale,
    Task,
)
from alignmamba.errors import DataError
from alignmamba.training.batches import BatchSource, gather
from alignmamba.training.generators import forked
from alignmamba.training.objective import Parcel, Predicted, RegressionLoss, Supervised

Forward = Callable[[Parcel], tuple[Predicted, dict[str, Tensor]]]


def predict(
    model: nn.Module,
    source: BatchSource,
    *,
    task: Task,
    fabric: Fabric | None = None,
    device: torch.device | str | None = None,
    regression_loss: RegressionLoss = "l1",
    target_scale: TargetScale | None = None,
    seed: int = 0,
) -> Predictions:
    """Predict a split.

    The model is moved to the device, runs in evaluation mode without gradients, and is left in the mode it
    had.

    Args:
        model: Takes a `Batch`, returns an `Output`.
        source: Batches of the split, with targets or without.
        task: What the model predicts.
        fabric: Gives device and precision; with several processes, each predicts its share and all receive
            the whole.
        device: Where to run without `fabric`; by default where the model's first parameter is.
        regression_loss: What ``losses["task"]`` means for a regression task.
        target_scale: In which units it is; by default in those that the model was trained in, see
            `known_scale`.
        seed: Of torch's global generator meanwhile, for a model that draws at random; the generator is put
            back afterwards.

    Returns:
        One row per id of the split, in its order: values, or probabilities of the classes.

    Raises:
        DataError: If the source leaves out a sample of its split, yields one that is not of it, or is empty.
    """
    scale = target_scale or known_scale(model) or TargetScale()
    objective = Supervised(model, task, regression_loss=regression_loss, target_scale=scale)
    if fabric is not None:
        place = fabric.device
    elif device is not None:
        place = torch.device(device)
    else:
        place = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    model.to(place)

    def forward(parcel: Parcel) -> tuple[Predicted, dict[str, Tensor]]:
        if fabric is None:
            return objective(parcel)  # type: ignore[no-any-return]
        with fabric.autocast():
            return objective(parcel)  # type: ignore[no-any-return]

    was_training = model.training
    model.eval()
    try:
        with forked(place):
            torch.manual_seed(seed)
            found = collect(forward, source, task=task, device=place)
            return _called(found, model.thresholds) if isinstance(model, ScalesTargets) else found
    finally:
        model.train(was_training)


def _called(predictions: Predictions, thresholds: Mapping[str, NDArray[np.float64]]) -> Predictions:
    """The predictions with what a model calls by its thresholds."""
    further = {
        name: replace(said, called=said.prediction >= thresholds[name]) if name in thresholds else said
        for name, said in predictions.further.items()
    }
    called = predictions.prediction >= thresholds[""] if "" in thresholds else None
    return replace(predictions, called=called, further=further)


def known_scale(model: nn.Module) -> TargetScale | None:
    """The scale of the targets that a model was given or loaded with; ``None`` where it has none."""
    return model.target_scale if isinstance(model, ScalesTargets) else None


def collect(forward: Forward, source: BatchSource, *, task: Task, device: torch.device) -> Predictions:
    """Run `forward` over the whole source and put the results of all processes into the split's order."""
    rows: dict[str, _Row] = {}
    with torch.no_grad():
        for batch in source:
            predicted, losses = forward(Parcel(batch.to(device, non_blocking=True)))
            rows.update(_rows(batch, predicted, losses, task))
    merged: dict[str, _Row] = {}
    for share in gather(rows):
        for identity, row in share.items():
            merged.setdefault(identity, row)  # samples repeated to fill the last batch are dropped here
    return _in_order(merged, source.ids, task)


# Prediction and target of one sample, and of a target of tokens their times.
_Found = tuple[NDArray[np.floating], NDArray[np.generic], NDArray[np.floating] | None]
# The same of each further target, by name.
_Further = dict[str, _Found]
# Prediction, target or None, loss terms and further targets of one sample.
_Row = tuple[NDArray[np.floating], Any, dict[str, float], _Further]


def _rows(batch: Batch, predicted: Predicted, losses: dict[str, Tensor], task: Task) -> dict[str, _Row]:
    array = probable(predicted.values, task.kind)
    targets = [None] * len(batch) if batch.targets is None else batch.targets.tolist()
    terms = {name: value.tolist() for name, value in losses.items()}
    further = {
        target.name: _of_target(target, batch, predicted.further)
        if target.tokens is None
        else _of_tokens(target, target.tokens, batch, predicted.further)
        for target in task.further
    }
    return {
        identity: (
            array[row],
            targets[row],
            {name: value[row] for name, value in terms.items()},
            {name: found[row] for name, found in further.items()},
        )
        for row, identity in enumerate(batch.ids)
    }


def probable(prediction: Tensor, kind: str) -> NDArray[np.floating]:
    """Values of a regression, probabilities of anything else."""
    if kind == "regression":
        return prediction.double().cpu().numpy()
    logits = prediction.float()
    return (logits.sigmoid() if kind == "multilabel" else logits.softmax(dim=-1)).cpu().numpy()


def _of_target(target: Target, batch: Batch, said: Mapping[str, Tensor]) -> list[_Found]:
    """Prediction of a further target in each sample, NaN without its modality, and its value."""
    array = probable(said[target.name], target.kind)
    if target.modality is not None:
        array = array.copy()
        array[~batch.having(target.modality).cpu().numpy()] = np.nan
    truth = _truth(target, batch, array)
    return [(array[row], truth[row], None) for row in range(len(batch))]


def _of_tokens(target: Target, modality: str, batch: Batch, said: Mapping[str, Tensor]) -> list[_Found]:
    """Predictions of a target of tokens in each sample, its values and the times of the tokens."""
    array = probable(said[target.name], target.kind)
    truth = _truth(target, batch, array)
    if modality not in batch.modalities:
        return [(array[row], truth[row][:0], np.zeros(0)) for row in range(len(batch))]
    there = batch.modalities[modality]
    times = np.full(there.mask.shape, np.nan) if there.times is None else there.times.cpu().numpy()
    lengths = there.lengths.tolist()
    return [
        (array[row, :length], truth[row, :length], times[row, :length].astype(np.float64))
        for row, length in enumerate(lengths)
    ]


def _truth(target: Target, batch: Batch, said: NDArray[np.floating]) -> NDArray[np.generic]:
    """Values of a further target in a batch, unknown ones where it has none."""
    if target.name in batch.further:
        return batch.further[target.name].cpu().numpy()
    shape = said.shape if target.kind in ("regression", "multilabel") else said.shape[:-1]
    return np.full(shape, -1 if target.has_one_class else np.nan)


def _in_order(rows: dict[str, _Row], ids: tuple[str, ...], task: Task) -> Predictions:
    missing = [identity for identity in ids if identity not in rows]
    if missing or len(rows) != len(ids):
        foreign = sorted(rows.keys() - set(ids))
        raise DataError(
            f"source: expected each of {len(ids)} samples, found {len(rows)}; missing: {missing[:3]},"
            f" not of the split: {foreign[:3]}"
        )
    if not ids:
        raise DataError("source: the split has no sample to predict")
    ordered = [rows[identity] for identity in ids]
    targets = [target for _, target, _, _ in ordered]
    complete = all(target is not None for target in targets)
    labelled = complete and any(task.known(target) is not None for target in targets)
    return Predictions(
        ids=ids,
        prediction=np.stack([prediction for prediction, _, _, _ in ordered]),
        targets=np.asarray(targets) if labelled else None,
        further={name: _together([further[name] for *_, further in ordered]) for name in ordered[0][-1]},
        losses=_mean_losses([losses for _, _, losses, _ in ordered]),
    )


def _together(rows: list[_Found]) -> FurtherPredictions:
    """Predictions of one further target of all samples, or of the tokens of all samples."""
    said, truth, times = zip(*rows, strict=True)
    if times[0] is None:
        return FurtherPredictions(prediction=np.stack(said), targets=np.stack(truth))
    return FurtherPredictions(
        prediction=np.concatenate(said),
        targets=np.concatenate(truth),
        lengths=np.array([len(each) for each in said]),
        times=np.concatenate(times),
    )


def _mean_losses(losses: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each term over the samples, and their sum as ``total``; nothing unless all have losses."""
    if not all(losses):
        return {}
    means = {name: sum(each[name] for each in losses) / len(losses) for name in losses[0]}
    return {**means, "total": sum(means.values())}
