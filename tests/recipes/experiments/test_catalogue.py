"""Runs that each experiment is made of."""

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alignmamba.contracts import Corpus, Task
from alignmamba.errors import ConfigError
from alignmamba.methods import FAMILIES, METHODS, REFERENCES, SETS
from alignmamba.recipes.assembly import restricted
from alignmamba.recipes.configuration import RunConfig, check_config, settings_of
from alignmamba.recipes.experiments.catalogue import (
    EXPERIMENTS,
    analysis_from,
    cells_of,
    grids,
    not_compared,
)
from alignmamba.recipes.experiments.cells import Cell, jobs_of
from alignmamba.recipes.experiments.comparison import ComparisonOptions
from alignmamba.recipes.experiments.experiment_kind import of_model
from alignmamba.training.fit_config import FitConfig
from small_run import CONFIG, write_small_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_small_corpus(tmp_path_factory.mktemp("data") / "small")


def cells(corpus: Corpus, base: RunConfig | None = None, *, name: str, **options: Any) -> list[Cell]:
    asked = grids()[name].options(**{"seeds": 1, **options})
    return cells_of(asked, base or check_config(CONFIG), corpus)


def test_comparison_takes_every_model_and_every_modality_alone(corpus: Corpus) -> None:
    found = cells(corpus, name="comparison")
    assert [each.row for each in found] == [*FAMILIES, "text alone", "audio alone", *REFERENCES]
    assert [each.config.model for each in found] == [*FAMILIES, "alignmamba", "alignmamba", *REFERENCES]
    assert len({each.key for each in found}) == len(found)
    *found, _, _ = found
    assert [each.config.modalities for each in found[-2:]] == [("text",), ("audio",)]
    assert {each.config.options["d_model"] for each in found} == {16}
    assert {each.config.options["depth"] for each in found} == {1}


def test_references_come_once_and_last_or_not_at_all(corpus: Corpus) -> None:
    asked = {"name": "comparison", "models": ("pooled-linear", "late-fusion")}
    rows = [each.row for each in cells(corpus, **asked)]
    assert rows == ["late-fusion", "text alone", "audio alone", *REFERENCES]
    rows = [each.row for each in cells(corpus, **asked, without_references=True)]
    assert rows == ["pooled-linear", "late-fusion", "text alone", "audio alone"]
    assert [each.row for each in cells(corpus, name="missing", models=("references",), rates=(0.1,))] == [
        *REFERENCES
    ]


def test_a_method_of_a_set_that_the_corpus_does_not_suit_is_named_with_the_reason(corpus: Corpus) -> None:
    signed = {"self-mm", "ulgm"}
    asked = ComparisonOptions(models=("table2", "late-fusion"), seeds=1)
    classes = replace(corpus, task=Task(kind="classification", classes=("no", "yes")))
    reasons = not_compared(asked, check_config(CONFIG), classes)
    assert signed <= reasons.keys()
    assert all("Self-MM" in reasons[name] for name in ("self-mm",))
    rows = [each.row for each in cells_of(asked, check_config(CONFIG), classes)]
    assert set(rows) >= {"late-fusion", *SETS["table2"]} - reasons.keys()
    assert not set(rows) & reasons.keys()
    with pytest.raises(ConfigError, match=r"^self-mm: task: Self-MM needs a regression"):
        cells(classes, name="comparison", models=("table2", "self-mm"))


def test_a_method_of_a_set_that_the_settings_do_not_suit_is_named_with_the_reason(corpus: Corpus) -> None:
    base = check_config({"options": {"encoder": {"kind": "conv"}}})
    asked = ComparisonOptions(models=("table2", "families"), seeds=1)
    reasons = not_compared(asked, base, corpus)
    assert "which encode tokens one by one" in reasons["aobert"]
    rows = {each.row for each in cells_of(asked, base, corpus)}
    assert {*FAMILIES, "misa"} <= rows
    assert "aobert" not in rows
    with pytest.raises(ConfigError, match=r"^aobert: options\.encoder"):
        cells(corpus, base, name="comparison", models=("table2", "aobert"))


def test_a_set_of_which_nothing_can_be_trained_is_refused(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SETS, "pairs", ("dcca", "mctn"))
    alone = restricted(corpus, ["audio"])
    with pytest.raises(
        ConfigError,
        match=r"^models: expected one that can be trained here, found only pairs;"
        r" dcca: ",
    ):
        cells(alone, name="comparison", models=("pairs",))


