"""Every method with modalities that are called like attributes of PyTorch's modules."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from every_method import SPECS, TASKS, learn, network, split

from alignmamba.contracts import Target
from alignmamba.data.loader import Loader, LoaderConfig
from alignmamba.data.memory_splits import MemorySplit
from alignmamba.data.standardise import fit_standardisation
from alignmamba.errors import ConfigError
from alignmamba.methods import METHODS

ODD = tuple(
    spec.model_copy(update={"name": name})
    for spec, name in zip(SPECS, ("type", "values", "training"), strict=True)
)


@pytest.mark.parametrize("name", METHODS)
def test_it_learns_whatever_modalities_are_called(name: str) -> None:
    method = METHODS[name]
    for task in TASKS.values():
        try:
            built = network(method, task, modalities=ODD)
        except ConfigError:
            continue
        train = split("train", 24, task, modalities=ODD)
        built.standardise(fit_standardisation(train, ODD, task))
        settings = LoaderConfig(**{"batch_size": 8, **method.required.get("loader", {})})
        common: dict[str, Any] = {"config": settings, "task": task, "seed": 0}
        loaders = (
            Loader(train, ODD, shuffle=True, keep_withheld=method.keeps_withheld, **common),
            Loader(split("valid", 12, task, modalities=ODD, seed=1), ODD, shuffle=False, **common),
        )
        assert np.isfinite(learn(method.objective(built, task), *loaders).best_score)
        return


def test_targets_have_any_names() -> None:
    further = tuple(Target(name=name, kind="regression", labels=(name,)) for name in ("keys", "to", "cuda"))
    task = TASKS["regression"].model_copy(update={"further": further})
    built = network(METHODS["alignmamba"], task, modalities=ODD)
    names = {"keys", "to", "cuda"}
    samples = [
        replace(sample, labels={name: float(row) for name in names})
        for row, sample in enumerate(split("train", 6, task, modalities=ODD))
    ]
    given = MemorySplit(role="train", samples=tuple(samples), modalities=ODD)
    batch = next(iter(Loader(given, ODD, config=LoaderConfig(), task=task, shuffle=False, seed=0)))
    assert built.eval()(batch).further.keys() == names
