"""A tiny grid from plan to tables: killed and resumed, its cells never done twice, a failed cell sinks
nothing.
"""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignmamba import capacity, checksums
from alignmamba.contracts import Task
from alignmamba.data.archive import load_corpus, write_corpus
from alignmamba.errors import CheckpointError, ConfigError
from alignmamba.evaluation.tables import ResultTable
from alignmamba.recipes.assembly import counted_weights
from alignmamba.recipes.configuration import RunConfig, check_config
from alignmamba.recipes.experiments.ablation import AblationOptions
from alignmamba.recipes.experiments.cell_process import BUSY, DONE, USER_INPUT, run_cell
from alignmamba.recipes.experiments.cells import Job
from alignmamba.recipes.experiments.comparison import ComparisonOptions
from alignmamba.recipes.experiments.engines import THREAD_VARIABLES, run_on_slurm, shard_of, thread_settings
from alignmamba.recipes.experiments.grid_directory import BusyError, ExperimentDirectory
from alignmamba.recipes.experiments.grid_reader import read_grid
from alignmamba.recipes.experiments.grid_run import (
    ExperimentPlan,
    GridEngine,
    plan_experiment,
    run_experiment,
    shard_from,
    sum_up,
)
from alignmamba.recipes.experiments.missing import MissingOptions
from alignmamba.recipes.report.contents import gather
from alignmamba.recipes.run_directory import METRICS
from alignmamba.recipes.training_run import train
from alignmamba.training.logs import LOG
from small_run import CONFIG, write_small_corpus

MISSING = MissingOptions(models=("alignmamba", "late-fusion"), seeds=2, rates=(0.2, 0.4), mixed=True)


class Recorder:
    """Remembers what a grid says; meets `GridProgress`."""

    def __init__(self) -> None:
        self.done = self.total = 0
        self.ended: dict[str, tuple[str, str]] = {}

    def started(self, *, done: int, total: int) -> None:
        self.done, self.total = done, total

    def finished(self, job: Job, state: str, *, reason: str, seconds: float) -> None:
        assert seconds >= 0
        self.ended[job.label] = (state, reason)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "small"
    write_small_corpus(path)
    return path


def base(corpus: Path, **changes: Any) -> RunConfig:
    return check_config({**CONFIG, "data": str(corpus), **changes})


def make(plan: ExperimentPlan) -> ExperimentDirectory:
    """The directory of a plan of which nothing has been done."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alignmamba.recipes.experiments.grid_run.run_here", lambda *_, **__: None)
        run_experiment(plan, GridEngine(), command=["made", "here"], progress=Recorder())
    return ExperimentDirectory.open(plan.directory)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """The grid of `MISSING`, every cell done in this process."""
    plan = plan_experiment(MISSING, base(corpus), out=tmp_path_factory.mktemp("grids") / "whole")
    directory = make(plan)
    assert [run_cell(directory.path, job.key) for job in plan.jobs] == [DONE] * len(plan.jobs)
    sum_up(directory.path)
    return directory.path


def tables(path: Path) -> dict[str, ResultTable]:
    return {
        file.stem: ResultTable.from_json(file.read_text())
        for file in sorted((path / "tables").glob("*.json"))
    }


def kill_alone(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL to a grid's process alone, after which none of those that it started may stay behind."""
    children = [
        int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ]
    assert children
    process.kill()
    process.wait()
    # the limit of a test ends it where one works on
    while any(Path(f"/proc/{pid}").is_dir() for pid in children):
        time.sleep(0.05)


@pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="children of a process are found through /proc"
)
def test_a_killed_grid_ends_with_the_same_table(tmp_path: Path, corpus: Path, uninterrupted: Path) -> None:
    out = tmp_path / "killed"
    settings = [
        "fit.epochs=3",
        "fit.warmup_fraction=0.0",
        "options.d_model=16",
        "options.depth=1",
        "options.d_state=4",
        "loader.batch_size=8",
    ]
    command = [
        sys.executable,
        "-m",
        "alignmamba",
        "experiment",
        "missing",
        "--data",
        str(corpus),
        "--out",
        str(out),
        "--seeds",
        "2",
    ]
    command += [
        "--models",
        *MISSING.models,
        "--rates",
        "0.2",
        "0.4",
        "--mixed",
        "--jobs",
        "2",
        "--set",
        *settings,
    ]
    plan = plan_experiment(MISSING, base(corpus), out=out)
    # One cell is held by this process, so that the grid cannot end before it is killed.
    with make(plan).locked(plan.jobs[-1].key, wait=False):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not list(out.glob(f"cells/*/{METRICS}")):
            assert process.poll() is None, "the grid ended before it was killed"
            time.sleep(0.02)
        kill_alone(process)
    finished = {file: file.stat().st_mtime_ns for file in out.glob(f"cells/*/{METRICS}")}
    assert 0 < len(finished) < 4

    ended = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr
    assert {file: file.stat().st_mtime_ns for file in finished} == finished, "a finished run was done again"
    assert tables(out) == tables(uninterrupted)
    assert not list(out.glob("cells/*/analysis/.*")) or len(list(out.glob("cells/*/analysis/gcnet-*"))) == 8


def test_what_a_grid_leaves(uninterrupted: Path) -> None:
    found = tables(uninterrupted)
    assert set(found) == {"missing-accuracy", "missing-f1_weighted"}
    table = found["missing-accuracy"]
    assert table.rows == MISSING.models
    assert table.columns == ("20 %", "40 %", "average", "drop")
    for row in table.entries:
        first, last, average, drop = (entry.values for entry in row if entry is not None)
        for seed in range(2):
            assert average[seed] == pytest.approx((first[seed] + last[seed]) / 2)
            assert drop[seed] == pytest.approx(first[seed] - last[seed])
    assert any("Really withheld on test" in note for note in table.notes)
    assert not any("not finished" in note for note in table.notes)
    for ending in ("csv", "tex", "md"):
        assert (uninterrupted / "tables" / f"missing-accuracy.{ending}").is_file()
    # Trained once per model and seed, scored at both rates.
    assert len(list(uninterrupted.glob(f"cells/*/{METRICS}"))) == 4
    plan = json.loads((uninterrupted / "experiment.json").read_text())
    assert plan["command"] == ["made", "here"]
    assert [entry["seed"] for entry in plan["cells"]] == [0] * 4 + [1] * 4


def test_both_methods_saw_the_same_masks(uninterrupted: Path) -> None:
    masks: dict[tuple[int, str], set[str]] = {}
    for entry in json.loads((uninterrupted / "experiment.json").read_text())["cells"]:
        place = (uninterrupted / "cells" / entry["key"] / entry["predictions"]).parent
        masks.setdefault((entry["seed"], entry["column"]), set()).add((place / "missing.csv").read_text())
    assert [len(each) for each in masks.values()] == [1] * 4
    assert len(set.union(*masks.values())) == 4


def test_finished_cells_are_not_run_again(uninterrupted: Path, corpus: Path) -> None:
    progress = Recorder()
    before = {file: file.stat().st_mtime_ns for file in uninterrupted.glob("cells/*/**/*")}
    run_experiment(
        plan_experiment(MISSING, base(corpus), out=uninterrupted),
        GridEngine(),
        command=["again"],
        progress=progress,
    )
    assert (progress.done, progress.total, progress.ended) == (4, 4, {})
    assert {file: file.stat().st_mtime_ns for file in uninterrupted.glob("cells/*/**/*")} == before


def test_a_cell_that_fails_says_why_and_sinks_nothing(tmp_path: Path, corpus: Path) -> None:
    plan = plan_experiment(MISSING.model_copy(update={"seeds": 1}), base(corpus), out=tmp_path / "grid")
    directory = make(plan)
    (directory.path / "cells" / plan.jobs[0].key).write_text("in the way")
    progress = Recorder()
    result = run_experiment(plan, GridEngine(jobs=2), command=[], progress=progress)
    assert {label: state for label, (state, _) in progress.ended.items()} == {
        "alignmamba, 20 %, seed 0": "failed",
        "late-fusion, 20 %, seed 0": "finished",
    }
    assert "found a file, expected the directory of a run" in result.failures["alignmamba, 20 %, seed 0"]
    table = result.tables[0]
    assert table.entries[0] == (None,) * len(table.columns)
    assert all(entry is not None for entry in table.entries[1])
    assert any(note.startswith("Failed: alignmamba, 20 %, seed 0: ") for note in table.notes)


