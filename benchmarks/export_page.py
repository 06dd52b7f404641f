"""Write the table of docs/elsewhere.md: methods that cannot become a program, and why.

Usage: python benchmarks/export_page.py [--check]
"""

import sys
from typing import Final

import written_table
from alignmamba.methods import METHODS

PAGE: Final = written_table.DOCS / "elsewhere.md"
BEGIN: Final = "<!-- the table is written by benchmarks/export_page.py -->"


def table() -> str:
    """Methods that are refused, in Markdown."""
    rows = [f"| `{name}` | {method.network.unexported} |" for name, method in METHODS.items()]
    return "\n".join(["| method | reason: it |", "|---|---|", *(row for row in rows if "|  |" not in row)])


def renewed(page: str) -> str:
    """The page with the table as it is now."""
    return written_table.renewed(page, BEGIN, table())


if __name__ == "__main__":
    sys.exit(written_table.main(__doc__, PAGE, renewed))
