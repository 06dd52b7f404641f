"""Reading of a directory for a report, and how damage in it is reported."""

import json
from pathlib import Path

import pytest
from invented_experiments import CLASSES, write_experiment, write_json

from alignmamba.errors import CheckpointError
from alignmamba.recipes.report import contents
from alignmamba.recipes.report.contents import gather
from alignmamba.recipes.report.sentences import states, summary

CELL = "cells/0000000000000000"


def test_a_half_finished_experiment(tmp_path: Path) -> None:
    found = gather(write_experiment(tmp_path, failed=[1], pending=[3], unfinished=[4], epochs=5)).found
    assert [each.state for each in found] == [
        "finished",
        "failed",
        "finished",
        "pending",
        "begun",
        "finished",
    ]
    assert found[1].error.startswith("loss is not finite")
    assert len(found[4].log["epoch"]) == 5
    assert found[4].samples is None
    assert found[4].best_epoch is None
    assert found[0].best_epoch == 4


def test_a_failure_that_came_after_the_scores_is_a_failure(tmp_path: Path) -> None:
    write_experiment(tmp_path)
    plan = json.loads((tmp_path / "experiment.json").read_text())
    plan["cells"][0]["analyses"] = ["distance"]
    write_json(tmp_path / "experiment.json", plan)
    write_json(tmp_path / "failed" / "0000000000000000.json", {"error": "out of memory"})
    first = gather(tmp_path).found[0]
    assert (first.state, first.error) == ("failed", "out of memory")


def test_predictions_of_the_first_finished_seed(tmp_path: Path) -> None:
    found = gather(write_experiment(tmp_path, seeds=3, failed=[0])).found
    assert [each.cell.seed for each in found if each.samples] == [1, 0, 0]
    samples = found[1].samples
    assert samples is not None
    assert samples.classes == CLASSES
    assert sum(map(sum, found[1].confusion)) == len(samples.ids) == 12


def test_what_was_withheld(tmp_path: Path) -> None:
    found = gather(
        write_experiment(tmp_path, experiment="missing", columns=["10 %", "20 %"], kind="regression")
    ).found
    samples = found[0].samples
    assert samples is not None
    text = (tmp_path / CELL / "missing_test.csv").read_text()
    assert sum(samples.withheld["audio"]) == sum(line.endswith(",0") for line in text.splitlines())
    assert not any(samples.withheld["text"])
    assert samples.classes == ()


def test_what_was_withheld_is_found_where_the_plan_names_the_predictions(tmp_path: Path) -> None:
    """Plan as the engine writes it."""
    write_experiment(tmp_path, experiment="missing", columns=["10 %"], kind="regression")
    plan = json.loads((tmp_path / "experiment.json").read_text())
    for cell in plan["cells"]:
        cell["predictions"] = "predictions_test.csv"
    write_json(tmp_path / "experiment.json", plan)
    samples = gather(tmp_path).found[0].samples
    assert samples is not None
    assert samples.withheld.keys() == {"text", "audio"}


def test_valid_where_test_is_not_there(tmp_path: Path) -> None:
    write_experiment(tmp_path, rows=["a"], seeds=1)
    for name in ("predictions", "confusion"):
        (tmp_path / CELL / f"{name}_test.csv").rename(tmp_path / CELL / f"{name}_valid.csv")
    (first,) = gather(tmp_path).found
    assert first.samples is not None
    assert first.samples.split == "valid"
    assert first.confusion


def test_what_would_make_a_page_too_large_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_experiment(tmp_path, samples=10, plan_lengths=(20, 5))  # 45 matches a sample, 3 samples, 2 runs
    monkeypatch.setattr(contents, "MOST_PREDICTIONS", 20)
    monkeypatch.setattr(contents, "MOST_PLAN_TOKENS", 180)
    gathered = gather(tmp_path)
    assert [each.samples is not None for each in gathered.found] == [True, False, True, False, False, False]
    assert [len(each.plans) for each in gathered.found] == [3, 1, 0, 0, 0, 0]
    predictions, plans = gathered.left_out
    assert "1 more cell" in predictions
    assert "2 more samples" in plans


