"""Fitting a fusion model on the train split, choosing by the valid split, surviving interruption.

One loop for every method: what it minimises, with which optimisers and in which stages, its `Objective` says.
Small named steps around one plain record of where training stands (`State`); everything in that record, with
the weights, the optimisers and the random generators of every process, is a checkpoint. A run that resumes
from one takes bit for bit the course that it would have taken without the interruption.
"""

import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from alignmamba.contracts import Batch, FollowsTraining, ScalesTargets, TargetScale, Task
from alignmamba.errors import CheckpointError, ConfigError, DataError, TrainingError
from alignmamba.training import checkpoints
from alignmamba.training.batches import BatchSource, check_source, gather, known_targets
from alignmamba.training.class_weights import class_weights
from alignmamba.training.divergence import diverged, rate_to_blame
from alignmamba.training.engine import agree, check_precision, compiled
from alignmamba.training.fit_config import (
    FREE_ON_RESUME,
    FitConfig,
    FitResult,
    Score,
    learning_rate_at,
    loggers_of,
    require_loggers,
)
from alignmamba.training.fit_state import PER_PROCESS, Run, State
from alignmamba.training.footprint import refuse_untrainable
from alignmamba.training.generators import forked, random_state, restore_random_state
from alignmamba.training.inference import collect, known_scale
from alignmamba.training.interrupts import Interrupted, Interrupts
from alignmamba.training.logs import LOG, LOGS, Log, write_table
from alignmamba.training.loss_settings import check_loss_settings
from alignmamba.training.modality_weights import weigh_modalities
from alignmamba.training.moving_average import AveragedWeights
from alignmamba.training.objective import Minimise, Objective, Parcel, Supervised
from alignmamba.training.progress import Progress
from alignmamba.training.selection import VALIDATION_LOSS, check_metric, column, improves, selection
from alignmamba.training.stages import check_rates, check_stages, optimiser
from alignmamba.training.step_moments import looked_ahead

# Between these a model that predicts in units of the label needs no help: targets have about the size of what
# a fresh head says.
_UNSCALED: Final = (0.1, 10.0)


def fit(
    model: nn.Module,
    train: BatchSource,
    valid: BatchSource,
    config: FitConfig,
    *,
    task: Task,
    score: Score,
    higher_is_better: Mapping[str, bool],
    fabric: Fabric | None = None,
    run_dir: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    target_scale: TargetScale | None = None,
) -> FitResult:
    """Train a model; afterwards it holds the weights of the epoch that scored best on the valid split.

    Args:
        model: Takes a `Batch`, returns an `Output`, and learns by the loss of the task; or an `Objective`,
            which holds a network and says how that learns. Trained in place and moved to the engine's device.
        train: Batches of a train split, with targets.
        valid: Batches of a valid split, with targets.
        config: How to train.
        task: What the model predicts.
        score: Metrics of a set of predictions by name.
        higher_is_better: The metrics that `score` gives for this task, and whether more is better.
        fabric: Engine, already launched; by default one process on the best device of this machine.
        run_dir: Existing directory for checkpoints and logs; without it training cannot be resumed.
        resume: Resume from the last checkpoint in `run_dir`; from the beginning if there is none.
        progress: Called for steps and epochs.
        target_scale: Mean and deviation of the targets of a regression, the unit of its loss; by default as
            the model knows them, or as one pass over the train batches finds them.

    Raises:
        DataError: If a source has another role than its place here, is empty, or lacks targets.
        ConfigError: If metric, losses, precision or stages do not fit, or memory does not hold what training
            keeps.
        CheckpointError: If `run_dir` holds another run, or `resume` finds a checkpoint that does not fit.
        TrainingError: If a loss or gradient is not finite, no step was taken, or no epoch could be scored.
        Interrupted: On Ctrl-C, SIGTERM or a hangup, after saving. A second one ends the process at once.
    """
    check_source(train, "train")
    check_source(valid, "valid")
    require_loggers(config)
    check_loss_settings(config, task)
    objective = model if isinstance(model, Objective) else Supervised(model, task)
    objective.regression_loss, objective.label_smoothing = config.regression_loss, config.label_smoothing
    check_rates(objective, config.rates or {})
    for stage in check_stages(objective, epochs=config.epochs):
        # a mistake is reported now, not stages later
        selection(stage.select or config.chosen_by, task, higher_is_better)
    fabric = fabric or Fabric(accelerator="auto", devices=1, precision=config.precision)
    check_precision(fabric, config)
    _check_memory(objective, config, fabric, keeps_best=run_dir is None)
    objective.class_weights, objective.focal_gamma = class_weights(config, task, train), config.focal_gamma
    objective.task_weight = config.task_weight
    with compiled(objective.model, config.compile):
        run = _set_up(objective, train, valid, config, score, higher_is_better, fabric, run_dir, progress)
        run, state = _resume(run, target_scale) if resume else _begin(run, target_scale)
        _announce(run, state)
        with Interrupts() as interrupts:
            _train(run, state, interrupts)
            while state.stage < run.last_stage:
                run = _next_stage(run, state)
                _train(run, state, interrupts)
        return _finish(run, state)


