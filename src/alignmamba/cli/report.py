"""``alignmamba report``: one HTML page of an experiment or a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from alignmamba.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class Report(Verb):
    """Write one self-contained HTML page of an experiment, finished or not, or of a single run: tables, figures, plans, samples."""

    directory: Annotated[Positional[Path], arg(metavar="DIR")]
    """Directory of the experiment or the run."""
    out: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: DIR/report.html)")] = None
    """The page; a file that is there is replaced if its name ends in .html."""

    def run(self) -> int:
        """Write the page."""
        from alignmamba.recipes.experiments import refresh_tables
        from alignmamba.recipes.report.rendering import write_page

        refresh_tables(self.directory)
        page = write_page(self.directory, self.out)
        if self.json:
            self.emit({"report": str(page.path), "bytes": page.size, "cells": page.cells})
            return 0
        from alignmamba.cli.verb import console

        states = ", ".join(f"{count} {state}" for state, count in page.cells.items() if count)
        console().print(f"{page.path} ({page.size / 1e6:.1f} MB): {states or 'no runs'}", soft_wrap=True)
        return 0
