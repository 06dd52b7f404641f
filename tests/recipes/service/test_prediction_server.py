"""The end of a server, in a process of its own that is sent a signal."""

import subprocess
import sys
import urllib.request

import pytest

pytest.importorskip("uvicorn", reason="needs alignmamba[serve]")

SLOW = """
import asyncio, os, signal, threading
from alignmamba.recipes.local_server import interruptible, listening_at
from alignmamba.recipes.service.prediction_server import _run

class Queue:
    closed = threading.Event()
    work, close = closed.wait, closed.set

class App:
    queue = Queue()
    def end(self): ...
    async def __call__(self, scope, receive, send):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.5)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"late"})

with interruptible(), listening_at(0) as listening:
    print(listening.getsockname()[1], flush=True)
    _run(App(), listening, lambda: None)
"""


HASTY = SLOW.replace(
    "with interruptible",
    """
unsent = threading.Lock()

def run(self):
    if unsent.acquire(blocking=False):
        os.kill(os.getpid(), signal.SIGTERM)
    began(self)

began, threading.Thread.run = threading.Thread.run, run

with interruptible""",
)


def test_a_signal_while_the_threads_start() -> None:
    ended = subprocess.run([sys.executable, "-c", HASTY], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_an_answer_that_takes_long_after_the_signal_is_sent() -> None:
    with subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as response:
            assert response.read() == b"late"
        assert process.wait(60) == 0
