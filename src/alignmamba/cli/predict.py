"""``alignmamba predict``: predictions of a finished run, as a table."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from alignmamba.cli.extract import EngineVerb, clip_progress
from alignmamba.cli.modality_mapping import ApplyingVerb
from alignmamba.cli.verb import say, write
from alignmamba.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Predict(ApplyingVerb, EngineVerb):
    """Predict every sample of a corpus, or media files, and write the predictions to a table.

    Media files are read as those of training were: by the readers, options and weights of the run.

    Columns: id, split, target if known, prediction. A classification adds p(CLASS), the probability of each
    class from 0 to 1.
    """

    clips: Annotated[Positional[tuple[Path, ...]], arg(metavar="[CLIP ...]", help_behavior_hint="")] = ()
    """Media files, or folders of them, in place of --data."""
    data: Annotated[str | None, arg(metavar="PATH|synthetic", help_behavior_hint="(or CLIP)")] = None
    """Corpus directory, or file that `alignmamba convert` reads."""
    out: Annotated[Path, arg(metavar="FILE.csv|.parquet")]
    """Table to write; replaces a file once it is complete. Parquet needs alignmamba[formats]."""
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
        if self.clips:
            return self._predict_clips()
        if self.data is None:
            raise ConfigError("predict: expected --data PATH, a corpus, or media files, found neither")
        from alignmamba.recipes.finished_run import predict

        report = predict(self.directory, self.data, self.out, split=self.split, **self.matching())
        self.tell(report["modalities"], report["corpus"]["name"])
        if self.json:
            self.emit(report)
        else:
            write(f"{report['rows']} predictions ({', '.join(report['splits'])}) in {report['out']}")
        return 0

    def _predict_clips(self) -> int:
        """Predict media files."""
        for name, given in (("data", self.data), ("split", self.split), ("nonfinite", self.nonfinite)):
            if given is not None:
                raise ConfigError(f"{name}: does not go with media files, expected one of --{name} and CLIP")
        from alignmamba.recipes.extraction.clip_predictions import predict_clips

        matching = self.matching()
        with closing(clip_progress()) as progress:
            report = predict_clips(
                self.directory,
                self.clips,
                self.out,
                models=self.models,
                engine=self.clip_engine(),
                max_failed=self.max_failed,
                rename=matching["rename"],
                ignore=matching["ignore"],
                progress=progress,
            )
        for note in report["notes"]:
            say(f"note: {note}")
        self.tell(report["modalities"], report["corpus"]["name"])
        if self.json:
            self.emit(report)
        else:
            write(f"{report['rows']} predictions of media files in {report['out']}")
        return 0