def test_a_modality_that_some_samples_lack(tmp_path: Path, corpus: Path) -> None:
    plan = plan_experiment(
        ComparisonOptions(models=("late-fusion",), seeds=1, without_references=True),
        base(corpus),
        out=tmp_path / "grid",
    )
    directory = make(plan)
    assert [run_cell(directory.path, job.key) for job in plan.jobs] == [DONE] * 3
    table, cost = sum_up(directory.path).tables
    assert table.rows == cost.rows == ("late-fusion", "text alone", "audio alone")
    with (directory.run_path(plan.jobs[0].key) / LOG).open(newline="") as log:
        seconds = sum(float(epoch["seconds"]) for epoch in csv.DictReader(log))
    assert cost.columns == ("trained weights", "training seconds")
    assert [entry and entry.mean for entry in cost.entries[0]] == [
        counted_weights(plan.cells[0].config, plan.corpus),
        seconds,
    ]
    assert table.entries[2][0] is not None
    assert table.entries[2][0].mark == ""
    assert any(note.startswith("audio alone is scored on 11 of 14 samples") for note in table.notes)


def test_a_comparison_that_an_earlier_version_began_resumes_as_it_is(tmp_path: Path, corpus: Path) -> None:
    asked = ComparisonOptions(models=("late-fusion",), seeds=1)
    plan = plan_experiment(asked, base(corpus), out=tmp_path / "grid")
    assert [job.label.split(",")[0] for job in plan.jobs][-2:] == ["best-constant", "pooled-linear"]
    directory = make(plan)
    record = json.loads((directory.path / "experiment.json").read_text())
    del record["settings"]["without_references"]
    plain = {name: value for name, value in record.items() if name != checksums.FIELD}
    (directory.path / "experiment.json").write_text(json.dumps(plain))
    again = plan_experiment(asked, base(corpus), out=tmp_path / "grid")
    assert [cell.row for cell in again.cells] == ["late-fusion", "text alone", "audio alone"]


def test_rows_of_which_nothing_is_to_be_learned_are_dropped(tmp_path: Path) -> None:
    """References know the target of the task alone, and the text knows nothing of the tokens of audio."""
    splits = {
        role: {
            "features": {"text": [np.ones((2, 2))] * 4, "audio": [np.ones((3, 2))] * 4},
            "targets": [0, 1, 0, 1],
            "token_labels": {"audio": {"tone": [["high", "low", "low"]] * 4}},
        }
        for role in ("train", "valid", "test")
    }
    write_corpus(tmp_path / "data", splits, task=Task(kind="classification", classes=("a", "b")))

    def selected(targets: Mapping[str, Any], **fit: Any) -> dict[str, str]:
        run = base(tmp_path / "data", targets=targets, fit=fit, options={})
        asked = ComparisonOptions(models=("alignmamba",), seeds=1)
        cells = plan_experiment(asked, run, out=tmp_path / "grid").cells
        return {cell.row: cell.config.fit.select for cell in cells}

    lone, references = ("text alone", "audio alone"), ("best-constant", "pooled-linear")
    every = ("alignmamba", *lone, *references)
    assert selected({"tone": {}}, select="f1_macro") == dict.fromkeys(every, "f1_macro")
    tones = {"select": "tone.accuracy"}
    assert selected({"tone": {}}, **tones) == {
        **dict.fromkeys(("alignmamba", "audio alone"), "tone.accuracy"),
        **dict.fromkeys(("text alone", *references), "auto"),
    }
    assert list(selected({"tone": {}}, task_weight=0.0, **tones)) == ["alignmamba", "audio alone"]


def test_references_stand_beside_methods_of_several_seeds(tmp_path: Path, corpus: Path) -> None:
    asked = ComparisonOptions(models=("late-fusion",), seeds=2)
    plan = plan_experiment(asked, base(corpus), out=tmp_path / "grid")
    directory = make(plan)
    chosen = [job for job in plan.jobs if "alone" not in job.label]
    assert [run_cell(directory.path, job.key) for job in chosen] == [DONE] * 6
    table = sum_up(directory.path).tables[0]
    for row in ("best-constant", "pooled-linear"):
        entry = table.entries[table.rows.index(row)][0]
        assert entry is not None
        assert len(set(entry.values)) == 1 < len(entry.values)
    assert any(
        note.startswith("No seed changes the solution of best-constant and pooled-linear")
        for note in table.notes
    )


