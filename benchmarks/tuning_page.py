"""Write the table of docs/tuning.md from the declared search spaces.

Usage: python benchmarks/tuning_page.py [--check]
"""

import argparse
import sys
from pathlib import Path
from typing import Final

from alignmamba.methods import METHODS, REFERENCES
from alignmamba.methods.search_space import SHARED_SPACE
from alignmamba.recipes.configuration import RunConfig

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "tuning.md"
BEGIN: Final = "<!-- the table is written by benchmarks/tuning_page.py -->"
END: Final = "<!-- end of the table -->"


def table() -> str:
    """Spaces of all methods, in Markdown."""
    tuned = [name for name in METHODS if name not in REFERENCES]
    keys = {name: RunConfig.known_keys({"model": name}) for name in tuned}
    rows = []
    for key, values in SHARED_SPACE.items():
        lacking = [f"`{name}`" for name in tuned if key not in keys[name]]
        rows.append((key, values, f"all but {', '.join(lacking)}" if lacking else "all"))
    for name, method in METHODS.items():
        rows += [(key, values, f"`{name}`") for key, values in method.search.items()]
    lines = [f"| `{key}` | {values} | {methods} |" for key, values, methods in rows]
    return "\n".join(["| setting | values | methods |", "|---|---|---|", *lines])


def renewed(page: str) -> str:
    """The page with the table as it is now."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}"


def main() -> int:
    """Write the page, or say that it is out of date."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 where the page is out of date"
    )
    given = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    if given.check:
        return int(page != renewed(page))
    PAGE.write_text(renewed(page), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
