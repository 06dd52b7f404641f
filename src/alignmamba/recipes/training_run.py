"""Training a run: check and load everything, fit, evaluate once, write the run directory."""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from html import escape
from pathlib import Path
from typing import Any, Literal

from lightning_fabric import Fabric

from alignmamba.contracts import Corpus, Role, Task
from alignmamba.data.balanced_order import TARGET
from alignmamba.data.labelled_splits import any_label_varies
from alignmamba.data.loader import Loader
from alignmamba.data.missing_protocols import withheld
from alignmamba.data.sample_weights import check_sample_weights
from alignmamba.data.standardise import fit_standardisation
from alignmamba.errors import AlignMambaError, CheckpointError, ConfigError, TrainingError
from alignmamba.evaluation.metrics import (
    all_metric_names,
    metric_of,
    nonfinite_problem,
    score,
    undefined_notes,
)
from alignmamba.evaluation.thresholds import chosen_thresholds, in_words
from alignmamba.files import refused_by_machine
from alignmamba.models.network import Network
from alignmamba.models.pretrained import Provenance
from alignmamba.recipes.advice import alignment_note, clock_note
from alignmamba.recipes.assembly import (
    check_pretrained,
    counted_weights,
    environment,
    launched,
    loaders,
    num_parameters_of,
    own_data,
    seed_everything,
    untrained_network,
)
from alignmamba.recipes.configuration import RunConfig, resolve
from alignmamba.recipes.display import Shown, samples_display, say_note, shown_progress
from alignmamba.recipes.finished_run import distance_covered, refuse_unlabelled
from alignmamba.recipes.preparation import prepared, training_corpus
from alignmamba.recipes.pretraining_run import check_pretrainable, objective_of, scores_of, valid_losses
from alignmamba.recipes.run_directory import (
    METRICS,
    MODEL,
    RunDirectory,
    Table,
    beside,
    confusion_table,
    corpus_identity,
    missing_table,
    numbered,
    plain,
    prediction_tables,
    refuse_existing,
    set_aside,
    to_csv,
)
from alignmamba.recipes.starting_weights import pinned_start, planned_start, start_from
from alignmamba.training.checkpoints import LAST
from alignmamba.training.fit_config import FitConfig, FitResult, require_loggers
from alignmamba.training.inference import predict
from alignmamba.training.loop import fit
from alignmamba.training.loss_settings import check_loss_settings
from alignmamba.training.progress import Progress, together
from alignmamba.training.selection import VALIDATION_LOSS, selection

_GONE = re.compile("[Cc]onnection|[Bb]roken pipe|gloo|NCCL|[Ss]ocket|[Tt]imed out")
"""Messages of distributed operations when a process of theirs is gone."""

RUNS = Path("runs")
"""Directory of runs that are given none, under the current one."""


