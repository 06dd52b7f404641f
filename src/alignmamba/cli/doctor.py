"""``alignmamba doctor``: what is installed, what it runs on, what serves each operator."""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from alignmamba.cli.terminal_tables import facts_table, rows_table
from alignmamba.cli.verb import Verb, console
from alignmamba.errors import ConfigError

if TYPE_CHECKING:
    from alignmamba.media.offered import Offered

# Optional extra -> what it is for.
PURPOSES = {
    "tensorboard": "TensorBoard events (fit.loggers=[tensorboard])",
    "wandb": "epochs in Weights & Biases (fit.loggers=[wandb])",
    "mlflow": "epochs in MLflow (fit.loggers=[mlflow])",
    "notebook": "tables and plots of a run that is opened in Python",
    "formats": "alignmamba convert of .csd and Parquet files; predictions as .parquet",
    "gpu": "kernels for CUDA and ROCm GPUs",
    "bench": "plots of alignmamba bench",
    "experiments": "statistics, tables and reports of alignmamba experiment; SLURM",
    "tune": "alignmamba tune: search for settings",
    "onnx": "alignmamba export onnx",
    "text": "language models as encoders of token ids",
    "media": "own video files: decoding, word times, subtitles and pages",
    "face": "faces in own video files",
    "egemaps": "voice in own video files as eGeMAPS, for research alone",
    "asr": "transcripts of own video files",
    "ray": "alignmamba extract on a cluster (--engine ray)",
    "demo": "alignmamba demo: a local page on which others try clips",
    "serve": "alignmamba serve: predictions over HTTP",
}


@dataclass(frozen=True, kw_only=True)
class Doctor(Verb):
    """Print versions, devices, the backend and first-call time of each operator, and installed extras."""

    media: bool = False
    """Print the readers of media files instead: which are ready, their licences, and whence weights come."""

    def run(self) -> int:
        """Examine."""
        if self.media:
            return self._show_media()
        report = examine()
        if self.json:
            self.emit(report)
            return 0

        screen = console()
        screen.print(facts_table("versions", report["versions"]))
        machine = report["machine"]
        shown = {
            **machine,
            "threads": f"{machine['threads']} (PyTorch; OMP_NUM_THREADS sets it)",
            "gpus": ", ".join(machine["gpus"]) or _why_no_gpu(machine["cuda"]),
        }
        screen.print(
            facts_table(
                "machine", {name.replace("_", " "): value for name, value in shown.items() if name != "cuda"}
            )
        )
        screen.print(
            rows_table(
                "operators",
                ("operator", "backend", "first call", "why"),
                [tuple(row.values()) for row in report["operators"]],
            )
        )
        screen.print(
            rows_table(
                "optional extras",
                ("extra", "found", "for"),
                [tuple(row.values()) for row in report["extras"]],
            )
        )
        return 0

    def _show_media(self) -> int:
        """Print the readers of media files."""
        rows = media_readers()
        if self.json:
            self.emit({"readers": rows})
            return 0
        screen = console()
        package = ("package",) if any(row["package"] for row in rows) else ()
        head = ("part", "name", *package, "ready", "for", "licence")
        shown = [tuple(row[key] for key in head) for row in rows]
        screen.print(rows_table("readers of media files", head, shown))
        for row in rows:
            if row["weights"]:
                screen.print(f"{row['part']} {row['name']}: {row['weights']}", soft_wrap=True)
        return 0


def media_readers() -> list[dict[str, str]]:
    """Readers of media files as rows of a table."""
    from alignmamba.media.offered import OFFERS, offered

    return [_media_reader(each) for slot in OFFERS for each in offered(slot)]


def _media_reader(which: "Offered") -> dict[str, str]:
    """Row of a reader; one that cannot be used says why in place of its readiness."""
    from alignmamba.extras import lacking

    row = {"part": which.slot, "name": which.name, "package": f"{which.package} {which.version}".strip()}
    try:
        offer = which.offer()
    except ConfigError as error:
        reason = str(error).removeprefix(f"{which.said}: ")
        return {**row, "ready": f"refused: {reason}", "for": "", "licence": "", "weights": ""}
    return {
        **row,
        "name": f"{which.name}:{offer.weights}" if offer.weights else which.name,
        "ready": lacking(offer.extra) or ("with weights" if offer.weights else "yes"),
        "for": offer.summary,
        "licence": offer.licence,
        "weights": offer.whence,
    }


def examine() -> dict[str, Any]:
    """The report as plain values."""
    from alignmamba.extras import lacking
    from alignmamba.recipes.assembly import environment

    found = environment()
    machine = {name: found[name] for name in ("platform", "processor", "cores", "threads", "gpus", "cuda")}
    machine["auto_takes"] = "cuda" if found["gpus"] else "cpu"
    return {
        "versions": found["versions"],
        "machine": machine,
        "operators": _operators(),
        "extras": [
            {"extra": name, "found": lacking(name) or "yes", "for": purpose}
            for name, purpose in PURPOSES.items()
        ],
    }


def _operators() -> list[dict[str, str]]:
    """Backend that serves each operator for float32 on this machine, why, and its first-call time."""
    import torch

    from alignmamba import ops
    from alignmamba.ops.backends import INSTALLED

    device = "cuda" if torch.cuda.is_available() else "cpu"
    kernel = {"cpu": "numba", "cuda": "triton"}[device]
    if INSTALLED[kernel]:
        # or the first operator would be told its time
        import_module({"numba": "alignmamba.ops.cpu", "triton": "triton"}[kernel])
    backends = ops.operator_backends(device)
    plain = {"backend": "torch", "first_call": "-", "why": "operations of PyTorch itself, on every device"}
    rows: list[dict[str, str]] = []
    for name in ops.__all__:
        if name == "selective_scan_step":
            rows.append({**rows[-1], "operator": name, "why": "selective_scan, one token at a time"})
        elif name in backends:
            state = backends[name][kernel]
            served = {
                "backend": kernel,
                "first_call": f"{_first_call_seconds(name, device):.2f} s",
                "why": f"the best for {device}",
            }
            rows.append(
                {"operator": name, **(served if state == "ready" else {**plain, "why": f"{kernel}: {state}"})}
            )
        elif name != "operator_backends":
            rows.append({"operator": name, **plain})
    return rows


def _first_call_seconds(operator: str, device: str) -> float:
    """Seconds of a first small call and its gradient: code is compiled or loaded before work begins."""
    import time

    import torch

    from alignmamba import ops

    tokens = torch.rand(1, 4, 128, device=device, requires_grad=True)
    mask = torch.ones(1, 4, dtype=torch.bool, device=device)
    maps, rates = torch.rand(1, 4, 16, device=device), -torch.rand(128, 16, device=device)
    calls = {
        "selective_scan": lambda: ops.selective_scan(tokens, tokens, rates, maps, maps),
        "causal_conv": lambda: ops.causal_conv(tokens, tokens[0], tokens[0, 0]),
        "match_tokens": lambda: ops.match_tokens(tokens, tokens, mask, mask)[1] + tokens[..., 0],
        "mmd": lambda: ops.mmd(tokens, 2 * tokens, mask, mask, bandwidth="median"),
    }
    started = time.perf_counter()
    torch.autograd.grad(calls[operator]().sum(), tokens)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _why_no_gpu(cuda: str | None) -> str:
    if cuda is None:
        return "none: this PyTorch was built for the CPU only"
    return f"none that PyTorch sees (built for CUDA {cuda})"
