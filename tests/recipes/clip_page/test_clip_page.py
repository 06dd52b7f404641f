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
from alignmamba.recipes.clip_page.clip_page import ClipPage, opened_runs, render, write_clip_page
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


def with_answers(study: ClipStudy, *complete: list[float], **without: list[float]) -> ClipStudy:
    """The same with invented predictions."""
    answers = tuple(
        Answer(
            run=f"run{seed}",
            seed=seed,
            complete=np.array(values),
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