@dataclass(frozen=True, kw_only=True)
class ReadyRun:
    """A run that is about to be made: everything is checked and loaded, nothing is written."""

    config: RunConfig
    """Complete: every option of the model stands in it."""
    corpus: Corpus
    digest: str
    directory: Path
    num_parameters: int
    """Weights that training changes."""
    loaders: Mapping[Role, Loader] = field(repr=False)
    """Batches of each split."""
    notes: tuple[str, ...] = ()
    """Notes on what training does differently than expected, in sentences."""
    prepared: Mapping[str, Any] = field(default_factory=dict)
    """Record in ``run.json`` of the corpus's preparation."""

    @property
    def batches_per_epoch(self) -> int:
        """Number of samples of the train split, over all processes together."""
        return len(self.loaders["train"])


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A finished run, as its ``metrics.json`` records it."""

    directory: Path
    config: RunConfig
    digest: str
    corpus: str
    """Name of the corpus."""
    metrics: Mapping[Role, Mapping[str, float | None]]
    """Scores on valid and, where the corpus has a labelled one, test; ``None`` where a metric is not
    defined."""
    references: Mapping[str, float]
    """Known scores of the corpus to compare with."""
    num_parameters: int
    best_epoch: int
    """Epoch whose weights were kept, from 1."""
    epochs: int
    """Epochs trained."""
    optimiser_steps: int
    stopped: Literal["epochs", "patience"]
    seconds: float
    """Time spent in training and validation."""
    notes: tuple[str, ...] = ()
    """Notes on the scores: why test has none, or that the run was resumed under other versions, threads or
    devices.
    """
    missing: Mapping[str, Any] | None = None
    """Facts of what is withheld: ``protocol``, ``rate`` and the ``effective_rate`` of valid and test."""
    thresholds: Mapping[str, float] | None = None
    """Probabilities from which labels are called, of targets of several labels."""
    modality_weights: Mapping[str, float] | None = None
    """Factor on the vector of each modality in the prediction, where they were chosen on the valid split."""
    first_process: bool = True
    """False in all but one of several processes that trained together; that one speaks for all."""

    def __repr__(self) -> str:
        first = {role: next(iter(scores.items())) for role, scores in self.metrics.items() if scores}
        said = "; ".join(f"{role} {name} {_rounded(value)}" for role, (name, value) in first.items())
        kept = f"epoch {self.best_epoch} of {self.epochs}"
        return f"RunResult({self.config.model} on {self.corpus!r:.80}: {said}; {kept}; {self.directory})"

    def _repr_html_(self) -> str:
        """A table of the scores, for a notebook."""
        splits = list(self.metrics)
        names = list(dict.fromkeys(name for scores in self.metrics.values() for name in scores))
        head = "".join(f"<th>{role}</th>" for role in splits)
        cells = {
            name: "".join(f"<td>{_rounded(self.metrics[role].get(name))}</td>" for role in splits)
            for name in names
        }
        rows = "".join(f"<tr><td>{name}</td>{scores}</tr>" for name, scores in cells.items())
        title = escape(
            f"{self.config.model} on {self.corpus}, epoch {self.best_epoch} of {self.epochs}:"
            f" {self.directory}"
        )
        return f"<table><caption>{title}</caption><tr><th></th>{head}</tr>{rows}</table>"

    @property
    def distance_covered(self) -> Mapping[str, float]:
        """Metric to the share of the way from best single modality to best reachable on test."""
        return distance_covered(self.metrics.get("test", {}), self.references)


def _rounded(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"


class RunInterrupted(KeyboardInterrupt):
    """Training was stopped from outside and can be resumed.

    Attributes:
        directory: The run to resume.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(f"interrupted; resume with: alignmamba train --resume {directory}")
        self.directory = directory


def plan(config: RunConfig, *, out: str | Path | None = None, overwrite: bool = False) -> ReadyRun:
    """Check everything about a run that can be checked before it starts; arguments and errors are those of
    `train`.
    """
    refuse_missing_extras(config)
    made = prepared(pinned_start(config))
    corpus = made.corpus
    complete = resolve(made.config, corpus)
    _check_thresholds(complete.fit.thresholds, corpus.task)
    batch, divided = complete.loader.batch_size, complete.fit.accumulate * complete.engine.devices
    check_loss_settings(complete.fit, corpus.task, step=None if batch is None else batch * divided)
    if complete.loader.weights:
        check_sample_weights(corpus.split("train"), complete.loader.weights)
    if complete.fit.class_weights == "balanced" and complete.loader.balance == TARGET:
        raise ConfigError(
            "loader.balance: found 'target' beside fit.class_weights 'balanced', expected one of the two"
        )
    digest = complete.digest(corpus)
    name = re.sub(r"[^\w.-]+", "-", corpus.name)
    if out is not None:
        directory = Path(out)
    else:
        directory = RUNS / f"{name}-{config.model}-{digest[:8]}-seed{config.seed}"
        directory = directory if overwrite else numbered(directory)
    refuse_existing(directory, overwrite=overwrite)
    if complete.objective == "task":
        refuse_unlabelled(corpus, ("train", "valid"))  # now, not after the first epoch
        _check_select(complete.fit, corpus)
    else:
        check_pretrainable(complete, corpus)
    check_pretrained(complete, corpus)
    notes, facts = (*made.notes, *clock_note(made.config, complete)), dict(made.identity)
    if complete.start.run:
        start = planned_start(complete, corpus)
        notes, facts = (*notes, *start.notes(complete.start.run)), {**facts, "start": start.facts}
    return ReadyRun(
        config=complete,
        corpus=corpus,
        digest=digest,
        directory=directory,
        num_parameters=counted_weights(complete, corpus),
        loaders=loaders(complete, corpus),
        notes=notes,
        prepared=facts,
    )