def test_svg_is_preferred(tmp_path: Path) -> None:
    write_experiment(tmp_path)
    (tmp_path / "figures" / "memory_by_length.png").write_bytes(b"png")
    (tmp_path / "figures" / "time.png").write_bytes(b"png")
    assert [(figure.name, figure.kind) for figure in gather(tmp_path).figures] == [
        ("memory_by_length", "svg"),
        ("time", "png"),
    ]


DAMAGES = [
    ("experiment.json", "{", "not valid JSON"),
    ("experiment.json", "{}", "experiment: expected, found nothing"),
    ("tables/accuracy.json", "[]", "found a list"),
    (f"{CELL}/metrics.json", "{}", "metrics: expected, found nothing"),
    (f"{CELL}/environment.json", '{"versions": 3}', "versions: "),
    (f"{CELL}/log.csv", "epoch,valid/loss/total\n1,high\n", "found 'high', expected a number"),
    (f"{CELL}/log.csv", "epoch,valid/loss/total\n1\n", "row 2: found 1 fields, expected 2"),
    (f"{CELL}/log.csv", "", "expected CSV with a header"),
    (f"{CELL}/predictions_test.csv", "id,target\na,b\n", "expected a column 'prediction'"),
    (
        f"{CELL}/predictions_test.csv",
        "id,target,prediction,p(calm)\na,calm,odd\n",
        "row 2: found 3 fields, expected 4",
    ),
    (
        f"{CELL}/predictions_test.csv",
        "id,target,prediction,p(calm)\na,calm,odd,1\n",
        "found 'odd', expected one of the classes calm",
    ),
    (f"{CELL}/predictions_test.csv", "id,target,prediction\na,1.0,odd\n", "found 'odd', expected a number"),
    (
        f"{CELL}/predictions_test.csv",
        "id,target,prediction\na,1.0,1e999\n",
        "found '1e999', expected a finite number",
    ),
    (
        f"{CELL}/predictions_test.csv",
        "id,target,prediction\na,nan,1.0\n",
        "found 'nan', expected a finite number",
    ),
    (f"{CELL}/confusion_test.csv", "true class,predicted a\na,1\nb,2\n", "found 1 columns and 2 rows"),
    (f"{CELL}/confusion_test.csv", "true class,predicted a\na,-1\n", "expected counts"),
    (f"{CELL}/missing_test.csv", "id,text\na,1\n", "expected the ids of predictions_test.csv"),
    (f"{CELL}/analysis/plans/plans.json", '{"samples": 3}', "samples: "),
]


@pytest.mark.parametrize(("file", "content", "message"), DAMAGES)
def test_a_damaged_file_is_named(tmp_path: Path, file: str, content: str, message: str) -> None:
    write_experiment(tmp_path)
    write(tmp_path / file, content)
    if file.startswith(CELL):
        said = damage(tmp_path)
    else:
        with pytest.raises(CheckpointError) as error:
            gather(tmp_path)
        said = str(error.value)
    assert said.startswith(f"{tmp_path / file}: ")
    assert message in said
    assert "\n" not in said


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def damage(directory: Path) -> str:
    """The fault of the only damaged run, beside which the others are read."""
    gathered = gather(directory)
    (damaged,) = [each for each in gathered.found if each.state == "damaged"]
    assert states(gathered)["damaged"] == 1
    assert "1 damaged" in summary(gathered)
    # the other seed takes its place
    assert [each.cell.seed for each in gathered.found if each.samples] == [1, 0, 0]
    return damaged.error


def test_a_damaged_analysis_is_named(tmp_path: Path) -> None:
    write_experiment(tmp_path)
    plan = json.loads((tmp_path / "experiment.json").read_text())
    plan["cells"][0]["analyses"] = ["distance"]
    write_json(tmp_path / "experiment.json", plan)
    write(tmp_path / CELL / "analysis" / "distance" / "distance.json", "{")
    assert "distance.json: not valid JSON" in damage(tmp_path)


