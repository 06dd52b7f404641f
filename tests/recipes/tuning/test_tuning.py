"""A search for settings: equal trials for all, workers that end badly, pruning, the sealed test split."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from alignmamba.checksums import stamped
from alignmamba.contracts import Config, Role, Task
from alignmamba.data.archive import load_corpus, write_corpus
from alignmamba.errors import CheckpointError, ConfigError, TrainingError
from alignmamba.methods import METHODS
from alignmamba.methods.search_space import SHARED_SPACE, Choice, Names, Real, Whole
from alignmamba.recipes import preparation
from alignmamba.recipes.configuration import RunConfig, check_config, dotted, resolve, with_settings
from alignmamba.recipes.experiments.experiment_kind import of_model
from alignmamba.recipes.run_directory import to_json
from alignmamba.recipes.training_run import train
from alignmamba.recipes.tuning import tuning_worker
from alignmamba.recipes.tuning.studies import ATTEMPTS, counted, put_back_lost, studies_of
from alignmamba.recipes.tuning.trial_run import PARTS, Pruning, drawn, run_trial
from alignmamba.recipes.tuning.tuning_directory import TuningDirectory, checked_storage
from alignmamba.recipes.tuning.tuning_plan import TuningOptions, TuningPlan, defaults_of, plan_tuning
from alignmamba.recipes.tuning.tuning_results import outcomes
from alignmamba.recipes.tuning.tuning_worker import work
from small_run import write_small_corpus, write_timed_corpus

METHODS_TUNED = ("single-stream-transformer", "late-fusion")
TINY: Mapping[str, Any] = {
    "fit": {"epochs": 1},
    "options": {"d_model": 8, "depth": 1},
    "loader": {"batch_size": 16},
}


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """A split of which nothing but ids and lengths can be read; meets `contracts.Split`."""

    role: Role
    ids: tuple[str, ...]
    lengths: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> Any:
        raise AssertionError(f"test sample {row} was read")

    def __iter__(self) -> Any:
        return (self[row] for row in range(len(self)))


class Silent:
    """An observer that keeps what it hears."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, int, int]] = []

    def started(self, *, done: int, total: int) -> None:
        self.begun = (done, total)

    def finished(self, method: str, trial: Any, best: Any, *, done: int, seconds: float) -> None:
        del best, seconds
        self.ended.append((method, trial.number, done))


@pytest.fixture
def planned(corpus: Path, tmp_path: Path) -> Callable[..., TuningPlan]:
    def make(trials: int = 3, *, out: str = "tuning", storage: str = "", **options: Any) -> TuningPlan:
        options = {"methods": METHODS_TUNED, "repeats": 1, **options}
        base = check_config({**TINY, "data": str(corpus)})
        asked = TuningOptions(trials=trials, **options)
        return plan_tuning(asked, base, out=tmp_path / out, storage=storage)

    return make


def _by_rate(plan: TuningPlan, name: str, trial: optuna.Trial) -> float:
    """A trial without training, whose score is a function of its settings."""
    settings = {key: drawn(trial, key, values) for key, values in plan.spaces[name].items()}
    return settings["fit.learning_rate"]


_DIRECTION = '{"op_code": 0, "worker_id": "q", "study_name": "b", "directions": [9]}'
"""A line of a journal that Optuna can read and not apply."""


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning_worker, "run_trial", _by_rate)


def _studies(plan: TuningPlan) -> Mapping[str, optuna.Study]:
    directory = TuningDirectory(plan.directory)
    return studies_of(directory, directory.record(), maximise=plan.higher_is_better)


def _settings(plan: TuningPlan) -> dict[str, list[dict[str, Any]]]:
    """Settings of the trials that count, in the order of their numbers."""
    return {name: [trial.params for trial in counted(study)] for name, study in _studies(plan).items()}


