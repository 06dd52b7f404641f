"""``alignmamba predict``: predictions of a finished run, as a table."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from alignmamba.cli.extract import EngineVerb, clip_progress, first_of
from alignmamba.cli.modality_mapping import ApplyingVerb
from alignmamba.cli.verb import option_name, say, write
from alignmamba.errors import ConfigError

if TYPE_CHECKING:
    from alignmamba.recipes.extraction.clip_predictions import ClipReading


@dataclass(frozen=True, kw_only=True)
class Predict(ApplyingVerb, EngineVerb):
    """Predict every sample of a corpus, or media files, and write the predictions to a table.

    Media files are read as those of training were: by the readers, options and weights of the run.

    Columns: id, split, target if known, prediction. A classification adds p(CLASS), the probability of each
    class from 0 to 1. Targets of tokens get a table of their own, FILE-MODALITY, with the token and its time.
    """

    clips: Annotated[Positional[tuple[Path, ...]], arg(metavar="[CLIP ...]", help_behavior_hint="")] = ()
    """Media files, or folders of them, in place of --data."""
    data: Annotated[str | None, arg(metavar="PATH|synthetic", help_behavior_hint="(or CLIP)")] = None
    """Corpus directory, or file that `alignmamba convert` reads."""
    out: Annotated[
        Path | None, arg(metavar="FILE.csv|.parquet", help_behavior_hint="(required without --html)")
    ] = None
    """Table to write; replaces a file once it is complete. Parquet needs alignmamba[formats]."""
    html: Annotated[Path | None, arg(metavar="FILE.html", help_behavior_hint="(default: none)")] = None
    """Page to write about one CLIP: it plays, with what the model matched and needed. Holds the clip."""
    also: Annotated[tuple[Path, ...], arg(metavar="RUN ...", help_behavior_hint="(default: none)")] = ()
    """Further runs for the page, for example of other seeds: it shows how much predictions vary."""
    split: Annotated[
        Literal["train", "valid", "test"] | None,
        arg(metavar="{train,valid,test}", help_behavior_hint="(default: every split)"),
    ] = None
    """Split to predict."""
    models: Annotated[
        Path | None, arg(metavar="FOLDER", help_behavior_hint="(default: where training found them)")
    ] = None
    """Folder of the weights that read media files."""

    def run(self) -> int:
        """Predict."""
        self._check()
        if self.html is not None:
            return self._show_clip(self.html)
        assert self.out is not None
        if self.clips:
            return self._predict_clips(self.out)
        assert self.data is not None
        from alignmamba.recipes.finished_run import predict

        report = predict(self.directory, self.data, self.out, split=self.split, **self.matching())
        self.tell(report["modalities"], report["corpus"]["name"])
        if self.json:
            self.emit(report)
        else:
            write(f"{report['rows']} predictions ({', '.join(report['splits'])}) in {report['out']}")
            _write_places(report)
        return 0

    def _check(self) -> None:
        """Refuse options that do not go together, before anything is opened."""
        if self.out is None and self.html is None:
            raise ConfigError("predict: expected --out FILE.csv|.parquet; see alignmamba predict --help")
        if not self.clips and self.html is not None:
            raise ConfigError("html: expected one CLIP to show, found none")
        if not self.clips and self.data is None:
            raise ConfigError("predict: expected --data PATH, a corpus, or media files, found neither")
        if self.also and self.html is None:
            raise ConfigError("also: goes with --html, whose page shows several runs")
        for name in () if self.clips else ("models", "workers", "engine", "cluster", "limit", "max_failed"):
            if getattr(self, name) != getattr(type(self), name):
                raise ConfigError(f"{option_name(name)}: goes with media files, found --data alone")
        others = (("data", self.data), ("split", self.split), ("nonfinite", self.nonfinite))
        for name, given in others if self.clips else ():
            if given is not None:
                raise ConfigError(f"{name}: does not go with media files, expected one of --{name} and CLIP")

    @contextmanager
    def _reading(self) -> "Iterator[ClipReading]":
        """Yield the choices of how media files are read, with progress."""
        from alignmamba.recipes.extraction.clip_predictions import ClipReading

        matching = self.matching()
        with closing(clip_progress()) as progress:
            yield ClipReading(
                models=self.models,
                engine=self.clip_engine(),
                max_failed=self.max_failed,
                rename=matching["rename"],
                ignore=matching["ignore"],
                progress=progress,
            )

    def _show_clip(self, page: Path) -> int:
        """Predict one media file and write a page about it."""
        from alignmamba.recipes.clip_page.clip_page import write_clip_page

        with self._reading() as reading:
            made = write_clip_page(
                self.directory, self.clips, page, also=self.also, out=self.out, reading=reading
            )
        absent = [
            f"no {name}: {why}; the prediction does without it" for name, why in made.study.absent.items()
        ]
        for note in (*made.study.notes, *absent):
            say(f"note: {note}")
        if self.json:
            self.emit({**(made.table or {}), **made.facts(page)})
            return 0
        if made.table is not None:
            write(f"{made.table['rows']} predictions of media files in {made.table['out']}")
        write(f"{made.headline} in {page} ({len(made.text) / 1e6:.1f} MB)")
        return 0

    def _predict_clips(self, out: Path) -> int:
        """Predict media files."""
        from alignmamba.recipes.extraction.clip_predictions import predict_clips

        with self._reading() as reading:
            report = predict_clips(self.directory, self.clips, out, reading)
        for note in first_of(report["notes"]):
            say(f"note: {note}")
        self.tell(report["modalities"], report["corpus"]["name"])
        if self.json:
            self.emit(report)
        else:
            write(f"{report['rows']} predictions of media files in {report['out']}")
            _write_places(report)
        return 0


def _write_places(report: Mapping[str, Any]) -> None:
    """Name the tables of tokens, if there are any."""
    for modality, place in report.get("tokens", {}).items():
        write(f"those of the tokens of {modality} in {place}")
