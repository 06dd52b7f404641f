"""A server that predicts for other programs, with the model of one run."""

import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from alignmamba.errors import ConfigError
from alignmamba.extras import require
from alignmamba.recipes.finished_run import OpenedRun
from alignmamba.recipes.local_server import HOST, interruptible, listening_at, own_hosts, start_threads
from alignmamba.recipes.service.prediction_app import Limits, PredictionApp

_POLL_SECONDS: Final = 0.5
_END_SECONDS: Final = 30
"""Time that requests under way have at the end."""


def serve_run(
    run: str | Path,
    *,
    host: str = HOST,
    port: int = 0,
    limits: Limits = Limits(),  # noqa: B008 # immutable
    announce: Callable[[str], object] = lambda _: None,
    note: Callable[[str], object] = lambda _: None,
) -> None:
    """Serve predictions of a run until Ctrl-C, SIGTERM or a hangup, then finish the requests under way.

    The calling thread must be the main one. A second interruption ends at once.

    Args:
        run: Directory of the run.
        host: Address to listen on; by default only this machine can connect.
        port: Port; 0 takes a free one.
        limits: Bounds of requests.
        announce: Called with the address when requests are answered.
        note: Called with a sentence of warning where other machines can connect.

    Raises:
        AlignMambaError: If the run or the port cannot be used, or the extra ``serve`` is not installed.
        KeyboardInterrupt: At a second interruption.
    """
    require("serve", "serve")
    opened = OpenedRun.open(run)
    with interruptible(), listening_at(port, host) as listening:
        name, taken = f"[{host}]" if ":" in host else host, listening.getsockname()[1]
        address = f"http://{name}:{taken}/"
        local = _is_local(listening.getsockname()[0])
        hosts = own_hosts(taken) | {f"{name}:{taken}"}
        app = PredictionApp(opened, limits, hosts=hosts if local else None, address=address)
        app.warm()
        if not local:
            note(
                f"other machines can connect to {host}, without a password and without encryption; put a"
                " server that has both before it"
            )
        _run(app, listening, lambda: announce(address))


def _is_local(address: str) -> bool:
    """Return whether no other machine can connect to an address."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _run(app: PredictionApp, listening: socket.socket, announce: Callable[[], object]) -> None:
    """Answer until an interruption; then answer what has come."""
    import uvicorn

    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="critical",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=_END_SECONDS,
    )
    server = uvicorn.Server(config)
    listener = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    worker = threading.Thread(target=app.queue.work, daemon=True)
    try:
        start_threads(listener, worker)
        announce()
        # Not by `join`: one that a signal interrupts takes the thread for ended, up to Python 3.12.
        while listener.is_alive() and worker.is_alive():
            time.sleep(_POLL_SECONDS)
        raise ConfigError("serve: the server ended by itself")
    except KeyboardInterrupt:
        server.should_exit = True
        if listener.is_alive():
            listener.join()
        app.queue.close()
        if worker.is_alive():
            worker.join()
    finally:
        server.should_exit = server.force_exit = True
        app.queue.close()
        app.end()
