"""Facts about a clip, and the page as text."""

import base64
import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignmamba.contracts import Task
from alignmamba.errors import ConfigError, DataError
from alignmamba.recipes.clip_page import clip_page as module
from alignmamba.recipes.clip_page import clip_sentences
from alignmamba.recipes.clip_page.clip_page import ClipPage, clip_page, opened_runs, render, write_clip_page
from alignmamba.recipes.clip_page.clip_sight import MOST_PICTURES, clip_sight, seen_apart
from alignmamba.recipes.clip_page.clip_study import Answer, ClipStudy
from alignmamba.recipes.finished_run import load_run
from clip_runs import ClipRuns
from made_clips import write_clip

HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def made(clip_runs: ClipRuns, tmp_path_factory: pytest.TempPathFactory) -> ClipPage:
    """The page of two seeds about a clip of the corpus."""
    page = tmp_path_factory.mktemp("page") / "page.html"
    return write_clip_page(clip_runs.first, [clip_runs.clips / "c7.mp4"], page, also=[clip_runs.second])


def data_of(text: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def with_answers(
    study: ClipStudy, *complete: list[float], thresholds: list[float] | None = None, **without: list[float]
) -> ClipStudy:
    """The same with invented predictions."""
    answers = tuple(
        Answer(
            run=f"run{seed}",
            seed=seed,
            complete=np.array(values),
            thresholds=None if thresholds is None else np.array(thresholds),
            without={name: np.array(each) for name, each in without.items()},
        )
        for seed, values in enumerate(complete)
    )
    return dataclasses.replace(study, answers=answers)


def test_predictions_are_those_of_the_corpus(made: ClipPage, clip_runs: ClipRuns) -> None:
    for answer, run in zip(made.study.answers, (clip_runs.first, clip_runs.second), strict=True):
        loaded = load_run(run)
        split = loaded.corpus.split("test")
        row = split.ids.index("c7")
        expected = loaded.predictions(split).prediction[row]
        np.testing.assert_allclose(answer.complete, expected, atol=1e-5)
        for name in ("text", "audio", "video"):
            rest = [spec for spec in loaded.modalities if spec.name != name]
            lacking = loaded.predictions(split, rest).prediction[row]
            np.testing.assert_allclose(answer.without[name], lacking, atol=1e-5)
    assert [answer.seed for answer in made.study.answers] == [0, 1]
    assert made.study.used == ("text", "audio", "video")


def test_further_targets_stand_beside_the_prediction(made: ClipPage) -> None:
    targets = [
        {"name": "mood", "kind": "classification", "labels": ("mood",), "classes": ("calm", "<b>")},
        {"name": "parts", "kind": "multilabel", "labels": ("a", "b"), "classes": ("a", "b")},
        {"name": "grade", "kind": "regression", "labels": ("grade",)},
        {"name": "voice", "kind": "regression", "labels": ("voice",), "modality": "audio"},
    ]
    further = [
        {"mood": [0.2, 0.8], "parts": [0.9, 0.1], "grade": [1.0], "voice": [1.0]},
        {"mood": [0.4, 0.6], "parts": [0.7, 0.3], "grade": [2.0]},
    ]
    study = made.study
    task = Task.model_validate({**study.task.model_dump(), "further": targets})
    answers = [
        dataclasses.replace(answer, further={name: np.array(each) for name, each in said.items()})
        for answer, said in zip(study.answers, further, strict=True)
    ]
    study = dataclasses.replace(study, task=task, answers=tuple(answers))
    assert [
        [each.replace("\u00a0", " ") for each in row] for row in clip_sentences.further_targets(study)
    ] == [
        ["mood", "<b> 70 %", "60 to 80 %"],
        ["parts", "a 80 %, b 20 %", ""],
        ["grade", "1.50", "1.00 to 2.00"],
    ]
    page = render(study, None)
    assert "Further targets" in page
    assert "&lt;b&gt; 70" in page
    assert "Further targets" not in made.text


def test_the_time_axis_holds_words_sound_pictures_and_the_plan(made: ClipPage) -> None:
    data = data_of(made.text)
    lanes = {lane["modality"]: lane for lane in data["lanes"]}
    assert [lane["modality"] for lane in data["lanes"]] == [
        "audio",
        "text",
        "video",
    ]  # the anchor in the middle
    assert lanes["text"]["tokens"] == ["so", "very", "kind"]
    assert lanes["text"]["times"] == [0.1, 0.3, 0.5]
    assert lanes["audio"]["length"] == len(lanes["audio"]["times"])
    assert data["anchor"] == "text"
    for link in data["links"]:
        source = link["marginal"] == "source"
        assert len(link["index"]) == (lanes[link["modality"]]["length"] if source else 3)
    assert data["seconds"] == pytest.approx(1.0, abs=0.1)
    assert data["type"] == "video/mp4"
    assert 0 < len(data["pictures"]) <= MOST_PICTURES + 1
    assert max(data["loudness"]["values"]) == 1


def test_the_page_holds_the_clip_and_loads_nothing(made: ClipPage, clip_runs: ClipRuns) -> None:
    found = re.search(r'<script type="text/plain" id="clip">(.*?)</script>', made.text)
    assert found is not None
    assert base64.b64decode(found[1]) == (clip_runs.clips / "c7.mp4").read_bytes()
    addresses = re.findall(r'(?:src|href)="([^"]*)"', made.text)
    assert set(addresses) == {"data:,", "#main"}
    assert "style=" not in made.text  # the policy allows no style but one
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', made.text)
    assert policy is not None
    said = policy[1].replace("&#39;", "'")
    assert said.startswith("default-src 'none'; ")
    for name in ("style", "script"):
        content = re.findall(rf"<{name}>(.*?)</{name}>", made.text, re.DOTALL)[0]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in said


def test_words_and_names_of_a_clip_cannot_become_markup(made: ClipPage) -> None:
    lanes = tuple(
        dataclasses.replace(lane, tokens=(HOSTILE, "</style>", "&amp;")) if lane.tokens else lane
        for lane in made.study.lanes
    )
    study = dataclasses.replace(
        made.study, name=HOSTILE, lanes=lanes, notes=(HOSTILE,), absent={"audio": HOSTILE}
    )
    text = render(study, b"clip")
    assert HOSTILE not in text
    assert "<img" not in text
    (words,) = [lane["tokens"] for lane in data_of(text)["lanes"] if lane["tokens"]]
    assert words == [HOSTILE, "</style>", "&amp;"]


def test_bars_show_each_run_and_their_mean(made: ClipPage) -> None:
    study = with_answers(made.study, [0.9, 0.1], [0.6, 0.4], [0.3, 0.7])
    first, second = clip_sentences.bars(study)
    assert (first.name, first.said, first.spread) == ("glad", "60\u00a0%", "30 to 90\u00a0%")
    assert first.values == (0.9, 0.6, 0.3)
    assert second.share == pytest.approx(0.4)
    assert clip_sentences.headline(study) == "glad"
    assert clip_sentences.confidence(study) == "2 of 3 runs predict it, with 30 to 90\u00a0%."
    text = render(study, None)
    assert text.count('class="run"') == 7  # three in each of two bars, and one in the legend
    alone = with_answers(made.study, [0.9, 0.1])
    assert clip_sentences.confidence(alone).startswith("One run")
    assert 'class="run"' not in render(alone, None)


def test_classes_beyond_those_with_bars_are_summed_up(made: ClipPage) -> None:
    names = tuple(f"class{number}" for number in range(20))
    task = made.study.task.model_copy(update={"classes": names})
    values = np.arange(1, 21) / 210
    study = dataclasses.replace(with_answers(made.study, values.tolist()), task=task)
    rows = clip_sentences.bars(study)
    assert len(rows) == clip_sentences.MOST_BARS
    assert rows[0].name == "class19"
    assert rows[-1].name == "13 other classes"
    assert sum(row.share for row in rows) == pytest.approx(1)


def test_effects_name_what_changes_without_a_modality(made: ClipPage) -> None:
    study = with_answers(
        made.study, [0.9, 0.1], [0.7, 0.3], text=[0.2, 0.8], audio=[0.8, 0.2], video=[0.85, 0.15]
    )
    everything, words, sound, pictures = clip_sentences.effects(study)
    assert (everything.label, everything.prediction, everything.change) == ("nothing", "glad", "")
    assert (words.label, words.prediction, words.said) == ("words", "sad", "20\u00a0%")
    assert (words.change, words.spread) == ("\u221260", "\u221270 to \u221250")
    assert words.share == pytest.approx(-0.6)
    assert (sound.change, sound.spread) == ("0", "\u221210 to +10")
    assert pictures.change == "+5"
    assert clip_sentences.effect_words(study) == "The prediction changes without words."


MOODS = Task(kind="multilabel", classes=("happy", "<b>sad</b>", "angry"))


def of_labels(made: ClipPage, *complete: list[float], **others: list[float]) -> ClipStudy:
    return dataclasses.replace(with_answers(made.study, *complete, **others), task=MOODS)


def plain(text: str) -> str:
    return text.replace("\u00a0", " ").replace("\u2212", "-")


def test_labels_are_called_from_the_thresholds_of_each_run(clip_runs: ClipRuns) -> None:
    runs = opened_runs(clip_runs.moods, [clip_runs.half])
    runs[0].model.call_from({"": np.array([0.875, 0.125])})
    made = clip_page(runs, clip_runs.clips / "c7.mp4")
    for answer, run in zip(made.study.answers, runs, strict=True):
        loaded = load_run(run)
        split = loaded.corpus.split("test")
        row = split.ids.index("c7")
        said = loaded.predictions(split)
        np.testing.assert_allclose(answer.complete, said.prediction[row], atol=1e-5)
        assert said.called is not None
        called = [name for name, there in zip(("happy", "sad"), said.called[row], strict=True) if there]
        assert made.study.called(answer.complete, answer) == tuple(called)
    assert made.study.thresholds is not None
    assert made.study.thresholds.tolist() == [0.6875, 0.3125]
    assert made.headline == "sad"
    facts = made.facts(Path("page.html"))
    assert facts["called"] == ["sad"]
    assert facts["runs"][0]["thresholds"] == {"happy": 0.875, "sad": 0.125}
    assert "from 69\u00a0%" in made.text


def test_each_label_has_its_probability_threshold_and_runs(made: ClipPage) -> None:
    study = of_labels(made, [0.6, 0.2, 0.5], [0.4, 0.4, 0.7], thresholds=[0.55, 0.25, 0.4])
    angry, sad, happy = clip_sentences.bars(study)  # those that are called first
    assert [bar.name for bar in (angry, sad, happy)] == ["angry", "<b>sad</b>", "happy"]
    assert [bar.chosen for bar in (angry, sad, happy)] == [True, True, False]
    assert (plain(sad.said), plain(sad.spread), sad.values) == ("30 %", "20 to 40 %", (0.2, 0.4))
    assert (happy.threshold, plain(happy.called_from)) == (0.55, "from 55 %")
    assert clip_sentences.headline(study) == "<b>sad</b>, angry"
    assert clip_sentences.sureness(study) == ""
    assert clip_sentences.confidence(study) == "1 of 2 runs calls these labels."
    assert "threshold chosen on the valid split" in clip_sentences.calling(study)
    text = render(study, None)
    assert text.count('class="threshold"') == 3
    assert text.count('class="run"') == 7
    assert "<b>" not in text
    agreed = of_labels(made, [0.6, 0.2, 0.5], [0.9, 0.1, 0.9], thresholds=[0.5] * 3)
    assert clip_sentences.confidence(agreed) == "All 2 runs call these labels."
    assert plain(clip_sentences.calling(agreed)) == "A label is called from 50 % on."
    assert clip_sentences.bars(agreed)[0].called_from == ""
    nothing = of_labels(made, [0.1, 0.1, 0.1], [0.6, 0.1, 0.1], thresholds=[0.5] * 3)
    assert clip_sentences.headline(nothing) == "none"
    assert clip_sentences.confidence(nothing) == "1 of 2 runs calls no label."


def test_every_label_changes_without_a_modality(made: ClipPage) -> None:
    study = of_labels(
        *(made, [0.8, 0.2, 0.6], [0.6, 0.2, 0.6]),
        thresholds=[0.5] * 3,
        text=[0.2, 0.7, 0.6],
        audio=[0.7, 0.6, 0.6],
        video=[0.7, 0.2, 0.4],
    )
    rows = {bar.name: cells for bar, cells in clip_sentences.label_effects(study)}
    assert list(rows) == ["happy", "angry", "<b>sad</b>"]
    assert [cell.label for cell in rows["happy"]] == ["words", "sound", "pictures"]
    words, sound, _ = rows["happy"]
    assert (words.prediction, plain(words.said), plain(words.change)) == ("not called", "20 %", "-50")
    assert plain(words.spread) == "-60 to -40"
    assert (sound.prediction, sound.change, plain(sound.spread)) == ("called", "0", "-10 to +10")
    assert [cell.prediction for cell in rows["<b>sad</b>"]] == ["called", "called", "not called"]
    assert [cell.change for cell in rows["<b>sad</b>"]] == ["+50", "+40", "0"]
    assert clip_sentences.effects(study) == []
    assert clip_sentences.effect_words(study) == (
        "Without words, happy is not called, and <b>sad</b> is. Without sound, <b>sad</b> is called. Without"
        " pictures, angry is not called. Beside each probability stands its change in points."
    )
    text = render(study, None)
    assert text.count("flipped") == 1 + 4  # one in the style
    assert "<b>" not in text
    steady = of_labels(made, [0.8, 0.2, 0.6], thresholds=[0.5] * 3, text=[0.7, 0.2, 0.6])
    assert clip_sentences.effect_words(dataclasses.replace(steady, used=("text",))).startswith(
        "The same labels"
    )


def test_ordered_classes_stand_in_their_order(clip_runs: ClipRuns, made: ClipPage, tmp_path: Path) -> None:
    page = write_clip_page(clip_runs.grades, [clip_runs.clips / "c6.mp4"], tmp_path / "page.html")
    bars = clip_sentences.bars(page.study)
    assert [bar.name for bar in bars] == ["poor", "fair", "good"]
    assert sum(bar.share for bar in bars) == pytest.approx(1)
    (chosen,) = (bar for bar in bars if bar.chosen)
    assert page.headline == f"{chosen.name} ({chosen.said})"
    names = tuple(f"grade{number}" for number in range(20))
    task = Task(kind="ordinal", classes=names)
    values = (np.arange(1, 21)[::-1] / 210).tolist()
    rows = clip_sentences.bars(
        dataclasses.replace(with_answers(made.study, values[1:] + values[:1]), task=task)
    )
    assert [row.name for row in rows[:3]] == ["grade0", "grade1", "grade2"]
    assert (rows[6].name, rows[6].chosen, rows[7].name) == ("grade19", True, "13 other classes")


def test_a_method_without_a_plan_says_so(clip_runs: ClipRuns, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    made = write_clip_page(clip_runs.late, [clip_runs.clips / "c6.mp4"], page)
    assert "There is no transport plan: late-fusion aligns no tokens." in page.read_text()
    data = data_of(made.text)
    assert data["anchor"] is None
    assert data["links"] == []
    assert [lane["modality"] for lane in data["lanes"]] == ["text", "audio", "video"]


def test_a_value_is_shown_on_its_range(clip_runs: ClipRuns, tmp_path: Path) -> None:
    made = write_clip_page(clip_runs.scores, [clip_runs.clips / "c6.mp4"], tmp_path / "page.html")
    study = with_answers(made.study, [-1.5], [0.0], text=[0.0], audio=[-0.75], video=[-0.75])
    scale = clip_sentences.scale(study)
    assert scale is not None
    assert (scale.low, scale.high, scale.zero) == ("\u22123.00", "3.00", 0.5)
    assert (scale.mean, scale.values) == (0.375, (0.25, 0.5))
    assert clip_sentences.headline(study) == "\u22120.75"
    assert [row.change for row in clip_sentences.effects(study)] == ["", "+0.75", "+0.00", "+0.00"]
    assert [row.share for row in clip_sentences.effects(study)] == [0, 1, 0, 0]
    assert clip_sentences.bars(study) == []
    assert "range of the labels" in render(study, None)
    unbounded = dataclasses.replace(study, task=study.task.model_copy(update={"label_range": None}))
    assert clip_sentences.scale(unbounded) is None
    assert "range of the labels" not in render(unbounded, None)


def test_a_voice_alone_has_no_plan_and_nothing_to_leave_out(clip_runs: ClipRuns, tmp_path: Path) -> None:
    voice = write_clip(tmp_path / "voice.wav", 0.5)
    made = write_clip_page(clip_runs.first, [voice], tmp_path / "page.html")
    assert made.study.used == ("audio",)
    assert set(made.study.absent) == {"text", "video"}
    assert made.study.answers[0].without == {}
    assert "the clip has audio alone, so nothing is aligned" in made.text
    assert "Leaving one out" not in made.text
    assert '<audio id="player" controls>' in made.text
    assert data_of(made.text)["type"] == "audio/wav"


def test_a_large_clip_stays_outside_the_page(
    clip_runs: ClipRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    made = write_clip_page(clip_runs.first, [clip_runs.clips / "c6.mp4"], tmp_path / "page.html")
    assert 'id="clip"' not in made.text
    assert "so it is not in this page" in made.text
    assert data_of(made.text)["type"] is None


def test_runs_that_differ_are_refused_with_the_difference(clip_runs: ClipRuns, run: Path) -> None:
    with pytest.raises(ConfigError, match=r"also: run .*first is given twice"):
        opened_runs(clip_runs.first, [clip_runs.first])
    with pytest.raises(ConfigError, match=r"task kind: found 'regression', expected 'classification'"):
        opened_runs(clip_runs.first, [clip_runs.scores])
    with pytest.raises(ConfigError, match=r"task kind: found 'ordinal', expected 'multilabel'"):
        opened_runs(clip_runs.moods, [clip_runs.grades])
    with pytest.raises(ConfigError, match="`alignmamba extract` did not make"):
        opened_runs(clip_runs.first, [run])
    with pytest.raises(ConfigError, match="`alignmamba extract` did not make"):
        opened_runs(run)


def test_another_recipe_is_refused_with_the_difference(clip_runs: ClipRuns, tmp_path: Path) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(clip_runs.second, other)
    identity = json.loads((other / "run.json").read_text())
    identity["recipe"]["audio"]["options"]["bands"] = 40
    (other / "run.json").write_text(json.dumps(identity))
    (other / "SHA256SUMS").unlink()
    with pytest.raises(ConfigError, match=r"other: recipe audio\.bands: found 40, expected 80, as of run"):
        opened_runs(clip_runs.first, [other])


def test_a_clip_is_seen(tmp_path: Path) -> None:
    sound = np.zeros((1, 48_000), np.float32)
    sound[0, 24_000:] = 0.5 * np.sin(0.1 * np.arange(24_000))
    sight = clip_sight(write_clip(tmp_path / "clip.mkv", 1.0, sound=sound))
    loud = np.array(sight.loudness)
    half = len(loud) // 2
    assert loud[: half - 2].max() < 0.1
    assert loud[half + 2 : -3].min() > 0.8
    times = [seconds for seconds, _ in sight.pictures]
    assert times == sorted(set(times))
    assert all(content.startswith(b"\xff\xd8") for _, content in sight.pictures)
    assert dict(sight.codecs) == {"video": "h264", "audio": "aac"}
    silent = clip_sight(write_clip(tmp_path / "silent.mp4", 0.5, audio=None))
    assert silent.loudness == ()


def test_what_is_no_clip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no clip")
    with pytest.raises(DataError, match=r"text\.mp4: cannot be read"):
        seen_apart(tmp_path / "text.mp4")
