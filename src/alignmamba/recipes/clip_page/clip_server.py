"""A local page on loopback: whoever uses this machine gives it a clip, and gets the page about it."""

import asyncio
import hmac
import secrets
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

from alignmamba import __version__
from alignmamba.errors import ConfigError
from alignmamba.extras import require
from alignmamba.files import verdict
from alignmamba.recipes.clip_page.clip_page import policy
from alignmamba.recipes.clip_page.upload import Upload, UploadError, received
from alignmamba.recipes.local_server import (
    HOST,
    Message,
    Receive,
    Send,
    guarded,
    interruptible,
    listening_at,
    own_hosts,
    start_threads,
)
from alignmamba.recipes.report.page_parts import package_text, script_json, template_environment

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(self), geolocation=()",
    # With no-referrer, browsers do not say which page a form came from.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}
_POLL_SECONDS: Final = 0.5
_END_SECONDS: Final = 10.0

Answering = Callable[[Upload], str]
"""Makes the page about a clip; an `AlignMambaError` where that is not possible."""


@dataclass(frozen=True, kw_only=True)
class Front:
    """Front page, on which a clip is given."""

    question: str
    """Sentence on what is predicted."""
    about: str
    """Sentence on the runs."""
    words: str
    """Label of the field for words, which the runs read; empty for none."""
    most_bytes: int
    """Largest clip."""


def serve(
    answer: Answering, front: Front, *, port: int = 0, announce: Callable[[str], object] = lambda _: None
) -> None:
    """Serve clips one after the other until Ctrl-C, SIGTERM or a hangup, then leave nothing behind.

    The calling thread, which must be the main one, reads and predicts; another one listens. A clip that comes
    while another is at work waits. Files are deleted when their page is made or refused.

    Args:
        answer: Makes the page about a clip.
        front: What the front page says.
        port: Port of the loopback interface; 0 takes a free one.
        announce: Called with the address when it can be opened.

    Raises:
        ConfigError: If the port cannot be used, or the extra ``demo`` is not installed.
        KeyboardInterrupt: At the end.
    """
    require("demo", "demo")
    import uvicorn

    with (
        interruptible(),
        listening_at(port) as listening,
        tempfile.TemporaryDirectory(prefix="alignmamba-demo-") as folder,
    ):
        app = ClipApp(front, Path(folder), port=listening.getsockname()[1])
        config = uvicorn.Config(
            app, log_config=None, log_level="critical", access_log=False, lifespan="off", server_header=False
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        try:
            start_threads(thread)
            announce(app.address)
            while thread.is_alive():
                app.work(answer, wait_seconds=_POLL_SECONDS)
            raise ConfigError("demo: the server ended by itself")
        finally:
            server.should_exit = server.force_exit = True
            if thread.is_alive():
                thread.join(_END_SECONDS)


class ClipApp:
    """Application that a web server calls: the front page, and a form that is answered by a clip's page."""

    def __init__(self, front: Front, folder: Path, *, port: int) -> None:
        self.front = front
        self.address = f"http://{HOST}:{port}/"
        self._folder = folder
        self._token = secrets.token_urlsafe(32)
        self._hosts = own_hosts(port)
        self._turn: asyncio.Lock | None = None
        self._jobs: SimpleQueue[tuple[Upload, Future[str]]] = SimpleQueue()
        self._guarded = guarded(self._routes(), hosts=self._hosts, address=self.address, headers=_HEADERS)

    def work(self, answer: Answering, *, wait_seconds: float) -> None:
        """Answer the next clip in this thread, if one comes in time."""
        try:
            upload, future = self._jobs.get(timeout=wait_seconds)
        except Empty:
            return
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(answer(upload))
            except Exception as error:
                future.set_exception(error)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request of this machine, and guard all answers."""
        await self._guarded(scope, receive, send)

    def _routes(self) -> "Starlette":
        from starlette.applications import Starlette
        from starlette.routing import Route

        return Starlette(
            routes=[
                Route("/", self._show_front, methods=["GET"]),
                Route("/clip", self._show_clip, methods=["POST"]),
            ]
        )

    async def _show_front(self, request: "Request") -> "Response":
        del request
        return self._page("")

    async def _show_clip(self, request: "Request") -> "Response":
        """Take a clip, wait for its page, and delete the clip."""
        from starlette.requests import ClientDisconnect
        from starlette.responses import HTMLResponse

        if not self._is_own(request):
            return self._page("Expected the form of this page, found that of another. Try again.", 403)
        if self._turn is None:
            self._turn = asyncio.Lock()
        try:
            async with self._turn:
                with tempfile.TemporaryDirectory(dir=self._folder) as place:
                    upload = await received(
                        dict(request.headers),
                        request.stream(),
                        Path(place),
                        most_bytes=self.front.most_bytes,
                    )
                    future: Future[str] = Future()
                    self._jobs.put((upload, future))
                    try:
                        return HTMLResponse(await asyncio.wrap_future(future))
                    except Exception as error:
                        _, said = verdict(error)
                        return self._page(said.replace(str(upload.path), upload.name), 422)
        except UploadError as error:
            return self._page(str(error), error.status)
        except ClientDisconnect:
            return self._page("", 400)

    def _is_own(self, request: "Request") -> bool:
        """Return whether a form was sent by the front page of this process."""
        origins = {f"http://{host}" for host in self._hosts}
        given = request.query_params.get("token", "")
        return (
            hmac.compare_digest(given.encode(), self._token.encode())
            and request.headers.get("origin") in origins
            and request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
        )

    def _page(self, error: str, status: int = 200) -> "Response":
        """Front page, with a line on what went wrong."""
        from markupsafe import Markup
        from starlette.responses import HTMLResponse

        report = "alignmamba.recipes.report"
        style = package_text("palette.css", report) + package_text("demo.css", __package__)
        script = package_text("elements.js", report) + package_text("demo.js", __package__)
        text = (
            template_environment()
            .from_string(package_text("demo.html.j2", __package__))
            .render(
                version=__version__,
                policy=policy(style, script, "form-action 'self'"),
                style=Markup(style),
                script=Markup(script),
                data=Markup(script_json({"most_bytes": self.front.most_bytes})),
                token=self._token,
                front=self.front,
                most=f"{self.front.most_bytes / 1e6:g} MB",
                error=error,
            )
        )
        return HTMLResponse(text, status)
