"""A method is one file: short, without another, and the only place in the package that says its name."""

import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

import alignmamba
from alignmamba.data.missing_protocols import Protocol
from alignmamba.formats import FORMATS
from alignmamba.methods import FAMILIES, METHODS

PACKAGE = Path(alignmamba.__file__).parent
METHOD_FILES = sorted(
    set((PACKAGE / "methods").glob("*.py"))
    - {PACKAGE / "methods" / name for name in ("__init__.py", "method.py", "search_space.py")}
)

# Formats of files and rules of withholding bear the names of the papers that they come from.
BORROWED = {*FORMATS, *get_args(Protocol)}


def said(tree: ast.AST) -> Iterator[str]:
    """Strings and names of a module's code; its docstrings are for people and may name a source."""
    prose = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name.rpartition(".")[2]


def own_names() -> set[str]:
    """Names of the methods but for the families: by users, and as classes."""
    own = [name for name in METHODS if name not in FAMILIES]
    return {*own, *(METHODS[name].network.__name__ for name in own)} - BORROWED


def test_no_file_outside_names_a_method() -> None:
    others = [path for path in PACKAGE.rglob("*.py") if PACKAGE / "methods" not in path.parents]
    assert len(others) > 100
    found = {
        (path.name, name)
        for path in others
        for name in own_names().intersection(said(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert found == set()


def test_a_name_in_code_is_seen_and_one_in_a_docstring_is_not() -> None:
    code = '"""As in misa."""\nif model == "self-mm" or isinstance(network, MISA):\n    pass\n'
    assert own_names().intersection(said(ast.parse(code))) == {"self-mm", "MISA"}


def test_no_method_imports_another() -> None:
    modules = {path.stem for path in METHOD_FILES}
    for path in METHOD_FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        imported |= {
            alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        }
        assert not {
            name
            for name in imported
            if name.startswith("alignmamba.methods") and name.rpartition(".")[2] in modules
        }, path.name


@pytest.mark.parametrize("name", METHODS)
def test_a_network_refuses_fewer_modalities_than_its_method_needs(name: str) -> None:
    said = re.search("two|three", METHODS[name].needs)
    least = METHODS[name].network.config_class.least_modalities
    assert least == (1 if said is None else {"two": 2, "three": 3}[said[0]])


@pytest.mark.parametrize("name", METHODS)
def test_a_published_rate_has_the_rest_of_its_schedule(name: str) -> None:
    """A setting that is not named would be that of AlignMamba."""
    fit = METHODS[name].settings.get("fit", {})
    if "learning_rate" in fit and not METHODS[name].reconstructed:
        assert {"epochs", "patience", "warmup_fraction", "gradient_clip", "weight_decay"} <= fit.keys()


def test_the_median_file_is_under_250_lines() -> None:
    assert len(METHOD_FILES) > 20
    assert (
        statistics.median(len(path.read_text(encoding="utf-8").splitlines()) for path in METHOD_FILES) < 250
    )
