"""``alignmamba doctor``: what is installed, what it runs on, what serves each operator."""

from dataclasses import dataclass
from typing import Any

from alignmamba.cli.verb import Verb

# Optional extra -> module that it brings, and what it is for.
EXTRAS = {
    "tensorboard": ("tensorboard", "TensorBoard events (fit.tensorboard=true)"),
    "formats": ("pyarrow", "predictions as .parquet"),
    "bench": ("matplotlib", "plots of alignmamba bench"),
}


@dataclass(frozen=True, kw_only=True)
class Doctor(Verb):
    """Print versions, devices, which backend serves each operator and why, and which optional extras are installed."""

    def run(self) -> int:
        """Examine."""
        report = examine()
        if self.json:
            self.emit(report)
            return 0
        from alignmamba.cli.tables import facts_table, rows_table
        from alignmamba.cli.verb import console

        screen = console()
        screen.print(facts_table("versions", report["versions"]))
        machine = report["machine"]
        shown = {
            **machine,
            "threads": f"{machine['threads']} (PyTorch; OMP_NUM_THREADS sets it)",
            "gpus": ", ".join(machine["gpus"]) or _why_no_gpu(machine["cuda"]),
        }
        screen.print(facts_table("machine", {name.replace("_", " "): value for name, value in shown.items() if name != "cuda"}))
        screen.print(rows_table("operators", ("operator", "backend", "why"), [tuple(row.values()) for row in report["operators"]]))
        screen.print(rows_table("optional extras", ("extra", "found", "for"), [tuple(row.values()) for row in report["extras"]]))
        return 0


def examine() -> dict[str, Any]:
    """The report as plain values."""
    from importlib.util import find_spec

    from alignmamba.recipes import environment

    found = environment()
    machine = {name: found[name] for name in ("platform", "processor", "cores", "threads", "gpus", "cuda")}
    machine["auto_takes"] = "cuda" if found["gpus"] else "cpu"
    return {
        "versions": found["versions"],
        "machine": machine,
        "operators": _operators(),
        "extras": [
            {"extra": name, "found": "yes" if find_spec(module) else f"no: pip install 'alignmamba[{name}]'", "for": purpose}
            for name, (module, purpose) in EXTRAS.items()
        ],
    }


def _operators() -> list[dict[str, str]]:
    """What serves each operator for float32 tensors on the CPU, and why."""
    from alignmamba import ops

    numba = ops.selective_scan_backends()["numba"]
    compiled = {"backend": "numba", "why": "compiled for the CPU; PyTorch's own on a GPU and for float64"}
    scan = compiled if numba == "ready" else {"backend": "torch", "why": f"numba cannot: {numba}"}
    plain = {"backend": "torch", "why": "the reference in PyTorch, on CPU and GPU; this version brings no other"}
    served = {"selective_scan": scan, "selective_scan_step": scan}
    return [{"operator": name, **served.get(name, plain)} for name in ops.__all__ if name != "selective_scan_backends"]


def _why_no_gpu(cuda: str | None) -> str:
    if cuda is None:
        return "none: this PyTorch was built for the CPU only"
    return f"none that PyTorch sees (built for CUDA {cuda})"
