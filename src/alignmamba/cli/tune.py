"""``alignmamba tune``: a search for the settings of each method, with equal means for all."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from alignmamba.cli.terminal_tables import rows_table
from alignmamba.cli.verb import RunsVerb, console, say, write
from alignmamba.errors import ConfigError, counted

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from alignmamba.recipes.tuning.tuning_directory import TuningRecord
    from alignmamba.recipes.tuning.tuning_plan import TuningPlan
    from alignmamba.recipes.tuning.tuning_results import MethodOutcome


@dataclass(frozen=True, kw_only=True)
class Tune(RunsVerb):
    """Search for the best settings of each method, with the same number of trials for all.

    Scores are those of the valid split; the test split is not read. What `--set` and `--config` set is held
    fixed.

    Repeat the command to resume, and start it several times in one directory for more workers. Show what was
    found with `alignmamba tune show DIR`, and compare methods under it with
    `alignmamba experiment comparison --tuned DIR`.
    """

    words: Annotated[Positional[tuple[str, ...]], arg(metavar="[show DIR]", help_behavior_hint="")] = ()
    """Show what a search has found so far."""
    methods: Annotated[
        tuple[str, ...], arg(metavar="NAME ...", help_behavior_hint="(default: families)")
    ] = ()
    """Methods to tune, or `families`, `table1`, `table2`, `all`."""
    trials: Annotated[int, arg(metavar="N")] = 20
    """Trials of each method, over all workers together."""
    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(required)")] = None
    """Directory of the search; one that holds this search is resumed."""
    repeats: Annotated[
        int | None,
        arg(metavar="K", help_behavior_hint="(default: 1, or folds below 200 validation samples)"),
    ] = None
    """Trainings under different seeds whose mean is the score of a trial."""
    folds: Annotated[
        int | None,
        arg(metavar="K", help_behavior_hint="(default: none, or 5 below 200 validation samples)"),
    ] = None
    """Parts of train and valid that take turns as the valid split; the score of a trial is the mean."""
    storage: Annotated[str, arg(metavar="URL", help_behavior_hint="(default: a file in DIR)")] = ""
    """Database of Optuna for workers on many machines, for example postgresql://host/name."""
    importance: bool = False
    """List how much of the score each setting decides, with `show`."""
    dry_run: bool = False
    """Print what would be searched; train and write nothing."""

    def run(self) -> int:
        """Search, or show what was found."""
        if self.words:
            return self._show()
        from alignmamba.recipes.tuning.tuning_plan import TuningOptions, plan_tuning

        if self.out is None:
            raise ConfigError("out: expected --out DIR, the directory of the search")
        if self.importance:
            raise ConfigError("importance: expected only with `alignmamba tune show DIR`")
        asked = TuningOptions(
            methods=self.methods, trials=self.trials, repeats=self.repeats, folds=self.folds
        )
        command = ["alignmamba", *sys.argv[1:]]
        plan = plan_tuning(asked, self.configuration(), out=self.out, storage=self.storage, command=command)
        for note in plan.notes:
            say(f"note: {note}")
        if self.dry_run:
            self._show_plan(plan)
            return 0
        from alignmamba.recipes.tuning.tuning_worker import work

        say(_means(plan))
        elsewhere = work(plan, progress=TrialLines(plan))
        if elsewhere:
            say(f"{elsewhere} trials are still at work in other workers")
        self._show_outcomes(self.out, importance=False)
        return 0

    def _show(self) -> int:
        """Show what a search has found."""
        if self.words[0] != "show" or len(self.words) != 2:
            raise ConfigError(f"tune: found {' '.join(self.words)!r}, expected show DIR, or options alone")
        self.refuse_options("show takes DIR and --importance alone", allowed=("words", "importance"))
        from alignmamba.extras import require

        require("tune show", "tune", "optuna")
        self._show_outcomes(Path(self.words[1]), importance=self.importance)
        return 0

    def _show_plan(self, plan: "TuningPlan") -> None:
        record = plan.record
        if self.json:
            facts = {
                name: getattr(record, name)
                for name in ("metric", "repeats", "folds", "trials", "held", "spaces")
            }
            self.emit({**facts, "out": str(self.out)})
            return
        keys = dict.fromkeys(key for space in plan.spaces.values() for key in space)
        rows = [(key, values, ", ".join(names)) for key in keys for values, names in _by_values(plan, key)]
        title = f"{len(plan.spaces)} methods on {record.corpus.name}, {record.trials} trials each"
        console().print(rows_table(title, ("setting", "values", "methods"), rows))
        for key, value in record.held.items():
            write(f"held: {key}={value}")
        write(_means(plan))
        write("dry run: nothing was trained or written")

    def _show_outcomes(self, path: Path, *, importance: bool) -> None:
        from alignmamba.recipes.tuning.tuning_directory import TuningDirectory
        from alignmamba.recipes.tuning.tuning_results import LEAST_TRIALS, outcomes

        directory = TuningDirectory.open(path)
        record, found = directory.record(), outcomes(directory, importance=importance)
        if self.json:
            facts: dict[str, Any] = {
                "tuning": str(path),
                "corpus": record.corpus.name,
                "metric": record.metric,
            }
            facts |= {"repeats": record.repeats, "folds": record.folds}
            self.emit({**facts, "methods": [asdict(each) for each in found]})
            return
        header = ("method", "trials", "pruned", "running", record.metric, "seconds", "best settings")
        rows = [_row(each, record.trials) for each in found]
        title = f"{record.metric} on valid of {record.corpus.name}, {_trainings(record)}"
        console().print(rows_table(title, header, rows))
        if importance:
            shares = [
                (each.method, key, f"{share:.2f}")
                for each in found
                for key, share in (each.importance or {}).items()
            ]
            if shares:
                title = "importance of settings"
                console().print(rows_table(title, ("method", "setting", "share"), shares))
            if few := [each.method for each in found if not each.importance]:
                write(f"fewer than {LEAST_TRIALS} trials with a score: {', '.join(few)}")


