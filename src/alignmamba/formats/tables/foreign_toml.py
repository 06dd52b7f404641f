"""TOML of others: small, and checked for what Python's parser takes too long for before it is parsed."""

import re
import tomllib
from pathlib import Path
from typing import Any

from alignmamba.errors import DataError
from alignmamba.formats.plain_files import one_line, read_text

KEY_PARTS = 32
"""A dotted key may have as many parts: the time that `tomllib` takes grows with their square."""

# A part of a key, or a value in quotes; dots within quotes are none of a key.
_PART = r"""(?:[A-Za-z0-9_-]+|"(?!"")(?:\\.|[^"\\\n])*"|'(?!'')[^'\n]*')"""
_TOKEN = re.compile(
    rf'''#[^\n]*|"""(?:\\.|[^\\])*?"{{3,5}}|\'\'\'.*?'{{3,5}}|'''
    rf"""(?P<key>{_PART}(?:[ \t]*\.[ \t]*{_PART})*)|(?P<open>["'])""",
    re.DOTALL,
)
_PART_ALONE = re.compile(_PART, re.DOTALL)


def read_toml(path: Path, *, largest: int) -> dict[str, Any]:
    """Content of a TOML file of at most `largest` bytes.

    Raises:
        DataError: If there is none, it is larger, a key has too many parts, or it is no TOML.
    """
    content = read_text(path, largest=largest)
    for token in _TOKEN.finditer(content):
        if token["open"]:
            break  # quotes that are never closed, which the parser refuses there
        key = token["key"] or ""
        if key.count(".") >= KEY_PARTS and len(_PART_ALONE.findall(key)) > KEY_PARTS:
            line = content.count("\n", 0, token.start()) + 1
            raise DataError(
                f"{path}, line {line}: a key of more than {KEY_PARTS} parts with dots between them"
            )
    try:
        return tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path}: not valid TOML: {one_line(error)}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as TOML: {one_line(error)}") from error