def test_settings_are_shared_unless_each_method_is_to_have_its_own(corpus: Corpus) -> None:
    base, corpus = (
        check_config({**CONFIG, "fit": {**CONFIG["fit"], "checkpoint_every_steps": 7}}),
        replace(corpus, task=Task(kind="regression", label_range=(-3.0, 3.0))),
    )
    published = METHODS["self-mm"].settings
    shared, own = (
        {
            each.row: each.config
            for each in cells(
                corpus, base, name="comparison", models=("self-mm", "late-fusion"), own_settings=mine
            )
        }
        for mine in (False, True)
    )
    assert shared["self-mm"].fit == base.fit == own["late-fusion"].fit
    assert own["self-mm"].fit.accumulate == published["fit"]["accumulate"] != base.fit.accumulate
    assert own["self-mm"].fit.checkpoint_every_steps == base.fit.checkpoint_every_steps == 7
    # By itself it begins with what it was published with; a file and the command line come after.
    assert check_config({"model": "self-mm"}).fit.accumulate == published["fit"]["accumulate"]
    assert check_config({"model": "self-mm", "fit": {"accumulate": 2}}).fit.accumulate == 2
    assert (
        RunConfig(model="self-mm", fit=FitConfig(epochs=3)).fit.accumulate == published["fit"]["accumulate"]
    )
    told = {setting.key: setting.default for setting in settings_of("self-mm")}
    assert (told["model"], told["fit.accumulate"]) == ("self-mm", str(published["fit"]["accumulate"]))


def test_options_that_a_model_does_not_have_are_left_out(corpus: Corpus) -> None:
    base = check_config(
        {
            "options": {
                "d_state": 4,
                "local": {"window": 3},
                "encoders": {"audio": {"stride": 2}},
                "anchor_order": ["audio"],
            }
        }
    )
    found = {each.row: each.config.options for each in cells(corpus, base, name="comparison")}
    assert found["alignmamba"]["local"]["window"] == 3
    assert "local" not in found["crossmodal-transformer"]
    assert "d_state" not in found["crossmodal-transformer"]
    assert found["single-stream-mamba"]["d_state"] == 4
    assert found["crossmodal-transformer"]["encoders"]["audio"]["stride"] == 2
    # What is said of a modality goes with the modality.
    assert found["text alone"]["encoders"] == {}
    assert found["audio alone"]["encoders"]["audio"]["stride"] == 2
    assert of_model(base, "crossmodal-transformer").preset == "default"


def test_a_preset_holds_for_all_as_far_as_they_know_it(corpus: Corpus) -> None:
    base = check_config({"preset": "paper"})
    found = {
        each.row: each.config for each in cells(corpus, base, name="comparison", without_references=True)
    }
    assert found["alignmamba"].options["local"]["time_weight"] == 0.0
    assert found["crossmodal-transformer"].preset == "default"
    assert {each.options["pooling"] for each in found.values()} == {"mean"}
    assert {each.options["absent"] for each in found.values()} == {"zeros"}


def test_a_preset_that_is_not_there_is_refused_for_rivals_too(corpus: Corpus) -> None:
    base = check_config({"preset": "papr"})
    with pytest.raises(
        ConfigError, match=r"preset: expected one of \['0.1', 'default', 'paper'\], found 'papr'"
    ):
        cells(corpus, base, name="comparison", models=("late-fusion",))


@pytest.mark.parametrize(("preset", "size", "ties"), [("default", 4, None), ("0.1", 32, "first")])
def test_all_of_a_comparison_have_the_habits_of_its_preset(
    corpus: Corpus, preset: str, size: int, ties: str | None
) -> None:
    found = cells(corpus, check_config({"preset": preset}), name="comparison")
    assert {(each.config.loader.batch_size, each.config.fit.ties) for each in found} == {(size, ties)}


def test_rivals_share_the_encoders_of_the_default(corpus: Corpus) -> None:
    base = check_config({"options": {"encoders": {"audio": {"stride": 2}}}})
    found = {each.row: each.config.options for each in cells(corpus, base, name="comparison")}
    for row in ("alignmamba", "late-fusion", "crossmodal-transformer", "audio alone"):
        assert found[row]["encoder"]["centring"] == "learned", row
        assert found[row]["encoders"]["audio"]["centring"] == "learned", row
    assert "pool_by" not in found["late-fusion"]