def _by_values(plan: "TuningPlan", key: str) -> list[tuple[str, list[str]]]:
    """Values of a setting, each with the methods that are searched over them."""
    by_values: dict[str, list[str]] = {}
    for name, space in plan.record.spaces.items():
        if key in space:
            by_values.setdefault(space[key], []).append(name)
    return [
        (values, ["all"] if len(names) == len(plan.spaces) else names) for values, names in by_values.items()
    ]


def _means(plan: "TuningPlan") -> str:
    """Score of a trial in words."""
    where = "samples of train and valid" if plan.record.folds else "validation samples"
    return (
        f"the score of a trial is {plan.record.metric} on the {plan.valid_samples} {where},"
        f" {_trainings(plan.record)}"
    )


def _trainings(record: "TuningRecord") -> str:
    """Trainings of a trial in words."""
    if record.folds:
        return f"the mean of {record.folds} trainings, each validated on another fold of train and valid"
    several = f"the mean of {record.repeats} trainings under different seeds"
    return several if record.repeats > 1 else "one training"


def _row(found: "MethodOutcome", asked: int) -> tuple[str, ...]:
    score = "none yet" if found.score is None else f"{found.score:.4f}"
    settings = ", ".join(f"{key}={_short(value)}" for key, value in found.settings.items())
    counts = (f"{found.trials}/{max(asked, found.trials)}", str(found.pruned), str(found.running))
    return (found.method, *counts, score, f"{found.seconds:.0f}", settings)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class TrialLines:
    """Writes a line for each trial that ends; meets `tuning_worker.TuningProgress`."""

    def __init__(self, plan: "TuningPlan") -> None:
        self._total, self._metric = 0, plan.record.metric

    def started(self, *, done: int, total: int) -> None:
        """Say what is there already."""
        self._total = total
        say(f"{counted(total, 'trial')}, {done} of them finished before")

    def finished(
        self, method: str, trial: "FrozenTrial", best: "FrozenTrial | None", *, done: int, seconds: float
    ) -> None:
        """Say how a trial ended."""
        from alignmamba.recipes.tuning.studies import REFUSED

        refused = trial.user_attrs.get(REFUSED)
        complete = trial.value is not None and trial.state.name == "COMPLETE"
        how = f"{self._metric} {trial.value:.4f}" if complete else refused or "pruned"
        so_far = "" if best is None else f"; best {best.value:.4f}, trial {best.number}"
        say(f"{done}/{self._total} {method}, trial {trial.number}: {how}, {seconds:.0f} s{so_far}")