def refuse_missing_extras(config: RunConfig) -> None:
    """Refuse, by a `ConfigError`, settings that need a package which is not installed."""
    require_loggers(config.fit)


def _check_thresholds(thresholds: str, task: Task) -> None:
    if thresholds != "half" and "multilabel" not in (task.kind, *(target.kind for target in task.further)):
        raise ConfigError(
            f"fit.thresholds: found {thresholds!r}, expected 'half', as no target has several labels"
        )


def _check_select(fit: FitConfig, corpus: Corpus) -> None:
    """Refuse a score by which no epoch can be chosen: one that is unknown, or that the valid split lacks."""
    known = ("auto", VALIDATION_LOSS, *all_metric_names(corpus.task))
    if fit.select not in known:
        raise ConfigError(f"fit.select: found {fit.select!r}, expected one of {', '.join(known)}")
    name = selection(fit.chosen_by, corpus.task, dict.fromkeys(known, True))
    if corpus.task.kind == "multilabel" and name == "auroc" and not any_label_varies(corpus.split("valid")):
        raise ConfigError(
            "fit.select: auroc needs a label that some samples of valid have and others lack, found none;"
            f" take fit.select={VALIDATION_LOSS}"
        )


def train(
    config: RunConfig | None = None,
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    data: str | None = None,
    overwrite: bool = False,
    progress: Shown = "auto",
    callbacks: Sequence[Progress] = (),
) -> RunResult:
    """Train a model, choose its best epoch on the valid split, evaluate it once on test, and write the run
    directory.

    Args:
        config: What to train on what; by default the default model on the synthetic corpus.
        out: Directory of the run; by default ``runs/<corpus>-<model>-<digest>-seed<N>``, with a number added
            where a finished run has that name.
        resume: Directory of an interrupted run to resume, by its own configuration; of a finished run the
            result is returned.
        data: With `resume`, where the corpus lies now, if it was moved.
        overwrite: Replace the run that lies there. It is gone only once everything was checked and the new
            one was begun; it comes back if that one is refused before its first checkpoint. Anything but a
            run is refused.
        progress: ``"auto"`` shows a bar on a terminal and a line in a notebook, and nothing elsewhere;
            ``None`` is silent. Or an object that meets `Progress`.
        callbacks: More objects that receive steps and epochs, in the first process.

    Returns:
        The scores and where everything lies.

    Raises:
        AlignMambaError: If the configuration, the corpus or the directory cannot be used as asked.
        RunInterrupted: On Ctrl-C, SIGTERM or a hangup, after saving.
    """
    if resume is None:
        if data is not None:
            raise ConfigError("data: found without resume; put it into the configuration")
        if config is not None and not isinstance(config, RunConfig):
            raise ConfigError(f"config: expected a RunConfig, found {type(config).__name__}")
        ready = plan(config or RunConfig(), out=out, overwrite=overwrite)
        fabric = launched(ready.config.engine, ready.config.fit.precision)
        with set_aside(ready.directory) if overwrite and fabric.is_global_zero else nullcontext():
            if fabric.is_global_zero:
                for note in ready.notes:
                    say_note(note)
                facts = {
                    "digest": ready.digest,
                    "corpus": corpus_identity(ready.corpus),
                    "seed": ready.config.seed,
                    **ready.prepared,
                    **({"recipe": dict(ready.corpus.recipe)} if ready.corpus.recipe else {}),
                }
                RunDirectory.create(
                    ready.directory, config=ready.config, identity=facts, environment=environment()
                )
            fabric.barrier()
            with shown_progress(progress) as shown:
                told = together(shown, *callbacks)
                run = RunDirectory(ready.directory)
                return _train(
                    ready.config, ready.corpus, ready.loaders, run, fabric, resume=False, progress=told
                )

    if config is not None or out is not None or overwrite:
        raise ConfigError("resume: found a configuration or a directory, expected only the run to resume")
    run = RunDirectory.open(Path(resume))
    complete = run.config()
    if run.finished:
        return _result(run, complete, run.metrics())
    corpus = training_corpus(run, complete, data or own_data(complete))
    counted_weights(complete, corpus)  # refuses more than this machine holds
    fabric = launched(complete.engine, complete.fit.precision)
    with shown_progress(progress) as shown:
        told = together(shown, *callbacks)
        return _train(complete, corpus, loaders(complete, corpus), run, fabric, resume=True, progress=told)


