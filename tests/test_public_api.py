"""The names that people may rely on, and what importing them costs."""

import ast
import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import alignmamba
from alignmamba import contracts

PUBLIC = {
    "Method",
    "Minimise",
    "Network",
    "Objective",
    "Stage",
    "AlignMamba",
    "AlignMambaConfig",
    "AlignMambaError",
    "Batch",
    "Corpus",
    "FitConfig",
    "ModalitySpec",
    "Output",
    "Run",
    "RunConfig",
    "Sequences",
    "SplitArrays",
    "Task",
    "__version__",
    "evaluate",
    "fit",
    "from_pretrained",
    "load_corpus",
    "models",
    "open_run",
    "ops",
    "predict",
    "train",
    "write_corpus",
}
# Anything that would make `alignmamba --help` slow or drag in the tensor library.
HEAVY = (
    "torch",
    "numpy",
    "pydantic",
    "lightning",
    "lightning_fabric",
    "huggingface_hub",
    "safetensors",
    "yaml",
)


def test_public_names_are_exactly_these() -> None:
    assert set(alignmamba.__all__) == PUBLIC
    assert len(alignmamba.__all__) == len(PUBLIC)
    assert set(dir(alignmamba)) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC - {"__version__"}))
def test_public_name_resolves_and_says_what_it_is(name: str) -> None:
    value = getattr(alignmamba, name)
    own = value.__doc__
    # A class without a docstring of its own would show that of its parent, and a dataclass its signature.
    assert own, f"alignmamba.{name} has no docstring"
    assert not own.startswith(f"{name}("), f"alignmamba.{name} has only a generated docstring"
    assert not inspect.isclass(value) or own == vars(value).get("__doc__")


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(alignmamba.__file__).read_text(encoding="utf-8"))
    guarded = [
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    seen = {
        alias.name: f"alignmamba.{alias.name}" if alias.name in ("ops", "models") else node.module
        for block in guarded
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == alignmamba._EXPORTS


def test_lazy_name_is_the_object_itself() -> None:
    assert alignmamba.Batch is contracts.Batch
    assert alignmamba.ops is import_module("alignmamba.ops")


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"'alignmamba' has no attribute 'trane'.*train"):
        _ = alignmamba.trane


def test_version_is_a_release_number() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", alignmamba.__version__)


def test_import_stays_light() -> None:
    code = f"import sys, alignmamba; dir(alignmamba); print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_every_name_of_the_api_page_is_where_the_page_says() -> None:
    page = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^::: (\S+)((?:\n    .*)*)", page, flags=re.MULTILINE)
    names = {name.rpartition(".")[2] for name, _ in blocks}
    assert names <= PUBLIC
    assert {"open_run", "Batch", "ops", "models"} <= names
    listed = re.findall(r"members: \[(.*)\]", page)
    assert len(listed) == 2
    for name, options in blocks:
        for member in (
            each for group in re.findall(r"members: \[(.*)\]", options) for each in group.split(", ")
        ):
            assert hasattr(getattr(alignmamba, name.rpartition(".")[2]), member), member
    for quoted in re.findall(r"`([A-Za-z_]+)`", page.partition("## Recipes")[0]):
        assert quoted == "alignmamba" or quoted in PUBLIC, quoted