def test_a_corpus_of_one_modality_is_compared_by_those_that_take_it(corpus: Corpus) -> None:
    alone = restricted(corpus, ["text"])
    assert [each.row for each in cells(alone, name="comparison")] == [
        *(name for name in FAMILIES if name != "crossmodal-transformer"),
        *REFERENCES,
    ]
    assert [each.row for each in cells(alone, name="ablation")][-1] == "multi-stream"
    with pytest.raises(
        ConfigError, match="crossmodal-transformer: modalities: crossmodal-transformer needs at least 2"
    ):
        cells(alone, name="comparison", models=("crossmodal-transformer",))


def test_rates_that_withhold_no_more_are_left_out(corpus: Corpus) -> None:
    # Two modalities: from 50 % on exactly one is kept.
    assert [each.column for each in cells(corpus, name="missing", models=("crossmodal-transformer",))] == [
        "10 %",
        "20 %",
        "30 %",
        "40 %",
        "50 %",
    ]
    assert [
        each.column
        for each in cells(corpus, name="missing", models=("crossmodal-transformer",), rates=(0.6, 0.7))
    ] == ["60 %"]
    assert len(cells(corpus, name="missing", models=("crossmodal-transformer",), protocol="tokens")) == 7


def test_a_modality_alone_has_the_samples_that_have_it(corpus: Corpus) -> None:
    alone = restricted(corpus, ["audio"])
    assert [spec.name for spec in alone.modalities] == ["audio"]
    for role, split in alone.splits.items():
        assert 0 < len(split) < len(corpus.splits[role])
        assert all(split.lengths["audio"] > 0)
    assert restricted(corpus, ["text"]).splits["test"] is corpus.splits["test"]
    assert restricted(corpus, []) is corpus


def test_ablation_takes_the_models_own_variants(corpus: Corpus) -> None:
    base = check_config({"options": {"local": {"window": 3}}})
    found = {each.row: each.config for each in cells(corpus, base, name="ablation")}
    assert list(found) == ["full", *FAMILIES["alignmamba"].network.ablations, "w/o text", "w/o audio"]
    assert found["w/o global alignment"].options["alignment"]["weight"] == 0.0
    assert found["w/o local alignment"].options["local"] == {
        **found["full"].options["local"],
        "method": "proportional",
    }
    assert found["single-stream"].model == "single-stream-mamba"
    assert found["w/o text"].modalities == ("audio",)
    assert found["full"].options["alignment"]["weight"] > 0


def test_distance_takes_the_variants_that_align(corpus: Corpus) -> None:
    found = cells(corpus, name="distance")
    assert {"full", "w/o both alignments"} <= {each.row for each in found}
    assert {each.config.model for each in found} == {"alignmamba"}
    assert all([analysis.kind for analysis in each.analyses] == ["distance"] for each in found)


def test_missing_trains_at_each_rate_or_once(corpus: Corpus) -> None:
    models = ("alignmamba", "crossmodal-transformer")
    each = cells(corpus, name="missing", models=models, rates=(0.1, 0.5), seeds=2)
    assert [(cell.row, cell.column, cell.config.seed) for cell in each[:4]] == [
        ("alignmamba", "10 %", 0),
        ("alignmamba", "50 %", 0),
        ("crossmodal-transformer", "10 %", 0),
        ("crossmodal-transformer", "50 %", 0),
    ]
    assert [cell.config.missing.rate for cell in each[:2]] == [0.1, 0.5]
    assert len(jobs_of(each)) == 8
    once = cells(corpus, name="missing", models=models, rates=(0.1, 0.5), seeds=2, mixed=True)
    assert {cell.config.missing.rate for cell in once} == {(0.1, 0.5)}
    jobs = jobs_of(once)
    assert len(jobs) == 4
    assert [analysis.missing.rate for analysis in jobs[0].analyses] == [0.1, 0.5]
    assert once[0].predictions == "analysis/gcnet-0.1/predictions_missing.csv"