# The steps of a run


def _train(
    config: RunConfig,
    corpus: Corpus,
    loaders: Mapping[Role, Loader],
    run: RunDirectory,
    fabric: Fabric,
    *,
    resume: bool,
    progress: Progress | None,
) -> RunResult:
    with _ending_well(run, fabric, resume=resume):
        if resume and run.finished:  # by the process that held it until now
            return _result(run, config, run.metrics(), first_process=fabric.is_global_zero)
        if resume and fabric.is_global_zero:
            run.record_resumption(environment())
        if progress is not None and fabric.is_global_zero and (note := alignment_note(config, corpus)):
            with samples_display("") as told:
                told.say(note)
        sources = {role: each.of_rank(fabric.global_rank) for role, each in loaders.items()}
        model, result = fitted(
            config, corpus, sources, fabric, run_dir=run.path, resume=resume, progress=progress
        )
        if config.objective == "task":
            metrics, rates, notes = _evaluate_best(model, config, corpus, run, fabric, sources)
        else:
            metrics, rates, notes = {"valid": valid_losses(result)}, {}, []
        summary = _summary(model, corpus, metrics, result)
        notes += run.resumed_under()
        if result.modality_weights:
            summary["modality_weights"] = dict(result.modality_weights)
        if model.thresholds:
            summary["thresholds"] = in_words(model.thresholds, corpus.task)
        if notes:
            summary["notes"] = notes
        if config.missing.protocol != "none" and rates:
            summary["missing"] = {**config.missing.model_dump(), "effective_rate": rates}
        summary = plain(summary)
        if fabric.is_global_zero:
            model.provenance = _provenance(config, corpus, summary)
            model.save_pretrained(run.path / MODEL)
            run.finish(summary)
        fabric.barrier()
    return _result(run, config, summary, first_process=fabric.is_global_zero)


