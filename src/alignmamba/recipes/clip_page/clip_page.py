"""The page about a clip: one HTML file with the clip in it, that asks nothing of the network."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from alignmamba import __version__
from alignmamba.errors import ConfigError
from alignmamba.extras import require
from alignmamba.files import read_bounded, replace_file
from alignmamba.recipes.clip_page import clip_sentences
from alignmamba.recipes.clip_page.clip_sight import ClipSight, seen_apart
from alignmamba.recipes.clip_page.clip_study import ClipStudy, check_alike, study_clip
from alignmamba.recipes.extraction.clip_predictions import ClipReading, clips_read, recipe_of
from alignmamba.recipes.extraction.clip_table import media_files
from alignmamba.recipes.finished_run import OpenedRun
from alignmamba.recipes.report.page_parts import package_text, script_json, template_environment
from alignmamba.recipes.report.viewer_data import plan_values
from alignmamba.recipes.run_directory import check_file, check_table

MOST_BYTES: Final = 64 << 20
"""Size of a clip that a page holds; the page of a larger one does not play it."""

_REPORT: Final = "alignmamba.recipes.report"
_PLAYABLE: Final = {
    "mov": "mp4",
    "matroska": "webm",
    "ogg": "ogg",
    "wav": "wav",
    "mp3": "mpeg",
    "flac": "flac",
    "aac": "aac",
    "mpegts": "mp2t",
    "avi": "x-msvideo",
}
"""First of FFmpeg's names of a format to the second part of its media type."""


@dataclass(frozen=True, kw_only=True)
class ClipPage:
    """A page and what it is about."""

    text: str
    study: ClipStudy
    table: Mapping[str, Any] | None
    """Report on the table of predictions, as of `alignmamba.predict`; ``None`` without one."""

    @property
    def headline(self) -> str:
        """Prediction and how sure it is, in a few words."""
        sure = clip_sentences.sureness(self.study)
        return clip_sentences.headline(self.study) + (f" ({sure})" if sure else "")

    def facts(self, path: Path) -> dict[str, Any]:
        """Facts for a report in JSON, of a page that lies at a path."""
        task = self.study.task

        def values(prediction: NDArray[np.float64]) -> float | dict[str, float]:
            numbers: list[float] = prediction.tolist()
            return dict(zip(task.classes, numbers, strict=True)) if task.classes else numbers[0]

        called = self.study.called(self.study.mean)
        return {
            "page": str(path),
            "bytes": len(self.text.encode()),
            "prediction": values(self.study.mean),
            **({} if called is None else {"called": list(called)}),
            "runs": [
                {
                    "run": answer.run,
                    "seed": answer.seed,
                    "prediction": values(answer.complete),
                    **({} if answer.thresholds is None else {"thresholds": values(answer.thresholds)}),
                    "without": {name: values(each) for name, each in answer.without.items()},
                }
                for answer in self.study.answers
            ],
            "notes": list(self.study.notes),
        }


def opened_runs(run: str | Path, also: Sequence[str | Path] = ()) -> tuple[OpenedRun, ...]:
    """Open runs that can be asked about one clip together, and check what a page needs.

    Args:
        run: Directory of the run whose plan is drawn.
        also: Directories of further runs, such as those of other seeds.

    Raises:
        AlignMambaError: If a run cannot be used, or differs from the first in recipe or task.
    """
    require("page", "media", "av", "pebble", "PIL", "jinja2")
    opened = tuple(OpenedRun.open(each) for each in (run, *also))
    for each in opened:
        recipe_of(each)
    check_alike(opened)
    return opened


def write_clip_page(
    run: str | Path,
    files: Sequence[Path],
    page: Path,
    *,
    also: Sequence[str | Path] = (),
    out: Path | None = None,
    reading: ClipReading = ClipReading(),  # noqa: B008 # immutable
) -> ClipPage:
    """Predict one media file and write a page about it.

    Args:
        run: Directory of the run.
        files: The one media file.
        page: File that ends in ``.html``; an existing one is replaced.
        also: Directories of further runs, whose predictions show how much the first's may vary.
        out: Table of the prediction of the first run, as of `predict_clips`.
        reading: How the clip is read.

    Raises:
        AlignMambaError: If the runs, the file, weights or the page cannot be used.
    """
    check_file(page, ".html")
    if out is not None:
        check_table(out)
    found = media_files(files)
    if len(found) != 1:
        raise ConfigError(f"html: a page shows one clip, found {len(found)}; drop --html or name one of them")
    made = clip_page(opened_runs(run, also), found[0], out=out, reading=reading)
    replace_file(page, made.text.encode())
    return made


