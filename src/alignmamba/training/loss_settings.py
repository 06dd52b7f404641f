"""Settings of losses that the targets of a task have a use for."""

from alignmamba.contracts import Task
from alignmamba.errors import ConfigError
from alignmamba.training.fit_config import FitConfig


def check_loss_settings(config: FitConfig, task: Task, *, step: int | None = None) -> None:
    """Refuse a setting of a loss by which no target of the task learns, or one of them cannot.

    Losses of a regression other than the concordance are accepted for any task: defaults of methods name
    them.

    Args:
        config: How to train.
        task: Targets to learn.
        step: Samples of an optimiser step, where they are known.

    Raises:
        ConfigError: With the setting, what was found and what was expected.
    """
    kinds = {task.kind, *(target.kind for target in task.further)}
    useless = {}
    if task.kind == "regression":
        useless["class_weights"] = useless["focal_gamma"] = "none for a regression"
    if not kinds & {"classification", "ordinal"}:
        useless["label_smoothing"] = "0, as no target is one of several classes"
    if "regression" not in kinds and config.regression_loss == "ccc":
        useless["regression_loss"] = "'l1', as no target is a regression"
    for name, expected in useless.items():
        if found := getattr(config, name):
            raise ConfigError(f"fit.{name}: found {found!r}, expected {expected}")
    of_samples = [task.kind, *(target.kind for target in task.further if target.tokens is None)]
    if config.regression_loss == "ccc" and step == 1 and "regression" in of_samples:
        raise ConfigError(
            "fit.regression_loss: found 'ccc' and steps of one sample, expected steps of several, which"
            " loader.batch_size and fit.accumulate make"
        )
