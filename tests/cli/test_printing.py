"""Content of strangers' files is shown on a terminal and never obeyed by it."""

import ast
import json
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import alignmamba.cli
from alignmamba.cli.arguments import parsed
from alignmamba.cli.main import main
from alignmamba.cli.train import Train
from alignmamba.cli.verb import console
from alignmamba.data.archive import write_corpus
from alignmamba.errors import printable, safe_json

COMMANDS = {
    "escape": "\x1b[2J\x1b[31mEVIL\x1b]0;title\x07",
    "bell and backspace": "\x07\x08\x08\x7f",
    "control sequence in one character": "\x9b31m",
    "other direction": "\u202egnp.exe\u2066\u200f",
    "lines": "one\ntwo\rthree\x0b\x0c\u2028four\u2029",
    "nothing to be seen": "a\u200bb\u2060c\ufeff",
}
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


@pytest.fixture(params=COMMANDS)
def command(request: pytest.FixtureRequest) -> str:
    return COMMANDS[request.param]


@pytest.fixture
def corpus(tmp_path: Path, command: str) -> Path:
    def split(first: int) -> dict[str, object]:
        return {
            "features": {"audio": [np.ones((2, 3), np.float32)] * 4},
            "targets": [0, 1, 0, 1],
            "ids": [f"{number}{command}" for number in range(first, first + 4)],
            "groups": [f"group{command}"] * 4,
        }

    write_corpus(
        tmp_path / "corpus",
        {"train": split(0), "valid": split(4), "test": split(8)},
        task={"kind": "classification", "classes": [f"no{command}", f"yes{command}"]},
        name=f"name{command}",
        source=f"source{command}",
        licence=f"licence{command}",
        units={"audio": f"units{command}"},
        references={f"best{command}": 1.0},
    )
    return tmp_path / "corpus"


def test_a_corpus_cannot_take_over_a_terminal(
    corpus: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(corpus)]) == 0
    out = capsys.readouterr().out
    assert not OBEYED.search(out)
    shown = re.sub(r"\s", "", out)
    for field in ("source", "licence", "units", "group"):  # folded in a table
        assert f"{field}{printable(command)}".replace(" ", "") in shown or field == "group"
    assert len(out.splitlines()) == len(out.split("\n")) - 1


def test_json_has_the_names_and_nothing_that_a_terminal_obeys(
    corpus: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(corpus), "--json"]) == 0
    out = capsys.readouterr().out
    assert not OBEYED.search(out)
    assert out.count("\n") == 1
    found = json.loads(out)
    assert (found["name"], found["licence"]) == (f"name{command}", f"licence{command}")


def test_an_error_about_a_file_is_shown_and_not_obeyed(
    corpus: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((corpus / "corpus.json").read_text())
    manifest["version"] = command
    (corpus / "corpus.json").write_text(json.dumps(manifest))
    for arguments in (["inspect", str(corpus)], ["inspect", str(corpus), "--traceback"]):
        assert main(arguments) == 2
        said = capsys.readouterr()
        assert not OBEYED.search(said.err + said.out)
        assert "version" in said.err


@pytest.mark.parametrize(
    "arguments",
    [["evaluate", "run", "--split", "{}"], ["doctor", "{}"], ["doctor", "-{}"], ["{}"], ["-{}"], ["--{}"],
     ["train", "--seed", "{}"], ["train", "--{}"], ["report", "--out", "x", "{}", "-{}"],
     ["bench", "scan", "--lengths", "1", "{}"]],
)  # fmt: skip
def test_what_is_typed_is_shown_and_not_obeyed(
    arguments: list[str], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with suppress(SystemExit):
        assert main([word.format(command) for word in arguments]) == 2
    said = capsys.readouterr()
    assert said.err
    assert not OBEYED.search(said.err + said.out)


def test_what_is_typed_arrives_as_it_is(command: str) -> None:
    assert parsed(["train", "--data", command, "--set", command]) == Train(data=command, set=((command,),))


def test_a_plan_shows_what_a_corpus_is_called(
    corpus: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["train", "--data", str(corpus), "--dry-run", "--set", "options.d_model=16", "options.depth=1"])
        == 0
    )
    out = capsys.readouterr().out
    assert not OBEYED.search(out)
    assert f"# corpus: name{printable(command)}\n" in out


def test_whatever_a_screen_prints_is_printable(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    from alignmamba.cli.terminal_tables import facts_table, metrics_table, rows_table

    screen = console()
    screen.print(command, soft_wrap=True)
    screen.print(rows_table(command, (command, command), [(command, command)]))
    screen.print(facts_table(command, {command: command}))
    screen.print(metrics_table(command, {command: {command: 1.0}}))
    assert not OBEYED.search(capsys.readouterr().out)


def test_what_people_write_is_left_alone() -> None:
    text = "Grüße, 你好, नमस्ते, می\u200cخواهم, 👩\u200d👩\u200d👧 \\x1b ~"
    assert printable(text) == text
    assert printable("\x1b\n\u202e") == "\\x1b\\n\\u202e"
    assert json.loads(safe_json(json.dumps([text, "\x9b\U000e0041"], ensure_ascii=False))) == [
        text,
        "\x9b\U000e0041",
    ]


def test_one_module_prints() -> None:
    """A print past `console`, `say`, `write` and `emit` would hand a terminal whatever a file says."""
    wrong = []
    for path in sorted(Path(alignmamba.cli.__file__).parent.glob("*.py")):
        if path.name in ("verb.py", "main.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in ("print", "Console", "rich.print", "sys.stdout.write", "sys.stderr.write"):
                wrong.append(f"{path.name}:{node.lineno}: {called}")
    assert not wrong
