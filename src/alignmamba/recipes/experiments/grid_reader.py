"""Reader of the directory of an experiment as a `Grid`."""

from collections.abc import Mapping

from alignmamba.contracts import Predictions
from alignmamba.errors import CheckpointError
from alignmamba.recipes.experiments.cells import ExperimentRecord
from alignmamba.recipes.experiments.grid import Grid
from alignmamba.recipes.experiments.grid_directory import ExperimentDirectory
from alignmamba.recipes.fold_runs import together
from alignmamba.recipes.run_records import RunFacts, check_analyses, scored_predictions


def read_grid(directory: ExperimentDirectory, plan: ExperimentRecord) -> Grid:
    """State of every run, and predictions of the finished ones; a `CheckpointError` if the plan lacks a task.
    A fault of a single run stands in `Grid.damaged`.
    """
    if plan.task is None:
        raise CheckpointError(
            f"experiment {directory.path}: its plan is not one that this version wrote, it lacks 'task'"
        )
    jobs = {cell.key: directory.job(cell.key) for cell in plan.cells}
    states = {key: directory.state(job) for key, job in jobs.items()}
    runs: dict[str, RunFacts] = {}
    found: dict[tuple[str, str], dict[int, dict[int | None, Predictions]]] = {}
    damaged: dict[str, str] = {}
    for cell in (each for each in plan.cells if states[each.key] == "finished"):
        run = directory.run_path(cell.key)
        try:
            runs[cell.key] = RunFacts.read(run)
            said = scored_predictions(run / cell.predictions, plan.task)
            check_analyses(run, cell.analyses)
            found.setdefault((cell.row, cell.column), {}).setdefault(cell.seed, {})[cell.fold] = said
        except CheckpointError as error:
            damaged[cell.key] = f"{error}; to run it again, remove {run}"
    return Grid(
        path=directory.path,
        plan=plan,
        task=plan.task,
        labels={key: job.label for key, job in jobs.items()},
        states=states | dict.fromkeys(damaged, "damaged"),
        runs={key: facts for key, facts in runs.items() if key not in damaged},
        failures={key: directory.failure(key) for key, state in states.items() if state == "failed"},
        damaged=damaged,
        predictions_of={place: _joint(seeds, plan.folds) for place, seeds in found.items()},
    )


def _joint(seeds: Mapping[int, Mapping[int | None, Predictions]], folds: int) -> dict[int, Predictions]:
    """Seed to predictions, those of all folds as one; without seeds of which a fold is not there."""
    if not folds:
        return {seed: said for seed, parts in seeds.items() for said in parts.values()}
    return {
        seed: together([parts[fold] for fold in range(folds)])
        for seed, parts in seeds.items()
        if parts.keys() >= set(range(folds))
    }
