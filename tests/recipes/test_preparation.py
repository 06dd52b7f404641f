"""From a corpus as it lies there to the one that a run is trained on."""

import csv
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignmamba.contracts import Corpus, Role
from alignmamba.data.archive import load_corpus, write_corpus
from alignmamba.data.loader import LoaderConfig
from alignmamba.errors import CheckpointError, ConfigError, DataError
from alignmamba.recipes.configuration import RunConfig, check_config, read_config, resolve
from alignmamba.recipes.experiments.comparison import ComparisonOptions
from alignmamba.recipes.experiments.grid_run import plan_experiment
from alignmamba.recipes.finished_run import evaluate, predict
from alignmamba.recipes.preparation import prepared
from alignmamba.recipes.run_directory import RunDirectory
from alignmamba.recipes.training_run import plan, train
from alignmamba.training.fit_config import FitConfig
from small_run import CLASSES, CONFIG, write_small_corpus, write_timed_corpus

FAST: dict[str, Any] = {**CONFIG, "fit": {"epochs": 1, "warmup_fraction": 0.0}}
TASK = {"kind": "classification", "classes": CLASSES}


def config(data: Path, **changes: Any) -> RunConfig:
    return check_config({"data": str(data), **FAST, **changes})


def write(
    path: Path, has: Mapping[Role, Sequence[str]], *, sizes: Mapping[Role, int] | None = None
) -> Corpus:
    """A split has a modality in every second sample if its name begins with ``half``."""
    splits = {}
    names = [name for name in ("text", "audio", "video") if any(name in kept for kept in has.values())]
    for role, kept in has.items():
        size = (sizes or {}).get(role, 12)
        arrays: dict[str, list[Any]] = {name: [None] * size for name in names}
        for given in kept:
            name = given.removeprefix("half ")
            arrays[name] = [
                None if given != name and row % 2 else np.full((2, 3), row / size) for row in range(size)
            ]
        splits[role] = {"features": arrays, "targets": [row % 3 for row in range(size)]}
    return write_corpus(path, splits, task=TASK)  # type: ignore[arg-type]


