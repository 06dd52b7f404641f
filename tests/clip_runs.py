"""Runs on clips that tests make, so small that reading and training take seconds."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignmamba import FitConfig, RunConfig, train
from alignmamba.data.leading_target import LeadingConfig
from alignmamba.media.recipe import composed
from alignmamba.recipes.extraction.clip_table import labelled_clips
from alignmamba.recipes.extraction.extraction import extract
from made_clips import write_clip

SUBTITLES = "WEBVTT\n\n00:00.000 --> 00:00.800\n<00:00.100>so <00:00.300>very <00:00.500>kind\n"
"""Words with times of their own."""
OPTIONS: dict[str, Any] = {"d_model": 16, "depth": 1, "d_state": 4}


@dataclass(frozen=True, kw_only=True)
class ClipRuns:
    """Clips and finished runs on them."""

    clips: Path
    corpus: Path
    first: Path
    second: Path
    """Another seed."""
    late: Path
    """Late fusion, which aligns nothing."""
    scores: Path
    """A regression from -3 to 3, of the same recipe."""
    moods: Path
    """Several labels, called from thresholds by the valid split."""
    half: Path
    """The same of another seed, called from one half on."""
    grades: Path
    """Ordered classes."""


def make_clip_runs(folder: Path) -> ClipRuns:
    """Write eight clips of a second with subtitles, read them once, and train on them."""
    clips = folder / "clips"
    clips.mkdir()
    rows = ["file,label,split,score,happy,sad,grade"]
    for number, split in enumerate(["train"] * 4 + ["valid"] * 2 + ["test"] * 2):
        write_clip(clips / f"c{number}.mp4", 1.0)
        (clips / f"c{number}.vtt").write_text(SUBTITLES)
        label, grade = ("sad", "glad")[number % 2], ("poor", "fair", "good")[number % 3]
        sad = "01101001"[number]
        rows.append(f"c{number}.mp4,{label},{split},{number % 2 * 2 - 1.5},{number % 2},{sad},{grade}")
    (clips / "labels.csv").write_text("\n".join([*rows, ""]))
    recipe = composed(
        {"text": "hashed", "words": "subtitles", "audio": "logmel", "video": "pixels"}, {"text.width": 32}
    ).recipe
    corpus, scored = folder / "corpus", folder / "scored"
    table = labelled_clips(clips, clips / "labels.csv")
    extract(table, recipe, corpus)
    by_score = LeadingConfig(labels=("score",), label_range=(-3.0, 3.0))
    (folder / "corpus.clips").rename(folder / "scored.clips")  # read once
    extract(labelled_clips(clips, clips / "labels.csv", by_score), recipe, scored)

    def trained(name: str, data: Path, fit: Mapping[str, Any] = {}, **settings: Any) -> Path:
        config = RunConfig(data=str(data), fit=FitConfig(**{"epochs": 1, **fit}), **settings)
        return train(config, out=folder / name, progress=None).directory

    moods = LeadingConfig(labels=("happy", "sad"))
    graded = LeadingConfig(labels=("grade",), kind="ordinal", classes=("poor", "fair", "good"))
    return ClipRuns(
        clips=clips,
        corpus=corpus,
        first=trained("first", corpus, options=OPTIONS),
        second=trained("second", corpus, options=OPTIONS, seed=1),
        late=trained("late", corpus, model="late-fusion", options={"d_model": 16}),
        scores=trained("scores", scored, options=OPTIONS),
        moods=trained("moods", corpus, {"thresholds": "validation"}, options=OPTIONS, leading=moods),
        half=trained("half", corpus, options=OPTIONS, leading=moods, seed=1),
        grades=trained("grades", corpus, options=OPTIONS, leading=graded),
    )