def test_folds_of_a_seed_are_scored_together(tmp_path: Path, corpus: Path) -> None:
    asked = ComparisonOptions(models=("pooled-linear",), seeds=2, folds=3)
    plain = base(corpus, model="best-constant", options={})
    plan = plan_experiment(asked, plain, out=tmp_path / "grid")
    assert len(plan.jobs) == 4 * 2 * 3
    directory = make(plan)
    assert plan.jobs[-1].label == "pooled-linear, seed 1, fold 2"
    chosen = [
        job
        for job in plan.jobs
        if job.label.startswith("pooled") or job.label.startswith("best-constant, seed 0")
    ]
    for job in chosen[:-1]:
        assert run_cell(directory.path, job.key) == DONE
    rows = {entry: number for number, entry in enumerate(sum_up(directory.path).tables[0].rows)}
    linear = sum_up(directory.path).tables[0].entries[rows["pooled-linear"]][0]
    assert linear is not None
    assert linear.seeds == (0,), "seed 1 lacks a fold"
    assert run_cell(directory.path, chosen[-1].key) == DONE
    table, cost, varies = sum_up(directory.path).tables
    grid = read_grid(directory, directory.plan())
    joint = grid.predictions("pooled-linear", "")[1]
    splits = load_corpus(corpus).splits.values()
    assert sorted(joint.ids) == sorted(identity for split in splits for identity in split.ids)
    assert joint.ids == grid.predictions("best-constant", "")[0].ids
    assert joint.targets is not None
    accuracy = float(np.mean(joint.prediction.argmax(1) == joint.targets))
    entry = table.entries[rows["pooled-linear"]][table.columns.index("accuracy")]
    assert entry is not None
    assert entry.values == pytest.approx((accuracy, accuracy))
    keys = grid.keys("pooled-linear", "")
    assert {seed: len(each) for seed, each in keys.items()} == {0: 3, 1: 3}
    seconds = [sum(grid.runs[key].seconds for key in each) for each in keys.values()]
    assert [each and each.mean for each in cost.entries[rows["pooled-linear"]]][1] == min(seconds)
    assert any(note.startswith("Each seed is 3 runs, whose test predictions") for note in table.notes)
    assert any("4.00 times what it would be otherwise" in note for note in table.notes)
    by_fold = np.array(list(grid.scores("pooled-linear", "", "test", "accuracy").values()))
    assert by_fold.shape == (2, 3)
    assert varies.columns == ("draw of data", "seed of training")
    of_data, of_seed = varies.entries[rows["pooled-linear"]]
    assert of_data is not None
    assert of_data.mean == pytest.approx(float(np.std(by_fold[0], ddof=1))), "no seed changes it"
    assert of_seed is not None
    assert of_seed.mean == pytest.approx(0)
    assert varies.entries[rows["best-constant"]] == (None, None), "one seed shows neither"
    assert directory.plan().test_samples == len(joint.ids)
    assert gather(directory.path).experiment.folds == 3


def test_folds_that_a_grid_cannot_deal_are_refused(tmp_path: Path, corpus: Path) -> None:
    for asked, changes, message in (
        (2, {}, "folds: found 2, expected 3 or more"),
        (63, {}, "folds: found 62 samples, expected 63 or more"),
        (3, {"split_valid": 0.2}, "split_valid: a fold has a valid split of its own"),
        (0, {"folds": {"number": 3}}, "folds.number: found 3, but the grid deals folds; take --folds"),
    ):
        with pytest.raises(ConfigError, match=message):
            plan_experiment(
                MissingOptions(models=("late-fusion",), seeds=1, folds=asked),
                base(corpus, **changes),
                out=tmp_path / "grid",
            )


