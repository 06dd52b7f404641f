"""The rules of CONTRIBUTING, "Words": width, sentences, beginnings of docstrings, refused phrases."""

import argparse
import ast
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import tyro

from alignmamba.cli.arguments import DESCRIPTION, VERBS

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

WIDEST = 110
"""Columns of a line."""
MOST_WORDS = 25
"""Words of a sentence in the README, in help and in messages."""

REFUSED = {
    r"(go|goes|going|went|gone) on\b": "resume, continue",
    r"(tell|tells|telling|told)\b": "report, distinguish",
    r"(bring|brings|bringing|brought)\b": "move, resample",
    r"(lay|lays|laid|laying) down\b": "write",
    r"(let|lets|letting|left|leave|leaves) alone\b": "keep, not to mention",
    r"(left|leave|leaves|leaving|dropped) out? ?with a note\b": "drop and report",
    r"(is|are) none\b": "not a ..., no ...",
    r"none (of|that is)\b": "no, not one",
    r"(of|with|in|for) [^.;:,]{1,40} there (is|are) none\b": "there is no ...",
    r"(is|are|it is) said\b": "report, state",
    r"anew\b": "again",
    r"(first|last) and (first|last) but one\b": "second to last",
    r"(thereof|therein|thereby|whereof|wherein|whosoever|aforesaid)\b": "of it",
    r"is, is\b": "one verb",
}
"""Phrases that read like a translation, and words to use in their place."""

INVERTED = r"(Of|Into|Onto) (a|an|the|each|every|both|other|another|several|these|those|all|its)\b"
"""The beginning of a sentence that puts its object first."""

NO_BEGINNING = re.compile(
    r"(What|Whether|Wh(ere|ich|o|ose|en|y|ile)|How|If|Of|For|With|Without|From|In|On|At|As|By|To|Between|Not|Nothing|After|Only|So|There|It)\b"
)
"""Words that are neither a verb nor a noun with its article, number or adjective."""


def too_wide(page: str) -> list[str]:
    """Lines of Markdown prose that could be broken: tables, code, formulas, pictures and links cannot."""
    prose = re.sub(
        r"^( *)```.*?^ *```|\$\$.*?\$\$|^::: (?:[^\n]+\n)+", "", page, flags=re.DOTALL | re.MULTILINE
    )
    wide = [line for line in prose.splitlines() if len(line) > WIDEST and not re.match(r"\s*(\||!\[)", line)]
    return [line for line in wide if " " in re.sub(r"`[^`]*`|^\s*[-*] ", "", line).strip()]


def too_long(prose: str) -> list[str]:
    """Sentences of more than ``MOST_WORDS`` words; a blank line, an item or a row of a table ends one."""
    plain = re.sub(r"^```.*?^```", "\n\n", prose, flags=re.DOTALL | re.MULTILINE)
    plain = re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "Code", plain))
    plain = re.sub(r"\n\s*(?=([-*|#]|\d+\.) |[\w-]+: )|\|", "\n\n", plain)
    sentences = re.split(r"(?<=[.!?])[\s*)\"”]+(?=[^a-z\s])|\n\s*\n", plain)
    return [each for each in sentences if len(re.findall(r"\S*\w\S*", each)) > MOST_WORDS]


def refused(prose: str) -> list[str]:
    """Expressions in a text that have plainer words; code between backticks is not read."""
    plain = " ".join(re.sub(r"`+[^`]*`+", "code", prose).split())
    said = [found[0] for phrase in REFUSED for found in re.finditer(rf"\b{phrase}", plain, re.IGNORECASE)]
    said += [
        found[0] for found in re.finditer(r"\b(?!code\b)([a-z]{2,}) \1\b", plain)
    ]  # a word written twice
    return said + [found[0].strip() for found in re.finditer(rf"(^|[.!?] ){INVERTED}", plain)]


def ill_begun(docstring: str) -> bool:
    """True if a docstring begins with neither a verb nor a noun."""
    return NO_BEGINNING.match(docstring.strip()) is not None


def docstrings(tree: ast.AST) -> Iterator[str]:
    """Docstrings of modules, classes and functions, and the strings below fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for each in node.body:
                if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant):
                    yield str(each.value.value)


def messages(tree: ast.AST) -> Iterator[str]:
    """Text of raised errors; ``x`` stands for each value that is filled in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            yield from _texts(node.exc)


