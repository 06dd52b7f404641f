"""The local page of the demo: who may send what, and that nothing of it stays."""

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from alignmamba.errors import ConfigError, DataError
from alignmamba.recipes.clip_page import upload as upload_module
from alignmamba.recipes.clip_page.clip_server import ClipApp, Front, serve
from alignmamba.recipes.clip_page.upload import Upload
from clip_runs import ClipRuns

uvicorn = pytest.importorskip("uvicorn", reason="needs alignmamba[demo]")

MOST = 50_000
FRONT = Front(question="Which?", about="By a run.", words="Words", most_bytes=MOST)
BOUNDARY = "a-boundary"


@dataclass
class Served:
    """A server whose answers are made by a function of the test."""

    app: ClipApp
    folder: Path
    answer: Callable[[Upload], str] = lambda upload: f"about {upload.name}"
    seen: list[Upload] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.app.address.rstrip("/").rpartition(":")[2])

    @property
    def token(self) -> str:
        page = self.ask("GET", "/")[1]
        return page.partition("/clip?token=")[2].partition('"')[0]

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] = {}
    ) -> tuple[int, str, Mapping[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            return response.status, response.read().decode(), dict(response.getheaders())
        finally:
            connection.close()

    def send(self, body: Any, headers: Mapping[str, str] = {}, token: str | None = None) -> tuple[int, str]:
        own = {
            "Origin": f"http://127.0.0.1:{self.port}",
            "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
        }
        given = {name: value for name, value in {**own, **headers}.items() if value}
        path = f"/clip?token={self.token if token is None else token}"
        return self.ask("POST", path, body, given)[:2]


def form(content: bytes, name: str = "clip.mp4", words: str = "") -> bytes:
    """A form as a browser sends it."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="clip"; filename="{name}"\r\n'
        "Content-Type: video/mp4\r\n\r\n".encode(),
        content,
        f'\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; name="words"\r\n\r\n{words}'.encode(),
        f"\r\n--{BOUNDARY}--\r\n".encode(),
    ]
    return b"".join(parts)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """The application behind a web server, and a thread that answers, as `serve` has them."""
    import socket

    folder = tmp_path / "uploads"
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        app = ClipApp(FRONT, folder, port=listening.getsockname()[1])
        given = Served(app, folder)

        def answer(upload: Upload) -> str:
            given.seen.append(upload)
            return given.answer(upload)

        ended = threading.Event()

        def work() -> None:
            while not ended.is_set():
                app.work(answer, wait_seconds=0.05)

        config = uvicorn.Config(app, log_config=None, log_level="critical", lifespan="off")
        server = uvicorn.Server(config)
        threads = [
            threading.Thread(target=server.run, kwargs={"sockets": [listening]}),
            threading.Thread(target=work),
        ]
        for thread in threads:
            thread.start()
        yield given
        server.should_exit = True
        ended.set()
        for thread in threads:
            thread.join()


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so; the time limit of a test ends it otherwise."""
    while not condition():
        time.sleep(0.02)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_a_clip_is_there_while_it_is_read_and_gone_afterwards(served: Served) -> None:
    def answer(upload: Upload) -> str:
        assert upload.path.read_bytes() == b"content"
        return "<p>glad</p>"

    served.answer = answer
    assert served.send(form(b"content")) == (200, "<p>glad</p>")
    assert [upload.name for upload in served.seen] == ["clip.mp4"]
    assert left(served.folder) == []


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("hello there", "clip.txt"),
        ("WEBVTT\n\n00:00.000 --> 00:01.000\nhello", "clip.vtt"),
        ("1\n00:00:00,000 --> 00:00:01,000\nhello", "clip.srt"),
        ("", None),
    ],
)
def test_words_lie_beside_the_clip(served: Served, words: str, name: str | None) -> None:
    found: list[str] = []

    def answer(upload: Upload) -> str:
        found.extend(left(upload.path.parent))
        return ""

    served.answer = answer
    assert served.send(form(b"content", words=words))[0] == 200
    assert found == ["clip", *([name] if name else [])]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", "", "0.0.0.0"]
)
def test_another_host_is_refused(served: Served, host: str) -> None:
    for method, path in (("GET", "/"), ("POST", "/clip")):
        status, text, _ = served.ask(method, path, headers={"Host": host})
        assert (status, text) == (421, f"expected the host of {served.app.address}")


