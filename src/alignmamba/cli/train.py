"""``alignmamba train``: train, evaluate, write a run directory."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from alignmamba.cli.terminal_tables import (
    labels_table,
    metrics_table,
    missing_line,
    modality_weights_line,
    reference_table,
    thresholds_line,
)
from alignmamba.cli.verb import PROTOCOLS, SettingVerb, console, say, write

if TYPE_CHECKING:
    from alignmamba.recipes.configuration import RunConfig
    from alignmamba.recipes.training_run import ReadyRun, RunResult


_SHOWN = (
    *("corpus", "digest", "metrics", "references", "distance_covered", "num_parameters"),
    *("best_epoch", "epochs", "optimiser_steps", "stopped", "seconds"),
)
"""Values of a result that ``--json`` always has."""


@dataclass(frozen=True, kw_only=True)
class Train(SettingVerb):
    """Train a model on a corpus and evaluate it.

    Settings come from the defaults, then --config, then --set, then the other options; the later one wins.
    Show them all with --dry-run. The valid split, or a share of train (--split-valid), chooses the best
    epoch. The test split is scored once, at the end. The run directory then holds the model, the
    configuration, the metrics and the predictions.
    """

    seed: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: 0)")] = None
    """Seed of the first weights, of dropout and of the order of samples."""
    nonfinite: Annotated[
        Literal["error", "zero", "mean"] | None,
        arg(metavar="{error,zero,mean}", help_behavior_hint="(default: error)"),
    ] = None
    """Action on features that are not finite: refuse them, or read 0 or the channel's train mean."""
    missing_protocol: Annotated[str | None, arg(metavar=PROTOCOLS, help_behavior_hint="(default: none)")] = (
        None
    )
    """Withhold modalities in training, validation and test.
    gcnet: each modality with probability R, but never all of a sample.
    imder-sample: none, one, or all but one, in the published shares, drawn for each sample.
    imder-batch: as imder-sample, drawn for groups of 32 samples.
    fixed: keep a random proper subset of the modalities.
    tokens: single tokens of all modalities."""
    missing_rate: Annotated[
        tuple[float, ...], arg(metavar="R [R ...]", help_behavior_hint="(default: none)")
    ] = ()
    """Share to withhold, 0 to below 1; one of several is drawn per sample and epoch; not for fixed."""
    accelerator: Annotated[
        Literal["auto", "cpu", "cuda"] | None,
        arg(metavar="{auto,cpu,cuda}", help_behavior_hint="(default: auto)"),
    ] = None
    """Device to compute on; auto: a GPU if there is one, otherwise the CPU."""
    devices: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: 1)")] = None
    """Processes per machine; each takes a part of every batch, and a GPU or a share of the cores."""
    num_nodes: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: 1)")] = None
    """Number of machines; start the same command on each, as Lightning Fabric describes."""
    strategy: Annotated[
        Literal["auto", "ddp"] | None, arg(metavar="{auto,ddp}", help_behavior_hint="(default: auto)")
    ] = None
    """Cooperation of processes; auto: ddp if there are several."""
    precision: Annotated[
        str | None,
        arg(metavar="{32-true,bf16-mixed,16-mixed,64-true}", help_behavior_hint="(default: 32-true)"),
    ] = None
    """Bits of a number; `mixed` uses half precision where it is safe."""
    out: Annotated[
        Path | None, arg(metavar="DIR", help_behavior_hint="(default: runs/CORPUS-MODEL-DIGEST-seedN)")
    ] = None
    """Directory of the run. Without this option, a number is added if a finished run has the name."""
    from_: Annotated[Path | None, arg(name="from", metavar="RUN", help_behavior_hint="(default: none)")] = (
        None
    )
    """Start from the weights of a finished run, where they fit."""
    pretrain: bool = False
    """Learn without labels, from hidden tokens and matching modalities, for other runs to start --from."""
    folds: Annotated[
        int | None, arg(metavar="K", help_behavior_hint="(default: the corpus's own splits)")
    ] = None
    """Cross-validate: train K runs in DIR/fold-0 and so on, each tested on another part of all samples."""
    overwrite: bool = False
    """Replace the run at --out after all checks; anything but a run is refused."""
    resume: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: none)")] = None
    """Resume an interrupted run with its own settings; add --data if its corpus was moved."""
    dry_run: bool = False
    """Print all settings, the size of the model and the batches per epoch; train and write nothing."""
    settings: bool = False
    """Print every key that --set takes, with default and meaning; train and write nothing."""

    def run(self) -> int:
        """Train."""
        if self.settings:
            self._show_settings()
            return 0
        from alignmamba.recipes.display import progress_display
        from alignmamba.recipes.training_run import plan, train

        if self.resume is not None:
            self.refuse_options("--resume takes the run's own settings", allowed=("resume", "data"))
            with progress_display() as progress:
                result = train(resume=self.resume, data=self.data, progress=progress)
        elif self.folds is not None:
            return self._cross_validate(self.folds)
        elif self.dry_run:
            self._show_plan(plan(self._configuration(), out=self.out, overwrite=self.overwrite))
            return 0
        else:
            config = self._configuration()
            with progress_display() as progress:
                result = train(config, out=self.out, overwrite=self.overwrite, progress=progress)
        if result.first_process:
            for note in result.notes:
                console(stderr=True).print(f"note: {note}", soft_wrap=True)
            self._show_result(result)
        return 0

    def _cross_validate(self, folds: int) -> int:
        from alignmamba.recipes.display import progress_display
        from alignmamba.recipes.fold_runs import plan_folds, train_folds

        config = self._configuration()
        if self.dry_run:
            self._show_plan(plan_folds(config, folds, out=self.out))
            return 0
        with progress_display() as progress:
            result = train_folds(
                config, folds=folds, out=self.out, overwrite=self.overwrite, progress=progress
            )
        each = {f"fold {number}": run.metrics["test"] for number, run in enumerate(result.runs)}
        if self.json:
            facts = {"samples": result.samples, "metrics": {"test": result.metrics}, "folds": each}
            self.emit({"run": str(result.directory), "seed": config.seed, **facts})
            return 0
        title = f"{config.model} on {result.runs[0].corpus}, {result.samples} samples in {folds} folds, test"
        console().print(metrics_table(title, {"together": result.metrics, **each}))
        console().print(f"directory: {result.directory}", soft_wrap=True)
        return 0

    def _configuration(self) -> "RunConfig":
        return self.configuration(
            seed=self.seed,
            nonfinite=self.nonfinite,
            objective="pretrain" if self.pretrain else None,
            start__run=None if self.from_ is None else str(self.from_),
            missing__protocol=self.missing_protocol,
            missing__rate=list(self.missing_rate) or None,
            engine__accelerator=self.accelerator,
            engine__devices=self.devices,
            engine__num_nodes=self.num_nodes,
            engine__strategy=self.strategy,
            fit__precision=self.precision,
        )

    def _show_settings(self) -> None:
        from alignmamba.recipes.configuration import settings_of

        asked = self._configuration()
        found = list(settings_of(asked.model, asked.preset))
        if self.json:
            self.emit({"settings": [asdict(setting) for setting in found]})
            return
        for setting in found:
            write(f"{setting.key}={setting.default}")
            write(f"    {setting.meaning}")

    def _show_plan(self, ready: "ReadyRun") -> None:
        for note in ready.notes:
            say(f"note: {note}")
        sizes = {role: len(split) for role, split in ready.corpus.splits.items()}
        facts = {
            "corpus": ready.corpus.name,
            "samples": sizes,
            "parameters": ready.num_parameters,
            "batches_per_epoch": ready.batches_per_epoch,
            "digest": ready.digest,
            "out": str(ready.directory),
        }
        if self.json:
            self.emit({**facts, "config": ready.config.model_dump(mode="json")})
            return
        for line in ready.config.to_yaml().rstrip("\n").split("\n"):
            write(line)
        lines = {
            **facts,
            "samples": ", ".join(f"{role} {size}" for role, size in sizes.items()),
            "parameters": f"{ready.num_parameters:,} trained weights",
        }
        for name, value in lines.items():
            write(f"# {name.replace('_', ' ')}: {value}")
        write("# dry run: nothing was trained or written")

    def _show_result(self, result: "RunResult") -> None:
        if self.json:
            facts = {name: getattr(result, name) for name in _SHOWN}
            more = ("notes", "missing", "thresholds", "modality_weights")
            facts |= {name: getattr(result, name) for name in more if getattr(result, name)}
            self.emit({"run": str(result.directory), "seed": result.config.seed, **facts})
            return

        screen = console()
        columns: dict[str, Mapping[str, float | None]] = dict(result.metrics.items())
        screen.print(metrics_table(f"{result.config.model} on {result.corpus}", columns))
        for role, scores in list(columns.items())[-1:]:
            if (labels := labels_table(f"labels, {role}", scores)) is not None:
                screen.print(labels)
        if result.modality_weights is not None:
            screen.print(modality_weights_line(result.modality_weights), soft_wrap=True)
        if result.thresholds is not None:
            screen.print(thresholds_line(result.thresholds), soft_wrap=True)
        if result.missing is not None:
            screen.print(missing_line(result.missing, result.missing["effective_rate"]))
        if result.references:
            screen.print(reference_table(result.references, result.distance_covered))
        ended = "no further improvement" if result.stopped == "patience" else "all epochs done"
        screen.print(
            f"epoch {result.best_epoch} of {result.epochs} kept ({ended}), {result.optimiser_steps} optimiser"
            f" steps, {result.num_parameters:,} weights, {result.seconds:.0f} s"
        )
        screen.print(f"run directory: {result.directory}", soft_wrap=True)