def test_folds_are_not_tested_on_what_a_search_has_seen(tmp_path: Path, corpus: Path) -> None:
    asked = ComparisonOptions(seeds=1, folds=3, tuned=(str(tmp_path / "search"),))
    with pytest.raises(ConfigError, match="tuned: the search has seen samples that folds are tested on"):
        plan_experiment(asked, base(corpus), out=tmp_path / "grid")


def test_a_damaged_cell_is_left_out_and_named(tmp_path: Path, uninterrupted: Path) -> None:
    copy = tmp_path / "grid"
    shutil.copytree(uninterrupted, copy)
    key = json.loads((copy / "experiment.json").read_text())["cells"][0]["key"]
    (copy / "cells" / key / METRICS).write_text("")
    result = sum_up(copy)
    table = result.tables[0]
    assert result.states == {"finished": 3, "damaged": 1}
    assert METRICS in result.damaged["alignmamba, 20 %, seed 0"]
    assert [len(entry.values) for entry in table.entries[0] if entry is not None] == [1] * 4
    assert any(
        note.startswith("Damaged: alignmamba, 20 %, seed 0: ") and METRICS in note for note in table.notes
    )
    assert any("compare the seeds 1 alone" in note for note in table.notes)


def test_two_grids_in_one_place_do_not_disturb_each_other(tmp_path: Path, corpus: Path) -> None:
    first = plan_experiment(MISSING.model_copy(update={"seeds": 1}), base(corpus), out=tmp_path / "grid")
    directory = make(first)
    second = plan_experiment(
        MISSING.model_copy(update={"models": ("crossmodal-transformer",), "seeds": 1}),
        base(corpus),
        out=tmp_path / "grid",
    )
    make(second)
    assert run_cell(directory.path, first.jobs[0].key) == DONE
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alignmamba.recipes.experiments.grid_run.run_here", lambda *_, **__: make(second))
        result = run_experiment(first, GridEngine(), command=[], progress=Recorder())
    assert result.tables[0].rows == MISSING.models
    assert result.states == {"finished": 1, "pending": 1}