def test_this_host_has_two_names(served: Served) -> None:
    assert served.ask("GET", "/", headers={"Host": f"localhost:{served.port}"})[0] == 200


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({}, ""),
        ({}, "guess"),
        ({"Origin": "http://evil.example"}, None),
        ({"Origin": "null"}, None),
        ({"Origin": ""}, None),
        ({"Sec-Fetch-Site": "cross-site"}, None),
    ],
)
def test_the_form_of_another_page_is_refused(
    served: Served, headers: dict[str, str], token: str | None
) -> None:
    status, text = served.send(form(b"content"), headers, token)
    assert status == 403
    assert "Expected the form of this page, found that of another." in text
    assert served.seen == []
    assert left(served.folder) == []


def test_a_token_holds_for_one_process(served: Served, tmp_path: Path) -> None:
    other = ClipApp(FRONT, tmp_path, port=served.port)
    assert len(served.token) > 30
    assert other._token != served.token


def test_a_clip_that_declares_too_much_is_refused(served: Served) -> None:
    size = {"Content-Length": str(MOST + 1_000_000)}
    status, text = served.send(form(b"begin"), size)
    assert status == 413
    assert "The clip is larger than 0.05 MB, the limit of this demo." in text
    assert served.seen == []


@pytest.mark.parametrize("declared", [True, False])
def test_a_clip_that_is_too_large_is_refused(served: Served, declared: bool) -> None:
    """Also where the request declares no length, or the form holds another field instead."""
    body = form(bytes(MOST + 1))
    status, text = served.send(body if declared else iter([body[:30_000], body[30_000:]]))
    assert status == 413
    assert "larger than" in text
    assert left(served.folder) == []
    status, text = served.send(form(b"content", words="x" * (upload_module.MOST_WORDS + 1)))
    assert (status, served.seen) == (413, [])
    exact = form(bytes(MOST))
    assert served.send(exact if declared else iter([exact]))[0] == 200


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (form(b""), {}, "Choose a clip first."),
        (form(b"content")[:-10], {}, "The form broke off before its end."),
        (b"no form", {}, "Expected the form of this page, found a damaged one."),
        (b"{}", {"Content-Type": "application/json"}, "Expected the form of this page, found another"),
        (b"", {"Content-Type": "multipart/form-data"}, "Expected the form of this page, found another"),
        (form(b"a").replace(b'"words"', b'"clip"; filename="b"'), {}, "Found several clips, expected one."),
    ],
)
def test_what_is_no_form_is_refused_in_one_line(
    served: Served, body: bytes, headers: dict[str, str], said: str
) -> None:
    status, text = served.send(body, headers)
    assert status == 400
    assert said in text
    assert served.seen == []
    assert left(served.folder) == []


def test_a_clip_that_cannot_be_read_is_one_line_under_its_own_name(served: Served) -> None:
    def answer(upload: Upload) -> str:
        raise DataError(f"{upload.path}: cannot be read: damaged")

    served.answer = answer
    status, text = served.send(form(b"content", name="../../<b>.mp4"))
    assert status == 422
    assert 'role="alert">&lt;b&gt;.mp4: cannot be read: damaged</p>' in text
    assert str(served.folder) not in text
    assert left(served.folder) == []


def test_a_fault_of_ours_does_not_end_the_server(served: Served) -> None:
    def answer(upload: Upload) -> str:
        raise ZeroDivisionError(upload.name)

    served.answer = answer
    status, text = served.send(form(b"content"))
    assert status == 422
    assert "internal: ZeroDivisionError: clip.mp4" in text
    assert left(served.folder) == []
    assert served.ask("GET", "/")[0] == 200


