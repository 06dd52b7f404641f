"""The converters and their settings, on the real files where these are at hand."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from alignmamba import Corpus
from alignmamba.data.inspection import inspect_corpus
from alignmamba.formats.conversion import convert
from alignmamba.media.clip import MediaClip
from alignmamba.media.decoding import facts
from alignmamba.media.language_text import LanguageText
from alignmamba.media.tracks import Word, Words
from alignmamba.recipes.configuration import read_config
from alignmamba.recipes.training_run import plan
from made_clips import write_clip
from tiny_bert import save_tiny_bert
from tiny_tokenizer import save_tiny_tokenizer

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("ALIGNMAMBA_DATA", ROOT.parent / "shared" / "data"))


sys.path.append(str(ROOT / "examples"))  # one of them builds on another


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def archive(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not at hand: put it into {DATA} or name its folder in ALIGNMAMBA_DATA")
    return path


CONVERTERS: dict[str, tuple[str | None, str, Callable[..., Corpus], dict[str, int]]] = {
    "utd-mhad": (
        "utd_mhad",
        "utd_mhad.npz",
        example("utd_mhad").convert,
        {"train": 323, "valid": 108, "test": 430},
    ),
    "mosi": (
        "mosi",
        "mosi_text_audio.npz",
        example("mosi").convert,
        {"train": 1284, "valid": 229, "test": 686},
    ),
    "grid": (
        "grid",
        "grid_s1.npz",
        partial(example("grid").convert, target="digit"),
        {"train": 700, "valid": 100, "test": 200},
    ),
    "grid-sync": (
        "grid",
        "grid_s1.npz",
        example("grid_sync").convert,
        {"train": 2800, "valid": 400, "test": 800},
    ),
    "grid-unclocked": (
        "grid-unclocked",
        "grid_s1.npz",
        example("grid_unclocked").convert,
        {"train": 700, "valid": 100, "test": 200},
    ),
    "utd-sync": (
        None,
        "utd_mhad.npz",
        example("utd_sync").convert,
        {"train": 3876, "valid": 432, "test": 1720},
    ),
}


@pytest.mark.parametrize("name", CONVERTERS)
def test_the_corpus_is_whole_and_its_settings_fit(name: str, tmp_path: Path) -> None:
    settings, file, convert, sizes = CONVERTERS[name]
    corpus = convert(archive(file), tmp_path / "corpus")
    assert {role: len(split) for role, split in corpus.splits.items()} == sizes
    assert inspect_corpus(tmp_path / "corpus").problems == ()
    file_of_settings = None if settings is None else ROOT / "examples" / f"{settings}.yaml"
    config = read_config(file_of_settings, overrides={"data": str(tmp_path / "corpus")})
    assert plan(config).num_parameters > 0


def test_utd_subjects_do_not_cross_splits(tmp_path: Path) -> None:
    corpus = example("utd_mhad").convert(archive("utd_mhad.npz"), tmp_path / "corpus", valid_subject=3)
    subjects = {
        role: {identity.split("_")[1] for identity in split.ids} for role, split in corpus.splits.items()
    }
    assert subjects == {"train": {"s1", "s5", "s7"}, "valid": {"s3"}, "test": {"s2", "s4", "s6", "s8"}}


def test_utd_skeletons_forget_place_and_size() -> None:
    body_motion = example("utd_mhad").body_motion
    joints = np.random.default_rng(0).normal(size=(7, 20, 3))
    np.testing.assert_allclose(body_motion(joints * 1.7 + 4.0), body_motion(joints), atol=1e-9)


def test_mosi_words_come_from_train_alone(tmp_path: Path) -> None:
    corpus = example("mosi").convert(archive("mosi_text_audio.npz"), tmp_path / "corpus")
    said = {
        role: {word for sample in split for word in sample.tokens["text"]}
        for role, split in corpus.splits.items()
    }
    known = {
        word
        for split in corpus.splits.values()
        for sample in split
        for word, number in zip(sample.tokens["text"], sample.features["text"][:, 0], strict=True)
        if number
    }
    assert known <= said["train"]
    assert said["test"] - known


def test_grid_labels_are_the_words_that_were_said(tmp_path: Path) -> None:
    source = archive("grid_s1.npz")
    corpus = example("grid").convert(source, tmp_path / "corpus", target="colour")
    with np.load(source, allow_pickle=False) as given:
        words = dict(zip(given["id"].tolist(), given["words"].tolist(), strict=True))
    for sample in corpus.split("valid"):
        assert corpus.task.classes[int(sample.target or 0)] in words[sample.id]


def test_grid_words_stand_where_they_are_said(tmp_path: Path) -> None:
    corpus = example("grid").convert(archive("grid_s1.npz"), tmp_path / "corpus", target="colour", texts=True)
    numbers: dict[str, set[int]] = {}
    for sample in corpus.split("train"):
        assert len(sample.tokens["text"]) == 6
        for word, number, middle in zip(
            sample.tokens["text"], sample.features["text"][:, 0], sample.times["text"], strict=True
        ):
            numbers.setdefault(word, set()).add(int(number))
            heard = int(np.abs(sample.times["audio"] - middle).argmin())
            assert sample.tokens["audio"][heard] == word
    assert all(len(each) == 1 for each in numbers.values())
    assert len(set.union(*numbers.values())) == len(numbers)
    for name in ("grid-words", "grid-aligned"):
        overrides = {"data": str(tmp_path / "corpus"), "modalities": ["text", "audio", "video"]}
        assert plan(read_config(ROOT / "examples" / f"{name}.yaml", overrides=overrides)).num_parameters > 0


def test_grid_frames_are_labelled_with_what_is_said_at_them(tmp_path: Path) -> None:
    grid = example("grid")
    corpus = grid.convert(archive("grid_s1.npz"), tmp_path / "corpus", target="digit", frames=True)
    for sample in corpus.split("valid"):
        words = sample.token_labels["video"]["word"]
        assert words == tuple(word or "silence" for word in sample.tokens["video"])
        heard = sample.token_labels["audio"]["word"]
        assert tuple(word for word in heard if word is not None) == words
        assert [heard[4 * place] for place in range(74)] == list(words[:74])
    word, share = grid.most_frequent(corpus)
    said = [word for sample in corpus.split("test") for word in sample.token_labels["video"]["word"]]
    assert share == pytest.approx(max(said.count(each) for each in set(said)) / len(said))
    assert word == "silence"
    ready = plan(
        read_config(ROOT / "examples" / "grid-frames.yaml", overrides={"data": str(tmp_path / "corpus")})
    )
    assert [(target.name, target.tokens) for target in ready.corpus.task.further] == [("word", "video")]


def sentences() -> dict[str, dict[str, np.ndarray]]:
    """The whole of what each sentence of GRID sounds and looks like, by name."""
    lips = example("grid").lips
    with np.load(archive("grid_s1.npz"), allow_pickle=False) as given:
        return {
            name: {"audio": sound.astype(np.float32), "video": lips(seen)}
            for name, sound, seen in zip(
                given["id"].tolist(), given["audio_logmel"], given["video"], strict=True
            )
        }


def actions() -> dict[str, dict[str, np.ndarray]]:
    """The whole of each recording of UTD-MHAD, by name."""
    corpus = example("utd_mhad")
    with np.load(archive("utd_mhad.npz"), allow_pickle=False) as given:
        bodies = corpus.ragged(given["skeleton"], given["skeleton_len"])
        depths = corpus.ragged(given["depth_occupancy12x16"], given["depth_len"])
        names = zip(given["action"], given["subject"], given["trial"], strict=True)
        return {
            f"a{action}_s{subject}_t{trial}": {
                "skeleton": corpus.body_motion(body).astype(np.float32),
                "depth": corpus.occupancy_change(depth).astype(np.float32),
            }
            for (action, subject, trial), body, depth in zip(names, bodies, depths, strict=True)
        }


@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize(
    ("name", "file", "read", "rates", "least", "common"),
    [
        ("grid_sync", "grid_s1.npz", sentences, {"audio": 100.0, "video": 25.0}, 0.12, 0.8),
        ("utd_sync", "utd_mhad.npz", actions, {"skeleton": 30.0, "depth": 30.0}, 0.2, 14 / 30),
    ],
)
def test_one_stream_alone_says_nothing_of_whether_both_belong_together(
    name: str,
    file: str,
    read: Callable[[], dict[str, dict[str, np.ndarray]]],
    rates: dict[str, float],
    least: float,
    common: float,
    pieces: bool,
    tmp_path: Path,
) -> None:
    recordings = read()
    corpus = example(name).convert(archive(file), tmp_path / "corpus", pieces=pieces)
    met: dict[bool, Counter[tuple[bytes, ...]]] = {True: Counter(), False: Counter()}
    apart = set()
    for sample in corpus.split("valid"):
        together = corpus.task.classes[int(sample.target or 0)] == "together"
        clock = tuple(sample.times[stream].tobytes() for stream in rates)
        met[together].update((sample.features[stream].tobytes(), *clock) for stream in rates)
        # of where each stands in the recording and on the clock, the difference tells them apart
        early = [
            placed(recordings[sample.id.split("-")[0]][stream], sample.features[stream]) / rate
            - sample.times[stream][0]
            for stream, rate in rates.items()
        ]
        late = abs(early[0] - early[1])
        assert together == (late < 0.001)
        assert together or least - 0.001 < late < 0.601
        begins, ends = ([sample.times[stream][at] for stream in rates] for at in (0, -1))
        apart.add(round(abs(begins[0] - begins[1]), 3))
        assert min(ends) - max(begins) > common - 2 / min(rates.values())
    assert met[True] == met[False]
    assert (len(apart) > 1) == pieces


@pytest.mark.parametrize("clock", [False, True])
def test_new_recordings_have_a_clock_on_request_alone(clock: bool, tmp_path: Path) -> None:
    corpus = example("grid_unclocked").convert(archive("grid_s1.npz"), tmp_path / "corpus", clock=clock)
    whole = sentences()
    begins = set()
    for sample in corpus.split("valid"):
        assert bool(sample.times) == clock
        begin = placed(whole[sample.id]["audio"], sample.features["audio"])
        begins.add(begin)
        np.testing.assert_array_equal(sample.features["video"], whole[sample.id]["video"])
        spoken = sample.token_labels["video"]["word"]
        assert len(spoken) == 75
        assert len({*spoken} - {"silence"}) > 3
        assert sample.token_labels.keys() == {"video"}
    assert (min(begins), max(begins)) == (0, 80)
    assert all(sample.times.keys() == {"audio", "video"} for sample in corpus.split("train"))


def placed(whole: np.ndarray, part: np.ndarray) -> int:
    """Where a part begins in the whole."""
    return next(at for at in range(len(whole)) if np.array_equal(whole[at : at + len(part)], part))


def test_the_people_of_utd_are_groups_on_request(tmp_path: Path) -> None:
    for groups in (True, False):
        corpus = example("utd_mhad").convert(
            archive("utd_mhad.npz"), tmp_path / f"corpus-{groups}", groups=groups
        )
        of = {sample.group for sample in corpus.split("train")}
        assert of == ({"subject 1", "subject 3", "subject 5"} if groups else {None})


def test_the_videos_of_mosi_are_groups_on_request(tmp_path: Path) -> None:
    """No video stands in two splits, and test has enough of them for intervals to draw whole ones."""
    corpus = example("mosi").convert(archive("mosi_text_audio.npz"), tmp_path / "corpus", groups=True)
    of = {role: {sample.group for sample in split} for role, split in corpus.splits.items()}
    assert {role: len(groups) for role, groups in of.items()} == {"train": 52, "valid": 10, "test": 31}
    assert len(set.union(*of.values())) == 93
    assert inspect_corpus(tmp_path / "corpus").shared_groups == ()


@pytest.mark.parametrize(("name", "file"), [("mosi", "mosi_text_audio.npz"), ("grid", "grid_s1.npz")])
def test_words_are_read_by_a_frozen_encoder(name: str, file: str, tmp_path: Path) -> None:
    folder = save_tiny_tokenizer(save_tiny_bert(tmp_path / "tiny"))
    choice = {"target": "digit"} if name == "grid" else {}
    corpus = example(name).convert(archive(file), tmp_path / "corpus", encoder=folder, **choice)
    assert inspect_corpus(tmp_path / "corpus").problems == ()
    reader = LanguageText(folder)
    sample = corpus.splits["test"][0]
    said = tuple(Word(word, 0.0, 0.0) for word in sample.tokens["text"])
    np.testing.assert_allclose(
        sample.features["text"], reader.read(Words(words=said, timing="spread")).values, atol=1e-6
    )


@pytest.mark.parametrize("name", ["mosi", "grid", "grid_sync", "grid_unclocked", "utd_mhad", "utd_sync"])
def test_a_missing_archive_is_one_line(name: str, tmp_path: Path) -> None:
    more = ["--target", "digit"] if name == "grid" else []
    command = [
        sys.executable,
        str(ROOT / "examples" / f"{name}.py"),
        str(tmp_path / "none.npz"),
        "out",
        *more,
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "none.npz" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_mosi_is_described_without_python(tmp_path: Path) -> None:
    for file in (archive("mosi_text_audio.npz"), ROOT / "examples" / "mosi.toml"):
        shutil.copyfile(file, tmp_path / file.name)
    described = convert("auto", [tmp_path / "mosi.toml"], tmp_path / "described").corpus
    written = example("mosi").convert(archive("mosi_text_audio.npz"), tmp_path / "written")
    for role, split in written.splits.items():
        assert described.split(role).ids == split.ids
        for one, other in zip(described.split(role), split, strict=True):
            assert one.target == other.target
            np.testing.assert_array_equal(one.features["audio"], other.features["audio"])


def test_clips_of_the_demo_show_a_face_and_are_spoken_where_both_are_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = example("demo_video")
    demo.make_clips(tmp_path / "plain", clips={"test": 1})
    write_clip(tmp_path / "face.mp4", 4.0)
    monkeypatch.setattr(demo.shutil, "which", lambda _: None)
    demo.make_clips(tmp_path / "silent", clips={"test": 1}, weights=tmp_path)
    monkeypatch.setattr(demo.shutil, "which", lambda name: name)
    said = np.sin(np.arange(22_050) / 20).astype(np.float32)
    monkeypatch.setattr(demo, "speech", lambda *_: said)
    demo.make_clips(tmp_path / "spoken", clips={"test": 1}, weights=tmp_path)
    found = {
        name: {each.kind: each for each in facts(MediaClip(path=tmp_path / name / "test-000.mp4")).streams}
        for name in ("plain", "silent", "spoken")
    }
    assert found["plain"]["video"].size == (64, 64)
    assert found["silent"]["video"].size == found["spoken"]["video"].size != (64, 64)
    assert found["spoken"]["audio"].end < 1.6 < found["silent"]["audio"].end  # the one that was said
    assert "00:00:00,000 --> 00:00:01,990" in (tmp_path / "spoken" / "test-000.srt").read_text()


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_a_phrase_is_spoken_in_a_high_or_a_low_voice() -> None:
    demo = example("demo_video")
    high, low = (demo.speech("what a lovely day", np.random.default_rng(0), pitch) for pitch in (85, 15))
    assert min(len(high), len(low)) >= demo.SECONDS * demo.SAMPLE_RATE
    assert high.dtype == np.float32
    spectra = [np.abs(np.fft.rfft(sound[8000:24000])) ** 2 for sound in (high, low)]
    periods = [40 + int(np.argmax(np.fft.irfft(spectrum)[40:250])) for spectrum in spectra]
    assert periods[0] < periods[1]  # in samples, of 64 to 400 hertz