def texts(tree: ast.AST) -> Iterator[str]:
    """Every text of more than one word that is no docstring: messages, notes, titles and help."""
    for node in ast.walk(tree):
        for name, value in ast.iter_fields(node):
            if not (isinstance(node, ast.Expr) and name == "value"):
                for each in value if isinstance(value, list) else [value]:
                    if isinstance(each, ast.Constant | ast.JoinedStr) and not isinstance(node, ast.JoinedStr):
                        yield from (text for text in _texts(each) if " " in text.strip())


def _texts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from _texts(child)


def helps() -> dict[str, str]:
    """Texts of `--help`, by verb and option."""
    said = {"alignmamba": DESCRIPTION}
    for verb, kind in VERBS.items():
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            parser: argparse.ArgumentParser = tyro.extras.get_parser(kind.completed())
        said[verb] = str(parser.description)
        for action in parser._actions:
            said[f"{verb} {'/'.join(action.option_strings) or action.dest}"] = str(action.help)
    return said


def _named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize(
    "prose",
    [
        "It will go on with the run.",
        "The test tells one from another.",
        "What is brought to the anchor is kept.",
        "Plans are laid down in a file.",
        "A sample left out with a note.",
        "a number that is none",
        "This is none of the formats.",
        "of a folder there is none",
        "Of a corpus every problem is listed.",
        "A line is said to be wrong.",
        "first and last but one",
        "What a column is, is guessed.",
        "Masks are drawn anew.",
        "found found a text",
    ],
)
def test_a_refused_phrase_is_seen(prose: str) -> None:
    assert refused(prose)


def test_plain_prose_is_let_through() -> None:
    assert not refused("Resume the run, or drop the modality. Code such as `tell()` is not read. Of course.")
    assert not too_long("word " * 25 + ".\n" + "Word " * 25 + ".")
    assert not too_wide("| a table " + "x" * 120 + " |\n```\n" + "code " * 40 + "\n```\n")
    assert not ill_begun("Return the number of samples.")


def test_wrong_lines_sentences_and_docstrings_are_seen() -> None:
    assert too_wide("word " * 25)
    assert too_long("word " * 26 + ".")
    assert too_long("One. " + "word " * 20 + "and\n" + "word " * 6 + ".")
    tree = ast.parse('def f():\n    """Whether it is."""\n    raise ValueError(f"{x} goes on" " and on")')
    assert [ill_begun(each) for each in docstrings(tree)] == [True]
    assert list(messages(tree)) == ["x goes on and on"]


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_prose_is_narrow_and_plain(page: Path) -> None:
    prose = page.read_text(encoding="utf-8")
    assert not too_wide(prose)
    assert not refused(re.sub(r"^```.*?^```", "", prose, flags=re.DOTALL | re.MULTILINE))


def test_the_readme_has_short_sentences() -> None:
    assert not too_long((ROOT / "README.md").read_text(encoding="utf-8"))


def test_help_is_short_and_plain() -> None:
    said = helps()
    assert len(said) > 100
    assert not {name: text for name, text in said.items() if too_long(text) or refused(text)}
    broken = {name for name, text in said.items() if " " in name and re.search(r"\n(?![\w-]+: )", text)}
    assert not broken, "the help of an option stands in one line, or in one line for each item"
    unfinished = [verb for verb in VERBS if not said[verb].partition("\n")[0].endswith(".")]
    assert not unfinished, (
        "the first line of a verb is a sentence of its own: the list of verbs shows it alone"
    )


@pytest.mark.parametrize("path", SOURCES, ids=_named)
def test_messages_are_short_and_plain(path: Path) -> None:
    said = list(messages(ast.parse(path.read_text(encoding="utf-8"))))
    assert not [text for text in said if too_long(text.replace("; ", ".\n\n")) or refused(text)]


@pytest.mark.parametrize("path", SOURCES, ids=_named)
def test_docstrings_begin_with_a_verb_or_a_noun(path: Path) -> None:
    found = list(docstrings(ast.parse(path.read_text(encoding="utf-8"))))
    assert not [text for text in found if ill_begun(text)]
    # "``None`` where there is none" is plain enough for a docstring; a parameter may have any name
    unnamed = [re.sub(r"\b(told|tell): ", "", text) for text in found]
    assert not [each for text in unnamed for each in refused(text) if not each.lower().endswith(" none")]