def fitted(
    config: RunConfig,
    corpus: Corpus,
    sources: Mapping[Role, Loader],
    fabric: Fabric,
    *,
    run_dir: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> tuple[Network[Any], FitResult]:
    """A network trained on the train batches of this process, with the weights of the epoch that scored best
    on its valid ones. Nothing is written without a `run_dir`; arguments and errors are those of `fit`.
    """
    seed_everything(config.seed)
    model = untrained_network(config, corpus)
    objective = objective_of(config, model, corpus.task)
    if config.start.run and not resume:
        start_from(config, model)
    seed_everything(config.seed, rank=fabric.global_rank)
    model.standardise(fit_standardisation(corpus.split("train"), corpus.modalities, corpus.task))
    result = fit(
        objective,
        sources["train"],
        sources["valid"],
        config.fit,
        task=corpus.task,
        score=lambda predictions: scores_of(config, corpus.task, predictions),
        higher_is_better={name: metric_of(name).higher_is_better for name in all_metric_names(corpus.task)},
        fabric=fabric,
        run_dir=run_dir,
        resume=resume,
        progress=progress,
    )
    if config.fit.thresholds == "validation":
        loss = config.fit.regression_loss
        said = predict(model, sources["valid"], task=corpus.task, fabric=fabric, regression_loss=loss)
        model.call_from(chosen_thresholds(corpus.task, said))
    return model, result


@contextmanager
def _ending_well(run: RunDirectory, fabric: Fabric, *, resume: bool) -> Iterator[None]:
    """Hold a run while it is trained, and report in one line what ends it early, with the way to resume.
    Before its first checkpoint its directory goes.
    """
    with run.alone() if fabric.is_global_zero else nullcontext():
        try:
            yield
        except KeyboardInterrupt as interrupt:
            raise RunInterrupted(run.path) from interrupt
        except Exception as error:
            ours = isinstance(error, AlignMambaError)
            cause = (
                error.__cause__
                if isinstance(error, TrainingError) and isinstance(error.__cause__, Exception)
                else error
            )
            outside = refused_by_machine(cause) or _lost_process(cause, fabric.world_size)
            if not ours and not outside:
                raise
            resumable = resume or (run.path / LAST).exists()
            if not resumable and fabric.is_global_zero:
                shutil.rmtree(run.path)
            if not outside:
                raise
            way = f"; resume with: alignmamba train --resume {run.path}" if resumable else ""
            raise TrainingError(f"{error if ours else outside}{way}") from error


def _lost_process(error: Exception, processes: int) -> str:
    """One line where another process of this run is gone; empty if the error has another cause."""
    said = " ".join(str(error).split())
    if isinstance(error, RuntimeError) and "DataLoader worker" in said:
        return f"a process that loads batches ended: {said[:160]}"
    if processes > 1 and isinstance(error, RuntimeError | OSError) and _GONE.search(said):
        # without the place in the source, and without guesses
        heard = re.sub(r"^\[[^]]*\] *", "", said).split(". ")[0].rstrip(".")
        return f"another of {processes} processes ended: {heard[:160]}"
    return ""


def _provenance(config: RunConfig, corpus: Corpus, summary: Mapping[str, Any]) -> Provenance:
    """Provenance of the run for the model's card, without places of this machine."""
    settings = config.model_dump(mode="json", exclude={"data", "engine"})
    return Provenance(
        data=corpus.name, checksum=corpus.checksum, scores=summary["metrics"], settings=settings
    )


def _evaluate_best(
    model: Network[Any],
    config: RunConfig,
    corpus: Corpus,
    run: RunDirectory,
    fabric: Fabric,
    sources: Mapping[Role, Loader],
) -> tuple[dict[Role, dict[str, float]], dict[Role, float], list[str]]:
    """Scores of valid and test where they are labelled, shares withheld from them, and notes. A test split
    that the model has no finite answer to has no table and no scores.
    """
    metrics: dict[Role, dict[str, float]] = {}
    notes: list[str] = []
    rates: dict[Role, float] = {}
    tables: dict[str, Table] = {}
    names = [spec.name for spec in corpus.modalities]
    for role in ("valid", "test"):
        if role not in corpus.splits:
            continue
        split = withheld(corpus.splits[role], config.missing, seed=config.seed, modalities=names)
        predictions = predict(
            model, sources[role], task=corpus.task, fabric=fabric, regression_loss=config.fit.regression_loss
        )
        problem = nonfinite_problem(predictions) if role == "test" else None
        if problem is not None:
            notes.append(f"split {role!r} has no scores: {problem}")
        else:
            groups = [sample.group for sample in corpus.splits[role]]
            for name, table in prediction_tables(predictions, corpus.task, groups=groups).items():
                tables[beside(Path(f"predictions_{role}"), name).name] = table
        if problem is None and predictions.targets is not None:
            metrics[role] = score(corpus.task, predictions)
            notes += undefined_notes(role, metrics[role])
            if corpus.task.has_one_class:
                tables[f"confusion_{role}"] = confusion_table(predictions, corpus.task)
        if config.missing.protocol != "none":
            rates[role] = split.effective_rate
            tables[f"missing_{role}"] = missing_table(split)
    if fabric.is_global_zero:
        for name, table in tables.items():
            run.write(f"{name}.csv", to_csv(table))
    return metrics, rates, notes


def _summary(
    model: Network[Any], corpus: Corpus, metrics: Mapping[Role, Mapping[str, float]], result: FitResult
) -> dict[str, Any]:
    return {
        "metrics": metrics,
        "references": dict(corpus.references),
        "selected_by": result.metric,
        "best_epoch": result.best_epoch,
        "epochs": len(result.history),
        "optimiser_steps": result.optimiser_steps,
        "stopped": result.stopped,
        "num_parameters": num_parameters_of(model),
        "seconds": round(sum(record["seconds"] for record in result.history), 3),
    }


def _result(
    run: RunDirectory, config: RunConfig, summary: Mapping[str, Any], *, first_process: bool = True
) -> RunResult:
    """The contents of ``metrics.json`` with what they belong to."""
    identity = run.identity()
    names = {each.name for each in fields(RunResult)} - {"directory", "config", "digest", "corpus"}
    names -= {"notes", "missing", "thresholds", "modality_weights", "first_process"}
    try:
        return RunResult(
            directory=run.path,
            config=config,
            digest=identity["digest"],
            corpus=identity["corpus"]["name"],
            notes=tuple(summary.get("notes", ())),
            missing=summary.get("missing"),
            thresholds=summary.get("thresholds"),
            modality_weights=summary.get("modality_weights"),
            first_process=first_process,
            **{name: summary[name] for name in names},
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"run {run.path}: expected {METRICS} with {error}, found a file of another version"
        ) from error