# A valid split that is drawn


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A corpus without a valid split and a run on it."""
    place = tmp_path_factory.mktemp("drawn")
    write_small_corpus(place / "data", sizes={"train": 40, "test": 8})
    train(config(place / "data", split_valid=0.25, seed=3), out=place / "run")
    return place / "data", place / "run"


def test_a_drawn_valid_split_belongs_to_the_run(drawn: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = drawn
    with (run / "predictions_valid.csv").open() as file:
        valid = [row["id"] for row in csv.DictReader(file)]
    assert len(valid) == 10
    assert valid != sorted(load_corpus(data).split("train").ids)[:10]
    record = json.loads((run / "run.json").read_text())["split_valid"]
    assert record == {
        "by": "class",
        "train": 30,
        "valid": 10,
        "valid_ids": hashlib.sha256("\n".join(valid).encode()).hexdigest(),
    }
    assert "split_valid: 0.25" in (run / "config.yaml").read_text()
    scores = json.loads((run / "metrics.json").read_text())["metrics"]
    report = evaluate(run, split="valid")
    assert (report["samples"], report["metrics"]) == (10, scores["valid"])
    assert evaluate(run, split="train")["samples"] == 30
    assert predict(run, str(data), tmp_path / "p.csv")["splits"] == ["train", "valid", "test"]
    with (tmp_path / "p.csv").open() as file:
        assert [row["id"] for row in csv.DictReader(file) if row["split"] == "valid"] == valid


def test_an_interrupted_run_goes_on_with_its_own_valid_split(
    drawn: tuple[Path, Path], tmp_path: Path
) -> None:
    _, run = drawn
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "metrics.json").unlink()
    resumed = train(resume=copy)
    assert resumed.metrics == json.loads((run / "metrics.json").read_text())["metrics"]
    (copy / "metrics.json").unlink()
    identity = json.loads((copy / "run.json").read_text())
    identity["split_valid"]["valid_ids"] = "0" * 64  # as if another version drew otherwise
    (copy / "run.json").write_text(json.dumps(identity))
    (copy / "SHA256SUMS").unlink()
    with pytest.raises(CheckpointError, match="its valid split cannot be repeated"):
        train(resume=copy)


def test_what_was_drawn_is_said(drawn: tuple[Path, Path], tmp_path: Path) -> None:
    assert prepared(config(drawn[0], split_valid=0.25)).notes == (
        "'valid' is 10 of the 40 samples of train, each class in its share, drawn from the seed",
    )
    features = {"sound": [np.ones((1, 1))] * 12}
    arrays = {"features": features, "targets": [0, 1, 2, 0] * 3}
    write_corpus(
        tmp_path / "data",
        {"train": {**arrays, "groups": [f"video {row // 4}" for row in range(12)]}, "test": arrays},
        task=TASK,
    )
    assert prepared(config(tmp_path / "data", split_valid=0.4)).notes == (
        "'valid' is 4 of the 12 samples of train, whole groups, drawn from the seed",
    )
    one = {"features": features, "targets": [0] * 10 + [1, 2]}
    write_corpus(tmp_path / "rare", {"train": one, "test": one}, task=TASK)
    assert prepared(config(tmp_path / "rare", split_valid=0.2)).notes[1] == (
        "no sample of 'valid' is of class 'glad', 'sad', too rare for it; a larger share may hold some"
    )


def test_without_a_valid_split_the_way_out_is_named(tmp_path: Path) -> None:
    write_small_corpus(tmp_path / "data", sizes={"train": 12, "test": 8})
    with pytest.raises(
        DataError, match=r"corpus 'small' has no split 'valid', only 'train', 'test'; --split-valid 0.15"
    ):
        plan(config(tmp_path / "data"), out=tmp_path / "run")
    write_small_corpus(tmp_path / "whole", sizes={"train": 12, "valid": 8})
    with pytest.raises(
        ConfigError,
        match="split_valid: corpus 'small' has a split 'valid' already, of 8 samples; drop split_valid",
    ):
        plan(config(tmp_path / "whole", split_valid=0.25), out=tmp_path / "run")
    with pytest.raises(ConfigError, match="split_valid: corpus 'synthetic' has a split 'valid' already"):
        plan(check_config({**FAST, "split_valid": 0.25}), out=tmp_path / "run")
    for wrong in (0, 1, -0.5, "a", True):
        with pytest.raises(ConfigError, match="split_valid"):
            config(tmp_path / "data", split_valid=wrong)


def test_a_corpus_without_a_test_split_is_trained_on_with_a_note(tmp_path: Path) -> None:
    write_small_corpus(tmp_path / "data", sizes={"train": 12, "valid": 8})
    ready = plan(config(tmp_path / "data"), out=tmp_path / "run")
    assert ready.notes == (
        "corpus 'small' has no split 'test': scores are of 'valid', on which the best epoch is chosen",
    )


def test_a_class_that_train_lacks_is_named(tmp_path: Path) -> None:
    has: dict[Role, Sequence[str]] = dict.fromkeys(("train", "valid", "test"), ("text",))
    write(tmp_path / "data", has, sizes={"train": 2})
    said = "no sample of train is of class 'sad': a model cannot learn it"
    assert prepared(config(tmp_path / "data")).notes == (said,)
    write(tmp_path / "whole", has)
    assert prepared(config(tmp_path / "whole")).notes == ()


def test_only_samples_that_are_trained_on_repair_features(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    sounds = [random.normal(size=(2, 1)) for _ in range(8)]
    sounds[0][0, 0] = np.nan
    arrays = {"features": {"sound": sounds}, "targets": [row % 3 for row in range(8)]}
    write_corpus(tmp_path / "data", {"train": arrays}, task=TASK, nonfinite="keep")
    for seed in range(3):
        settings = config(tmp_path / "data", split_valid=0.5, nonfinite="mean", seed=seed)
        made = prepared(settings)
        left = [int(each.rpartition("-")[2]) - 1 for each in made.corpus.split("train").ids]
        values = np.concatenate([sounds[row].ravel() for row in left])
        repaired = next(
            each
            for role in ("train", "valid")
            for each in made.corpus.split(role)
            if each.id == "train-000001"
        )
        assert repaired.features["sound"][0, 0] == pytest.approx(np.nanmean(values), rel=1e-6)


def test_the_digest_knows_the_share_and_nothing_else_changed(drawn: tuple[Path, Path]) -> None:
    corpus = load_corpus(drawn[0])
    plain, shares = config(drawn[0]), [config(drawn[0], split_valid=share) for share in (0.25, 0.5)]
    assert len({each.digest(corpus) for each in (plain, *shares)}) == 3
    settings = {
        **plain.model_dump(mode="json", exclude={"seed", "data", "engine", "split_valid"}),
        "corpus": corpus.checksum,
    }
    del (
        settings["modalities"],
        settings["targets"],
        settings["leading"],
        settings["objective"],
        settings["pretrain"],
        settings["start"],
        settings["folds"],
        settings["subset"],
        settings["missing"],
        settings["fit"]["loggers"],
    )
    for name in LoaderConfig.SILENT:
        del settings["loader"][name]
    for name in FitConfig.SILENT:
        del settings["fit"][name]
    assert (
        plain.digest(corpus)
        == hashlib.sha256(json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    )


def test_a_later_option_that_changes_nothing_leaves_the_digest(drawn: tuple[Path, Path]) -> None:
    corpus = load_corpus(drawn[0])
    complete = resolve(config(drawn[0], model="alignmamba", preset="0.1", options={"d_model": 16}), corpus)
    options = deepcopy(complete.options)
    del options["contrast"], options["pool_by"], options["timeless"], options["encoder"]["centring"]
    earlier = complete.model_copy(update={"options": options})
    assert complete.options["contrast"]["weight"] == 0
    assert complete.digest(corpus) == earlier.digest(corpus)
    learned = complete.model_copy(
        update={"options": complete.options | {"contrast": complete.options["contrast"] | {"weight": 1.0}}}
    )
    assert learned.digest(corpus) != complete.digest(corpus)
    later = {name: value for name, value in learned.options["contrast"].items() if name != "among"}
    then = learned.model_copy(update={"options": learned.options | {"contrast": later}})
    assert learned.options["contrast"]["among"] == "sample"
    assert learned.digest(corpus) == then.digest(corpus)
    batch = learned.options["contrast"] | {"among": "batch"}
    other = learned.model_copy(update={"options": learned.options | {"contrast": batch}})
    assert other.digest(corpus) != learned.digest(corpus)


def test_ways_to_align_that_came_later_leave_the_digest_where_they_are_not_used(
    drawn: tuple[Path, Path],
) -> None:
    corpus = load_corpus(drawn[0])
    complete = resolve(config(drawn[0], model="alignmamba"), corpus)
    later = ("soft", "anneal", "transport_loss")
    options = {name: value for name, value in complete.options.items() if name not in later}
    assert complete.digest(corpus) == complete.model_copy(update={"options": options}).digest(corpus)
    for name, changes in {
        "soft": {"iterations": 7},
        "anneal": {"to": 0.0},
        "transport_loss": {"weight": 0.1},
    }.items():
        changed = {**complete.options, name: complete.options[name] | changes}
        assert complete.model_copy(update={"options": changed}).digest(corpus) != complete.digest(corpus)


def test_the_first_default_has_the_digest_that_it_had_by_that_name(drawn: tuple[Path, Path]) -> None:
    corpus = load_corpus(drawn[0])
    again = resolve(config(drawn[0], model="alignmamba", preset="0.1"), corpus)
    options = deepcopy(again.options)
    del options["contrast"], options["pool_by"], options["timeless"], options["encoder"]["centring"]
    fit = again.fit.model_copy(update={"ties": None})
    then = again.model_copy(update={"preset": "default", "options": options, "fit": fit})
    assert again.digest(corpus) == then.digest(corpus)
    assert resolve(config(drawn[0], model="alignmamba"), corpus).digest(corpus) != then.digest(corpus)


def test_a_run_has_the_batch_size_of_its_train_split(drawn: tuple[Path, Path]) -> None:
    corpus = load_corpus(drawn[0])
    assert len(corpus.split("train")) < 100

    def size(**settings: Any) -> int | None:
        given = {key: value for key, value in CONFIG.items() if key != "loader"}
        return resolve(check_config({"data": str(drawn[0]), **given, **settings}), corpus).loader.batch_size

    assert size() == 4
    assert size(preset="0.1") == 32
    large = prepared(RunConfig()).corpus
    assert resolve(RunConfig(), large).loader.batch_size == 32
    assert resolve(check_config({"subset": {"size": 250}}), large).loader.batch_size == 8
    assert size(loader={"batch_size": 7}) == 7


def test_the_first_default_keeps_the_first_of_equal_epochs(drawn: tuple[Path, Path]) -> None:
    corpus = load_corpus(drawn[0])

    def ties(**settings: Any) -> str | None:
        return resolve(config(drawn[0], model="alignmamba", **settings), corpus).fit.ties

    assert (ties(), ties(preset="0.1"), ties(preset="paper")) == (None, "first", None)
    assert ties(preset="0.1", fit={"ties": "loss"}) == "loss"
    plain = resolve(config(drawn[0], model="alignmamba", preset="0.1"), corpus)
    by_loss, first = (
        plain.model_copy(update={"fit": plain.fit.model_copy(update={"ties": rule})}).digest(corpus)
        for rule in ("loss", "first")
    )
    assert by_loss != first == plain.digest(corpus)


def test_a_preset_may_be_a_number_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("preset: 0.1\n")
    assert read_config(tmp_path / "run.yaml").preset == "0.1"
    assert read_config(assignments=["preset=0.1"]).preset == "0.1"
    with pytest.raises(ConfigError, match="preset"):
        read_config(assignments=["preset=[0.1]"])


def test_a_record_means_what_its_version_knew(drawn: tuple[Path, Path], tmp_path: Path) -> None:
    corpus = load_corpus(drawn[0])
    first = resolve(config(drawn[0], model="alignmamba", preset="0.1"), corpus)
    options = deepcopy(first.options)
    del options["contrast"], options["pool_by"], options["timeless"], options["encoder"]["centring"]
    fit = first.fit.model_copy(update={"ties": None})
    record = first.model_copy(update={"preset": "default", "options": options, "fit": fit})
    place = RunDirectory.create(tmp_path / "run", config=record, identity={}, environment={})
    assert resolve(place.config(), corpus).options == first.options
    assert resolve(place.config(), corpus).digest(corpus) == first.digest(corpus)
    assert "pool_by" not in options  # what was read is left as it is


def test_all_cells_of_a_seed_share_the_split(drawn: tuple[Path, Path], tmp_path: Path) -> None:
    base = config(drawn[0], split_valid=0.25)
    made = plan_experiment(
        ComparisonOptions(models=("alignmamba", "late-fusion"), seeds=2),
        base,
        out=tmp_path / "grid",
    )
    assert {job.config.split_valid for job in made.jobs} == {0.25}
    drawn_ids: dict[int, set[tuple[str, ...]]] = {}
    for job in made.jobs:
        part = prepared(job.config).corpus.split("valid").ids
        if not job.config.modalities:
            drawn_ids.setdefault(job.config.seed, set()).add(part)
    assert [len(each) for each in drawn_ids.values()] == [1, 1]
    assert drawn_ids[0] != drawn_ids[1]
    with pytest.raises(ConfigError, match="which makes no sample of the 40"):
        plan_experiment(
            ComparisonOptions(seeds=2),
            config(drawn[0], split_valid=0.01),
            out=tmp_path / "other",
        )


# Modalities that cannot be learned


def test_a_modality_that_no_training_sample_has_is_dropped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        tmp_path / "data",
        {"train": ["audio", "video"], "valid": ["text", "audio"], "test": ["text", "half audio"]},
    )
    options = {**FAST["options"], "anchor_order": ["text", "audio"]}
    result = train(config(tmp_path / "data", options=options), out=tmp_path / "run")
    note = (
        "no training sample has text, so the model is trained without it; samples without any"
        " other modality are dropped: 6 of test"
    )
    unseen = [f"no sample of {role} has video, so {role} does not measure it" for role in ("valid", "test")]
    assert capsys.readouterr().err.splitlines() == [f"note: {each}" for each in (note, *unseen)]
    assert result.config.modalities == ("audio", "video")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["untrained_modalities"] == ["text"]
    report = evaluate(tmp_path / "run")
    assert (report["samples"], report["metrics"]) == (6, result.metrics["test"])
    assert report["modalities"]["used"] == ["audio"]
    assert predict(tmp_path / "run", str(tmp_path / "data"), tmp_path / "p.csv")["rows"] == 30
    write(tmp_path / "other", {"test": ["text", "audio"]})
    with pytest.raises(DataError, match=r"expected audio, video: use .*--ignore text"):
        evaluate(tmp_path / "run", data=str(tmp_path / "other"))


def test_asking_for_it_names_the_cause(tmp_path: Path) -> None:
    write(tmp_path / "data", {"train": ["audio"], "valid": ["text", "audio"], "test": ["audio"]})
    for names in (["text"], ["audio", "text"]):
        with pytest.raises(
            ConfigError,
            match="modalities: no training sample of corpus 'data' has 'text', expected some of audio",
        ):
            plan(config(tmp_path / "data", modalities=names), out=tmp_path / "run")
    write(tmp_path / "bare", {"train": ["audio", "text"], "valid": ["audio"], "test": ["audio", "text"]})
    with pytest.raises(ConfigError, match="modalities: no sample of split 'valid' of corpus 'bare' has text"):
        plan(config(tmp_path / "bare", modalities=["text"]), out=tmp_path / "run")


def test_grids_do_without_it_as_well(tmp_path: Path) -> None:
    write(
        tmp_path / "data",
        {"train": ["audio", "video"], "valid": ["text", "audio"], "test": ["text", "audio"]},
    )
    made = plan_experiment(
        ComparisonOptions(models=("alignmamba",), seeds=1, without_references=True),
        config(tmp_path / "data"),
        out=tmp_path / "g",
    )
    assert made.notes[0] == "no training sample has text, so the model is trained without it"
    assert [(each.row, each.config.modalities) for each in made.cells] == [
        ("alignmamba", ("audio", "video")),
        ("audio alone", ("audio",)),
    ]


# Modalities that do not begin together


def test_modalities_that_begin_apart_are_matched_by_time(tmp_path: Path) -> None:
    late, even = write_timed_corpus(tmp_path / "late", late=0.5), write_timed_corpus(tmp_path / "even")

    def unit(data: Path, **changes: Any) -> tuple[str | None, bool]:
        ready = plan(config(data, **changes), out=tmp_path / "run")
        said = any("options.local.time_unit" in note for note in ready.notes)
        return ready.config.options.get("local", {}).get("time_unit"), said

    assert unit(late) == ("seconds", True)
    assert unit(even) == ("relative", False)
    options = FAST["options"]
    assert unit(late, options={**options, "local": {"time_unit": "relative"}}) == ("relative", False)
    assert unit(late, options={**options, "local": {"time_weight": 10.0}}) == ("seconds", True)
    assert unit(late, options={**options, "timeless": ["text"]}) == ("relative", False)
    assert unit(late, modalities=["audio"]) == ("relative", False)
    assert unit(late, options={**options, "local": {"method": "proportional"}}) == ("relative", False)
    for preset in ("0.1", "paper"):
        assert unit(late, preset=preset) == ("relative", False)
    assert unit(late, model="late-fusion") == (None, False)


def test_what_was_read_from_media_files_is_matched_by_time(tmp_path: Path) -> None:
    recipe = {"version": 1}
    even = write_timed_corpus(tmp_path / "even", recipe=recipe)
    assert plan(config(even), out=tmp_path / "run").config.options["local"]["time_unit"] == "spans"
    alone = plan(config(even, modalities=["audio"]), out=tmp_path / "run")
    assert alone.config.options["local"]["time_unit"] == "relative"


def test_all_rows_of_an_experiment_have_one_unit(tmp_path: Path) -> None:
    late = write_timed_corpus(tmp_path / "late", late=0.5)
    planned = plan_experiment(
        ComparisonOptions(models=("alignmamba", "late-fusion"), seeds=1), config(late), out=tmp_path / "grid"
    )
    units = {cell.row: cell.config.options.get("local", {}).get("time_unit") for cell in planned.cells}
    assert {units[row] for row in ("alignmamba", "text alone", "audio alone")} == {"seconds"}
    assert units["late-fusion"] is None
    assert sum("options.local.time_unit" in note for note in planned.notes) == 1


def test_a_run_of_modalities_that_begin_apart_repeats_itself(tmp_path: Path) -> None:
    """The unit that was chosen is in its record, so another corpus or a later rule does not change it."""
    late = write_timed_corpus(tmp_path / "late", late=0.5)
    train(config(late), out=tmp_path / "run")
    kept = read_config(tmp_path / "run" / "config.yaml")
    assert kept.options["local"]["time_unit"] == "seconds"
    assert resolve(kept, load_corpus(late)) == kept
    even = load_corpus(write_timed_corpus(tmp_path / "even"))
    assert resolve(kept, even).options["local"]["time_unit"] == "seconds"
    evaluate(tmp_path / "run")
