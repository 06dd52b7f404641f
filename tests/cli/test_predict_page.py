"""``alignmamba predict --html``, and what ``alignmamba demo`` refuses."""

import csv
import json
import shutil
import socket
import sys
from pathlib import Path
from typing import Protocol

import pytest

from clip_runs import ClipRuns
from made_clips import write_clip


class Cli(Protocol):
    def __call__(self, *arguments: object) -> tuple[int, str, str]: ...


def test_a_page_and_a_table_come_of_one_reading(cli: Cli, clip_runs: ClipRuns, tmp_path: Path) -> None:
    page, table = tmp_path / "clip.html", tmp_path / "clip.csv"
    clip = clip_runs.clips / "c7.mp4"
    code, out, err = cli(
        *(
            "predict",
            clip_runs.first,
            clip,
            "--html",
            page,
            "--out",
            table,
            "--also",
            clip_runs.second,
            "--json",
        )
    )
    assert code == 0, err
    report = json.loads(out)
    (row,) = csv.DictReader(table.read_text().splitlines())
    first, second = report["runs"]
    assert first["prediction"]["glad"] == pytest.approx(float(row["p(glad)"]))
    assert report["prediction"]["glad"] == pytest.approx(
        (first["prediction"]["glad"] + second["prediction"]["glad"]) / 2
    )
    assert set(first["without"]) == {"text", "audio", "video"}
    assert (first["seed"], second["seed"]) == (0, 1)
    assert (report["page"], report["bytes"]) == (str(page), page.stat().st_size)
    assert report["rows"] == 1
    assert err.count("1/1 clips") == 1


def test_a_page_of_several_labels_says_which_are_called(
    cli: Cli, clip_runs: ClipRuns, tmp_path: Path
) -> None:
    page, table, clip = tmp_path / "clip.html", tmp_path / "clip.csv", clip_runs.clips / "c7.mp4"
    command = ("predict", clip_runs.half, clip, "--html", page)
    code, out, err = cli(*command, "--out", table, "--json")
    assert code == 0, err
    report = json.loads(out)
    (row,) = csv.DictReader(table.read_text().splitlines())
    for name in ("happy", "sad"):
        assert report["prediction"][name] == pytest.approx(float(row[f"p({name})"]))
        assert (name in report["called"]) == (row[f"prediction({name})"] == "1.0")
    assert report["runs"][0]["thresholds"] == {"happy": 0.5, "sad": 0.5}
    code, out, _ = cli(*command, "--also", clip_runs.moods)
    assert code == 0
    assert " in " in out.splitlines()[-1]
    code, _, err = cli(*command, "--max-failed", "1", "--also", clip_runs.grades)
    assert code == 2
    assert "task kind: found 'ordinal', expected 'multilabel'" in err


def test_a_page_needs_no_table(cli: Cli, clip_runs: ClipRuns, tmp_path: Path) -> None:
    voice = write_clip(tmp_path / "voice.wav", 0.5)
    code, out, err = cli("predict", clip_runs.scores, voice, "--html", tmp_path / "voice.html")
    assert code == 0, err
    assert out.splitlines()[-1].endswith(f" in {tmp_path / 'voice.html'} (0.1 MB)")
    assert "note: no video: " in err
    assert "note: no text: " in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["voice.html", "voice.wav"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{clips}/c6.mp4", "{clips}/c7.mp4", "--html", "p.html"], "html: a page shows one clip, found 2;"),
        (["{clips}", "--html", "p.html"], "html: a page shows one clip, found 8;"),
        (["--html", "p.html"], "html: expected one CLIP to show, found none"),
        (["--data", "synthetic", "--html", "p.html"], "html: expected one CLIP to show, found none"),
        (["{clips}/c6.mp4", "--html", "p.pdf"], "found the ending '.pdf', expected .html"),
        (["{clips}/c6.mp4", "--html", "no/p.html"], "there is no directory no"),
        (["{clips}/c6.mp4", "--out", "p.csv", "--also", "{second}"], "also: goes with --html"),
        (["{clips}/c6.mp4", "--html", "p.html", "--also", "{scores}"], "task kind: found 'regression'"),
        (["{clips}/c6.mp4", "--html", "p.html", "--also", "nowhere"], "run nowhere: no such directory"),
        (["{clips}/c6.vtt", "--html", "p.html"], "c6.vtt: cannot be read"),
        (["{clips}/c6.mp4"], "expected --out FILE.csv|.parquet"),
    ],
)
def test_what_makes_no_page_is_refused_in_one_line(
    cli: Cli,
    clip_runs: ClipRuns,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {name: getattr(clip_runs, name) for name in ("clips", "second", "scores")}
    code, out, err = cli("predict", clip_runs.first, *(each.format(**names) for each in arguments))
    assert (code, out) == (2, "")
    assert said in err
    assert len([line for line in err.splitlines() if line.startswith("error")]) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{first}", "--also", "{scores}"], "task kind: found 'regression', expected 'classification'"),
        (["{first}", "--max-megabytes", "0"], "max-megabytes: found 0, expected a number above 0"),
        (["{first}", "--limit", "-1"], "limit: found -1, expected a number above 0"),
        (["{first}", "--port", "70000"], "port: found 70000, expected a number from 0 to 65535"),
        (["{first}", "--host", "0.0.0.0"], "--host: demo has no such option"),
        (["{unfinished}"], "not finished"),
        (["nowhere"], "run nowhere: no such directory"),
        (["{run}"], "`alignmamba extract` did not make"),
    ],
)
def test_a_demo_that_cannot_serve_is_refused_in_one_line(
    cli: Cli, clip_runs: ClipRuns, run: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    unfinished = tmp_path / "unfinished"
    shutil.copytree(clip_runs.first, unfinished)
    (unfinished / "metrics.json").unlink()
    names = {"first": clip_runs.first, "scores": clip_runs.scores, "run": run, "unfinished": unfinished}
    code, out, err = cli("demo", *(each.format(**names) for each in arguments), "--no-browser")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert said in err


def test_a_demo_refuses_a_port_in_use(cli: Cli, clip_runs: ClipRuns) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, out, err = cli("demo", clip_runs.first, "--port", port, "--no-browser")
    assert (code, out) == (2, "")
    assert err == f"error: port {port}: cannot be used: Address already in use\n"


def test_a_demo_without_its_packages_names_the_extra(
    cli: Cli, clip_runs: ClipRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    # how Python marks a module as absent
    monkeypatch.setitem(sys.modules, "uvicorn", None)  # type: ignore[arg-type]
    code, _, err = cli("demo", clip_runs.first, "--no-browser")
    assert code == 2
    assert err == "error: demo: uvicorn is not installed, try: pip install 'alignmamba[demo]'\n"
