"""Write the table of docs/methods.md from what the methods say of themselves, and count their weights.

Usage: python benchmarks/methods_page.py [--check]
"""

import sys
import textwrap
from typing import Any, Final

import torch

import written_table
from alignmamba.contracts import ModalitySpec, Task
from alignmamba.errors import ConfigError
from alignmamba.methods import METHODS, SETS
from alignmamba.methods.method import Method

PAGE: Final = written_table.DOCS / "methods.md"
BEGIN: Final = "<!-- the table is written by benchmarks/methods_page.py -->"
WIDTHS: Final = {"text": 300, "audio": 74, "video": 35}
"""Widths of CMU-MOSI's and MOSEI's features in MulT's files, at which weights are counted."""


def weights(method: Method) -> int:
    """Trained weights of the network at its default width, on three modalities."""
    modalities = tuple(ModalitySpec(name=name, dim=dim) for name, dim in WIDTHS.items())
    made: Any = method.network
    for task in (
        Task(kind="regression", label_range=(-3.0, 3.0)),
        Task(kind="classification", classes=("no", "yes")),
    ):
        for names in (modalities, modalities[:2]):
            try:
                with torch.device("meta"):
                    network = made(method.network.config_class.preset("default", modalities=names, task=task))
            except ConfigError:
                continue
            return sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    raise SystemExit(f"{method.network.__name__} takes neither task")


def table() -> str:
    """All methods, in Markdown."""
    lines = [
        "| name | what it is | source | weights | needs | differs from its source |",
        "|---|---|---|---|---|---|",
    ]
    for name, method in METHODS.items():
        reconstructed = f"*Reconstructed:* {method.reconstructed}" if method.reconstructed else ""
        differs = " ".join(part for part in (method.differs, reconstructed) if part) or "-"
        cells = (
            f"`{name}`",
            method.network.summary,
            method.source or "several",
            f"{weights(method):,}",
            method.needs or "any corpus",
            differs,
        )
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    sets = [
        f"- `--models {name}`: {', '.join(f'`{each}`' for each in names)}."
        for name, names in SETS.items()
        if name != "all" and names
    ]
    wrapped = [
        textwrap.fill(row, 110, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
        for row in sets
    ]
    return "\n".join([*lines, "", *wrapped])


def renewed(page: str) -> str:
    """The page with the table as it is now."""
    return written_table.renewed(page, BEGIN, table())


if __name__ == "__main__":
    sys.exit(written_table.main(__doc__, PAGE, renewed))
