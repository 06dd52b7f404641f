"""The house rules of DESIGN section 4, read off the source text: floors, forbidden edges, names, sizes,
circles, no pickle.

`violations` is the checker. It is run on the real tree, and on small wrong trees that show that it catches
each kind.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "alignmamba"

# Room -> the other rooms it may import. A room is a module or package directly under the package.
_GROUND = frozenset({"errors", "contracts", "files", "extras", "checksums", "capacity"})
_MODELS = _GROUND | {"ops", "nn"}
_PARTS = _MODELS | {"models", "data", "formats", "media", "training", "evaluation", "methods"}
FLOORS: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "files": frozenset({"errors"}),
    "extras": frozenset({"errors"}),
    "capacity": frozenset({"errors"}),
    "checksums": frozenset({"errors", "files"}),
    "contracts": frozenset({"errors"}),
    "ops": _GROUND,
    "nn": _GROUND | {"ops"},
    "models": _MODELS,
    "data": _GROUND,
    "media": _GROUND,
    "formats": _GROUND | {"data"},
    "training": _GROUND,
    "methods": _MODELS | {"models", "training"},
    "evaluation": _GROUND,
    "recipes": _PARTS,
    "cli": _PARTS | {"recipes"},
    "__main__": frozenset({"cli"}),
}
KERNELS = ("alignmamba.ops.cpu", "alignmamba.ops.gpu")
REFUSED_NAMES = frozenset({"utils", "util", "common", "helpers", "helper", "core", "base", "misc"})
UNSAFE_MODULES = frozenset(
    {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
)

SPEAKERS = frozenset({"cli", "__main__"})
"""Rooms that may write to the terminal."""
MODEL_ROOMS = frozenset({"nn", "models", "methods", "training", "evaluation", "recipes"})
MODEL_NAMES = frozenset({"model", "network", "module", "encoder", "fusion", "objective"})
NOUNS = frozenset({"pooling", "missing", "decoding"})
"""Words in -ing that are no gerunds."""
MOST_FILE_LINES, MOST_FUNCTION_LINES = 600, 60

# Kind and the file or folder that may offend so, with the reason. One that no longer offends must go:
# `test_exemptions_are_needed` names it.
EXEMPT: dict[tuple[str, str], str] = {
    ("speaks below cli", "recipes/display.py"): "what train() and fit() show in Python, asked for by name",
    ("speaks below cli", "formats/sequences/hdf5_child.py"): "a child process; its output is a pipe",
    ("speaks below cli", "recipes/experiments/cell_process.py"): "a process of its own, as a command is",
    ("guessed model", "recipes/bench/operators.py"): "asks another library which of its versions it is",
}


@dataclass(frozen=True)
class Violation:
    """One broken rule."""

    kind: str
    path: str
    line: int
    found: str


@dataclass(frozen=True)
class Import:
    """One imported module, and where in the file it is imported."""

    module: str
    line: int
    inside_function: bool
    for_types_only: bool


def _within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _call_name(node: ast.expr) -> str:
    """Dotted name of what is called or decorated with; empty for anything more involved."""
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


class _Imports(ast.NodeVisitor):
    """Collects every import of a module, those inside functions and under `if TYPE_CHECKING` included."""

    def __init__(
        self, module: str, *, is_package: bool, exports: dict[str, str], modules: frozenset[str]
    ) -> None:
        self.found: list[Import] = []
        self._package = module if is_package else module.rpartition(".")[0]
        self._exports = exports
        self._modules = modules
        self._functions = 0
        self._type_checking = 0

    def _add(self, module: str, line: int) -> None:
        self.found.append(
            Import(module, line, inside_function=self._functions > 0, for_types_only=self._type_checking > 0)
        )

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        origin = node.module or ""
        if node.level:
            above = self._package.split(".")[: len(self._package.split(".")) - node.level + 1]
            origin = ".".join([*above, origin] if origin else above)
        for alias in node.names:
            # `from alignmamba import train` is an edge to where `train` lives; `from alignmamba.ops import
            # cpu` one to the submodule.
            full = f"{origin}.{alias.name}"
            if origin == PACKAGE and alias.name in self._exports:
                self._add(self._exports[alias.name], node.lineno)
            elif full in self._modules or not _within(origin, PACKAGE):
                self._add(full, node.lineno)
            else:
                self._add(origin, node.lineno)

    def visit_Call(self, node: ast.Call) -> None:
        if _call_name(node.func).rpartition(".")[2] in {"import_module", "__import__"} and node.args:
            target = node.args[0]
            self._add(
                target.value if isinstance(target, ast.Constant) and isinstance(target.value, str) else "?",
                node.lineno,
            )
        self.generic_visit(node)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        self._functions += 1
        self.generic_visit(node)
        self._functions -= 1

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._function(node)

    def visit_If(self, node: ast.If) -> None:
        guarded = _call_name(node.test).rpartition(".")[2] == "TYPE_CHECKING"
        self._type_checking += guarded
        for child in node.body:
            self.visit(child)
        self._type_checking -= guarded
        for child in node.orelse:
            self.visit(child)


def _exports(package: Path) -> dict[str, str]:
    """The literal `_EXPORTS` of the package root."""
    for node in ast.parse((package / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_EXPORTS":
            exports: dict[str, str] = ast.literal_eval(node.value)
            return exports
    return {}


def _edge_violations(module: str, room: str, imported: Import) -> Iterator[str]:
    """Kinds of rule that one import breaks. `room` is empty for the package root."""
    target = imported.module
    top = target.partition(".")[0]
    # The exception that `torch.load(weights_only=True)` raises may be named; it reads nothing.
    if top in UNSAFE_MODULES and target != "pickle.UnpicklingError":
        yield "pickle"
    if target == "?" and room not in {"", "cli"}:
        yield "computed import"
    if room == "ops" and (
        target == "torch.nn"
        or (target.startswith("torch.nn.") and not _within(target, "torch.nn.functional"))
    ):
        yield "module in ops"
    if not _within(target, PACKAGE):
        return
    if room == "":
        if not (imported.inside_function or imported.for_types_only):
            yield "eager import"
        return
    if any(_within(target, kernel) and not _within(module, kernel) for kernel in KERNELS) and not (
        room == "ops" and imported.inside_function
    ):
        yield "eager kernel"
    if target == PACKAGE:
        return
    other = target.split(".")[1]
    if other != room and other not in FLOORS.get(room, frozenset()):
        yield "upward import"


def _file_violations(
    path: Path, package: Path, exports: dict[str, str], modules: frozenset[str]
) -> Iterator[tuple[str, int, str]]:
    parts = path.relative_to(package).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    dotted = ".".join((PACKAGE, *(parts[:-1] if is_package else parts)))
    room = "" if parts == ("__init__",) else parts[0]
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))

    if room and room not in FLOORS:
        yield "unknown room", 1, room
    if ast.get_docstring(tree) is None and (is_package or not parts[-1].startswith("_")):
        yield "no docstring", 1, dotted

    if room not in SPEAKERS:
        for line, what in _speech(tree):
            yield "speaks below cli", line, what
    if room in MODEL_ROOMS:
        for line, what in _guesses(tree):
            yield "guessed model", line, what

    imports = _Imports(dotted, is_package=is_package, exports=exports, modules=modules)
    imports.visit(tree)
    for imported in imports.found:
        for kind in _edge_violations(dotted, room, imported):
            yield kind, imported.line, imported.module

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            # `import alignmamba` gives any room through an attribute, past the check of edges.
            for alias in node.names:
                if alias.name == PACKAGE:
                    yield "whole package", node.lineno, alias.name
        if isinstance(node, ast.Call):
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if keywords.get("allow_pickle", "False") != "False":
                yield "pickle", node.lineno, ast.unparse(node.func)
            if _call_name(node.func) == "torch.load" and keywords.get("weights_only") != "True":
                yield "pickle", node.lineno, "torch.load without weights_only=True"
        for decorator in getattr(node, "decorator_list", []):
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            if _call_name(called).rpartition(".")[2] in {"register", "registry"}:
                yield "registry decorator", decorator.lineno, ast.unparse(decorator)


def _speech(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Places where a module writes to the terminal."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _call_name(node.func) == "print":
            yield node.lineno, "print"
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stderr", "sys.stdout"):
            yield node.lineno, ast.unparse(node)
        if isinstance(node, ast.ImportFrom) and node.module == "sys":
            yield from ((node.lineno, f"sys.{a.name}") for a in node.names if a.name in ("stderr", "stdout"))


def _guesses(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Places where a module asks what a model is like instead of relying on its contract."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            asked = _call_name(node.func)
            if asked == "hasattr" or (
                asked == "getattr" and ast.unparse(node.args[0]).rpartition(".")[2] in MODEL_NAMES
            ):
                yield node.lineno, ast.unparse(node)
        named: tuple[str, ast.expr | None] = ("", None)
        if isinstance(node, ast.arg):
            named = node.arg, node.annotation
        elif isinstance(node, ast.AnnAssign):
            named = ast.unparse(node.target).rpartition(".")[2], node.annotation
        name, annotation = named
        if name in MODEL_NAMES and annotation is not None and ast.unparse(annotation) in ("Any", "object"):
            yield annotation.lineno, f"{name}: {ast.unparse(annotation)}"


def _long_functions(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Functions with too many lines beside their docstring, which lists shapes, units and errors."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if ast.get_docstring(node) is not None:
                lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
            if lines > MOST_FUNCTION_LINES:
                yield node.lineno, node.name


def _size_violations(path: Path, package: Path) -> Iterator[Violation]:
    """Files and functions too long to be read at once; the kernels are long by nature."""
    parts = path.relative_to(package).with_suffix("").parts
    if any(_within(".".join((PACKAGE, *parts)), kernel) for kernel in KERNELS):
        return
    shown, text = str(path.relative_to(package)), path.read_text(encoding="utf-8")
    if len(text.splitlines()) > MOST_FILE_LINES:
        yield Violation("long file", shown, 1, path.stem)
    for line, name in _long_functions(ast.parse(text)):
        yield Violation("long function", shown, line, name)


def _gerunds(package: Path) -> Iterator[Violation]:
    """Files named by a bare gerund, which says what is done and hides to what."""
    for path in sorted(package.rglob("*ing.py")):
        if "_" not in path.stem and path.stem not in NOUNS:
            yield Violation("bare gerund", str(path.relative_to(package)), 0, path.stem)


def _twins(package: Path) -> Iterator[Violation]:
    """Files of one name. An `__init__` has no other name; the backends of an operator are named like it."""
    seen: dict[str, Path] = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).parts
        if path.stem == "__init__" or (parts[0] == "ops" and parts[1:2] in (("cpu",), ("gpu",))):
            continue
        if path.stem in seen:
            yield Violation("twin name", str(path.relative_to(package)), 0, f"also {seen[path.stem]}")
        seen.setdefault(path.stem, path.relative_to(package))


def _edges(package: Path) -> dict[str, set[str]]:
    """Module to the modules of the package that it imports, in functions and for types too.

    The package's own `__init__` is left aside: it imports the rooms when they are asked for, and they its
    version.
    """
    files = {
        ".".join((PACKAGE, *(parts[:-1] if parts[-1] == "__init__" else parts))): path
        for path in package.rglob("*.py")
        for parts in [path.relative_to(package).with_suffix("").parts]
    }
    exports = _exports(package)
    edges: dict[str, set[str]] = {}
    for module, path in files.items():
        imports = _Imports(
            module, is_package=path.name == "__init__.py", exports=exports, modules=frozenset(files)
        )
        imports.visit(ast.parse(path.read_text(encoding="utf-8")))
        edges[module] = {each.module for each in imports.found} & files.keys() - {module, PACKAGE}
    return edges


def _reachable(edges: dict[str, set[str]], module: str) -> set[str]:
    found: set[str] = set()
    ahead = set(edges[module])
    while ahead:
        found |= ahead
        ahead = set().union(*(edges[each] for each in ahead)) - found
    return found


def _circles(package: Path) -> Iterator[Violation]:
    """Files that import each other, however long the way round."""
    edges = {
        module: found
        for module, found in _edges(package).items()
        if not any(_within(module, kernel) for kernel in KERNELS) and module != PACKAGE
    }
    edges = {module: found & edges.keys() for module, found in edges.items()}
    reached = {module: _reachable(edges, module) for module in edges}
    for module in sorted(edges):
        circle = {other for other in reached[module] if module in reached[other]}
        if circle and module == min(circle):
            names = sorted(each.removeprefix(f"{PACKAGE}.") for each in circle)
            yield Violation("circle", names[0], 0, " ".join(names))


def violations(package: Path) -> list[Violation]:
    """Every house rule that a file of the package at `package` breaks, in the order of files and lines."""
    files = sorted(package.rglob("*.py"))
    names = {path: path.relative_to(package).with_suffix("").parts for path in files}
    modules = frozenset(
        ".".join((PACKAGE, *(parts[:-1] if parts[-1] == "__init__" else parts))) for parts in names.values()
    )
    exports = _exports(package)
    found = [
        Violation(kind, str(path.relative_to(package)), line, what)
        for path in files
        for kind, line, what in _file_violations(path, package, exports, modules)
    ]
    found += refused_names(package)
    found += [each for path in files for each in _size_violations(path, package)]
    return [*found, *_gerunds(package), *_twins(package), *_circles(package)]


def refused_names(tree: Path) -> list[Violation]:
    """Files and directories of Python code whose name says nothing about what is in them."""
    code = sorted(tree.rglob("*.py"))
    directories = sorted({parent for path in code for parent in path.parents if tree in parent.parents})
    return [
        Violation("refused name", str(path.relative_to(tree)), 0, path.stem)
        for path in [*directories, *code]
        if REFUSED_NAMES & set(path.stem.lower().split("_"))
    ]


# The real tree


def _exempt(violation: Violation) -> set[tuple[str, str]]:
    return {
        (kind, place) for kind, place in EXEMPT if violation.kind == kind and violation.path.startswith(place)
    }


def test_the_house_stands() -> None:
    found = [each for each in violations(ROOT / "src" / PACKAGE) if not _exempt(each)]
    assert not found, "\n" + "\n".join(f"{v.path}:{v.line}: {v.kind}: {v.found}" for v in found)


def test_exemptions_are_needed() -> None:
    needed = set().union(*map(_exempt, violations(ROOT / "src" / PACKAGE)))
    assert EXEMPT.keys() == needed, "these offend no longer: remove them from EXEMPT"


def test_the_checker_reads_the_real_edges() -> None:
    """Were nothing read, nothing would be found wrong."""
    path = ROOT / "src" / PACKAGE / "contracts" / "batch.py"
    imports = _Imports(
        "alignmamba.contracts.batch", is_package=False, exports={}, modules=frozenset({"alignmamba.errors"})
    )
    imports.visit(ast.parse(path.read_text(encoding="utf-8")))
    assert {"alignmamba.errors", "torch.Tensor"} <= {imported.module for imported in imports.found}
    assert {"AlignMamba", "train"} <= _exports(ROOT / "src" / PACKAGE).keys()


@pytest.mark.parametrize("folder", ["tests", "examples", "benchmarks", "docs"])
def test_names_outside_the_package(folder: str) -> None:
    assert not refused_names(ROOT / folder)


def test_tests_mirror_the_package() -> None:
    directories = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("*.py")}
    strangers = [str(path) for path in directories if not (ROOT / "src" / PACKAGE / path).is_dir()]
    assert not strangers, f"directories of tests without one of that name in src/{PACKAGE}: {strangers}"


def test_no_unfinished_business() -> None:
    mark = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    written = [
        path
        for folder in ("src", "tests", "docs", "examples", "benchmarks", ".ci")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {"", ".py", ".md", ".yml", ".yaml", ".toml", ".sh"} and path.is_file()
    ]
    written += [
        path
        for path in ROOT.iterdir()
        if path.is_file() and path.suffix in {"", ".md", ".toml", ".yml", ".yaml"}
    ]
    assert len(written) > 10
    left = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in written
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if mark.search(line)
    ]
    assert not left, "\n".join(left)


def test_floors_have_no_cycle() -> None:
    def below(room: str, above: tuple[str, ...]) -> None:
        assert room not in above, " -> ".join([*above, room])
        for other in FLOORS[room]:
            below(other, (*above, room))

    for room in FLOORS:
        below(room, ())


# Small wrong trees: each must be caught, and as what it is

BAD = [
    ("contracts.py", "from alignmamba.ops import scan", "upward import"),
    ("errors.py", "from alignmamba.contracts import Batch", "upward import"),
    ("ops/scan.py", "import alignmamba.nn.mamba", "upward import"),
    ("ops/scan.py", "def f():\n    from alignmamba.nn import mamba", "upward import"),
    (
        "ops/scan.py",
        "class A:\n    async def f(self):\n        from alignmamba.nn import mamba",
        "upward import",
    ),
    ("ops/scan.py", "from ..nn import mamba", "upward import"),
    ("ops/scan.py", "from .. import nn", "upward import"),
    (
        "nn/mamba.py",
        "try:\n    from alignmamba.models import alignmamba\nexcept ImportError:\n    pass",
        "upward import",
    ),
    ("models/alignmamba.py", "from alignmamba.data.archive import load_corpus", "upward import"),
    ("models/alignmamba.py", "from alignmamba import train", "upward import"),
    ("models/alignmamba.py", "from alignmamba.training.loop import fit", "upward import"),
    ("training/loop.py", "from alignmamba.models.alignmamba import AlignMamba", "upward import"),
    ("training/loop.py", "from alignmamba.data.loader import Loader", "upward import"),
    ("training/loop.py", "from alignmamba.evaluation import metrics", "upward import"),
    (
        "training/loop.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from alignmamba.data import loader",
        "upward import",
    ),
    ("evaluation/metrics.py", "from alignmamba import AlignMamba", "upward import"),
    (
        "evaluation/metrics.py",
        "import importlib\nM = importlib.import_module('alignmamba.models')",
        "upward import",
    ),
    ("data/archive.py", "from alignmamba.recipes import train", "upward import"),
    ("recipes.py", "from alignmamba.cli import main", "upward import"),
    (
        "data/archive.py",
        "import importlib\ndef f(x):\n    return importlib.import_module(x)",
        "computed import",
    ),
    ("ops/scan.py", "from alignmamba.ops.cpu import scan", "eager kernel"),
    ("ops/scan.py", "from alignmamba.ops import gpu", "eager kernel"),
    ("ops/scan.py", "from . import cpu", "eager kernel"),
    ("ops/cpu/scan.py", "from alignmamba.ops.gpu import scan", "eager kernel"),
    ("nn/mamba.py", "def f():\n    from alignmamba.ops.cpu import scan", "eager kernel"),
    ("ops/scan.py", "from torch import nn", "module in ops"),
    ("ops/scan.py", "import torch.nn as nn", "module in ops"),
    ("ops/scan.py", "from torch.nn import Module", "module in ops"),
    ("data/archive.py", "import pickle", "pickle"),
    ("data/archive.py", "def f():\n    from pickle import loads", "pickle"),
    ("data/archive.py", "from pickle import UnpicklingError, load", "pickle"),
    ("data/archive.py", "import joblib.numpy_pickle", "pickle"),
    ("data/archive.py", "import numpy as np\nA = np.load('x', allow_pickle=True)", "pickle"),
    ("training/checkpoints.py", "import torch\nA = torch.load('x')", "pickle"),
    ("training/checkpoints.py", "import torch\nA = torch.load('x', weights_only=False)", "pickle"),
    ("recipes.py", "import alignmamba", "whole package"),
    ("models/alignmamba.py", "@registry.register('x')\nclass A: ...", "registry decorator"),
    ("models/alignmamba.py", "@register\nclass A: ...", "registry decorator"),
    ("__init__.py", "from alignmamba.contracts import Batch", "eager import"),
    ("hoard.py", "", "unknown room"),
    ("data/utils.py", "", "refused name"),
    ("data/core/shelf.py", "", "refused name"),
    ("nn/mamba_helpers.py", "", "refused name"),
    ("data/working.py", "", "bare gerund"),
    ("training/loop.py", "print('epoch 1')", "speaks below cli"),
    ("training/loop.py", "import sys\ndef f():\n    sys.stderr.write('epoch 1')", "speaks below cli"),
    ("recipes.py", "from sys import stderr", "speaks below cli"),
    ("training/loop.py", "def f(model):\n    return hasattr(model, 'losses')", "guessed model"),
    ("training/loop.py", "def f(network):\n    return getattr(network, 'losses', None)", "guessed model"),
    (
        "training/loop.py",
        "from typing import Any\ndef f(model: Any) -> None:\n    model.eval()",
        "guessed model",
    ),
    ("models/alignmamba.py", "class A:\n    encoder: object", "guessed model"),
    ("training/scan.py", "", "twin name"),
    ("data/archive.py", "X = 1\n" * 600, "long file"),
    ("data/archive.py", "def f():\n" + "    x = 1\n" * 60, "long function"),
    ("data/archive.py", "class A:\n    async def f(self):\n" + "        x = 1\n" * 60, "long function"),
]
GOOD = [
    ("errors.py", "import re"),
    ("cli/main.py", "import sys\nprint('done')\nsys.stderr.write('done')"),
    ("data/archive.py", "def f():\n" + "    x = 1\n" * 59),
    ("data/archive.py", "def f():\n" + '    """Say.\n' + "\n" * 20 + '    """\n' + "    x = 1\n" * 59),
    ("ops/cpu/scan.py", "def f():\n" + "    x = 1\n" * 99),
    ("nn/pooling.py", "def f(values):\n    return getattr(values, 'mask', None)"),
    ("contracts.py", "import torch\nfrom alignmamba.errors import DataError"),
    (
        "ops/scan.py",
        (
            "from torch.nn import functional as F\nimport torch.nn.functional\nfrom alignmamba.errors import"
            " ShapeError"
        ),
    ),
    ("ops/scan.py", "def f():\n    from alignmamba.ops.cpu import scan\n    return scan"),
    (
        "ops/cpu/scan.py",
        "from alignmamba.ops.cpu import arena\nfrom alignmamba.ops.scan import selective_scan",
    ),
    ("nn/mamba.py", "from torch import nn\nfrom alignmamba.ops import scan\nfrom . import pooling"),
    ("models/alignmamba.py", "from alignmamba import Batch, __version__"),
    ("training/checkpoints.py", "import torch\nA = torch.load('x', weights_only=True)"),
    ("training/checkpoints.py", "from pickle import UnpicklingError"),
    ("data/archive.py", "import numpy as np\nA = np.load('x', allow_pickle=False)"),
    (
        "recipes.py",
        (
            "from alignmamba.models import alignmamba\nfrom alignmamba.data import archive\nfrom"
            " alignmamba.training import loop"
        ),
    ),
    ("cli/main.py", "def f():\n    from alignmamba.recipes import train"),
    ("__main__.py", "from alignmamba.cli.main import main"),
    (
        "ops/scan.py",
        (
            "import torch\n@torch.library.custom_op('a::b', mutates_args=())\ndef f():"
            " ...\n@f.register_fake\ndef g(): ..."
        ),
    ),
]
_TREE = [
    "__init__.py",
    "errors.py",
    "contracts.py",
    "recipes.py",
    *(
        f"{room}/__init__.py"
        for room in ("ops", "ops/cpu", "ops/gpu", "nn", "models", "data", "training", "evaluation", "cli")
    ),
    *(
        "ops/scan.py",
        "ops/cpu/scan.py",
        "ops/gpu/scan.py",
        "nn/mamba.py",
        "nn/pooling.py",
        "models/alignmamba.py",
    ),
    *("data/archive.py", "data/loader.py", "training/loop.py", "evaluation/metrics.py", "cli/main.py"),
]


def _write_tree(root: Path, path: str, source: str) -> Path:
    package = root / PACKAGE
    for name in [*_TREE, path]:
        file = package / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('"""A module."""\n', encoding="utf-8")
    exports = (
        '_EXPORTS = {"AlignMamba": "alignmamba.models.alignmamba", "Batch": "alignmamba.contracts", "train":'
        ' "alignmamba.recipes"}\n'
    )
    (package / "__init__.py").write_text(f'"""The package."""\n{exports}', encoding="utf-8")
    file = package / path
    file.write_text(f"{file.read_text(encoding='utf-8')}{source}\n", encoding="utf-8")
    return package


@pytest.mark.parametrize(("path", "source", "kind"), BAD)
def test_a_wrong_module_is_caught(tmp_path: Path, path: str, source: str, kind: str) -> None:
    found = violations(_write_tree(tmp_path, path, source))
    assert {v.kind for v in found} == {kind}
    assert kind == "refused name" or {v.path for v in found} == {path}


CIRCLES = [
    ("from alignmamba.data import loader", "from alignmamba.data.archive import X"),
    ("from alignmamba.data import loader", "def f():\n    from alignmamba.data import archive"),
    (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from alignmamba.data.loader import X",
        "import alignmamba.data.archive",
    ),
    ("from . import loader", "from . import third"),
]


@pytest.mark.parametrize(("first", "second"), CIRCLES)
def test_files_that_import_each_other_are_caught(tmp_path: Path, first: str, second: str) -> None:
    package = _write_tree(tmp_path, "data/archive.py", first)
    third = '"""A module."""\nfrom alignmamba.data import archive\n'
    (package / "data" / "third.py").write_text(third, encoding="utf-8")
    assert violations(package) == []
    (package / "data" / "loader.py").write_text(f'"""A module."""\n{second}\n', encoding="utf-8")
    (found,) = violations(package)
    assert (found.kind, found.path) == ("circle", "data.archive")
    assert {"data.archive", "data.loader"} <= set(found.found.split())


@pytest.mark.parametrize(("path", "source"), GOOD)
def test_a_right_module_is_left_alone(tmp_path: Path, path: str, source: str) -> None:
    assert violations(_write_tree(tmp_path, path, source)) == []


def test_a_module_without_docstring_is_caught(tmp_path: Path) -> None:
    package = _write_tree(tmp_path, "data/archive.py", "")
    (package / "data" / "archive.py").write_text("X = 1\n", encoding="utf-8")
    assert [(v.kind, v.path) for v in violations(package)] == [("no docstring", "data/archive.py")]


def test_every_kind_is_tried() -> None:
    """A rule that no wrong tree breaks is a rule that nobody knows to work."""
    source = Path(__file__).read_text(encoding="utf-8").partition("# The real tree")[0]
    kinds = set(re.findall(r'yield "([a-z ]+)"', source)) | set(re.findall(r'Violation\("([a-z ]+)"', source))
    assert kinds == {kind for _, _, kind in BAD} | {"no docstring", "circle"}
