"""Parts of every page: texts of the package, templates that escape, JSON within a script element."""

import json
from importlib.resources import files
from typing import TYPE_CHECKING

from alignmamba.recipes.run_directory import plain

if TYPE_CHECKING:
    from jinja2 import Environment


def package_text(name: str, package: str = __package__) -> str:
    """Text of a file of a package: a template, a script or a style sheet."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


def template_environment() -> "Environment":
    """Templates in which everything is escaped but what is marked: files of the package itself, drawings made
    here, which hold no words of others, and JSON by `script_json`.
    """
    from jinja2 import Environment, StrictUndefined

    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def script_json(value: object) -> str:
    """JSON that cannot end the script element that it stands in."""
    text = json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