def test_a_damaged_run_of_a_later_seed_is_not_done(tmp_path: Path) -> None:
    """Its predictions are not shown, but the tables rest on them."""
    second = write_experiment(tmp_path).joinpath("cells", "0000000000000001", "predictions_test.csv")
    second.write_text("id,target\na,b\n", encoding="utf-8")
    assert [each.state for each in gather(tmp_path).found][:2] == ["finished", "damaged"]


def test_a_damaged_file_leaves_what_became_of_a_run(tmp_path: Path) -> None:
    write_experiment(tmp_path, unfinished=(0,))
    (tmp_path / CELL / "log.csv").write_text("", encoding="utf-8")
    begun = gather(tmp_path).found[0]
    assert begun.state == "begun"
    assert begun.error.startswith(f"{tmp_path / CELL / 'log.csv'}: ")
    reason = tmp_path / "failed" / "0000000000000000.json"
    for content, said in (
        ('{"error": "out of memory"}', "out of memory"),
        ('{"error": 3}', f"{reason} cannot be read"),
    ):
        write(reason, content)
        failed = gather(tmp_path).found[0]
        assert (failed.state, failed.error) == ("failed", said)


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    write_experiment(tmp_path)
    (tmp_path / CELL / "log.csv").write_bytes(b"epoch\n\xff")
    assert "log.csv: expected text in UTF-8, found byte 0xff at 6" in damage(tmp_path)


@pytest.mark.parametrize("key", ["../../../../etc", "..", "", "0" * 15])
def test_a_key_is_never_a_path(tmp_path: Path, key: str) -> None:
    write_experiment(tmp_path)
    content = json.loads((tmp_path / "experiment.json").read_text())
    content["cells"][0]["key"] = key
    write_json(tmp_path / "experiment.json", content)
    with pytest.raises(CheckpointError, match="expected 16 hexadecimal digits"):
        gather(tmp_path)


def test_a_table_that_lacks_an_entry(tmp_path: Path) -> None:
    write_experiment(tmp_path)
    path = tmp_path / "tables" / "accuracy.json"
    table = json.loads(path.read_text())
    table["entries"][1].pop()
    write_json(path, table)
    with pytest.raises(CheckpointError, match="entries: row 'mult': expected one per column, 2, found 1"):
        gather(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("index", [0], "index of 'audio' in 'test-000000': found 1, expected 6"),
        ("index", [0, 0, 0, 0, 0, 3], "expected numbers from -1 to 2"),
        ("index", [-2, 0, 0, 0, 0, 0], "expected numbers from -1 to 2"),
        ("similarity", [], "similarity of 'audio' in 'test-000000': found 0, expected 6"),
        ("times", [0.0], "times of 'audio': found 1, expected length 6"),
        ("marginal", "both", "marginal"),
    ],
)
def test_a_plan_that_does_not_fit_its_tokens(tmp_path: Path, field: str, value: object, message: str) -> None:
    write_experiment(tmp_path, plan_lengths=(6, 3))
    path = tmp_path / CELL / "analysis" / "plans" / "plans.json"
    plans = json.loads(path.read_text())
    plans["samples"][0]["sources"][0][field] = value
    write_json(path, plans)
    assert message in damage(tmp_path)


def test_a_search_leads_to_its_verb(tmp_path: Path) -> None:
    (tmp_path / "tuning.json").write_text("{}")
    with pytest.raises(CheckpointError, match=f"holds a search, .* alignmamba tune show {tmp_path} shows it"):
        gather(tmp_path)


def test_neither_experiment_nor_run(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"expected the directory of an experiment or a run, found neither"
    ):
        gather(tmp_path)
    with pytest.raises(CheckpointError, match="no such directory"):
        gather(tmp_path / "nowhere")
