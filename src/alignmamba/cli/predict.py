"""``alignmamba predict``: predictions of a finished run, as a table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from alignmamba.cli.modality_mapping import ApplyingVerb
from alignmamba.cli.verb import write


@dataclass(frozen=True, kw_only=True)
class Predict(ApplyingVerb):
    """Predict every sample of a corpus, labelled or not, and write the predictions to a table.

    Columns: id, split, target if known, prediction. A classification adds p(CLASS), the probability of each
    class from 0 to 1.
    """

    data: Annotated[str, arg(metavar="PATH|synthetic")]
    """Corpus directory, or file that `alignmamba convert` reads."""
    out: Annotated[Path, arg(metavar="FILE.csv|.parquet")]
    """Table to write; replaces a file once it is complete. Parquet needs alignmamba[formats]."""
    split: Annotated[
        Literal["train", "valid", "test"] | None,
        arg(metavar="{train,valid,test}", help_behavior_hint="(default: every split)"),
    ] = None
    """Split to predict."""

    def run(self) -> int:
        """Predict."""
        from alignmamba.recipes.finished_run import predict

        report = predict(self.directory, self.data, self.out, split=self.split, **self.matching())
        self.tell(report["modalities"], report["corpus"]["name"])
        if self.json:
            self.emit(report)
        else:
            write(f"{report['rows']} predictions ({', '.join(report['splits'])}) in {report['out']}")
        return 0
