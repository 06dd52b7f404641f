"""Interface of a run for other programs: what its model takes, and what it gives."""

from typing import Any

from alignmamba.contracts import Target, Task
from alignmamba.recipes.finished_run import OpenedRun


def interface_of(run: OpenedRun) -> dict[str, Any]:
    """Modalities and targets of a run, for JSON.

    Returns:
        ``method``; ``modalities``, each with ``name``, ``kind``, ``width``, for token ids ``vocabulary``,
        ``units``, and ``times``, true where the model reads them; and ``targets``, that of the task first,
        each with ``name``, ``kind``, and where there are some ``classes``, ``range``, ``modality`` and
        ``tokens``, the modality whose tokens it is of.
    """
    model = run.model
    modalities = [
        {
            "name": spec.name,
            "kind": spec.kind,
            "width": spec.width,
            **({"vocabulary": spec.dim} if spec.kind == "tokens" else {}),
            "units": spec.units,
            "times": spec.name in model.timed,
        }
        for spec in model.config.modalities
    ]
    task: Task = model.config.task
    targets = [_target("prediction", task), *(_target(each.name, each) for each in task.further)]
    return {"method": run.config.model, "modalities": modalities, "targets": targets}


def _target(name: str, target: Task | Target) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": name, "kind": target.kind}
    if target.classes:
        facts["classes"] = list(target.classes)
    if target.label_range is not None:
        facts["range"] = list(target.label_range)
    for field in ("modality", "tokens"):
        if getattr(target, field, None) is not None:
            facts[field] = getattr(target, field)
    return facts
