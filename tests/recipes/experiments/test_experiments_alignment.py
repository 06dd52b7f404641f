"""Findings about a trained model's alignment, on a corpus whose true times are known."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from alignmamba.contracts import Task
from alignmamba.data.archive import load_corpus, write_corpus
from alignmamba.errors import ConfigError
from alignmamba.nn.alignment import Tokens
from alignmamba.recipes.configuration import check_config
from alignmamba.recipes.experiments import plans
from alignmamba.recipes.experiments.cells import Analysis
from alignmamba.recipes.experiments.distance import Distance
from alignmamba.recipes.experiments.plans import (
    Counts,
    Plans,
    PlansAnalysis,
    PlansOptions,
    Sample,
    Side,
    add_in_order,
)
from alignmamba.recipes.finished_run import load_run
from alignmamba.recipes.training_run import train
from alignmamba.recipes.transport_plans import on_content_alone
from small_run import CONFIG

WORDS = ("", "one", "one", "two", "two", "two", "", "")
SECONDS = np.arange(8) / 4


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Audio at 4 and video at 2 tokens a second; the word of each time stands beside its token. The last test
    sample has no video.
    """
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "timed"
    splits = {}
    for role, size in (("train", 24), ("valid", 8), ("test", 10)):
        labels = random.integers(0, 2, size)
        alone = {size - 1} if role == "test" else set()
        splits[role] = {
            "features": {
                "audio": [random.normal(label, 1, (8, 3)) for label in labels],
                "video": [
                    None if row in alone else random.normal(-label, 1, (4, 2))
                    for row, label in enumerate(labels)
                ],
            },
            "targets": labels.tolist(),
            "times": {
                "audio": [SECONDS] * size,
                "video": [None if row in alone else SECONDS[::2] for row in range(size)],
            },
            "tokens": {
                "audio": [WORDS] * size,
                "video": [None if row in alone else WORDS[::2] for row in range(size)],
            },
        }
    write_corpus(path, splits, task=Task(kind="classification", classes=("low", "high")), name="timed")
    return path


def trained(timed: Path, out: Path, **changes: Any) -> Path:
    train(check_config({**CONFIG, "data": str(timed), **changes}), out=out)
    return out


