"""Parts of a server on this machine: its address, its end, who may ask, and bodies that arrive in time."""

import asyncio
import errno
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, Final

from alignmamba.errors import ConfigError

HOST: Final = "127.0.0.1"
"""Address at which no other machine can connect."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and a hangup interrupt as Ctrl-C does, unless the process was started to ignore them."""
    names = [name for name in ("SIGTERM", "SIGHUP") if name in dir(signal)]
    numbers = [getattr(signal, name) for name in names]
    before = {
        number: signal.signal(number, signal.default_int_handler)
        for number in numbers
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start_threads(*threads: threading.Thread) -> None:
    """Start all or none: an interruption meanwhile, at which `Thread.start` may raise though its thread runs,
    is raised when all run. For the main thread, within `interruptible`.
    """
    held: list[int] = []
    heeded = [n for n in signal.valid_signals() if signal.getsignal(n) is signal.default_int_handler]
    try:
        for number in heeded:
            signal.signal(number, lambda number, _: held.append(number))
        for thread in threads:
            thread.start()
    finally:
        for number in heeded:
            signal.signal(number, signal.default_int_handler)
    if held:
        raise KeyboardInterrupt


@contextmanager
def listening_at(port: int, host: str = HOST) -> Iterator[socket.socket]:
    """A socket that listens; port 0 takes a free one. A `ConfigError` if it cannot."""
    if not 0 <= port <= 65_535:
        raise ConfigError(f"port: found {port}, expected a number from 0 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        # A number below 0 is one of those for names that nobody knows.
        if (error.errno or 0) < 0 or error.errno == errno.EADDRNOTAVAIL:
            raise ConfigError(f"host {host}: expected an address of this machine, found another") from error
        why = os.strerror(error.errno) if error.errno else error
        raise ConfigError(f"port {port}: cannot be used: {why}") from error
    with listening:
        yield listening


def own_hosts(port: int) -> set[str]:
    """Values of the header ``Host`` by which browsers of this machine ask for a server at `HOST`."""
    hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
    return hosts | {HOST, "localhost"} if port == 80 else hosts


def guarded(
    application: Application, *, hosts: set[str] | None, address: str, headers: Mapping[str, str]
) -> Application:
    """An application behind a check of the host, for a page elsewhere may have a name that leads here.

    Args:
        application: Answers.
        hosts: Values of the header ``Host`` that are answered; ``None`` takes any.
        address: Named to whoever asks for another host.
        headers: Added to all answers.
    """
    added = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def answer(scope: Message, receive: Receive, send: Send) -> None:
        from starlette.requests import Request
        from starlette.responses import PlainTextResponse

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *added]
            await send(message)

        if scope["type"] != "http":
            return
        if hosts is not None and Request(scope).headers.get("host") not in hosts:
            await PlainTextResponse(f"expected the host of {address}", 421)(scope, receive, send_guarded)
        else:
            await application(scope, receive, send_guarded)

    return answer


async def in_time(chunks: AsyncIterator[bytes], stall_seconds: float) -> AsyncIterator[bytes]:
    """Parts of a body, each of which must arrive in time; else a `TimeoutError`."""
    arriving = aiter(chunks)
    while True:
        try:
            yield await asyncio.wait_for(anext(arriving), stall_seconds)
        except StopAsyncIteration:
            return
