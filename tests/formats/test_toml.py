"""TOML of others: what would take too long is refused before it is parsed, and nothing that is written by
people.
"""

import time
from pathlib import Path

import pytest

from alignmamba.errors import DataError
from alignmamba.formats.tables.foreign_toml import KEY_PARTS, read_toml


def read(folder: Path, content: str) -> dict[str, object]:
    (folder / "given.toml").write_text(content)
    return read_toml(folder / "given.toml", largest=64 << 10)


@pytest.mark.parametrize(
    "content",
    [
        "a" + ".a" * 30_000 + " = 1",
        "[a" + ".a" * KEY_PARTS + "]",
        "x = {a" + " . 'a'" * KEY_PARTS + " = 1}",
        "x = 1 # '''\n" + '"a.b"' + ' . "c"' * KEY_PARTS + " = 1",
        '"""' + "a" + ".a" * KEY_PARTS + " = 1",
        'x = """a\\""""\ny' + ".a" * KEY_PARTS + " = 1",
    ],
)
def test_long_dotted_keys_are_refused_at_once(tmp_path: Path, content: str) -> None:
    started = time.perf_counter()
    with pytest.raises(
        DataError, match=r"given\.toml(, line [12]: a key of more than 32 parts|: not valid TOML)"
    ):
        read(tmp_path, content)
    assert time.perf_counter() - started < 5


def test_dots_elsewhere_are_no_keys(tmp_path: Path) -> None:
    dots = ".a" * 100
    content = f"""
# a{dots}
path = "a{dots}/{"../" * 60}x.npy"
other = 'a{dots}'
long = \"\"\"
a{dots} "" \"\"\"
same = '''a{dots}'''
numbers = [{", ".join(["1.5"] * 100)}]
a{".b" * (KEY_PARTS - 1)} = 1
"""
    assert read(tmp_path, content)["other"] == f"a{dots}"


@pytest.mark.parametrize(
    "content",
    [
        '"' + '\\"' * 30_000,
        '"' + "\\" * 60_001,
        "'''" * 20_001,
        "a " * 32_000,
        "a" + " " * 60_000,
        '""""""' * 10_000,
    ],
)
def test_no_text_takes_long(tmp_path: Path, content: str) -> None:
    started = time.perf_counter()
    with pytest.raises(DataError, match=r"not valid TOML"):
        read(tmp_path, content)
    assert time.perf_counter() - started < 5


def test_sizes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at most 65536 bytes of text"):
        read(tmp_path, "# " + "a" * (64 << 10))
    with pytest.raises(DataError, match="not readable as TOML"):
        read(tmp_path, "a = " + "[" * 30_000)
