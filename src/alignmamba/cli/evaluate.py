"""``alignmamba evaluate``: score a finished run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from alignmamba.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class Evaluate(Verb):
    """Score a finished run on a split, on request with some modalities withheld."""

    directory: Annotated[Positional[Path], arg(metavar="RUN")]
    """Directory of the run."""
    data: Annotated[str | None, arg(metavar="PATH|synthetic", help_behavior_hint="(default: the corpus of the run)")] = None
    """Another corpus to score on, or where the run's own lies now."""
    split: Literal["train", "valid", "test"] = "test"
    """Part of the corpus."""
    drop: Annotated[tuple[tuple[str, ...], ...], UseAppendAction, arg(metavar="MODALITY ...", help_behavior_hint="(repeatable)")] = ()
    """Modalities to withhold from every sample; the scores with all of them stand beside."""
    nonfinite: Annotated[
        Literal["error", "zero", "mean"] | None, arg(metavar="{error,zero,mean}", help_behavior_hint="(default: as in training)")
    ] = None
    """Features that are not finite: refuse the corpus, or read 0 or the channel's mean over the train split instead."""

    def run(self) -> int:
        """Evaluate."""
        from alignmamba.recipes import evaluate

        drop = [name for group in self.drop for name in group]
        report = evaluate(self.directory, data=self.data, split=self.split, drop=drop, nonfinite=self.nonfinite)
        if self.json:
            self.emit(report)
            return 0
        from alignmamba.cli.tables import metrics_table, reference_table
        from alignmamba.cli.verb import console

        title = f"{report['run']} on {report['split']} of {report['corpus']['name']}, {report['samples']} samples"
        columns = {"all modalities": report["metrics"]}
        if drop:
            columns |= {f"without {' and '.join(report['dropped'])}": report["metrics_dropped"], "change": report["change"]}
        screen = console()
        screen.print(metrics_table(title, columns))
        if report["references"]:
            screen.print(reference_table(report["references"], report["distance_covered"], split=report["split"]))
        return 0