@pytest.mark.usefixtures("untrained")
def test_importance_needs_five_trials_with_a_score(planned: Callable[..., TuningPlan]) -> None:
    for trials in (4, 5):
        plan = planned(trials, methods=("single-stream-transformer",), repeats=1)
        work(plan, progress=Silent())
        (found,) = outcomes(TuningDirectory(plan.directory), importance=True)
        shares = found.importance or {}
        assert set(shares) == (set(plan.spaces["single-stream-transformer"]) if trials == 5 else set())
    assert sum(shares.values()) == pytest.approx(1)


def test_a_search_trains_scores_and_keeps_no_weights(planned: Callable[..., TuningPlan]) -> None:
    plan = planned(2, methods=("single-stream-transformer",), repeats=2)
    heard = Silent()
    assert work(plan, progress=heard) == 0
    assert heard.begun == (0, 2)
    assert heard.ended == [("single-stream-transformer", number, number + 1) for number in (0, 1)]
    (found,) = outcomes(TuningDirectory(plan.directory), importance=True)
    assert (found.trials, found.pruned, found.running) == (2, 0, 0)
    assert found.score is not None
    assert 0 <= found.score <= 1
    assert found.seconds > 0
    assert found.importance == {}  # of two trials
    assert {path.name for path in plan.directory.iterdir()} == {
        "tuning.json",
        "journal.log",
        "claim.lock",
        "workers",
    }
    fixed: Any = optuna.trial.FixedTrial(dict(found.settings))
    again = run_trial(plan, "single-stream-transformer", fixed)
    assert again == pytest.approx(found.score)


def test_no_training_is_given_the_test_split(planned: Callable[..., TuningPlan]) -> None:
    plan = planned(1, repeats=3)
    assert [set(repeat.corpus.splits) for repeat in plan.repeats] == [{"train", "valid"}] * 3
    assert [repeat.config.seed for repeat in plan.repeats] == [0, 1, 2]


def test_a_drawn_valid_split_is_drawn_again_for_each_repeat(tmp_path: Path) -> None:
    write_small_corpus(tmp_path / "corpus", sizes={"train": 40, "test": 10})
    base = check_config({**TINY, "data": str(tmp_path / "corpus"), "split_valid": 0.25})
    asked = TuningOptions(trials=1, repeats=2, methods=("late-fusion",))
    first, second = plan_tuning(asked, base, out=tmp_path / "out").repeats
    assert set(first.corpus.splits) == {"train", "valid"}
    assert set(first.corpus.split("valid").ids) != set(second.corpus.split("valid").ids)


def test_the_size_of_the_valid_split_decides_how_often_a_trial_trains(tmp_path: Path) -> None:
    for size, expected in ((199, (5, 5)), (200, (1, 0))):
        path = tmp_path / str(size)
        write_small_corpus(path, sizes={"train": 8, "valid": size})
        asked = TuningOptions(trials=1, methods=("late-fusion",))
        plan = plan_tuning(asked, RunConfig(data=str(path)), out=tmp_path / "out")
        assert (plan.record.repeats, plan.record.folds) == expected
        assert plan.valid_samples == (207 if size == 199 else 200)


def test_folds_of_train_and_valid_take_turns_and_none_holds_a_test_sample(
    planned: Callable[..., TuningPlan], corpus: Path
) -> None:
    plan = planned(1, repeats=None)
    assert len(plan.repeats) == plan.record.folds == plan.record.repeats == 5
    whole = load_corpus(corpus)
    seen = {identity for role in ("train", "valid") for identity in whole.split(role).ids}
    valid: list[str] = []
    for repeat in plan.repeats:
        parts = repeat.corpus.splits
        assert set(parts) == {"train", "valid"}
        assert set(parts["train"].ids) | set(parts["valid"].ids) == seen
        assert not set(parts["train"].ids) & set(parts["valid"].ids)
        valid += parts["valid"].ids
    assert sorted(valid) == sorted(seen), "each is validated once"
    assert [repeat.config.seed for repeat in plan.repeats] == [0, 1, 2, 3, 4]