def test_the_key_is_the_settings_and_the_seed_alone(corpus: Corpus) -> None:
    (one,) = cells(corpus, name="plans")
    (same,) = cells(corpus, check_config({**CONFIG, "engine": {"accelerator": "cpu"}}), name="plans")
    other = cells(corpus, name="plans", seeds=2)[1]
    (changed,) = cells(corpus, check_config({"fit": {"epochs": 4}}), name="plans")
    assert one.key == same.key
    assert len({one.key, other.key, changed.key}) == 3


@pytest.mark.parametrize(
    ("experiment", "said"),
    [
        ({"name": "comparison", "models": ("late-fusoin",)}, "perhaps you meant 'late-fusion'"),
        ({"name": "missing", "rates": ()}, "at least 1"),
        ({"name": "missing", "rates": (0.1, float("nan"))}, r"rates\.1: found nan .*less than 1"),
        ({"name": "missing", "rates": (1.0,)}, "less than 1"),
        ({"name": "missing", "protocol": "imder-sample", "rates": (0.15,)}, "expected one of 0, 0.1"),
    ],
)
def test_mistakes_are_named(corpus: Corpus, experiment: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=said):
        cells(corpus, **experiment)


@pytest.mark.parametrize("name", ["plans", "distance"])
def test_a_model_that_aligns_nothing_is_refused_before_it_is_trained(corpus: Corpus, name: str) -> None:
    base = check_config({**CONFIG, "model": "late-fusion", "options": {}})
    with pytest.raises(ConfigError, match=r"^model: found 'late-fusion', which aligns nothing"):
        cells(corpus, base, name=name)


def test_an_option_that_goes_with_nothing_is_refused(corpus: Corpus) -> None:
    with pytest.raises(ConfigError, match="d_modle"):
        cells(corpus, check_config({"options": {"d_modle": 3}}), name="comparison")


def test_the_row_whose_options_do_not_fit_is_named(corpus: Corpus) -> None:
    with pytest.raises(
        ConfigError, match=r"transformer: options\.heads: found 8, expected a divisor of d_model, which is 20"
    ):
        cells(corpus, check_config({"options": {"d_model": 20}}), name="comparison")


@pytest.mark.parametrize(
    ("base", "said"),
    [({"seed": 3}, "seed: found 3"), ({"missing": {"protocol": "fixed"}}, "missing: the grid gives")],
)
def test_what_the_grid_sets_cannot_be_set(corpus: Corpus, base: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        cells(corpus, check_config(base), name="missing")


def test_samples_that_were_asked_for_are_part_of_the_analysis(corpus: Corpus) -> None:
    (cell,) = cells(corpus, name="plans", samples=("test-000001",))
    assert cell.analyses[0].samples == ("test-000001",)
    (other,) = cells(corpus, name="plans", samples=("test-000002",))
    (telling,) = cells(corpus, name="plans")
    assert len({each.analyses[0].name for each in (cell, other, telling)}) == 3
    assert cell.key == telling.key


@pytest.mark.parametrize(
    ("written", "folder"),
    [
        ({"kind": "missing", "missing": {"protocol": "gcnet", "rate": 0.2}, "samples": []}, "gcnet-0.2"),
        ({"kind": "distance", "missing": {"protocol": "none", "rate": 0.0}, "samples": []}, "distance"),
        ({"kind": "plans", "missing": {"protocol": "none", "rate": 0.0}, "samples": []}, "plans"),
        ({"kind": "plans", "missing": {}, "samples": ["test-000001"]}, "plans-8875221e"),
    ],
)
def test_analyses_that_version_0_1_wrote_keep_their_folders(written: dict[str, Any], folder: str) -> None:
    """It wrote the fields of every experiment."""
    analysis = analysis_from(written)
    assert analysis.name == folder
    assert analysis_from(analysis.model_dump(mode="json")) == analysis


@pytest.mark.parametrize(
    "written", [[], {}, {"kind": "plan"}, {"kind": ["plans"]}, {"kind": "efficiency"}, {"kind": "missing"}]
)
def test_what_is_no_analysis_is_refused(written: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        analysis_from(written)


def test_the_name_of_an_experiment_stands_in_its_file_alone() -> None:
    room = Path(inspect.getfile(cells_of)).parent
    for name in EXPERIMENTS.keys() - {"missing"}:  # which is also a setting of every run
        found = [path.name for path in room.glob("*.py") if f'"{name}"' in path.read_text(encoding="utf-8")]
        assert found == [f"{name}.py"]
