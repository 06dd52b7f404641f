"""``alignmamba serve``: predictions for other programs over HTTP."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from alignmamba.cli.verb import Verb, say
from alignmamba.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Serve(Verb):
    """Predict for other programs over HTTP.

    GET / describes what the run takes and gives, POST /predict predicts, GET /health says that it is there.
    It listens on 127.0.0.1, which no other machine can reach. Ctrl-C ends it; what has come is answered.
    """

    directory: Annotated[Positional[Path], arg(metavar="RUN")]
    """Directory of the run."""
    host: Annotated[str, arg(metavar="ADDRESS")] = "127.0.0.1"
    """Address to listen on; with another than 127.0.0.1 other machines can connect."""
    port: Annotated[int, arg(metavar="N")] = 0
    """Port to listen on; 0 takes a free one."""
    max_megabytes: Annotated[float, arg(metavar="N")] = 20.0
    """Largest body of a request."""
    max_samples: Annotated[int, arg(metavar="N")] = 1024
    """Samples of a request, and of all that wait; more are refused."""
    together: Annotated[int, arg(metavar="N")] = 64
    """Samples of several requests that are predicted together; 1 joins none."""
    wait: Annotated[float, arg(metavar="SECONDS")] = 0.005
    """Longest time that a request waits for others that are just arriving."""

    def run(self) -> int:
        """Serve until the end."""
        bounds = (
            ("max-megabytes", self.max_megabytes, 1e-6, 1e4),
            ("max-samples", self.max_samples, 1, 1_000_000),
            ("together", self.together, 1, 100_000),
            ("wait", self.wait, 0, 60),
        )
        for name, value, least, most in bounds:
            if not least <= value <= most:
                raise ConfigError(f"{name}: found {value:g}, expected a number from {least:g} to {most:g}")
        from alignmamba.recipes.service.prediction_app import Limits
        from alignmamba.recipes.service.prediction_server import serve_run

        serve_run(
            self.directory,
            host=self.host,
            port=self.port,
            limits=Limits(
                most_bytes=round(self.max_megabytes * 1e6),
                most_samples=self.max_samples,
                together=self.together,
                wait_seconds=self.wait,
            ),
            announce=lambda address: self.emit_address(f"serving {self.directory}", address),
            note=lambda line: say(f"note: {line}"),
        )
        return 0
