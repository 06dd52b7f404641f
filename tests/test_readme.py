"""The README is run: its Python, its command lines, its links."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
INDEX = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")


def _blocks(text: str, language: str) -> list[str]:
    """Contents of the fenced blocks of that language."""
    fences: list[tuple[str, str]] = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [content for name, content in fences if name == language]


def _command_lines() -> list[str]:
    """Every `alignmamba ...` line of the README and the quick start, in blocks and between backticks."""
    blocks = [line for text in (README, INDEX) for block in _blocks(text, "") for line in block.splitlines()]
    quoted = [line for text in (README, INDEX) for line in re.findall(r"`(alignmamba [^`]+)`", text)]
    return sorted(
        {line.partition("#")[0].strip() for line in [*blocks, *quoted] if line.startswith("alignmamba ")}
    )


def _help(verb: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "alignmamba", verb, "--help"], capture_output=True, text=True, timeout=120
    )
    return done.stdout if done.returncode == 0 else done.stderr


def test_python_example(tmp_path: Path) -> None:
    (example,) = _blocks(README, "python")
    done = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, cwd=tmp_path, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert 0.8 < float(done.stdout.splitlines()[-1]) <= 1  # one modality alone is at chance, .5
    predictions = (tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert len(predictions) == 1 + 256 + 64 + 64


def test_there_are_command_lines_to_check() -> None:
    verbs = {shlex.split(line)[1] for line in _command_lines()}
    assert {"train", "evaluate", "predict", "inspect", "doctor"} <= verbs


@pytest.mark.parametrize("verb", sorted({shlex.split(line)[1] for line in _command_lines()}))
def test_command_lines_use_options_that_exist(verb: str) -> None:
    shown = _help(verb)
    assert shown.startswith(f"usage: alignmamba {verb} "), f"no such verb: {shown}"
    known = set(re.findall(r"--[a-z][a-z-]*", shown))
    for line in _command_lines():
        words = shlex.split(line)
        if words[1] == verb:
            unknown = (
                {word.partition("=")[0] for word in words[2:] if word.startswith("--")} - known - {"--help"}
            )
            assert not unknown, f"{line}: no option {sorted(unknown)}"


def test_an_unknown_verb_would_be_seen() -> None:
    """Were its help like that of a verb, the test above would say nothing."""
    assert not _help("nonesuch").startswith("usage: alignmamba nonesuch ")


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    wanted = set(re.findall(r"\bmake ([a-z]+)(?=\s+#|`)", README))
    assert {"demo", "test"} <= wanted
    assert wanted <= set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))


def test_links_lead_somewhere() -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)", README) if "://" not in target]
    assert targets
    assert not [target for target in targets if not (ROOT / target).exists()]


def test_the_package_page_has_no_link_that_leads_nowhere() -> None:
    """There, a path within the repository is nothing: the build leaves its text alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    page = README
    for change in project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        page = re.sub(change["pattern"], change["replacement"], page)
    assert re.findall(r"\]\((https?://[^)]+)", page)
    assert not [target for target in re.findall(r"\]\(([^)]+)", page) if "://" not in target]


def test_the_tests_that_the_findings_name_exist() -> None:
    """The page of what was found in 0.1.0 names the test that holds each row."""
    page = (ROOT / "docs" / "results" / "first-contact.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", page)
    assert len(named) > 60
    assert [
        f"{path}::{name}"
        for path, name in named
        if f"def {name}(" not in (ROOT / path).read_text(encoding="utf-8")
    ] == []


_FIGURE = re.compile(r"(?<![\d.])\.\d+(?: ± \.\d+)?|(?<![\d.])\d{2,}(?![\d.])")
_RESULTS = [line for line in README.splitlines() if line.startswith("| [") and "results" in line]


def _unfounded(row: str) -> list[str]:
    """Figures of a row of results that the page which the row names does not have."""
    test, _, *cells = row.strip("|").split("|")
    (page,) = (ROOT / path for path in re.findall(r"\]\((docs/[\w/.-]+\.md)", test))
    known = _FIGURE.findall(re.sub(r"\b0\.", ".", page.read_text(encoding="utf-8")))
    known += [value for figure in known for value in figure.split(" ± ")]
    return [figure for cell in cells for figure in _FIGURE.findall(cell) if figure not in known]


@pytest.mark.parametrize("row", _RESULTS)
def test_figures_stand_on_the_page_that_the_row_names(row: str) -> None:
    assert _unfounded(row) == []


def test_there_are_results_and_a_figure_that_is_none_is_found() -> None:
    assert len(_RESULTS) >= 10
    row = "| [digits](docs/results/tuned.md) | accuracy | .928 ± .016 | .928, .9285 |"
    assert _unfounded(row) == [".9285"]
