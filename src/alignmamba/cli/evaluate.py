"""``alignmamba evaluate``: score a finished run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import UseAppendAction, arg

from alignmamba.cli.modality_mapping import ApplyingVerb, heading
from alignmamba.cli.terminal_tables import (
    labels_table,
    metrics_table,
    missing_line,
    patterns_table,
    reference_table,
    thresholds_line,
)
from alignmamba.cli.verb import PROTOCOLS, console, say


@dataclass(frozen=True, kw_only=True)
class Evaluate(ApplyingVerb):
    """Score a finished run on a split, with all modalities or with some withheld."""

    data: Annotated[
        str | None, arg(metavar="PATH|synthetic", help_behavior_hint="(default: the corpus of the run)")
    ] = None
    """Corpus to score on, or the new place of the run's own corpus."""
    split: Literal["train", "valid", "test"] = "test"
    """Split to score."""
    drop: Annotated[
        tuple[tuple[str, ...], ...],
        UseAppendAction,
        arg(metavar="MODALITY ...", help_behavior_hint="(repeatable)"),
    ] = ()
    """Modalities to withhold from every sample; scores with all modalities are shown too."""
    missing_protocol: Annotated[str | None, arg(metavar=PROTOCOLS, help_behavior_hint="(default: none)")] = (
        None
    )
    """Withhold modalities from samples; scores with all modalities are shown too.
    gcnet: each modality with probability R, but never all of a sample.
    imder-sample: none, one, or all but one, in the published shares, drawn for each sample.
    imder-batch: as imder-sample, drawn for groups of 32 samples.
    fixed: keep every proper subset of the modalities in turn.
    tokens: single tokens of all modalities."""
    missing_rate: Annotated[float | None, arg(metavar="R", help_behavior_hint="(default: none)")] = None
    """Share to withhold, from 0 to below 1; not for fixed."""
    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: none)")] = None
    """Directory for predictions.csv; a protocol adds predictions_missing.csv and missing.csv."""

    def run(self) -> int:
        """Evaluate."""
        from alignmamba.evaluation.metrics import undefined_notes
        from alignmamba.recipes.configuration import check_missing
        from alignmamba.recipes.finished_run import evaluate

        drop = [name for group in self.drop for name in group]
        missing = None
        if self.missing_protocol is not None or self.missing_rate is not None:
            missing = check_missing(
                self.missing_protocol, () if self.missing_rate is None else (self.missing_rate,)
            )
        report = evaluate(
            self.directory,
            data=self.data,
            split=self.split,
            drop=drop,
            missing=missing,
            out=self.out,
            **self.matching(),
        )
        self.tell(report["modalities"], report["corpus"]["name"])
        if self.json:
            self.emit(report)
            return 0

        title = (
            f"{report['run']} on {report['split']} of {report['corpus']['name']}, {report['samples']} samples"
        )
        columns = {heading(report["modalities"]): report["metrics"]}
        if drop:
            columns |= {
                f"without {' and '.join(report['dropped'])}": report["metrics_dropped"],
                "change": report["change"],
            }
        if missing is not None:
            columns |= {missing.protocol: report["metrics_missing"], "change": report["change"]}
        screen = console()
        screen.print(metrics_table(title, columns))
        for name, scores in columns.items():
            if (labels := labels_table(f"labels, {name}", scores)) is not None:
                screen.print(labels)
        for note in undefined_notes(report["split"], report["metrics"]):
            say(f"note: {note}")
        if "thresholds" in report:
            screen.print(thresholds_line(report["thresholds"]), soft_wrap=True)
        if missing is not None:
            facts = report["missing"]
            screen.print(missing_line(facts, {report["split"]: facts["effective_rate"]}))
            if "patterns" in facts:
                screen.print(patterns_table(facts["patterns"]))
        if report["references"]:
            screen.print(
                reference_table(report["references"], report["distance_covered"], split=report["split"])
            )
        return 0
