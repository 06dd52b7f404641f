"""``alignmamba report``: one HTML page of an experiment, a run, or several runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from alignmamba.cli.verb import Verb, console, say


@dataclass(frozen=True, kw_only=True)
class Report(Verb):
    """Write one self-contained HTML page about an experiment, a run, or several runs side by side."""

    directories: Annotated[
        Positional[tuple[Path, ...]], arg(metavar="DIR [DIR ...]", help_behavior_hint="(required)")
    ]
    """Directory of an experiment or of a run; several runs are compared."""
    out: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: DIR/report.html)")] = None
    """Page to write; an existing .html file is replaced. Required to compare several runs."""
    data: Annotated[
        str | None, arg(metavar="PATH", help_behavior_hint="(default: the corpus of the run)")
    ] = None
    """New place of the run's corpus, the source of transcripts, plans and modality scores."""
    files_only: bool = False
    """Build the page of a single run from its files alone, without loading corpus and model."""

    def run(self) -> int:
        """Write the page."""
        from alignmamba.recipes.experiments.grid_run import refresh_tables
        from alignmamba.recipes.report.page import check_page, write_page

        check_page(self.directories, self.out, data=self.data, files_only=self.files_only)
        if len(self.directories) == 1:
            refresh_tables(self.directories[0])
        page = write_page(self.directories, self.out, data=self.data, files_only=self.files_only)
        if page.note:
            say(page.note)
        if self.json:
            note = {"note": page.note} if page.note else {}
            self.emit({"report": str(page.path), "bytes": page.size, "cells": page.cells, **note})
            return 0

        states = ", ".join(f"{count} {state}" for state, count in page.cells.items() if count)
        console().print(f"{page.path} ({page.size / 1e6:.1f} MB): {states or 'no runs'}", soft_wrap=True)
        return 0
