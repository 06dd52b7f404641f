"""Reader of the directory of an experiment as a `Grid`."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from alignmamba.contracts import Predictions, Task
from alignmamba.errors import CheckpointError
from alignmamba.recipes.experiments.grid import Grid
from alignmamba.recipes.experiments.grid_directory import ExperimentDirectory
from alignmamba.recipes.run_records import RunFacts, scored_predictions


def read_grid(directory: ExperimentDirectory, plan: Mapping[str, Any]) -> Grid:
    """Look at the state of every run, and read what the finished ones predicted.

    Raises:
        CheckpointError: If the plan lacks what tables are made from. What is wrong with a single run stands
            in `Grid.damaged`.
    """
    try:
        task = Task.model_validate(plan["task"])
        jobs = {entry["key"]: directory.job(entry["key"]) for entry in plan["cells"]}
    except (KeyError, TypeError, ValidationError) as error:
        raise CheckpointError(
            f"experiment {directory.path}: its plan is not one that this version wrote, it lacks {error}"
        ) from error
    states = {key: directory.state(job) for key, job in jobs.items()}
    runs: dict[str, RunFacts] = {}
    found: dict[tuple[str, str], dict[int, Predictions]] = {}
    damaged: dict[str, str] = {}
    for entry in plan["cells"]:
        key = entry["key"]
        if states[key] != "finished":
            continue
        run = directory.run_path(key)
        try:
            runs[key] = RunFacts.read(run)
            said = scored_predictions(run / entry["predictions"], task)
            found.setdefault((entry["row"], entry["column"]), {})[entry["seed"]] = said
        except (CheckpointError, KeyError, TypeError) as error:
            damaged[key] = f"{error}; to run it again, remove {run}"
    return Grid(
        path=directory.path,
        plan=plan,
        task=task,
        labels={key: job.label for key, job in jobs.items()},
        states=states,
        runs={key: facts for key, facts in runs.items() if key not in damaged},
        failures={key: directory.failure(key) for key, state in states.items() if state == "failed"},
        damaged=damaged,
        predictions_of=found,
    )
