"""Write the table of docs/targets.md: what methods do not predict, and why.

Usage: python benchmarks/targets_page.py [--check]
"""

import sys
from collections.abc import Iterator
from typing import Any, Final

import written_table
from alignmamba.contracts import ModalitySpec, Task
from alignmamba.errors import ConfigError
from alignmamba.methods import METHODS
from alignmamba.methods.method import Method

PAGE: Final = written_table.DOCS / "targets.md"
BEGIN: Final = "<!-- the table is written by benchmarks/targets_page.py -->"
MODALITIES: Final = tuple(ModalitySpec(name=name, dim=4) for name in ("text", "audio", "video"))
CLASSES: Final = ("low", "middle", "high")
LEADING: Final = (
    Task(kind="regression", label_range=(-3.0, 3.0)),
    Task(kind="classification", classes=CLASSES),
    Task(kind="ordinal", classes=CLASSES),
    Task(kind="multilabel", classes=CLASSES),
)


def refusals(method: Method) -> Iterator[tuple[str, str]]:
    """Kind of target that a method refuses, and its reason."""
    made: Any = method.network.config_class
    found: dict[str, list[str]] = {}
    for task in LEADING:
        try:
            made.preset("default", modalities=MODALITIES, task=task)
        except ConfigError as error:
            needs = str(error).partition(" needs ")[2].partition(", found")[0]
            reason = made.one_class or f"needs {needs}"
            found.setdefault(reason, []).append(task.kind)
    for reason, kinds in found.items():
        *others, last = kinds
        yield f"a leading {' or '.join(filter(None, [', '.join(others), last]))}", reason
    if made.one_target:
        yield "further targets", made.one_target
    elif made.no_tokens:
        yield "targets of tokens", made.no_tokens


def table() -> str:
    """Methods that refuse, in Markdown."""
    rows = [
        f"| `{name}` | {what} | {reason} |"
        for name, method in METHODS.items()
        for what, reason in refusals(method)
    ]
    return "\n".join(["| method | refuses | since it |", "|---|---|---|", *rows])


def renewed(page: str) -> str:
    """The page with the table as it is now."""
    return written_table.renewed(page, BEGIN, table())


if __name__ == "__main__":
    sys.exit(written_table.main(__doc__, PAGE, renewed))
