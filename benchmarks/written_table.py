"""A table that a script writes into a page of docs/, between two marks, or finds out of date."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
END: Final = "<!-- end of the table -->"


def renewed(page: str, begin: str, table: str) -> str:
    """The page with this table between the mark `begin` and that of the end."""
    before, rest = page.split(begin)
    return f"{before}{begin}\n\n{table}\n\n{END}{rest.split(END)[1]}"


def main(description: str | None, path: Path, renew: Callable[[str], str]) -> int:
    """Write the page as `renew` makes it, or with ``--check`` only say whether it is out of date."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 where the page is out of date"
    )
    given = parser.parse_args()
    page = path.read_text(encoding="utf-8")
    if given.check:
        return int(page != renew(page))
    path.write_text(renew(page), encoding="utf-8")
    return 0
