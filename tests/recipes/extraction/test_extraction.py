"""Extraction: one corpus however often it was interrupted, failures by name, other recipes kept apart."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignmamba import load_corpus
from alignmamba.errors import ConfigError, DataError
from alignmamba.media.clip import MediaClip
from alignmamba.media.recipe import Recipe, composed
from alignmamba.recipes.extraction.clip_engines import ClipEngine, outcomes
from alignmamba.recipes.extraction.clip_store import ClipStore, clip_key
from alignmamba.recipes.extraction.clip_table import files_alone, labelled_clips
from alignmamba.recipes.extraction.clip_work import ClipOrder, read_clip
from alignmamba.recipes.extraction.extraction import FAILED, Extraction, extract, store_of
from made_clips import write_clip

CHOSEN: dict[Any, str] = {"text": "hashed", "words": "subtitles", "audio": "logmel", "video": "pixels"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips: whole ones, one without words, one without pictures, and a table of them."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(5):
        write_clip(folder / f"c{number}.mp4", 0.6 + 0.1 * number)
        if number:
            (folder / f"c{number}.srt").write_text(f"1\n00:00:00,000 --> 00:00:00,500\nword number{number}\n")
    write_clip(folder / "voice.wav", 0.5)
    names = [*(f"c{number}.mp4" for number in range(5)), "voice.wav"]
    splits = ["train", "train", "train", "valid", "test", "test"]
    rows = [
        f"{name},{number},{split}" for number, (name, split) in enumerate(zip(names, splits, strict=True))
    ]
    (folder / "labels.csv").write_text("\n".join(["file,label,split", *rows, ""]))
    return folder


def recipe(**changes: str) -> Recipe:
    return composed({**CHOSEN, **changes}, {}).recipe


def extracted(folder: Path, out: Path, **options: Any) -> Extraction:
    table = labelled_clips(folder, folder / "labels.csv")
    return extract(table, options.pop("recipe", None) or recipe(), out, **options)


def test_every_clip_lies_in_the_corpus_with_its_times_words_and_recipe(clips: Path, tmp_path: Path) -> None:
    done = extracted(clips, tmp_path / "corpus")
    assert (done.clips, done.failed, done.cached) == (6, 0, 0)
    assert dict(done.present) == {"text": 4, "audio": 6, "video": 5}
    corpus = load_corpus(tmp_path / "corpus")
    assert [spec.name for spec in corpus.modalities] == ["text", "audio", "video"]
    assert corpus.split("train").ids == ("c0", "c1", "c2")
    second = corpus.split("train")[1]
    assert second.tokens["text"] == ("word", "number1")
    assert second.text == "word number1"
    assert second.target == 1.0
    assert 0 <= second.times["audio"][0] < second.times["audio"][-1] < 0.75
    assert set(corpus.split("test")[1].features) == {"audio"}
    assert Recipe.read(dict(corpus.recipe), "corpus") == recipe()


def test_what_was_read_is_not_read_again(clips: Path, tmp_path: Path) -> None:
    first = extracted(clips, tmp_path / "corpus")
    again = extracted(clips, tmp_path / "corpus", overwrite=True, resume=True)
    assert (again.cached, again.clips) == (6, 6)
    assert again.corpus is not None
    assert first.corpus is not None
    assert again.corpus.checksum == first.corpus.checksum
    other = extracted(clips, tmp_path / "corpus", overwrite=True, recipe=recipe(video="none"))
    assert other.cached == 0
    assert set(other.present) == {"text", "audio"}


def test_shards_read_their_parts_and_a_last_call_writes_the_corpus(clips: Path, tmp_path: Path) -> None:
    whole = extracted(clips, tmp_path / "whole")
    for number in (1, 2):
        part = extracted(clips, tmp_path / "parts", shard=(number, 2))
        assert (part.clips, part.corpus) == (3, None)
        assert not (tmp_path / "parts").exists()
    last = extracted(clips, tmp_path / "parts")
    assert last.cached == 6
    assert last.corpus is not None
    assert whole.corpus is not None
    assert last.corpus.checksum == whole.corpus.checksum


def test_two_workers_read_the_same(clips: Path, tmp_path: Path) -> None:
    one, two = (
        extracted(clips, tmp_path / f"by{workers}", engine=ClipEngine(workers=workers)) for workers in (1, 2)
    )
    assert one.corpus is not None
    assert two.corpus is not None
    assert one.corpus.checksum == two.corpus.checksum


def broken_beside(clips: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "some"
    folder.mkdir()
    for name in ("c0.mp4", "c1.mp4", "c3.mp4", "c4.mp4"):
        (folder / name).write_bytes((clips / name).read_bytes())
    (folder / "bad.mp4").write_bytes(b"no media at all")
    (folder / "labels.csv").write_text(
        "file,label,split\nc0.mp4,0,train\nc1.mp4,1,train\nbad.mp4,5,train\nc3.mp4,1,valid\nc4.mp4,2,test\n"
    )
    return folder


def test_a_clip_that_fails_is_named_and_ends_the_extraction_unless_it_may(
    clips: Path, tmp_path: Path
) -> None:
    folder, out = broken_beside(clips, tmp_path), tmp_path / "corpus"
    with pytest.raises(DataError, match=r"1 of 5 clips failed.*--max-failed.*bad\.mp4: cannot be read"):
        extracted(folder, out)
    assert not out.exists()
    with (store_of(out) / FAILED).open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["id"], row["file"]) == ("bad", str(folder / "bad.mp4"))
    assert "cannot be read" in row["reason"]
    done = extracted(folder, out, max_failed=1)
    assert (done.failed, done.cached) == (1, 4)
    assert load_corpus(out).split("train").ids == ("c0", "c1")


def test_a_clip_without_any_modality_fails_with_the_reasons(clips: Path, tmp_path: Path) -> None:
    table = files_alone([clips / "voice.wav"])
    with pytest.raises(DataError, match=r"expected at least one modality, found none .*video:"):
        extract(table, recipe(text="none", audio="none"), tmp_path / "corpus")


def test_a_segment_beyond_its_file_is_noted_and_one_outside_it_fails(clips: Path) -> None:
    reader = composed({**CHOSEN, "words": "spread"}, {})
    late = reader.read(MediaClip(path=clips / "c0.mp4", start=0.2, end=60, text="one two"))
    assert "the segment ends at 60 s, and the file at 0.6 s" in late.notes
    assert late.tracks["text"].times.max() < 0.4
    for start in (0.7, 60.0):
        with pytest.raises(
            DataError, match=r"c0\.mp4: found 0\.6. s of media, expected a segment that begins"
        ):
            reader.read(MediaClip(path=clips / "c0.mp4", start=start, text="one two"))


def test_subtitles_of_a_longer_file_are_noted(clips: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes((clips / "c0.mp4").read_bytes())
    cue = "1\n00:00:00,000 --> 00:00:00,500\nin time\n\n2\n00:00:05,000 --> 00:00:06,000\ntoo late now\n"
    path.with_suffix(".srt").write_text(cue)
    content = composed(CHOSEN, {}).read(MediaClip(path=path))
    assert "3 of 5 words begin after the end of the file" in content.notes


def test_resuming_another_recipe_or_nothing_is_refused(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    with pytest.raises(ConfigError, match=r"resume: found no .*extraction\.json"):
        extracted(clips, out, resume=True)
    extracted(clips, out, shard=(1, 6))
    with pytest.raises(ConfigError, match=r"resume: video: found none, expected pixels"):
        extracted(clips, out, resume=True, recipe=recipe(video="none"))


def test_a_damaged_clip_of_the_store_is_read_again(clips: Path, tmp_path: Path) -> None:
    extracted(clips, tmp_path / "corpus")
    store = store_of(tmp_path / "corpus")
    for path in list(store.rglob("*.safetensors"))[:2]:
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
    again = extracted(clips, tmp_path / "corpus", overwrite=True)
    assert again.cached == 4


def test_the_key_knows_file_segment_text_transcript_and_recipe(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_clip(path, 0.3)
    plain = MediaClip(path=path)
    keys = [clip_key(plain, "r"), clip_key(plain, "other")]
    changes: list[dict[str, Any]] = [{"start": 0.1}, {"end": 0.2}, {"text": "a"}]
    keys += [clip_key(MediaClip(path=path, **change), "r") for change in changes]
    (tmp_path / "a.txt").write_text("hello")
    keys.append(clip_key(plain, "r"))
    (tmp_path / "a.txt").write_text("goodbye")
    keys.append(clip_key(plain, "r"))
    write_clip(path, 0.4)
    keys.append(clip_key(plain, "r"))
    assert len(set(keys)) == len(keys)
    assert clip_key(plain, "r") == keys[-1]


def test_a_store_gives_back_what_was_put_in(clips: Path, tmp_path: Path) -> None:
    reader, store = composed(CHOSEN, {}), ClipStore(tmp_path)
    content = reader.read(MediaClip(path=clips / "c1.mp4"))
    store.put("ab" * 32, content)
    back = store.get("ab" * 32)
    assert back is not None
    assert (back.text, back.notes, back.absent) == (content.text, content.notes, content.absent)
    for name, track in content.tracks.items():
        np.testing.assert_array_equal(back.tracks[name].values, track.values)
        np.testing.assert_array_equal(back.tracks[name].times, track.times)
        assert back.tracks[name].tokens == track.tokens
    assert store.get("cd" * 32) is None


def order_for(store: Path) -> ClipOrder:
    return ClipOrder(store=store, recipe=recipe().model_dump_json(), models=None)


def test_slurm_reads_the_same(clips: Path, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    work = [(row, each.clip) for row, each in enumerate(files_alone([clips]).rows)]
    engine = ClipEngine(kind="slurm", workers=2, options={"cluster": "local"})
    found = {each.row: each.key for each in outcomes(order_for(tmp_path), work, engine)}
    assert found == {row: read_clip(order_for(tmp_path / "other"), row, clip).key for row, clip in work}


def test_ray_reads_the_same(clips: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    work = [(row, each.clip) for row, each in enumerate(files_alone([clips]).rows)]
    work.append((len(work), MediaClip(path=tmp_path / "nowhere.mp4")))
    engine = ClipEngine(kind="ray", workers=2, options={"num_cpus": 2, "include_dashboard": False})
    found = {each.row: each for each in outcomes(order_for(tmp_path / "store"), work, engine)}
    assert "nowhere.mp4" in found.pop(len(work) - 1).failure
    wanted = {row: read_clip(order_for(tmp_path / "other"), row, clip).key for row, clip in work[:-1]}
    assert {row: each.key for row, each in found.items()} == wanted


def test_a_killed_extraction_leaves_no_process_and_resumes_to_the_same_corpus(
    clips: Path, tmp_path: Path
) -> None:
    whole, out = extracted(clips, tmp_path / "whole"), tmp_path / "corpus"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "alignmamba",
            "extract",
            str(clips),
            "--out",
            str(out),
            "--words",
            "subtitles",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    store, until = store_of(out), time.monotonic() + 120
    while not list(store.rglob("*.safetensors")) and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while _alive(process.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _alive(process.pid)
    kept = len(list(store.rglob("*.safetensors")))
    assert kept >= 1
    assert not out.exists()
    done = extracted(clips, out, resume=True)
    assert done.cached == kept  # nothing that was whole is lost
    assert done.corpus is not None
    assert whole.corpus is not None
    assert done.corpus.checksum == whole.corpus.checksum


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_extraction_ends_in_order(clips: Path, tmp_path: Path, number: signal.Signals) -> None:
    out, store, until = tmp_path / "corpus", store_of(tmp_path / "corpus"), time.monotonic() + 120
    command = ["extract", str(clips), "--out", str(out), "--words", "subtitles"]
    process = subprocess.Popen(
        [sys.executable, "-m", "alignmamba", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not list(store.rglob("*.safetensors")) and time.monotonic() < until:
        time.sleep(0.005)
    os.kill(process.pid, number)
    _, said = process.communicate(timeout=120)
    while _alive(process.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _alive(process.pid)
    assert "Traceback" not in said
    if not out.exists():  # else it was quicker than the signal
        assert process.returncode == 130
        assert said.splitlines()[-1] == "interrupted"


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_recipe_lies_in_the_run(clips: Path, tmp_path: Path) -> None:
    from alignmamba import FitConfig, RunConfig, train

    extracted(clips, tmp_path / "corpus")
    sizes = {"d_model": 16, "depth": 1}
    config = RunConfig(data=str(tmp_path / "corpus"), fit=FitConfig(epochs=1), options=sizes)
    train(config, out=tmp_path / "run", progress=None)
    stored = json.loads((tmp_path / "run" / "run.json").read_text())
    assert Recipe.read(stored["recipe"], "run") == recipe()