def test_a_corpus_that_was_moved(tmp_path: Path, corpus: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(corpus, here)
    once = MISSING.model_copy(update={"seeds": 1, "models": ("late-fusion",)})
    plan = plan_experiment(once.model_copy(update={"rates": (0.2,)}), base(here), out=tmp_path / "grid")
    directory = make(plan)
    (job,) = plan.jobs
    train(job.config, out=directory.run_path(job.key))
    here.rename(there)
    moved = plan_experiment(once.model_copy(update={"rates": (0.2,)}), base(there), out=tmp_path / "grid")
    assert [each.key for each in moved.jobs] == [job.key]
    make(moved)
    assert run_cell(directory.path, job.key) == DONE


def test_a_process_that_dies_is_a_failure_with_its_signal(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_experiment(MISSING.model_copy(update={"seeds": 1}), base(corpus), out=tmp_path / "grid")
    monkeypatch.setattr(sys, "executable", _script(tmp_path, "kill -9 $$"))
    result = run_experiment(plan, GridEngine(jobs=2), command=[], progress=Recorder())
    assert len(result.failures) == 2
    assert all("signal 9 (SIGKILL)" in reason for reason in result.failures.values())
    assert all(entry is None for table in result.tables for row in table.entries for entry in row)


def _script(folder: Path, line: str) -> str:
    path = folder / "worker"
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return str(path)


def test_an_interrupt_ends_the_processes(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_experiment(MISSING.model_copy(update={"seeds": 1}), base(corpus), out=tmp_path / "grid")
    ready, mark = tmp_path / "ready", tmp_path / "interrupted"
    script = f"trap 'echo >> {mark}; exit 130' INT; echo >> {ready}; while :; do sleep 0.05; done"
    monkeypatch.setattr(sys, "executable", _script(tmp_path, script))
    over = threading.Event()

    def interrupt() -> None:
        while not (ready.exists() and ready.read_text() == "\n\n") and not over.wait(0.02):
            pass
        if not over.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_experiment(plan, GridEngine(jobs=2), command=[], progress=Recorder())
    finally:
        over.set()
        interrupting.join()
    assert mark.read_text() == "\n\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """The processes that a grid has started; none of them outlives the test."""
    processes: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def recorded(*arguments: Any, **options: Any) -> "subprocess.Popen[bytes]":
        processes.append(start(*arguments, **options))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", recorded)
    yield processes
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.parametrize("ctrl_c", [signal.default_int_handler, signal.SIG_IGN])
def test_a_process_that_starts_while_the_grid_is_interrupted_ends_too(
    tmp_path: Path,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    started: list["subprocess.Popen[bytes]"],
    ctrl_c: Any,
) -> None:
    plan = plan_experiment(MISSING.model_copy(update={"seeds": 1}), base(corpus), out=tmp_path / "grid")
    monkeypatch.setattr(sys, "executable", _script(tmp_path, "while :; do sleep 0.05; done"))
    start = subprocess.Popen

    def interrupted(*arguments: Any, **options: Any) -> "subprocess.Popen[bytes]":
        process = start(*arguments, **options)
        signal.raise_signal(signal.SIGTERM)
        return process

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    before = signal.signal(signal.SIGINT, ctrl_c)  # ignored, as in the background of a script
    try:
        with pytest.raises(KeyboardInterrupt):
            run_experiment(plan, GridEngine(jobs=1), command=[], progress=Recorder())
        assert signal.getsignal(signal.SIGINT) is ctrl_c
    finally:
        signal.signal(signal.SIGINT, before)
    assert [process.returncode for process in started] == [-signal.SIGINT]


def test_a_second_interrupt_leaves_the_processes_to_their_closing_input(
    tmp_path: Path,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    started: list["subprocess.Popen[bytes]"],
) -> None:
    plan = plan_experiment(MISSING.model_copy(update={"seeds": 1}), base(corpus), out=tmp_path / "grid")
    ready, asked = tmp_path / "ready", tmp_path / "asked"
    saving = f"trap 'echo > {asked}' INT; echo > {ready}; while kill -0 $!; do wait $!; done; exit 7"
    monkeypatch.setattr(sys, "executable", _script(tmp_path, f"exec 3<&0; cat <&3 & {saving}"))
    over = threading.Event()

    def interrupt_twice() -> None:
        for seen in (ready, asked):
            while not seen.exists() and not over.wait(0.02):
                pass
            if not over.is_set():
                os.kill(os.getpid(), signal.SIGTERM)

    interrupting = threading.Thread(target=interrupt_twice)
    interrupting.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_experiment(plan, GridEngine(jobs=1), command=[], progress=Recorder())
    finally:
        over.set()
        interrupting.join()
    assert asked.exists()
    assert [process.wait() for process in started] == [7]


# Two workers and one cell


def test_two_workers_never_write_the_same_cell(tmp_path: Path, corpus: Path) -> None:
    plan = plan_experiment(MISSING.model_copy(update={"seeds": 1}), base(corpus), out=tmp_path / "grid")
    directory = make(plan)
    key = plan.jobs[0].key
    with directory.locked(key, wait=False):
        # A lock of this process does not hold against itself, so that another one has to try.
        program = [
            sys.executable,
            "-m",
            "alignmamba.recipes.experiments.cell_process",
            str(directory.path),
            key,
        ]
        assert subprocess.run(program, capture_output=True, timeout=120).returncode == BUSY
        assert directory.state(plan.jobs[0]) == "pending"
    assert run_cell(directory.path, key, wait=False) == DONE
    with directory.locked(key, wait=False):
        pass


def test_a_held_cell_is_busy(tmp_path: Path, corpus: Path) -> None:
    directory = make(
        plan_experiment(MISSING.model_copy(update={"seeds": 1}), base(corpus), out=tmp_path / "grid")
    )
    holder = (
        "import sys, time, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print('held',"
        " flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(directory.path / "cells" / "some.lock")], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(BusyError), directory.locked("some", wait=False):
            pass
        process.kill()
    with directory.locked("some", wait=False):
        pass  # the lock went with its holder


# Engines


def test_a_slurm_array_does_the_same(tmp_path: Path, corpus: Path, uninterrupted: Path) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed")
    plan = plan_experiment(MISSING, base(corpus), out=tmp_path / "grid")
    directory = make(plan)
    half = plan.jobs[:2]
    progress = Recorder()
    run_on_slurm(directory, half, workers=2, progress=progress, options={"timeout_min": 5}, cluster="local")
    assert [state for state, _ in progress.ended.values()] == ["finished"] * 2
    sum_up(directory.path)
    first = {
        row: tuple(entry and entry.values[:1] for entry in cells)
        for row, cells in _by_row(tables(uninterrupted)).items()
    }
    assert {
        row: tuple(entry and entry.values for entry in cells)
        for row, cells in _by_row(tables(directory.path)).items()
    } == first


def _by_row(found: Mapping[str, ResultTable]) -> dict[str, tuple[Any, ...]]:
    table = found["missing-accuracy"]
    return dict(zip(table.rows, table.entries, strict=True))


def test_slurm_without_slurm_is_refused(tmp_path: Path, corpus: Path) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed")
    plan = plan_experiment(MISSING, base(corpus), out=tmp_path / "grid")
    directory = make(plan)
    with pytest.raises(ConfigError, match="engine slurm"):
        run_on_slurm(
            directory,
            plan.jobs,
            workers=1,
            progress=Recorder(),
            options={"no_such_option": 1},
            cluster="local",
        )


def test_shards_share_all_jobs(tmp_path: Path, corpus: Path) -> None:
    jobs = plan_experiment(MISSING, base(corpus), out=tmp_path / "grid").jobs
    shares = [shard_of(jobs, (index, 3)) for index in (1, 2, 3)]
    assert sorted(job.key for share in shares for job in share) == sorted(job.key for job in jobs)
    assert [len(share) for share in shares] == [2, 1, 1]
    assert shard_from("2/3") == (2, 3)


@pytest.mark.parametrize("text", ["", "2", "0/3", "4/3", "a/b", "1/0", "-1/2"])
def test_a_wrong_shard_is_refused(text: str) -> None:
    with pytest.raises((ConfigError, ValueError), match="shard"):
        GridEngine(shard=shard_from(text))


def test_a_grid_with_a_model_that_memory_does_not_hold_is_refused(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "available_bytes", lambda _: 1000)
    with pytest.raises(
        ConfigError, match=r"^model \S+: training [\d,]+ weights in 32 bits .* lower options\.d_model"
    ):
        plan_experiment(MISSING, base(corpus), out=tmp_path / "grid")


def test_threads_are_the_users_or_go_by_the_width_of_the_model(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 64)
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    narrow = plan_experiment(MISSING, base(corpus), out=tmp_path / "grid")
    wide = plan_experiment(MISSING, base(corpus, options={"d_model": 256, "depth": 1}), out=tmp_path / "grid")
    assert (narrow.threads, wide.threads) == ((1,), (4,))
    assert thread_settings(4) == dict.fromkeys(THREAD_VARIABLES, "4")
    monkeypatch.setenv("OMP_NUM_THREADS", "abc")
    assert (narrow.threads, thread_settings(1)) == ((1,), dict.fromkeys(THREAD_VARIABLES, "1"))
    monkeypatch.setenv("OMP_NUM_THREADS", "3,1")
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    assert (narrow.threads, wide.threads) == ((3,), (3,))
    assert thread_settings(3) == {
        **dict.fromkeys(THREAD_VARIABLES, "3"),
        "OMP_NUM_THREADS": "3,1",
        "NUMBA_NUM_THREADS": "2",
    }


def test_a_cells_threads_do_not_depend_on_how_many_are_at_work(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(sys, "executable", _script(tmp_path, f"echo $OMP_NUM_THREADS >> {tmp_path}/threads"))
    for jobs in (1, 2):
        plan = plan_experiment(
            MISSING.model_copy(update={"seeds": 1}), base(corpus), out=tmp_path / f"grid{jobs}"
        )
        run_experiment(plan, GridEngine(jobs=jobs), command=[], progress=Recorder())
        assert json.loads((tmp_path / f"grid{jobs}" / "experiment.json").read_text())["threads"] == [1]
    assert (tmp_path / "threads").read_text() == "1\n" * 4


WATCHED = """
import signal, sys, time
from alignmamba.recipes.experiments.cell_process import end_with_input
# said in both cases: the background of a script ignores it
signal.signal(signal.SIGINT, signal.SIG_IGN if sys.argv[1] == "deaf" else signal.default_int_handler)
end_with_input(grace_seconds=float(sys.argv[2]))
try:
    print("ready", flush=True)  # within: the interrupt may come before the next line
    time.sleep(600)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize(
    ("manner", "grace", "said", "code"),
    [("prompt", "60", b"interrupted\n", 0), ("deaf", "0.5", b"", -signal.SIGKILL)],
)
def test_a_process_ends_when_its_input_closes(manner: str, grace: str, said: bytes, code: int) -> None:
    command = [sys.executable, "-c", WATCHED, manner, grace]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"ready\n"
        process.stdin.close()
        assert process.stdout.read() == said
        assert process.wait(timeout=60) == code


# What the directory refuses


def test_another_experiment_is_refused(uninterrupted: Path, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"experiment is 'missing', found 'ablation'"):
        plan_experiment(AblationOptions(), base(corpus), out=uninterrupted)
    write_small_corpus(tmp_path / "other", seed=9)
    with pytest.raises(CheckpointError, match="whose corpus is"):
        plan_experiment(MISSING, base(tmp_path / "other"), out=uninterrupted)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="not an experiment"):
        plan_experiment(MISSING, base(corpus), out=tmp_path / "full")
    with pytest.raises(CheckpointError, match="a file is there"):
        plan_experiment(MISSING, base(corpus), out=tmp_path / "full" / "letter.txt")
    assert (tmp_path / "full" / "letter.txt").read_text() == "mine"
    planned = plan_experiment(MISSING, base(corpus), out=tmp_path / "late")
    (tmp_path / "late").write_text("mine")  # after the plan was made
    with pytest.raises(CheckpointError, match="a file is there"):
        run_experiment(planned, GridEngine(), command=[], progress=Recorder())


def test_a_damaged_plan_is_one_line(tmp_path: Path, corpus: Path) -> None:
    plan = plan_experiment(MISSING, base(corpus), out=tmp_path / "grid")
    directory = make(plan)
    assert run_cell(directory.path, "nothing") == USER_INPUT
    assert "has no cell 'nothing'" in directory.failure("nothing")
    (directory.path / "experiment.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        sum_up(directory.path)
    (directory.path / "experiment.json").write_text("[]")
    with pytest.raises(CheckpointError, match="expected a JSON object, found a list"):
        sum_up(directory.path)
    with pytest.raises(CheckpointError, match="expected the directory of an experiment"):
        sum_up(tmp_path)


def test_an_unlabelled_test_split_is_refused(tmp_path: Path) -> None:
    write_small_corpus(tmp_path / "unlabelled", labelled=False)
    with pytest.raises(Exception, match=r"split 'train' is unlabelled"):
        plan_experiment(MISSING, base(tmp_path / "unlabelled"), out=tmp_path / "grid")


def test_a_user_mistake_in_a_cell_is_recorded(tmp_path: Path, corpus: Path) -> None:
    plan = plan_experiment(
        ComparisonOptions(seeds=1, models=("dcca",), without_alone=True, without_references=True),
        base(corpus, loader={"batch_size": 4}),
        out=tmp_path / "grid",
    )
    directory = make(plan)
    assert run_cell(directory.path, plan.jobs[0].key) == USER_INPUT
    assert "expected more than options.components=10" in directory.failure(plan.jobs[0].key)
    assert directory.state(plan.jobs[0]) == "failed"


def test_the_page_shows_what_the_tables_were_made_of(uninterrupted: Path) -> None:
    found = gather(uninterrupted).found
    first = {
        each.cell.column: each for each in found if each.cell.row == "alignmamba" and each.cell.seed == 0
    }
    for each in first.values():
        assert each.samples is not None
        accuracy = np.mean(
            [
                target == said
                for target, said in zip(each.samples.targets or (), each.samples.predictions, strict=True)
            ]
        )
        told = tables(uninterrupted)["missing-accuracy"]
        entry = told.entries[0][told.columns.index(each.cell.column)]
        assert entry is not None
        assert accuracy == pytest.approx(entry.values[0])
        assert np.trace(each.confusion) == accuracy * len(each.samples.ids)
        assert any(any(withheld) for withheld in each.samples.withheld.values())