def test_a_subset_is_cut_from_the_train_split_of_each_fold(corpus: Path, tmp_path: Path) -> None:
    base = check_config({**TINY, "data": str(corpus), "subset": {"size": 6}})
    asked = TuningOptions(trials=1, methods=("late-fusion",))
    plan = plan_tuning(asked, base, out=tmp_path / "out")
    whole = load_corpus(corpus)
    seen = {identity for role in ("train", "valid") for identity in whole.split(role).ids}
    assert [len(each.corpus.split("train")) for each in plan.repeats] == [6] * 5
    assert plan.valid_samples == len(seen)
    valid = [identity for each in plan.repeats for identity in each.corpus.split("valid").ids]
    assert sorted(valid) == sorted(seen), "valid is not cut"


def test_a_subset_that_no_fold_has_is_drawn_again_instead(tmp_path: Path) -> None:
    write_small_corpus(tmp_path / "corpus", sizes={"train": 40, "valid": 5})
    base = check_config({**TINY, "data": str(tmp_path / "corpus"), "subset": {"size": 40}})
    plan = plan_tuning(TuningOptions(trials=1, methods=("late-fusion",)), base, out=tmp_path / "out")
    assert (plan.record.repeats, plan.record.folds) == (3, 0)
    assert [len(each.corpus.split("train")) for each in plan.repeats] == [40] * 3
    asked = TuningOptions(trials=1, methods=("late-fusion",), folds=5)
    said = "folds: found 5, which leave fewer samples to learn from than subset.size=40; take --repeats"
    with pytest.raises(ConfigError, match=re.escape(said)):
        plan_tuning(asked, base, out=tmp_path / "other")


def test_groups_are_dealt_whole_and_few_of_them_make_fewer_folds(tmp_path: Path) -> None:
    def splits(groups: int) -> dict[Any, Any]:
        return {
            role: {
                "features": {"text": [np.full((3, 2), row, np.float32) for row in range(12)]},
                "targets": [float(row % 5) for row in range(12)],
                "groups": [f"speaker {row % groups}" for row in range(12)],
            }
            for role in ("train", "valid", "test")
        }

    for groups, expected in ((1, (3, 0)), (3, (3, 3)), (7, (5, 5))):
        path = tmp_path / str(groups)
        write_corpus(path, splits(groups), task=Task(kind="regression", label_range=(0, 5)), name="grouped")
        asked = TuningOptions(trials=1, methods=("late-fusion",))
        plan = plan_tuning(asked, check_config({**TINY, "data": str(path)}), out=tmp_path / "out")
        assert (plan.record.repeats, plan.record.folds) == expected
        for repeat in plan.repeats if expected[1] else ():
            of = [{each.group for each in repeat.corpus.split(role)} for role in ("train", "valid")]
            assert not of[0] & of[1]


