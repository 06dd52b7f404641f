"""Reason why a step is not finite: an input, the learning rate, or the samples themselves."""

from collections.abc import Sequence

from alignmamba.contracts import Batch
from alignmamba.errors import TrainingError
from alignmamba.training.fit_state import Run, State


def diverged(run: Run, state: State, found: str, group: Sequence[Batch], ids: Sequence[str]) -> TrainingError:
    """Values that are not finite in a step, and their probable cause."""
    where = f"epoch {len(state.history) + 1}, step {state.step + 1}: {found}"
    spoilt = next((problem for batch in group if (problem := _nonfinite_input(batch)) is not None), None)
    if spoilt is not None:
        return TrainingError(f"{where}: {spoilt}")
    if not state.optimiser_steps:
        return TrainingError(
            f"{where}, samples {', '.join(ids[:3])}: their inputs are finite, but perhaps too large"
        )
    if len(ids) == len(group[-1]) or len(ids) > 3:  # not a sample of its own kind, but the weights
        return TrainingError(f"{where}, although all inputs are finite: {rate_to_blame(run)}")
    return TrainingError(
        f"{where}, samples {', '.join(ids)}, although all inputs are finite: they are too large, or"
        f" {rate_to_blame(run)}"
    )


def rate_to_blame(run: Run) -> str:
    """The highest of the learning rates, that of the run or one that weights have for themselves."""
    marks = [vars(parameter) for parameter in run.objective.parameters() if parameter.requires_grad]
    own = [(each["_learning_rate"], each["_rate_of"]) for each in marks if "_rate_of" in each]
    rate, whose = max(own, default=(0.0, ""))
    if rate > run.config.learning_rate:
        return (
            f"the learning rate of {whose} is probably too high, found {rate:g}; set a smaller learning_rate"
            f" of {whose}"
        )
    return (
        f"the learning rate is probably too high, found {run.config.learning_rate:g}; set a smaller"
        " fit.learning_rate"
    )


def _nonfinite_input(batch: Batch) -> str | None:
    """The first sample that has a feature or a target which is not finite, with the cure."""
    for name, s in batch.modalities.items():
        if s.features.is_floating_point():
            wrong = (~s.features.isfinite() & s.mask.unsqueeze(-1)).flatten(1).any(1).nonzero()
            if len(wrong):
                where = f"sample {batch.ids[int(wrong[0])]!r}, modality {name!r}"
                return f"{where}: features are not finite; --nonfinite mean or zero repairs those of a corpus"
    if (
        batch.targets is not None
        and batch.targets.is_floating_point()
        and not bool(batch.targets.isfinite().all())
    ):
        identity = batch.ids[int((~batch.targets.isfinite()).nonzero()[0])]
        return f"sample {identity!r} has a target that is not finite"
    return None
