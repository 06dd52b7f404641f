"""The command line as a whole: what is imported, errors and exit codes."""

import ast
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import alignmamba
from alignmamba.cli.bench import Bench
from alignmamba.cli.doctor import Doctor
from alignmamba.cli.evaluate import Evaluate
from alignmamba.cli.inspect import Inspect
from alignmamba.cli.predict import Predict
from alignmamba.cli.train import Train
from alignmamba.cli.verb import Verb
from alignmamba.errors import DataError
from alignmamba.extras import EXTRAS
from alignmamba.ops.backends import KERNELS

Cli = Callable[..., tuple[int, str, str]]
HEAVY = ("torch", "pydantic", "numpy", "lightning_fabric", "yaml", "rich", "safetensors", "huggingface_hub")


def test_nothing_heavy_is_imported_to_answer() -> None:
    code = f"""
import sys
from alignmamba.cli.main import main
for arguments in (["--help"], ["train", "--help"], ["predict", "--help"], ["bench", "--help"], ["--version"]):
    try:
        main(arguments)
    except SystemExit as stop:
        assert stop.code in (0, None), stop.code
    print(arguments, [name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 5
    assert all(line.endswith(" []") for line in done.stderr.splitlines()), done.stderr


def test_help_that_lists_options_of_readers_imports_no_torch() -> None:
    code = """
import sys
from alignmamba.cli.main import main
for verb in ("convert", "inspect"):
    try:
        main([verb, "--help"])
    except SystemExit as stop:
        assert stop.code in (0, None), stop.code
    assert "torch" not in sys.modules, verb
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_help_names_every_verb_and_the_exit_codes(cli: Cli) -> None:
    code, out, _ = cli("--help")
    assert code == 0
    for word in (
        "train",
        "evaluate",
        "predict",
        "inspect",
        "bench",
        "doctor",
        "--version",
        "130",
        "completion",
    ):
        assert word in out


@pytest.mark.parametrize("verb", [Verb, Train, Evaluate, Predict, Inspect, Bench, Doctor])
def test_every_option_is_explained(verb: type[Verb]) -> None:
    (definition,) = ast.parse(inspect.getsource(verb)).body
    assert isinstance(definition, ast.ClassDef)
    for field, following in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(following, ast.Expr), f"no help text for {ast.unparse(field.target)}"
            assert isinstance(following.value, ast.Constant), f"no help text for {ast.unparse(field.target)}"


def test_version(cli: Cli) -> None:
    assert cli("--version") == (0, f"alignmamba {alignmamba.__version__}\n", "")


def test_python_m_is_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "alignmamba", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"alignmamba {alignmamba.__version__}\n")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shell_completion(cli: Cli, shell: str) -> None:
    code, out, _ = cli("--tyro-print-completion", shell)
    assert code == 0
    assert "evaluate" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "train"),
        (["trian"], "trian"),
        (["train", "--dta", "x"], "--data"),
        (["train", "--seed", "many"], "seed"),
        (["train", "--strategy", "ddq"], "ddq"),
        (["evaluate"], "RUN"),
        (["evaluate", "x", "--split", "tset"], "tset"),
    ],
)
def test_arguments_that_cannot_be_parsed(cli: Cli, arguments: list[str], said: str) -> None:
    code, out, err = cli(*arguments)
    assert code == 2
    assert said in err
    assert out == ""


def test_a_terminal_without_unicode() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "alignmamba", "--help"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PYTHONIOENCODING": "ascii", "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert "inspect" in done.stdout


def test_no_colour_where_nobody_sees_it(cli: Cli, corpus: Path) -> None:
    for said in (cli("inspect", corpus), cli("inspect", corpus / "corpus.json"), cli("--help")):
        assert "\x1b" not in said[1] + said[2]


def raising(error: BaseException) -> Callable[[object], int]:
    def run(_: object) -> int:
        raise error

    return run


def test_a_users_error_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Doctor, "run", raising(DataError("field:\n  found this,\n  expected that")))
    assert cli("doctor") == (2, "", "error: field: found this, expected that\n")


def test_our_fault_is_one_line_and_a_file(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALIGNMAMBA_TRACEBACK", raising=False)
    monkeypatch.setattr(Doctor, "run", raising(ZeroDivisionError("by zero")))
    code, out, err = cli("doctor")
    assert (code, out) == (1, "")
    assert err.startswith("error: internal: ZeroDivisionError: by zero (please report it with ")
    assert len(err.splitlines()) == 1
    written = Path(err.rstrip(")\n").rpartition(" ")[2])
    assert "Traceback" in written.read_text(encoding="utf-8")
    written.unlink()


@pytest.mark.parametrize("by", ["option", "environment"])
def test_the_traceback_on_request(cli: Cli, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    monkeypatch.setattr(Doctor, "run", raising(ZeroDivisionError("by zero")))
    if by == "environment":
        monkeypatch.setenv("ALIGNMAMBA_TRACEBACK", "1")
    code, _, err = cli("doctor", *(["--traceback"] if by == "option" else []))
    assert code == 1
    assert "Traceback" in err
    assert err.endswith("error: internal: ZeroDivisionError: by zero\n")


def test_interruption_has_its_own_code(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Doctor, "run", raising(KeyboardInterrupt()))
    assert cli("doctor") == (130, "", "interrupted\n")


def test_a_failing_path_of_the_user_is_the_users(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    below = tmp_path / "corpus" / "shard"
    monkeypatch.setattr(
        Inspect, "run", raising(FileNotFoundError(2, "No such file or directory", str(below)))
    )
    assert cli("inspect", tmp_path / "corpus") == (2, "", f"error: {below}: No such file or directory\n")
    code, _, err = cli("inspect", tmp_path / "other")
    assert code == 1
    assert "internal" in err
    Path(err.rstrip(")\n").rpartition(" ")[2]).unlink()


@pytest.mark.parametrize("arguments", [["doctor", "--json"], ["train", "--help"]])
def test_a_reader_that_goes_away_is_no_fault(arguments: list[str]) -> None:
    code = f"import sys; from alignmamba.cli.main import main; sys.exit(main({arguments}))"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    said = child.stderr.read()
    child.stderr.close()
    assert child.wait(timeout=120) == 141
    assert said == ""


def test_doctor_says_what_serves_each_operator(cli: Cli) -> None:
    code, out, err = cli("doctor", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["versions"]["alignmamba"] == alignmamba.__version__
    operators = {row["operator"]: row for row in report["operators"]}
    assert {"selective_scan", "match_tokens", "transport", "mmd", "interleave"} <= operators.keys()
    assert all(row["backend"] and row["why"] for row in operators.values())
    assert {name for name, row in operators.items() if row["backend"] == "numba"} == {
        *KERNELS,
        "selective_scan_step",
    }
    assert all(row["first_call"].endswith(" s") for name, row in operators.items() if name in KERNELS)
    assert {row["extra"] for row in report["extras"]} == set(EXTRAS)
    code, out, _ = cli("doctor")
    assert code == 0
    assert "selective_scan" in out


@pytest.mark.parametrize(
    ("before", "after"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
    ids=["unset", "set by the user", "another policy"],
)
def test_openmp_may_not_spin_for_long(
    cli: Cli, before: dict[str, str], after: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    cli("--version")
    assert os.environ.get("GOMP_SPINCOUNT") == after
