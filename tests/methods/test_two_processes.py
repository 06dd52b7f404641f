"""Methods that remember samples or follow weights take one course, whether one process trains or two.

In double precision: in single, Adam makes of the last digit of a gradient that should be zero a whole step.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from every_method import SPECS, TASKS, network, split
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor

from alignmamba.data.loader import Loader, LoaderConfig
from alignmamba.data.standardise import fit_standardisation
from alignmamba.evaluation.metrics import HIGHER_IS_BETTER, metric_names, score
from alignmamba.methods import METHODS
from alignmamba.training.fit_config import FitConfig
from alignmamba.training.loop import fit
from tolerances import FLOAT64

NAMES = ("self-mm", "mtmd")
TASK = TASKS["regression"]


def trained(name: str, fabric: Fabric) -> dict[str, Tensor]:
    """Everything that training leaves behind; without dropout, which each process draws for itself."""
    method, train = METHODS[name], split("train", 16, TASK)
    model = network(method, TASK, dropout=0.0, encoder={"kind": "none"})
    model.standardise(fit_standardisation(train, SPECS, TASK))
    objective = method.objective(model, TASK)
    config, common = LoaderConfig(batch_size=8), {"task": TASK, "seed": 0, "world_size": fabric.world_size}
    sources = [
        Loader(each, SPECS, config=config, shuffle=each is train, **common)
        for each in (train, split("valid", 8, TASK, seed=1))
    ]  # type: ignore[arg-type]
    fit(
        objective,
        *(source.of_rank(fabric.global_rank) for source in sources),
        FitConfig(epochs=2, learning_rate=1e-3, precision="64-true"),
        task=TASK,
        score=lambda predictions: score(TASK, predictions),
        higher_is_better={metric: HIGHER_IS_BETTER[metric] for metric in metric_names(TASK)},
        fabric=fabric,
    )
    return objective.state_dict()


def of_two(fabric: Fabric, place: str) -> None:
    torch.set_num_threads(1)
    for name in NAMES:
        found = trained(name, fabric)
        if fabric.is_global_zero:
            torch.save(found, Path(place) / f"{name}.pt")


@pytest.mark.skipif(sys.platform != "linux", reason="forks two processes")
def test_two_processes_remember_what_one_does(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run(
        [sys.executable, __file__, str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr[-3000:]
    for name in NAMES:
        expected = trained(name, Fabric(accelerator="cpu", devices=1, precision="64-true"))
        found = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        assert set(found) == set(expected)
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, **FLOAT64, msg=f"{name}: {key}")


if __name__ == "__main__":
    strategy = DDPStrategy(start_method="fork", process_group_backend="gloo")
    engine = Fabric(accelerator="cpu", devices=2, strategy=strategy, precision="64-true")
    engine.launch(of_two, sys.argv[1])
