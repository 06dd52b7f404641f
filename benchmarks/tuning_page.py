"""Write the table of docs/tuning.md from the declared search spaces.

Usage: python benchmarks/tuning_page.py [--check]
"""

import sys
from typing import Final

import written_table
from alignmamba.methods import METHODS, REFERENCES
from alignmamba.methods.search_space import SHARED_SPACE
from alignmamba.recipes.configuration import RunConfig, settings_of

PAGE: Final = written_table.DOCS / "tuning.md"
BEGIN: Final = "<!-- the table is written by benchmarks/tuning_page.py -->"


def table() -> str:
    """Spaces of all methods, in Markdown."""
    tuned = [name for name in METHODS if name not in REFERENCES]
    keys = {name: RunConfig.known_keys({"model": name}) for name in tuned}
    rows: list[tuple[str, object, str]] = []
    for key, values in SHARED_SPACE.items():
        lacking = [f"`{name}`" for name in tuned if key not in keys[name] or key in METHODS[name].search]
        rows.append((key, values, f"all but {', '.join(lacking)}" if lacking else "all"))
        wider: dict[str, list[str]] = {}
        # a search leaves published rates and epochs aside
        having = [name for name in tuned if f"`{name}`" not in lacking and key.startswith("options.")]
        for name in having:
            (default,) = (each.default for each in settings_of(name) if each.key == key)
            if default != "null" and (own := values.including(float(default))) != values:
                wider.setdefault(str(own), []).append(f"`{name}`")
        rows += [(key, own, ", ".join(sorted(names))) for own, names in sorted(wider.items())]
    owners: dict[tuple[str, str], list[str]] = {}
    for name, method in METHODS.items():
        for key, values in method.search.items():
            owners.setdefault((key, str(values)), []).append(f"`{name}`")
    rows += [(key, values, ", ".join(names)) for (key, values), names in owners.items()]
    lines = [f"| `{key}` | {values} | {methods} |" for key, values, methods in rows]
    return "\n".join(["| setting | values | methods |", "|---|---|---|", *lines])


def renewed(page: str) -> str:
    """The page with the table as it is now."""
    return written_table.renewed(page, BEGIN, table())


if __name__ == "__main__":
    sys.exit(written_table.main(__doc__, PAGE, renewed))