def _announce(run: Run, state: State) -> None:
    """Report to the listener where training starts, if anything is left to do."""
    if run.progress is not None and not (state.stopped and state.stage == run.last_stage):
        epochs = len(state.history) - state.epoch + run.epochs_from(state.stage)
        run.progress.started(
            epochs=epochs, batches=len(run.train), epoch=len(state.history) + 1, batch=state.batch
        )


def _check_memory(objective: Objective, config: FitConfig, fabric: Fabric, *, keeps_best: bool) -> None:
    elsewhere = ", or give a run_dir, to keep the best weights on disk" if keeps_best else ""
    refuse_untrainable(
        objective,
        type(objective.model).__name__,
        f"make the model smaller{elsewhere}",
        precision=config.precision,
        device=fabric.device.type,
        keeps_best=keeps_best,
        averages=bool(config.ema_decay),
    )


def _set_up(
    objective: Objective,
    train: BatchSource,
    valid: BatchSource,
    config: FitConfig,
    score: Score,
    higher_is_better: Mapping[str, bool],
    fabric: Fabric,
    run_dir: Path | None,
    progress: Progress | None,
) -> Run:
    if isinstance(fabric.strategy, DDPStrategy):
        # A modality may be absent from all samples that one process sees; its encoder then gets no gradient
        # there.
        fabric.strategy._ddp_kwargs.setdefault("find_unused_parameters", True)
    with torch.random.fork_rng(devices=[]):
        objective.prepare(train)
    return Run(
        module=fabric.setup_module(objective),
        objective=objective,
        train=train,
        valid=valid,
        config=config,
        score=score,
        higher_is_better=higher_is_better,
        fabric=fabric,
        run_dir=run_dir,
        progress=progress if fabric.is_global_zero else None,
    )


def _staged(run: Run, number: int) -> Run:
    """The run in a stage, with new optimisers."""
    stage = run.objective.stages[number]
    made = [
        optimiser(
            run.objective,
            each,
            learning_rate=run.config.learning_rate,
            weight_decay=run.config.weight_decay,
            rates=run.config.rates,
        )
        for each in stage.optimisers
    ]
    wrapped = run.fabric.setup_optimizers(*made) if made else ()
    optimizers = cast(tuple[Optimizer, ...], wrapped if isinstance(wrapped, tuple) else (wrapped,))
    metric = selection(stage.select or run.config.chosen_by, run.objective.task, run.higher_is_better)
    follows = run.config.ema_decay and not stage.solved
    average = AveragedWeights(run.objective, run.config.ema_decay) if follows else None
    return replace(run, stage=stage, optimizers=optimizers, average=average, metric=metric, best_weights={})


def _next_stage(run: Run, state: State) -> Run:
    """Begin the next stage from the best epoch of this one.

    It is saved at once: the next best epoch takes the place of this one's weights.
    """
    _restore_best(run, state)
    run = _staged(run, state.stage + 1)
    kept = {name: getattr(state, name) for name in ("step", "optimiser_steps", "history")}
    vars(state).update(vars(State(stage=state.stage + 1, **kept)))
    _save(run, state)
    return run


# --- the loop -----------------------------------------------------------------------------------------------