def test_clips_are_answered_one_after_the_other(served: Served) -> None:
    at_work, most, folders = 0, 0, []

    def answer(upload: Upload) -> str:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        folders.append(len(list(served.folder.iterdir())))
        time.sleep(0.2)
        at_work -= 1
        return upload.name

    served.answer = answer
    token, answers = served.token, []

    def send(name: str) -> None:
        answers.append(served.send(form(b"content", name=name), token=token))

    threads = [threading.Thread(target=send, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [(200, "a"), (200, "b"), (200, "c")]
    assert most == 1
    assert folders == [1, 1, 1]  # nor is the next one on disk yet


def test_whoever_leaves_while_sending_leaves_nothing(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    connection.putrequest("POST", f"/clip?token={served.token}")
    connection.putheader("Origin", f"http://127.0.0.1:{served.port}")
    connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
    connection.putheader("Content-Length", "40000")
    connection.endheaders()
    connection.send(form(bytes(30_000))[:20_000])
    wait_for(lambda: "clip" in left(served.folder))
    connection.close()
    wait_for(lambda: left(served.folder) == [])
    assert served.send(form(b"content"))[0] == 200


def test_whoever_stops_sending_is_ended(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_module, "_STALL_SECONDS", 0.2)
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    connection.putrequest("POST", f"/clip?token={served.token}")
    connection.putheader("Origin", f"http://127.0.0.1:{served.port}")
    connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
    connection.putheader("Content-Length", "40000")
    connection.endheaders()
    connection.send(form(bytes(30_000))[:20_000])
    assert connection.getresponse().status == 408
    connection.close()
    assert left(served.folder) == []


def test_every_answer_is_guarded(served: Served) -> None:
    answers = [
        served.ask("GET", "/"),
        served.ask("GET", "/nothing"),
        served.ask("PUT", "/clip"),
        served.ask("GET", "/", headers={"Host": "evil.example"}),
    ]
    assert [status for status, _, _ in answers] == [200, 404, 405, 421]
    for _, _, headers in answers:
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"] == "frame-ancestors 'none'"
        assert headers["referrer-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers or headers["server"] == "uvicorn"


def test_a_port_in_use_is_refused(served: Served) -> None:
    with pytest.raises(ConfigError, match=rf"^port {served.port}: cannot be used: Address already in use$"):
        serve(lambda upload: upload.name, FRONT, port=served.port)
    with pytest.raises(ConfigError, match=r"^port: found 70000, expected"):
        serve(lambda upload: upload.name, FRONT, port=70_000)


# The command itself


@contextmanager
def demo(run: Path, folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """``alignmamba demo`` in a process whose temporary files lie in a folder, and its port."""
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "alignmamba", "demo", str(run), "--no-browser", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("demo at http://127.0.0.1:"), line
        yield process, int(line.partition("127.0.0.1:")[2].partition("/")[0])
    finally:
        process.kill()
        process.communicate()


def send_to(port: int, body: bytes) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=200)
    connection.request("GET", "/")
    page = connection.getresponse().read().decode()
    headers = {
        "Origin": f"http://127.0.0.1:{port}",
        "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
    }
    action = page.partition('action="')[2].partition('"')[0]
    connection.request("POST", action, body, headers)
    response = connection.getresponse()
    found = response.status, response.read().decode()
    connection.close()
    return found


def test_a_run_answers_and_ends_without_a_trace(clip_runs: ClipRuns, tmp_path: Path) -> None:
    """A clip is predicted, another file refused; SIGTERM while one is at work leaves nothing behind."""
    folder, clip = tmp_path / "temporary", (clip_runs.clips / "c7.mp4").read_bytes()
    with demo(clip_runs.first, folder, "--also", str(clip_runs.second)) as (process, port):
        status, text = send_to(port, form(clip, words="WEBVTT\n\n00:00.100 --> 00:00.700\nso kind"))
        assert status == 200
        assert "<h1>clip.mp4</h1>" in text
        assert '<a href="/">Another clip</a>' in text
        assert "All 2 runs predict it" in text or "of 2 runs predicts it" in text
        assert '"tokens":["so","kind"]' in text
        status, text = send_to(port, form(clip, words="so kind"))
        assert (status, "words: found plain text, expected subtitles" in text) == (422, True)
        status, text = send_to(port, form(b"no clip", name="note.mp4"))
        assert status == 422
        assert "note.mp4: cannot be read: damaged, or not a file of sound or pictures" in text
        assert [path.name for path in folder.rglob("*") if path.is_file()] == []

        def leave() -> None:
            with suppress(OSError, http.client.HTTPException):  # the server ends before it answers
                send_to(port, form(clip))

        thread = threading.Thread(target=leave)
        thread.start()
        wait_for(lambda: any(path.name == "extraction.json" for path in folder.rglob("*")))
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
        thread.join()
        assert process.returncode == 130
        assert err == "interrupted\n"
        assert left(folder) == []


def test_a_run_of_several_labels_answers_with_each(clip_runs: ClipRuns, tmp_path: Path) -> None:
    clip = (clip_runs.clips / "c7.mp4").read_bytes()
    with demo(clip_runs.moods, tmp_path / "temporary", "--also", str(clip_runs.half)) as (_, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/")
        front = connection.getresponse().read().decode()
        connection.close()
        assert "The model chooses which of these are there: happy, sad." in front
        status, text = send_to(port, form(clip))
        assert status == 200
        assert 'aria-label="Probability of each label"' in text
        assert text.count('<span class="name">') == 2