@pytest.fixture(scope="module")
def run(timed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(timed, tmp_path_factory.mktemp("runs") / "run")


def write_plans(run: Path, out: Path, *, samples: tuple[str, ...] = ()) -> None:
    Plans().analyse(load_run(run), PlansAnalysis(kind="plans", samples=samples), out)


def write_distance(run: Path, out: Path) -> None:
    Distance().analyse(load_run(run), Analysis(kind="distance"), out)


def told(run: Path, out: Path, **options: Any) -> dict[str, Any]:
    write_plans(run, out, **options)
    found: dict[str, Any] = json.loads((out / "plans.json").read_text())
    return found


def test_plans_of_the_most_telling_samples(run: Path, tmp_path: Path) -> None:
    found = told(run, tmp_path)
    shown = found["samples"]
    assert 2 <= len(shown) <= 6
    assert {each["why"] for each in shown} == {"among the best predicted", "among the worst predicted"}
    for each in shown:
        assert each["anchor"]["modality"] == "audio"
        assert each["anchor"]["tokens"] == list(WORDS)
        assert each["anchor"]["times"] == SECONDS.tolist()
        for source in each["sources"]:
            assert (source["modality"], source["length"], source["marginal"]) == ("video", 4, "source")
            assert len(source["index"]) == len(source["similarity"]) == 4
            assert all(0 <= index < 8 for index in source["index"])
            assert all(-1 <= value <= 1 for value in source["similarity"])


def test_plans_by_content_alone_stand_beside(run: Path, timed: Path, tmp_path: Path) -> None:
    """Each is the nearest anchor token in cosine, as the paper's cost has it; the model's own is held near in
    time.
    """
    loaded = load_run(run)
    shown = [source for each in told(run, tmp_path)["samples"] for source in each["sources"]]
    assert any(source["content"]["index"] != source["index"] for source in shown)
    for source in shown:
        pairs = zip(source["content"]["similarity"], source["similarity"], strict=True)
        assert all(free >= held - 1e-4 for free, held in pairs)  # nothing but likeness decides
    free = on_content_alone(loaded.config, loaded.model)
    assert free.config.local.time_weight == 0
    assert on_content_alone(loaded.config, free) is None
    paper = trained(timed, tmp_path / "paper", options={**CONFIG["options"], "local": {"time_weight": 0.0}})
    (tmp_path / "out").mkdir()
    assert all(
        source["content"] is None
        for each in told(paper, tmp_path / "out")["samples"]
        for source in each["sources"]
    )


def test_samples_can_be_asked_for(run: Path, tmp_path: Path) -> None:
    (shown,) = told(run, tmp_path, samples=("test-000010",))["samples"]
    assert (shown["id"], shown["why"], shown["sources"]) == ("test-000010", "asked for", [])
    with pytest.raises(ConfigError, match="samples: 'nobody' is not in the test split"):
        write_plans(run, tmp_path, samples=("nobody",))


def test_closeness_in_true_time(run: Path, tmp_path: Path) -> None:
    (pair, ways), *_ = told(run, tmp_path)["close"].items()
    assert pair == "video-audio"
    assert set(ways) == {
        "own cost, trained",
        "own cost, untrained",
        "content alone, trained",
        "content alone, untrained",
        "proportional time",
        "chance",
    }
    # Of 4 x 8 pairs, half a second apart at most: 2 or 3 to the left, as many to the right, and the one at
    # the same time.
    apart = np.abs(SECONDS[::2, None] - SECONDS[None])
    words = np.array(WORDS)
    spoken = words[::2] != ""
    assert ways["chance"]["within 0.5 s"] == pytest.approx((apart <= 0.5).mean())
    assert ways["chance"]["within 0.1 s"] == pytest.approx(4 / 32)
    assert ways["chance"]["same word"] == pytest.approx((words[::2, None] == words[None])[spoken].mean())
    # Tokens 0, 1, 2, 3 of video at 0, 2.33, 4.67, 7 of audio, rounded to 0, 2, 5, 7.
    assert ways["proportional time"]["within 0.1 s"] == pytest.approx(2 / 4)
    assert ways["proportional time"]["within 0.5 s"] == 1.0
    # The default's prior on relative time leaves content next to nothing to decide.
    assert ways["own cost, trained"]["within 0.5 s"] == 1.0


def test_what_learns_without_times_is_matched_in_order_too(timed: Path, tmp_path: Path) -> None:
    options = {**CONFIG["options"], "timeless": ["video"]}
    run = trained(timed, tmp_path / "run", options=options)
    (tmp_path / "out").mkdir()
    ways = told(run, tmp_path / "out")["close"]["video-audio"]
    assert {"content alone in order, trained", "content alone in order, untrained"} < set(ways)
    # Video is shorter, so that every token of audio is matched, and all audio words count.
    tokens = {
        name: Tokens(torch.randn(1, n, 3), torch.ones(1, n, dtype=torch.bool), torch.zeros(1, n))
        for name, n in (("audio", 8), ("video", 4))
    }
    tokens["audio"] = replace(tokens["audio"], x=tokens["video"].x.repeat_interleave(2, 1))
    sample = Sample(0, Side(SECONDS[::2], np.array(WORDS[::2])), Side(SECONDS, np.array(WORDS)))
    counts = Counts()
    add_in_order(counts, [sample], tokens["video"], tokens["audio"])
    assert (counts.pairs, counts.worded) == (8, 5)
    assert counts.shares()["within 0.5 s"] == 1.0
    assert counts.same_word == 3  # each video token lasts two of audio: one, one, two of five


def test_the_same_model_without_its_contrast_stands_beside(timed: Path) -> None:
    corpus = load_corpus(timed)
    base = check_config({**CONFIG, "data": str(timed)})
    contrast = {"contrast": {"weight": 0.5}}
    learns = base.model_copy(update={"options": {**base.options, **contrast}})
    asked = PlansOptions()
    assert [each.row for each in Plans().cells(asked, base, corpus)] == ["full"]
    full, without = Plans().cells(asked, learns, corpus)
    assert without.row == "w/o contrast"
    assert full.config.options["contrast"]["weight"] == 0.5
    assert without.digest == next(iter(Plans().cells(asked, base, corpus))).digest


def test_of_a_second_variant_what_training_changed_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(share: float) -> SimpleNamespace:
        ways = {f"content alone, {state}": {"same word": share} for state in ("trained", "untrained")}
        return SimpleNamespace(close={"video-audio": {**ways, "chance": {"same word": 0.1}}})

    runs = [("full", told(0.9)), ("full", told(0.7)), ("w/o contrast", told(0.2))]
    scores: Any = object()
    monkeypatch.setattr(plans, "metrics_table", lambda *_, **__: scores)
    grid: Any = SimpleNamespace(
        rows=("full", "w/o contrast"),
        corpus="timed",
        analysed=lambda *_: runs,
        plan=SimpleNamespace(unlearned=False),
    )
    first, table = Plans().tables(grid)
    assert first is scores
    assert table.rows == (
        "content alone, trained",
        "content alone, untrained",
        "chance",
        "content alone, trained w/o contrast",
    )
    assert [entry.mean for (entry,) in table.entries if entry] == pytest.approx([0.8, 0.8, 0.1, 0.2])
    grid.rows, grid.analysed = ("full",), lambda *_: runs[:2]
    (alone,) = Plans().tables(grid)
    assert alone.rows == table.rows[:3]


def test_shares_count_pairs() -> None:
    counts = Counts()
    here = Side(np.array([0.0, 1.0, 2.0]), np.array(["a", "", "b"]))
    there = Side(np.array([0.1, 1.4]), np.array(["a", "a"]))
    counts.add(here, there, np.array([0, 1, 2]), np.array([0, 1, 1]))
    assert counts.shares() == {
        "within 0.1 s": 1 / 3,
        "within 0.2 s": 1 / 3,
        "within 0.5 s": 2 / 3,
        "same word": 1 / 2,
    }


def test_strides_group_times_and_words(timed: Path, tmp_path: Path) -> None:
    run = trained(
        timed, tmp_path / "run", options={**CONFIG["options"], "encoders": {"audio": {"stride": 2}}}
    )
    (tmp_path / "out").mkdir()
    shown = told(run, tmp_path / "out")["samples"][0]["anchor"]
    assert shown["times"] == [0.125, 0.625, 1.125, 1.625]
    assert shown["tokens"] == ["one", "two", "two", ""]
    assert shown["length"] == 4


def test_distance_of_aligned_modalities(run: Path, tmp_path: Path) -> None:
    write_distance(run, tmp_path)
    found = json.loads((tmp_path / "distance.json").read_text())
    (told,) = found["pairs"].values()
    assert -2 <= told["distance"] <= 2
    assert told["distance"] == pytest.approx(2 * (1 - 2 * told["error"]))
    assert found["split"] == "test"


def test_a_model_without_alignment_is_refused(timed: Path, tmp_path: Path) -> None:
    run = trained(timed, tmp_path / "run", model="single-stream-mamba")
    with pytest.raises(ConfigError, match="aligns no streams"):
        write_distance(run, tmp_path)
    with pytest.raises(ConfigError, match="makes no plans"):
        write_plans(run, tmp_path)
