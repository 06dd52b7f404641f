"""Every method of `METHODS`, and the example of the page that says how to add one."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from every_method import (
    DEFAULT,
    SMALL,
    SPECS,
    TASKS,
    accepts,
    batch_of,
    check_learning,
    check_predicting,
    check_saving,
    learn,
    network,
    prepared,
    sources,
)
from torch import Tensor

from alignmamba.contracts import Batch, Output
from alignmamba.errors import ConfigError
from alignmamba.methods import FAMILIES, METHODS, REFERENCES, SETS
from alignmamba.methods.method import Method
from alignmamba.models.network import Network
from alignmamba.training.fit_config import FitConfig
from alignmamba.training.objective import Objective

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "sizes", [SMALL, pytest.param(DEFAULT, marks=pytest.mark.slow)], ids=["small", "default sizes"]
)
@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("name", METHODS)
def test_it_learns_resumes_saves_loads_and_predicts(
    name: str, kind: str, sizes: Mapping[str, int], tmp_path: Path
) -> None:
    method, task = METHODS[name], TASKS[kind]
    if not accepts(method, task):
        pytest.skip(f"{name} refuses a {kind}, with the reason")
    by_groups = bool(method.required.get("loader", {}).get("keep_groups"))
    trained = check_learning(method, task, tmp_path, missing=method.keeps_withheld, sizes=sizes)
    check_predicting(trained, task, by_groups=by_groups)
    check_saving(trained, task, tmp_path / "saved")


@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_known_by_what_is_learned_from(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions that a step looks ahead to, for its concordance, are those of its forward pass."""
    method, task = METHODS[name], TASKS["regression"]
    if not accepts(method, task) or name in REFERENCES:
        pytest.skip(f"{name} refuses a regression, with the reason, or is solved")
    made = prepared(method, task)
    ahead: dict[tuple[str, ...], Tensor] = {}
    compared: list[str] = []
    plain_pairs, plain_losses = Objective.pairs_of, Objective.supervised

    def pairs_of(self: Objective, batch: Batch) -> Any:
        found = plain_pairs(self, batch)
        ahead[batch.ids] = found["task"].predicted
        return found

    def supervised(self: Objective, batch: Batch, output: Output) -> Any:
        if self.training:
            then = self._pairs_of_task(batch, output.learned.detach()).predicted
            torch.testing.assert_close(then, ahead[batch.ids])
            compared.extend(batch.ids)
        return plain_losses(self, batch, output)

    monkeypatch.setattr(Objective, "pairs_of", pairs_of)
    monkeypatch.setattr(Objective, "supervised", supervised)
    config = FitConfig(epochs=2, learning_rate=1e-3, accumulate=3, regression_loss="ccc")
    learn(made, *sources(method, task, missing=method.keeps_withheld), config=config)
    assert len(compared) >= 24 or name in ("dcca", "dccae", "iccn"), "those fit first"


def test_a_contrast_by_order_counts_its_first_steps_across_a_resumption(tmp_path: Path) -> None:
    """Three steps an epoch, stopped after two and five; the fourth is the last of equal parts."""
    sizes = {**SMALL, "contrast": {"weight": 1.0, "untimed": "order", "flat_steps": 4}}
    task = TASKS["classification"]
    trained = check_learning(METHODS["alignmamba"], task, tmp_path, missing=False, sizes=sizes)
    assert int(trained.get_buffer("contrast.steps")) in (3, 6)  # of the best epoch
    check_predicting(trained, task, by_groups=False)
    check_saving(trained, task, tmp_path / "saved")


@pytest.mark.parametrize("name", METHODS)
def test_features_as_they_are_fit_or_are_refused_when_it_is_made(name: str) -> None:
    task = TASKS["regression"]
    if name in REFERENCES:
        pytest.skip("it has no encoders")
    try:
        made = network(METHODS[name], task, encoder={"kind": "none"})
    except ConfigError:
        said = "encoders.text.kind: 'none' leaves tokens of width 6, expected d_model, 8"
        with pytest.raises(ConfigError, match=said):
            network(METHODS[name], task, encoder={"kind": "none"})
    else:
        made(batch_of(task))


@pytest.mark.parametrize("name", METHODS)
def test_it_says_what_it_is(name: str) -> None:
    method = METHODS[name]
    assert issubclass(method.network, Network)
    assert 20 < len(method.network.summary) <= 110
    assert name in FAMILIES or method.source
    assert any(accepts(method, task) for task in TASKS.values())


def test_sets_name_methods() -> None:
    assert {name for names in SETS.values() for name in names} == set(METHODS)
    assert SETS["families"] == tuple(FAMILIES)
    assert not set(SETS) & set(METHODS)


def test_the_example_of_the_page_is_a_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert code is not None
    assert len(code[1].splitlines()) < 60
    path = tmp_path / "two_views_example.py"
    path.write_text(code[1], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import importlib

    found: Any = importlib.import_module("two_views_example")
    method: Method = found.TWO_VIEWS
    trained = check_learning(method, TASKS["regression"], tmp_path / "run", missing=False)
    check_predicting(trained, TASKS["regression"], by_groups=False)
    check_saving(trained, TASKS["regression"], tmp_path / "saved")


@pytest.mark.parametrize("name", METHODS)
def test_a_nested_option_leaves_its_neighbours_as_the_method_has_them(name: str) -> None:
    config_class = METHODS[name].network.config_class
    task = next(task for task in TASKS.values() if accepts(METHODS[name], task))
    if "encoder" not in config_class.model_fields:
        pytest.skip(f"{name} has no encoder")
    default = config_class.preset("default", modalities=SPECS, task=task).encoder
    changed = config_class.preset("default", modalities=SPECS, task=task, encoder={"noise": 0.25}).encoder
    assert changed == default.model_copy(update={"noise": 0.25})
