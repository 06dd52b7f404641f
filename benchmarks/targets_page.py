"""Write the table of docs/targets.md: methods that predict no further targets, and why.

Usage: python benchmarks/targets_page.py [--check]
"""

import sys
from typing import Final

import written_table
from alignmamba.methods import METHODS

PAGE: Final = written_table.DOCS / "targets.md"
BEGIN: Final = "<!-- the table is written by benchmarks/targets_page.py -->"


def table() -> str:
    """Methods that refuse, in Markdown."""
    refused = {name: method.network.config_class.one_target for name, method in METHODS.items()}
    rows = [f"| `{name}` | {reason} |" for name, reason in refused.items() if reason]
    return "\n".join(["| method | reason: it |", "|---|---|", *rows])


def renewed(page: str) -> str:
    """The page with the table as it is now."""
    return written_table.renewed(page, BEGIN, table())


if __name__ == "__main__":
    sys.exit(written_table.main(__doc__, PAGE, renewed))