def _train(run: Run, state: State, interrupts: Interrupts) -> None:
    logs = _logs(run, state)
    try:
        while not state.stopped:
            _train_epoch(run, state, interrupts)
            _end_epoch(run, state)
            for log in logs:
                log.write(state.history[-1])
            run.fabric.log_dict(state.history[-1], step=int(state.history[-1]["epoch"]))
            if agree(run.fabric, 0, interrupts.requested)[1]:
                _stop(run, state, interrupts)
    finally:
        for log in logs:
            log.close()


def _train_epoch(run: Run, state: State, interrupts: Interrupts) -> None:
    """Train on the batches of the epoch that are still to come."""
    run.objective.begin_epoch(run.stage, state.epoch)
    if isinstance(run.objective.model, FollowsTraining):
        run.objective.model.follow_training(state.epoch / max(1, run.epochs - 1))
    run.train.set_epoch(len(state.history))
    run.module.train()
    batches = run.train.iter_from(state.batch)
    started, before = time.perf_counter(), state.seconds
    while state.batch < len(run.train):
        group = _next_batches(batches, min(run.config.accumulate, len(run.train) - state.batch), state)
        samples, stop = agree(run.fabric, sum(len(batch) for batch in group), interrupts.requested)
        if stop:
            _stop(run, state, interrupts)
        _step(run, state, group, samples)
        state.batch += len(group)
        state.seconds = before + time.perf_counter() - started
        every = run.config.checkpoint_every_steps
        if every and state.step % every == 0 and state.batch < len(run.train):
            _save(run, state)


def _next_batches(batches: Iterator[Batch], count: int, state: State) -> list[Batch]:
    # Data never draws from the generators that dropout draws from: a resumed epoch opens its loader once more
    # than an uninterrupted one.
    with torch.random.fork_rng(devices=[]):
        group = [batch for _, batch in zip(range(count), batches, strict=False)]
    if len(group) < count:
        epoch = len(state.history) + 1
        raise DataError(
            f"train: epoch {epoch} ended after {state.batch + len(group)} batches, expected as many as before"
        )
    return group


