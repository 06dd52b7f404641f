"""``alignmamba demo``: a local page on which others try clips."""

import os
import sys
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from alignmamba.cli.verb import Verb, say
from alignmamba.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Demo(Verb):
    """Serve a page on this machine on which a clip is dropped or recorded, and predicted.

    It listens on 127.0.0.1 alone. Files are deleted when the answer is made. Ctrl-C ends it.
    """

    directory: Annotated[Positional[Path], arg(metavar="RUN")]
    """Directory of the run."""
    also: Annotated[tuple[Path, ...], arg(metavar="RUN ...", help_behavior_hint="(default: none)")] = ()
    """Further runs, for example of other seeds: pages show how much predictions vary."""
    port: Annotated[int, arg(metavar="N")] = 0
    """Port to listen on; 0 takes a free one."""
    models: Annotated[
        Path | None, arg(metavar="FOLDER", help_behavior_hint="(default: where training found them)")
    ] = None
    """Folder of the weights that read media files."""
    max_megabytes: Annotated[float, arg(metavar="N")] = 200.0
    """Largest clip that is taken."""
    limit: Annotated[float, arg(metavar="SECONDS")] = 300.0
    """Time after which reading a clip fails."""
    no_browser: bool = False
    """Print the address, and open no browser."""

    def run(self) -> int:
        """Serve until the end."""
        for name, value in (("max-megabytes", self.max_megabytes), ("limit", self.limit)):
            if not 0 < value <= 1e6:
                raise ConfigError(f"{name}: found {value:g}, expected a number above 0, at most 1000000")
        from alignmamba.recipes.clip_page.clip_demo import serve_demo

        serve_demo(
            self.directory,
            also=self.also,
            port=self.port,
            models=self.models,
            most_bytes=round(self.max_megabytes * 1e6),
            limit_seconds=self.limit,
            announce=self._announce,
            note=lambda line: say(f"note: {line}"),
        )
        return 0

    def _announce(self, address: str) -> None:
        self.emit_address("demo", address)
        if not self.no_browser and _has_screen():
            webbrowser.open(address)


def _has_screen() -> bool:
    """Return whether a browser could show itself; one within the terminal would take it over."""
    return sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