def clip_page(
    runs: Sequence[OpenedRun],
    clip: Path,
    *,
    name: str = "",
    back: bool = False,
    out: Path | None = None,
    reading: ClipReading = ClipReading(),  # noqa: B008 # immutable
) -> ClipPage:
    """Read a clip, ask all runs about it and render the page. Arguments are those of `write_clip_page`.

    Args:
        runs: From `opened_runs`; the plan is that of the first.
        clip: The media file.
        name: Name of the file that the page shows; by default its own.
        back: Link to the page where another clip can be given.
        out: Table of the prediction of the first run.
        reading: How the clip is read.

    Raises:
        AlignMambaError: If the clip cannot be read or predicted.
    """
    with clips_read(runs[0], [clip], replace(reading, max_failed=0)) as read:
        table = None if out is None else read.table(out)
        sight = seen_apart(clip, seconds=reading.engine.limit)
        study = study_clip(read, runs[1:], sight, name=name or clip.name)
    content = None if clip.stat().st_size > MOST_BYTES else read_bounded(clip, limit_bytes=MOST_BYTES)
    return ClipPage(text=render(study, content, back=back), study=study, table=table)


def render(study: ClipStudy, clip: bytes | None, *, back: bool = False) -> str:
    """The page as text.

    Args:
        study: All that it says.
        clip: Content of the media file; ``None`` for a page that does not play it.
        back: Link to the page where another clip can be given.
    """
    from markupsafe import Markup

    style = package_text("palette.css", _REPORT) + package_text("clip.css", __package__)
    script = package_text("elements.js", _REPORT) + package_text("player.js", __package__)
    environment = template_environment()
    environment.filters |= {"title": clip_sentences.title}
    return environment.from_string(package_text("clip.html.j2", __package__)).render(
        version=__version__,
        policy=policy(style, script),
        style=Markup(style),
        script=Markup(script),
        data=Markup(script_json(player_data(study, playable=clip is not None))),
        clip=None if clip is None else Markup(base64.b64encode(clip).decode()),
        most_megabytes=MOST_BYTES >> 20,
        back=back,
        study=study,
        words=_words(study),
        headline=clip_sentences.headline(study),
        sureness=clip_sentences.sureness(study),
        confidence=clip_sentences.confidence(study),
        bars=clip_sentences.bars(study),
        calling=clip_sentences.calling(study),
        scale=clip_sentences.scale(study),
        effects=clip_sentences.effects(study),
        label_effects=clip_sentences.label_effects(study),
        effect_words=clip_sentences.effect_words(study),
        further_targets=clip_sentences.further_targets(study),
        runs=clip_sentences.runs_words(study),
        facts=list(clip_sentences.facts(study)),
    )


def policy(style: str, script: str, *more: str) -> str:
    """Content security policy of a page that holds this style and this script and loads nothing.

    Args:
        style: Text of the style element.
        script: Text of the script element.
        more: Further directives.
    """

    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    directives = (
        "default-src 'none'",
        f"style-src {source(style)}",
        f"script-src {source(script)}",
        "img-src data:",
        "media-src blob:",
        "base-uri 'none'",
        *(more or ("form-action 'none'",)),
    )
    return "; ".join(directives)


def _words(study: ClipStudy) -> str:
    """Words that were spoken, for readers without scripts."""
    return next((" ".join(lane.tokens) for lane in study.lanes if lane.tokens), "")


def player_data(study: ClipStudy, *, playable: bool) -> dict[str, Any]:
    """Values for ``player.js``."""
    plan = None if study.plan is None else plan_values(study.plan)
    sources = [] if plan is None else [source["modality"] for source in plan["sources"]]
    order = [lane.modality for lane in study.lanes]
    if plan is not None:  # the anchor after the first source, so that links lie on both of its sides
        order = [*sources[:1], plan["anchor"]["modality"], *sources[1:]]
        order += [lane.modality for lane in study.lanes if lane.modality not in order]
    lanes = {lane.modality: lane for lane in study.lanes}
    sight = study.sight
    return {
        "seconds": max(
            0.01, sight.seconds, *(float(lane.times[-1] or 0) for lane in study.lanes if lane.times)
        ),
        "type": media_type(sight) if playable else None,
        "pictures": [
            [seconds, f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"]
            for seconds, picture in sight.pictures
        ],
        "loudness": {"seconds": sight.bin_seconds, "values": sight.loudness},
        "lanes": [
            {
                "modality": name,
                "title": clip_sentences.title(name),
                "length": lanes[name].length,
                "tokens": lanes[name].tokens,
                "times": lanes[name].times,
            }
            for name in order
        ],
        "anchor": None if plan is None else plan["anchor"]["modality"],
        "links": []
        if plan is None
        else [
            {name: source[name] for name in ("modality", "marginal", "index", "similarity")}
            for source in plan["sources"]
        ],
    }


def media_type(sight: ClipSight) -> str:
    """Media type of a clip, by which a browser decides whether it can play it."""
    kind = "video" if any(kind == "video" for kind, _ in sight.codecs) else "audio"
    first = sight.container.partition(",")[0]
    return f"{kind}/{_PLAYABLE.get(first, f'x-{first}')}"
