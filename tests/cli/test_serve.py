"""``alignmamba serve`` and the programs of ``alignmamba export``, as they are typed."""

import json
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="needs alignmamba[serve]")

Cli = Callable[..., tuple[int, str, str]]
ONE = {"features": {"text": [[1, 2, 3, 4]]}}


def ask(address: str, samples: int) -> Any:
    body = json.dumps({"samples": [ONE] * samples}).encode()
    request = urllib.request.Request(f"{address}predict", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


def test_a_server_answers_and_ends_with_what_is_under_way_answered(run: Path) -> None:
    command = [sys.executable, "-m", "alignmamba", "serve", str(run), "--json", "--max-samples", "4000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["address"]
        assert address.startswith("http://127.0.0.1:")
        (answer,) = ask(address, 1)["predictions"]
        assert set(answer) == {"id", "prediction", "probabilities"}
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(ask(address, 4000)))
        thread.start()
        while json.load(urllib.request.urlopen(f"{address}health"))["predicted"] == 1 and not answers:
            if json.load(urllib.request.urlopen(f"{address}health"))["waiting"]:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
        thread.join()
        assert len(answers[0]["predictions"]) == 4000
        assert (process.returncode, err) == (0, "")
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", 70000], "port: found 70000, expected a number from 0 to 65535"),
        (["--max-megabytes", 0], "max-megabytes: found 0, expected a number from 1e-06 to 10000"),
        (["--together", 0], "together: found 0, expected a number from 1 to 100000"),
        (["--max-samples", 0], "max-samples: found 0, expected a number from 1 to"),
        (["--wait", -1], "wait: found -1, expected a number from 0 to 60"),
        (["--host", "no such host"], "host no such host: expected an address of this machine"),
        (["--host", "192.0.2.1"], "host 192.0.2.1: expected an address of this machine"),
    ],
)
def test_what_serve_cannot_use_is_one_line(cli: Cli, run: Path, arguments: list[Any], said: str) -> None:
    code, out, err = cli("serve", run, *arguments)
    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.parametrize(
    ("address", "local"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("192.0.2.1", False)]
)
def test_loopback_is_known(address: str, local: bool) -> None:
    from alignmamba.recipes.service.prediction_server import _is_local

    assert _is_local(address) is local


def test_a_run_that_is_none_is_refused(cli: Cli, tmp_path: Path) -> None:
    assert cli("serve", tmp_path)[0] == 2
    assert cli("export", "onnx", tmp_path, tmp_path / "a.onnx")[0] == 2


def test_export_writes_a_program_that_says_what_it_is(cli: Cli, run: Path, tmp_path: Path) -> None:
    import torch

    out = tmp_path / "model.pt2"
    code, said, _ = cli("export", "pt2", run, out, "--json")
    assert code == 0
    told = json.loads(said)
    extra = {"alignmamba.json": ""}
    torch.export.load(out, extra_files=extra)
    description = json.loads(extra["alignmamba.json"])
    assert description == {name: told[name] for name in description}
    assert [place["name"] for place in description["inputs"]] == ["text", "text_mask", "audio", "audio_mask"]
    assert description["outputs"] == ["prediction"]
    assert description["targets"][0]["classes"] == ["calm", "glad", "sad"]
    assert told["difference"] < 1e-4
    assert told["bytes"] == out.stat().st_size
    before = out.read_bytes()
    code, _, err = cli("export", "pt2", run, out)
    assert code == 2
    assert "exists already; overwrite=True (--overwrite) replaces a file" in err
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["onnx", "RUN", "a.pt2"], "found the ending '.pt2', expected .onnx"),
        (["pt2", "RUN", "a.pt2", "--int8"], "int8: found the format pt2, expected onnx"),
        (["mmsa", "RUN", "a.pkl", "--int8"], "int8: goes with onnx alone, found the format mmsa"),
        (["onnx", "RUN", "a.onnx", "--text", "words"], "text: goes with mmsa alone, found the format onnx"),
        (["onnx", "RUN", "none/a.onnx"], "there is no directory"),
    ],
)
def test_what_export_cannot_use_is_one_line(
    cli: Cli, run: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    form, _, out, *more = arguments
    code, _, err = cli("export", form, run, tmp_path / out, *more)
    assert code == 2
    assert said in err
    assert list(tmp_path.iterdir()) == []