def test_no_test_sample_is_ever_read_in_a_search(
    planned: Callable[..., TuningPlan], corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = load_corpus(corpus)
    split = sealed.split("test")
    refused = Sealed(role="test", ids=split.ids, lengths=split.lengths)
    broken = replace(sealed, splits={**sealed.splits, "test": refused})
    with pytest.raises(AssertionError, match="test sample 0 was read"):
        list(broken.split("test"))
    monkeypatch.setattr(preparation, "corpus_in", lambda *_, **__: broken)
    for out, options in (("folds", {"repeats": None}), ("seeds", {"repeats": 2})):
        plan = planned(2, out=out, methods=("late-fusion",), **options)
        assert work(plan, progress=Silent()) == 0
        (found,) = outcomes(TuningDirectory(plan.directory))
        assert found.score is not None


def test_an_earlier_search_resumes_with_the_seeds_that_it_began_with(
    planned: Callable[..., TuningPlan],
) -> None:
    plan = planned(1, repeats=3)
    directory = TuningDirectory(plan.directory)
    directory.join(plan.record)
    path = plan.directory / "tuning.json"
    record = json.loads(path.read_text())
    del record["folds"]  # which earlier versions did not write
    path.write_text(to_json(stamped({key: value for key, value in record.items() if key != "sha256"})))
    again = planned(1, repeats=None)
    assert (again.record.repeats, again.record.folds) == (3, 0)
    name = METHODS_TUNED[0]
    assert again.record.study(name) == directory.record().study(name)
    with pytest.raises(CheckpointError, match="whose folds is 0, found 4"):
        planned(1, repeats=None, folds=4)
    with pytest.raises(ConfigError, match="folds: found repeats beside it, expected one of both"):
        planned(1, repeats=2, folds=4)


@pytest.mark.usefixtures("untrained")
def test_all_methods_get_as_many_trials_and_more_on_request(planned: Callable[..., TuningPlan]) -> None:
    work(planned(2), progress=Silent())
    found = outcomes(TuningDirectory(planned(2).directory))
    assert [(each.method, each.trials) for each in found] == [(name, 2) for name in METHODS_TUNED]
    heard = Silent()
    work(planned(4), progress=heard)
    assert heard.begun == (4, 8)
    assert [name for name, *_ in heard.ended] == [*METHODS_TUNED] * 2, "in turn, so that none is ahead"
    fewer = Silent()
    work(planned(3), progress=fewer)  # than there are: nothing is done or lost
    assert fewer.begun == (6, 6)
    assert [each.trials for each in outcomes(TuningDirectory(planned(4).directory))] == [4, 4]


@pytest.mark.usefixtures("untrained")
def test_the_first_trial_has_the_defaults_and_others_depend_on_the_seed_alone(
    planned: Callable[..., TuningPlan],
) -> None:
    plans = planned(8, out="one"), planned(8, out="other")
    for plan in plans:
        work(plan, progress=Silent())
    first, second = map(_settings, plans)
    assert first == second
    expected = {"fit.learning_rate": 3e-3, "fit.weight_decay": 0.01, "options.dropout": 0.1}
    expected |= {"options.modality_dropout": 0.0}
    of_votes = {"late-fusion": {"options.unimodal_weight": 0.5}}
    for name, trials in first.items():
        assert trials[0] == expected | of_votes.get(name, {})
        assert len({trial["fit.learning_rate"] for trial in trials}) == 8
    assert first["late-fusion"][1] != first["single-stream-transformer"][1]


def test_the_first_trial_of_a_small_corpus_has_the_defaults_themselves(corpus: Path, tmp_path: Path) -> None:
    asked = TuningOptions(trials=1, methods=("all",), repeats=1)
    plan = plan_tuning(asked, check_config({"data": str(corpus)}), out=tmp_path / "tuning")
    first = plan.repeats[0]
    for name, space in plan.spaces.items():
        resolved = resolve(of_model(first.config, name), first.corpus)
        known = dict(dotted(resolved.model_dump(mode="json")))
        assert known["loader.batch_size"] == 4, "fewer than the shared space has"
        # methods that correlate components need larger batches than the default
        settings = set(space) - (
            {"loader.batch_size"} if "loader.batch_size" in METHODS[name].search else set()
        )
        assert {key: defaults_of(name, plan)[key] for key in settings} == {
            key: known[key] for key in settings
        }
        assert "4, 8, 16, 32, 64" in str(space["loader.batch_size"]) or "loader.batch_size" not in settings


@pytest.mark.usefixtures("untrained")
def test_workers_at_once_share_the_trials(planned: Callable[..., TuningPlan]) -> None:
    plan = planned(6)
    heard = [Silent() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda each: work(plan, progress=each), heard))
    assert {name: len(trials) for name, trials in _settings(plan).items()} == dict.fromkeys(METHODS_TUNED, 6)
    assert sum(len(each.ended) for each in heard) == 12
    done = [trial for study in _studies(plan).values() for trial in counted(study)]
    assert {trial.state for trial in done} == {TrialState.COMPLETE}
    for trials in _settings(plan).values():
        assert len({trial["fit.learning_rate"] for trial in trials}) == 6, "no two workers draw the same"