def _step(run: Run, state: State, group: Sequence[Batch], samples: int) -> None:
    """One step of each optimiser whose turn it is, on the mean loss over all `samples` samples; batches of a
    solved stage are only measured.
    """
    mean, taken = 0.0, run.stage.solved
    if run.stage.solved:
        mean = _account(run, state, group, [_losses(run, batch) for batch in group])
    for turn in run.turns(state.epoch):
        rate = learning_rate_at(turn.before + state.batch // run.config.accumulate, turn.total, run.config)
        for parameters in turn.optimiser.param_groups:
            parameters["lr"] = rate * parameters.get("factor", 1.0)  # version 0.2 saved none
        losses = [
            _backward(run, batch, samples, turn.minimise, last=batch is group[-1])
            for batch in looked_ahead(run.objective, group, run.fabric)
        ]
        mean += _account(run, state, group, losses)
        taken = _update(run, state, group, turn.optimiser) or taken
        state.learning_rate = rate
    state.samples += sum(len(batch) for batch in group)
    with torch.no_grad():
        run.objective.after_step()
    if run.average is not None and taken:
        run.average.follow()
    state.step += 1
    state.optimiser_steps += int(taken)
    if run.progress is not None:
        done = {"epoch": len(state.history) + 1, "batch": state.batch + len(group), "step": state.step}
        run.progress.stepped(**done, loss=mean, learning_rate=state.learning_rate)


def _backward(run: Run, batch: Batch, samples: int, minimise: Minimise, *, last: bool) -> dict[str, Tensor]:
    """Add a micro batch's share of the gradient of an optimiser's terms; returns them per sample."""
    with run.fabric.no_backward_sync(run.module, enabled=not last):  # type: ignore[arg-type]
        losses = _losses(run, batch)
        unknown = [name for name in minimise.terms if name not in losses]
        if unknown:
            raise ConfigError(
                f"stage {run.stage.name!r}: no loss term {unknown[0]!r}, only {', '.join(losses)}"
            )
        wanted = {name: value for name, value in losses.items() if minimise.wants(name)}
        # The engine averages gradients over processes, whose batches may differ in size: scale back to a sum
        # first.
        share = run.fabric.world_size / samples
        run.fabric.backward(torch.stack([value.sum() for value in wanted.values()]).sum() * share)
    return {name: value.detach() for name, value in wanted.items()}


def _losses(run: Run, batch: Batch) -> dict[str, Tensor]:
    """Loss terms of a batch of train; a solved stage computes no gradient."""
    if batch.targets is None and run.objective.needs_targets:
        raise DataError(f"train: found samples without targets, for example {batch.ids[0]!r}")
    with torch.set_grad_enabled(not run.stage.solved):
        _, losses = run.module(Parcel(batch.to(run.fabric.device, non_blocking=True)))
    return cast(dict[str, Tensor], losses)


def _account(run: Run, state: State, group: Sequence[Batch], losses: Sequence[Mapping[str, Tensor]]) -> float:
    """Add the step's losses to the epoch's sums; returns their mean over this process's samples.

    It comes after the backward pass of the whole step: reading a value waits for the device, and a process
    that gave up earlier would leave the others waiting for its gradient.
    """
    total = 0.0
    for batch, terms in zip(group, losses, strict=True):
        for name, value in zip(
            terms, torch.stack([term.sum() for term in terms.values()]).tolist(), strict=True
        ):
            if not math.isfinite(value):
                wrong = [
                    identity
                    for identity, finite in zip(batch.ids, terms[name].isfinite().tolist(), strict=True)
                    if not finite
                ]
                raise diverged(run, state, f"loss {name!r} is {value}", group, wrong or batch.ids)
            state.sums[name] = state.sums.get(name, 0.0) + value
            total += value
    return total / sum(len(batch) for batch in group)


def _update(run: Run, state: State, group: Sequence[Batch], optimizer: Optimizer) -> bool:
    """Clip the gradient and change the weights of one optimiser; returns whether the step was taken."""
    limit = run.config.gradient_clip or math.inf
    norm = run.fabric.clip_gradients(run.module, optimizer, max_norm=limit, error_if_nonfinite=False)
    assert norm is not None
    finite = bool(norm.isfinite())
    if not finite and run.config.precision != "16-mixed":
        raise diverged(run, state, f"gradient norm is {norm.item()}", group, group[-1].ids)
    optimizer.step()  # under 16-mixed the gradient scaler skips what is not finite and lowers its scale
    run.objective.zero_grad()
    return finite


def _end_epoch(run: Run, state: State) -> None:
    """Validate, record, keep what is best, decide whether to stop, save."""
    with run.averaged():
        best = _judge(run, state)
    record = state.history[-1]
    state.epoch, state.batch, state.seconds, state.samples, state.sums = state.epoch + 1, 0, 0.0, 0, {}
    if not run.stage.solved and 0 < run.config.patience <= state.epoch - state.best_epoch:
        state.stopped = "patience"
    elif state.epoch >= run.epochs:
        state.stopped = "epochs"
    _save(run, state)
    if run.progress is not None:
        run.progress.epoch_finished(record, best=best)


def _judge(run: Run, state: State) -> bool:
    """Validate and record the epoch; keep its weights and return true if it is the best so far."""
    started = time.perf_counter()
    record = {"epoch": len(state.history) + 1, "step": state.step, **_train_losses(state), **_validate(run)}
    if run.last_stage:
        record["stage"] = state.stage + 1
    record["learning_rate"] = state.learning_rate
    record["seconds"] = state.seconds + time.perf_counter() - started
    state.history.append(record)
    value, loss = record[column(run.metric)], record.get(column(VALIDATION_LOSS), math.nan)
    best = improves(value, state.best_score, higher_is_better=run.higher_is_better.get(run.metric, False))
    # Shares of few samples are often equal, and the first of such epochs is seldom the best.
    equal = run.config.ties != "first" and value == state.best_score
    best |= equal and improves(loss, state.best_loss, higher_is_better=False)
    if best:
        state.best_epoch, state.best_score, state.best_loss = state.epoch + 1, value, loss
        _keep_best(run, state)
    return best


def _train_losses(state: State) -> dict[str, float]:
    """Mean loss terms of the epoch over the samples of all processes."""
    shares = gather((state.samples, state.sums))
    samples = sum(count for count, _ in shares)
    names = list(dict.fromkeys(name for _, sums in shares for name in sums))
    means = {name: sum(sums.get(name, 0.0) for _, sums in shares) / samples for name in names}
    return {f"train/loss/{name}": value for name, value in {**means, "total": sum(means.values())}.items()}


def _validate(run: Run) -> dict[str, float]:
    """Losses and metrics on the valid split, the same on every process."""
    run.module.eval()
    with forked(run.fabric.device):
        predictions = collect(run.module, run.valid, task=run.objective.task, device=run.fabric.device)
    if predictions.targets is None and run.objective.needs_targets:
        raise DataError("valid: found samples without targets, expected all of them to choose the best epoch")
    wrong = ~np.isfinite(predictions.prediction.reshape(len(predictions.ids), -1)).all(axis=1)
    if wrong.all():  # of one sample, the scores will say which it is
        raise TrainingError(f"valid: found no finite prediction: {rate_to_blame(run)}")
    metrics = run.fabric.broadcast(dict(run.score(predictions)))
    check_metric(run.metric, metrics)
    losses = {f"valid/loss/{name}": value for name, value in predictions.losses.items()}
    return {**losses, **{f"valid/{name}": value for name, value in metrics.items()}}


def _restore_best(run: Run, state: State) -> None:
    """Put the weights of the stage's best epoch into the objective."""
    if state.best_epoch == 0:
        where = f"{run.metric} on the valid split" + (
            f", stage {run.stage.name!r}," if run.last_stage else ""
        )
        raise TrainingError(f"{where} was not a number in any of {state.epoch} epochs; select another metric")
    if run.run_dir is None:
        run.objective.load_state_dict(run.best_weights)
    else:
        checkpoints.load(run.fabric, run.run_dir / checkpoints.BEST, {"model": run.module})
    run.objective.zero_grad()


def _finish(run: Run, state: State) -> FitResult:
    """Put the best weights into the model and report."""
    if state.optimiser_steps == 0:
        raise TrainingError(
            f"no optimiser step of {state.step} was applied: every gradient overflowed under"
            f" precision {run.config.precision}"
        )
    _restore_best(run, state)
    weights = weigh_modalities(run.objective, run.valid, run.fabric)
    return FitResult(
        history=tuple(state.history),
        metric=run.metric,
        best_epoch=len(state.history) - state.epoch + state.best_epoch,
        best_score=state.best_score,
        optimiser_steps=state.optimiser_steps,
        stopped="patience" if state.stopped == "patience" else "epochs",
        modality_weights=weights,
    )


# --- checkpoints --------------------------------------------------------------------------------------------


def _begin(run: Run, target_scale: TargetScale | None) -> tuple[Run, State]:
    if run.run_dir is not None and (run.run_dir / checkpoints.LAST).exists():
        raise CheckpointError(f"{run.run_dir}: found a run; resume it or choose another directory")
    return _start(run, target_scale)


def _start(run: Run, target_scale: TargetScale | None) -> tuple[Run, State]:
    """Start of a run; model and loss get the scale of the targets, measured where nobody has given one."""
    model = run.objective.model
    if run.objective.task.kind == "regression":
        scale = target_scale or known_scale(model) or _measured_scale(run)
        run.objective.target_scale = scale
        if isinstance(model, ScalesTargets):
            model.scale_targets(scale)
        elif run.fabric.is_global_zero and not _UNSCALED[0] < scale.deviation < _UNSCALED[1] > abs(
            scale.mean
        ):
            warnings.warn(
                f"{type(model).__name__} predicts in units of the label, and the train targets lie at"
                f" {scale.mean:.4g} with a standard deviation of {scale.deviation:.4g}: it may learn slowly;"
                " a model that inherits from ScalesTargets is given both",
                stacklevel=4,
            )
    return _staged(run, 0), State()


def _measured_scale(run: Run) -> TargetScale:
    """The scale of all targets of the train split, whichever process holds them."""
    targets = known_targets(run.train, run.objective.task)
    wrong = [identity for identity, target in targets.items() if not math.isfinite(target)]
    if wrong:
        raise DataError(
            f"train: sample {wrong[0]!r} has target {targets[wrong[0]]}, expected a finite number"
        )
    return TargetScale.of(list(targets.values()))


def _resume(run: Run, target_scale: TargetScale | None) -> tuple[Run, State]:
    """State at the last checkpoint, with weights, optimisers and random generators put back."""
    if run.run_dir is None:
        raise CheckpointError("resume: needs the directory of the run to resume")
    path = run.run_dir / checkpoints.LAST
    if not path.exists():
        return _start(run, target_scale)
    run = _staged(run, _stage_of(run, path))
    found = checkpoints.load(run.fabric, path, {"model": run.module, **run.named_optimizers()})
    try:
        state, processes, identity = State(**found["state"]), found["processes"], found["identity"]
        scaler = found["precision"]
        average = found.get("average", {})  # version 0.1 saved none
        # Version 0.1 did not scale targets: what it began continues in units of the label.
        run.objective.target_scale = TargetScale(**found.get("target_scale", {}))
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of a run") from error
    for name, value in _identity(run).items():
        expected = identity.get(name, FitConfig.SILENT.get(name))
        if value != expected:
            raise CheckpointError(f"{path}: found {name}={value!r}, expected {expected!r} to resume")
    own = processes[run.fabric.global_rank]
    state.samples, state.sums = own["samples"], own["sums"]
    run.fabric.strategy.precision.load_state_dict(scaler)
    restore_random_state(own["random"], run.fabric.device)
    if run.average is not None:
        run.average.load_state_dict(average)
    if run.fabric.is_global_zero:
        write_table(path.parent / LOG, state.history)
    return run, state


def _stage_of(run: Run, path: Path) -> int:
    """The stage that a checkpoint was saved in, from 0: its optimisers are made before they are filled."""
    if run.last_stage == 0:
        return 0
    state = checkpoints.load(run.fabric, path, {"model": run.module}).get("state")
    number = state.get("stage") if isinstance(state, dict) else None
    if not isinstance(number, int) or not 0 <= number <= run.last_stage:
        raise CheckpointError(f"{path}: not a checkpoint of a run in {run.last_stage + 1} stages")
    return number


def _identity(run: Run) -> dict[str, Any]:
    """Facts that must not change between the parts of a run."""
    fields = {name: value for name, value in run.config.model_dump().items() if name not in FREE_ON_RESUME}
    return {**fields, "batches per epoch": len(run.train), "processes": run.fabric.world_size}


def _save(run: Run, state: State) -> None:
    """Write the last checkpoint and the table of epochs."""
    if run.run_dir is None:
        return
    own = {
        "samples": state.samples,
        "sums": state.sums,
        "random": random_state(run.fabric.device),
    }
    contents = {
        "model": run.module,
        **run.named_optimizers(),
        "state": {name: value for name, value in asdict(state).items() if name not in PER_PROCESS},
        "processes": gather(own),
        "precision": run.fabric.strategy.precision.state_dict(),
        "identity": _identity(run),
        "target_scale": asdict(run.objective.target_scale),
        "average": {} if run.average is None else run.average.state_dict(),
    }
    checkpoints.save(run.fabric, run.run_dir / checkpoints.LAST, contents)
    if run.fabric.is_global_zero and state.history:
        write_table(run.run_dir / LOG, state.history)


def _keep_best(run: Run, state: State) -> None:
    if run.run_dir is None:
        run.best_weights.update(
            {name: value.detach().clone() for name, value in run.objective.state_dict().items()}
        )
    else:
        contents = {
            "model": run.module,
            "epoch": len(state.history),
            "metric": run.metric,
            "score": state.best_score,
        }
        checkpoints.save(run.fabric, run.run_dir / checkpoints.BEST, contents)


def _logs(run: Run, state: State) -> list[Log]:
    if run.run_dir is None or not run.fabric.is_global_zero:
        return []
    settings = run.config.model_dump(mode="json")
    return [LOGS[name](run.run_dir, settings, first_epoch=state.epoch + 1) for name in loggers_of(run.config)]


def _stop(run: Run, state: State, interrupts: Interrupts) -> None:
    """Save and leave."""
    _save(run, state)
    checkpoint = None if run.run_dir is None else run.run_dir / checkpoints.LAST
    under_way = len(state.history) - state.epoch + min(state.epoch + 1, run.epochs)
    raise Interrupted(checkpoint, epoch=under_way, signal_number=interrupts.signal_number)
