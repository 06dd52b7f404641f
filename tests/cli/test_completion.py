"""Completion in the shells that the help names."""

import shutil
import subprocess
from pathlib import Path

import pytest

from alignmamba.cli.completion import SHELLS
from alignmamba.cli.main import main
from alignmamba.methods import METHODS


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_completes_models_presets_and_settings(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--tyro-print-completion", shell])
    assert not ended.value.code
    script, err = capsys.readouterr()
    assert err == ""
    for word in (*METHODS, "paper", "fit.learning_rate=", "options.local.window=", "comparison", "--split"):
        assert word in script, word
    assert "'None'" not in script


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for given in (
        ["--tyro-print-completion", "tcsh"],
        ["--tyro-print-completion=x"],
        ["--tyro-print-completion"],
    ):
        assert main(given) == 2
        err = capsys.readouterr().err
        assert "--tyro-print-completion: expected a shell, one of bash, zsh, fish, found " in err
        assert err.count("\n") == 1


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Completion as a shell asks for it: the words so far in COMP_WORDS, the answers in COMPREPLY."""
    with pytest.raises(SystemExit):
        main(["--tyro-print-completion", "bash"])
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out, encoding="utf-8")
    asked = f"""source {script}
    COMP_WORDS=(alignmamba train --model single); COMP_CWORD=3
    COMP_LINE="${{COMP_WORDS[*]}}"; COMP_POINT=${{#COMP_LINE}}
    function=$(complete -p alignmamba | sed 's/.*-F \\([^ ]*\\).*/\\1/'); $function alignmamba single --model
    printf '%s\\n' "${{COMPREPLY[@]}}\""""
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, timeout=60)
    assert {line.split()[0] for line in done.stdout.splitlines() if line.strip()} == {
        "single-stream-mamba",
        "single-stream-transformer",
    }