def test_a_trial_begun_too_many_is_taken_back(
    planned: Callable[..., TuningPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    # with a database, workers of other directories do not see the lock of this one
    plan = planned(1, methods=("late-fusion",))
    begun: Any = optuna.Study.optimize
    elsewhere: list[optuna.Trial] = []

    def meanwhile(study: optuna.Study, *given: Any, **options: Any) -> None:
        elsewhere.append(study.ask())
        begun(study, *given, **options)

    monkeypatch.setattr("optuna.Study.optimize", meanwhile)
    monkeypatch.setattr(TuningDirectory, "is_dead", lambda *_: False)
    heard = Silent()
    assert work(plan, progress=heard) == 1
    (study,) = _studies(plan).values()
    assert (heard.ended, [trial.number for trial in counted(study)]) == ([], [0])
    study.tell(elsewhere[0], 0.5)
    assert work(plan, progress=heard) == 0
    assert [trial.number for trial in counted(study)] == [0], "it is not tried again"


WORKER = """
import sys, time
from pathlib import Path
from alignmamba.recipes.configuration import check_config
from alignmamba.recipes.tuning import tuning_worker
from alignmamba.recipes.tuning.trial_run import drawn
from alignmamba.recipes.tuning.tuning_plan import TuningOptions, plan_tuning

class Silent:
    def started(self, **_): pass
    def finished(self, *_, **__): pass

def endless(plan, name, trial):
    drawn(trial, "fit.learning_rate", plan.spaces[name]["fit.learning_rate"])
    print("begun", flush=True)
    time.sleep(600)

tuning_worker.run_trial = endless
asked = TuningOptions(methods=("single-stream-transformer", "late-fusion"), trials=2, repeats=1)
base = check_config({**%r, "data": sys.argv[1]})
tuning_worker.work(plan_tuning(asked, base, out=sys.argv[2]), progress=Silent())
"""


def test_the_trial_of_a_killed_worker_is_tried_again_with_its_settings(
    planned: Callable[..., TuningPlan], corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(2)
    script = WORKER % dict(TINY)
    killed = subprocess.Popen(
        [sys.executable, "-c", script, str(corpus), str(plan.directory)], stdout=subprocess.PIPE
    )
    assert killed.stdout is not None
    assert killed.stdout.readline() == b"begun\n"
    # a living worker keeps its trial
    assert [each.running for each in outcomes(TuningDirectory(plan.directory))] == [1, 0]
    directory = TuningDirectory(plan.directory)
    study = _studies(plan)[METHODS_TUNED[0]]
    put_back_lost(study, directory.is_dead)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    assert [each.running for each in outcomes(directory)] == [0, 0]
    monkeypatch.setattr(tuning_worker, "run_trial", _by_rate)
    assert work(plan, progress=Silent()) == 0
    assert [(each.trials, each.running) for each in outcomes(directory)] == [(2, 0), (2, 0)]
    lost, *_ = study.trials
    (again,) = [trial for trial in study.trials if trial.user_attrs.get("retry of") == lost.number]
    assert lost.state == TrialState.FAIL
    assert again.params["fit.learning_rate"] == lost.params["fit.learning_rate"] == 3e-3
    assert again.user_attrs["attempt"] == 2


def test_settings_that_end_every_worker_are_given_up(
    planned: Callable[..., TuningPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(1, methods=("late-fusion",))

    def broken(*_: object) -> float:
        raise ZeroDivisionError

    monkeypatch.setattr(tuning_worker, "run_trial", broken)
    for _ in range(ATTEMPTS):
        with pytest.raises(ZeroDivisionError):
            work(plan, progress=Silent())
    work(plan, progress=Silent())
    (found,) = outcomes(TuningDirectory(plan.directory))
    assert (found.trials, found.pruned, found.score) == (1, 1, None)


def test_an_interrupted_trial_is_put_back_as_often_as_it_takes(
    planned: Callable[..., TuningPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(1, methods=("single-stream-transformer",))

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("alignmamba.recipes.tuning.trial_run.fitted", interrupted)
        for _ in range(ATTEMPTS + 1):
            with pytest.raises(KeyboardInterrupt, match="repeat the command to resume"):
                work(plan, progress=Silent())
    work(plan, progress=Silent())
    (found,) = outcomes(TuningDirectory(plan.directory))
    assert (found.trials, found.pruned) == (1, 0)


def test_settings_that_cannot_be_trained_count_as_a_trial(
    planned: Callable[..., TuningPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverged(*_: object, **__: object) -> None:
        raise TrainingError("loss is nan")

    monkeypatch.setattr("alignmamba.recipes.tuning.trial_run.fitted", diverged)
    plan = planned(2, methods=("late-fusion",))
    work(plan, progress=Silent())
    (study,) = _studies(plan).values()
    assert [trial.user_attrs["refused"] for trial in counted(study)] == ["loss is nan"] * 2
    assert all(trial.state == TrialState.PRUNED for trial in counted(study))


def _report(study: optuna.Study, scores: list[float], *, before: tuple[float, ...] = ()) -> int:
    """Epochs that a training with these scores has before it is pruned, of as many as there are."""
    trial = study.ask()
    watch = Pruning(trial, "accuracy", before)
    watch.started(epochs=len(scores), batches=1, epoch=1, batch=0)
    best = -1.0
    for epoch, score in enumerate(scores, start=1):
        try:
            watch.epoch_finished({"epoch": epoch, "valid/accuracy": score}, best=score > best)
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
            return epoch
        best = max(best, score)
    study.tell(trial, best)
    return len(scores)


def test_a_trial_that_is_behind_at_the_same_share_of_its_training_is_pruned() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=3)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for _ in range(2):
        assert _report(study, [0.5] * 10) == 10
    assert _report(study, [0.4] * 40) == 12, "at three tenths, not at three epochs"
    assert _report(study, [0.4] * 2 + [0.6] * 8) == 10
    assert _report(study, [0.6] + [0.4] * 9) == 10, "its best epoch counts"
    assert max(study.trials[0].intermediate_values) == PARTS
    # a second training is judged by the mean of both
    trial = study.ask()
    Pruning(trial, "accuracy", [0.2]).epoch_finished({"epoch": 1, "valid/accuracy": 0.6}, best=True)
    assert study.trials[-1].intermediate_values == {2 * PARTS: pytest.approx(0.4)}


@pytest.mark.parametrize("method", METHODS_TUNED)
def test_the_score_is_that_of_the_run_that_has_the_same_settings(tmp_path: Path, method: str) -> None:
    write_small_corpus(tmp_path / "corpus", kind="regression")
    base = check_config({**TINY, "data": str(tmp_path / "corpus")})
    options = TuningOptions(trials=1, methods=(method,), repeats=1)
    plan = plan_tuning(options, base, out=tmp_path / "tuning")
    assert work(plan, progress=Silent()) == 0
    (found,) = outcomes(TuningDirectory(plan.directory))
    run = train(with_settings(of_model(base, method), found.settings), out=tmp_path / "run", progress=None)
    assert (run.modality_weights is not None) == (method == "late-fusion")
    assert found.score == pytest.approx(run.metrics["valid"]["mae"])


@pytest.mark.usefixtures("untrained")
def test_a_database_serves_workers_of_several_directories(
    planned: Callable[..., TuningPlan], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'tuning.db'}"
    for out in ("here", "there"):
        work(planned(2, out=out, storage=url), progress=Silent())
    assert not (tmp_path / "here" / "journal.log").exists()
    found = [outcomes(TuningDirectory(tmp_path / out)) for out in ("here", "there")]
    assert found[0] == found[1]
    assert [each.trials for each in found[0]] == [2, 2]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "expected the URL of a database"),
        ("sqlite://", "in memory"),
        ("postgresql://me:secret@host/name", "found a password"),
        ("postgresql://host/name?user=me&password=secret", "found a password"),
        ("nosuch://me:secret@host/name", "found a password"),
        ("mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BUID%3Dme%3BPWD%3Dsecret", "found a password"),
        ("nosuch://host/name?passfile=/home/me/.pgpass", "expected the URL of a database"),
        ("postgresql://me:secret@host:port/name", "expected the URL of a database"),
        ("nosuch://host/name", "expected the URL of a database"),
    ],
)
def test_a_storage_that_cannot_serve_is_refused(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        checked_storage(url)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.usefixtures("untrained")
def test_another_search_and_damage_are_refused_in_one_line(
    planned: Callable[..., TuningPlan], tmp_path: Path
) -> None:
    plan = planned(1)
    work(plan, progress=Silent())
    with pytest.raises(CheckpointError, match="whose repeats is 1, found 2; choose another --out"):
        planned(1, repeats=2)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="holds something that is not a search"):
        planned(1, out="other")
    with pytest.raises(CheckpointError, match=r"found no tuning\.json"):
        TuningDirectory.open(tmp_path / "other")
    journal = plan.directory / "journal.log"
    journal.write_bytes(journal.read_bytes()[:-25])
    more = planned(3)
    work(more, progress=Silent())
    assert outcomes(TuningDirectory(plan.directory))[0].trials == 3, "what was torn off is done again"
    whole = journal.read_bytes()
    for damage in ("no JSON\n{}", '{"op_code": 99}', "[]", "7", _DIRECTION):
        journal.write_bytes(whole + damage.encode() + b"\n" + whole)
        with pytest.raises(CheckpointError, match=r"storage .*: damaged"):
            outcomes(TuningDirectory(plan.directory))
    journal.unlink()
    with pytest.raises(CheckpointError, match=r"found no journal\.log, expected the search's trials"):
        outcomes(TuningDirectory(plan.directory))
    assert not journal.exists()


@pytest.mark.usefixtures("untrained")
def test_a_storage_that_cannot_be_opened_leaves_the_place_free(
    planned: Callable[..., TuningPlan], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"storage sqlite:.*unable to open"):
        work(planned(1, storage=f"sqlite:///{tmp_path / 'nowhere' / 'a.db'}"), progress=Silent())
    plan = planned(1, storage=f"sqlite:///{tmp_path / 'a.db'}")
    work(plan, progress=Silent())
    assert outcomes(TuningDirectory(plan.directory))[0].trials == 1


def test_what_is_set_is_held_and_the_rest_is_searched(corpus: Path, tmp_path: Path) -> None:
    def spaces(data: Path = corpus, **values: Any) -> Mapping[str, Any]:
        base = check_config({"data": str(data), **values})
        asked = TuningOptions(trials=1, methods=("alignmamba",))
        return plan_tuning(asked, base, out=tmp_path / "out").spaces["alignmamba"]

    everything = {*SHARED_SPACE, "options.alignment.weight", "options.local.time_weight"}
    everything |= {"options.local.method", "options.unimodal_weight"}
    assert spaces().keys() == everything
    clocks = spaces(write_timed_corpus(tmp_path / "timed"))
    assert clocks.keys() == everything | {"options.local.time_unit"}, "units differ where there are times"
    clips = write_timed_corpus(tmp_path / "clips", recipe={"version": 1})
    assert str(spaces(clips)["options.local.time_unit"]) == "relative, spans"
    held = spaces(fit={"epochs": 3}, options={"local": {"time_weight": 0.0}})
    assert held.keys() == everything - {"fit.epochs", "options.local.time_weight"}
    with pytest.raises(ConfigError, match="nothing is left to search"):
        spaces(
            fit={"epochs": 3, "learning_rate": 0.1, "weight_decay": 0.0},
            loader={"batch_size": 8},
            options={
                "d_model": 8,
                "depth": 1,
                "dropout": 0.0,
                "alignment": {"weight": 0.1},
                "local": {"method": "match", "time_weight": 0.0},
                "unimodal_weight": 0.0,
                "modality_dropout": 0.0,
            },
        )
    for values, said in (
        ({"model": "mult"}, "model: found 'mult'"),
        ({"fit": {"select": "loss"}}, "fit.select: found 'loss'"),
        ({"folds": {"number": 3}}, "folds: a search would train on samples of test"),
        ({"engine": {"devices": 2}}, "engine: found 2 processes"),
    ):
        with pytest.raises(ConfigError, match=said):
            spaces(**values)


def test_a_method_may_have_a_range_of_its_own_of_what_all_share(corpus: Path, tmp_path: Path) -> None:
    """CCA of ten components cannot be trained on batches of eight."""
    asked = TuningOptions(trials=1, methods=("dcca", "late-fusion"))
    spaces = plan_tuning(asked, check_config({"data": str(corpus)}), out=tmp_path / "out").spaces
    found = {name: str(space["loader.batch_size"]) for name, space in spaces.items()}
    assert found == {"dcca": "16, 32, 64", "late-fusion": "4, 8, 16, 32, 64"}


def test_ranges_can_be_made_to_include_a_value() -> None:
    assert [str(Choice((8, 16)).including(value)) for value in (4, 8)] == ["4, 8, 16", "8, 16"]
    assert [str(Whole(low=1, high=4).including(value)) for value in (0, 2, 5)] == [
        "0 to 4",
        "1 to 4",
        "1 to 5",
    ]
    tens = Whole(low=10, high=40, step=10)
    assert [(tens.including(value).low, tens.including(value).high) for value in (60, 45, 25, 5, -3, 0)] == [
        (10, 60),
        (10, 40),
        (10, 40),
        (10, 40),
        (0, 40),
        (0, 40),
    ]
    assert [str(Real(low=0.1, high=1).including(value)) for value in (0, 0.5, 2)] == [
        "0 to 1",
        "0.1 to 1",
        "0.1 to 2",
    ]
    assert str(Real(low=0.1, high=1, log=True).including(0)) == "0.1 to 1 (log)"


def test_every_declared_setting_belongs_to_its_method() -> None:
    for name, method in METHODS.items():
        known = RunConfig.known_keys({"model": name})
        assert set(method.search) <= set(known), name
    ranges = [
        *SHARED_SPACE.values(),
        *(each for method in METHODS.values() for each in method.search.values()),
    ]
    assert all(isinstance(each, Config | Real | Whole | Choice | Names) for each in ranges)


def test_ranges_know_their_nearest_value() -> None:
    assert [Real(low=0.1, high=1).nearest(value) for value in (0, 0.5, 2)] == [0.1, 0.5, 1]
    assert [Whole(low=10, high=40, step=10).nearest(value) for value in (3, 24, 26, 100)] == [10, 20, 30, 40]
    assert [Choice((16, 32, 64)).nearest(value) for value in (1, 40, 768)] == [16, 32, 64]
    clocks = Names(("relative", "seconds"))
    found = [clocks.nearest(value) for value in ("seconds", "relative", "other")]
    assert found == ["seconds", "relative", "relative"]
    assert str(clocks) == "relative, seconds"
    assert str(Real(low=1e-4, high=0.01, log=True)) == "0.0001 to 0.01 (log)"
    assert str(Whole(low=10, high=40, step=10)) == "10 to 40 by 10"
