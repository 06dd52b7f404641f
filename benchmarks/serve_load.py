"""Load on `alignmamba serve` over loopback: requests a second and latency, with requests joined and without.

Two servers of one run, which differ in `--together` alone, get the same requests in turn, from as many
clients as stand in the table, each of which sends its next request when the last is answered. Figures are
those of all rounds together, the gain is the median ratio of rounds. Clients share the machine with the
server, so figures depend on it, and ratios less so.

Usage: python benchmarks/serve_load.py RUN [--tokens 50] [--requests 100] [--clients 1 4 16] [--rounds 3]
    [--form safetensors]
"""

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

TOGETHER = {"joined": 64, "one by one": 1}
JSON, SAFETENSORS = "application/json", "application/vnd.safetensors"


@dataclass
class Round:
    """Answers of one round, or of all of them together."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds

    def add(self, other: "Round") -> None:
        """Count another round too."""
        self.seconds += other.seconds
        self.latencies += other.latencies

    def percentile(self, share: float) -> float:
        """Milliseconds within which that share of requests was answered."""
        return 1e3 * float(np.quantile(self.latencies, share))


@contextmanager
def server(run: Path, together: int) -> Iterator[int]:
    """``alignmamba serve`` in a process of its own; gives its port."""
    command = [sys.executable, "-m", "alignmamba", "serve", str(run), "--together", str(together), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["address"]
        yield int(address.rstrip("/").rpartition(":")[2])
    finally:
        process.terminate()
        process.wait()


def described(port: int) -> Any:
    """Description that a server gives of itself."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/")
    return json.load(connection.getresponse())


def bodies(modalities: list[Any], tokens: int, form: str) -> list[bytes]:
    """Requests of one sample each, of normal features or token ids."""
    random, made = np.random.default_rng(0), []
    for _ in range(16):
        arrays = {
            spec["name"]: random.integers(0, spec["vocabulary"], tokens)
            if spec["kind"] == "tokens"
            else random.normal(size=(tokens, spec["width"])).astype(np.float32)
            for spec in modalities
        }
        if form == "json":
            lists = {name: array.tolist() for name, array in arrays.items()}
            made.append(json.dumps({"samples": [{"features": lists}]}).encode())
        else:
            lengths = {f"{name}.lengths": np.array([tokens]) for name in arrays}
            made.append(save({**arrays, **lengths}))
    return made


def load(port: int, clients: int, requests: int, sent: list[bytes], kind: str) -> Round:
    """Requests of so many clients at once."""

    def client(number: int) -> list[float]:
        connection, found = http.client.HTTPConnection("127.0.0.1", port), []
        for place in range(number, requests, clients):
            started = time.perf_counter()
            connection.request("POST", "/predict", sent[place % len(sent)], {"Content-Type": kind})
            response = connection.getresponse()
            said = response.read()
            if response.status != 200:
                raise RuntimeError(f"status {response.status}: {said.decode()}")
            found.append(time.perf_counter() - started)
        connection.close()
        return found

    with ThreadPoolExecutor(clients) as pool:
        started = time.perf_counter()
        latencies = [each for one in pool.map(client, range(clients)) for each in one]
        return Round(seconds=time.perf_counter() - started, latencies=latencies)


def measured(given: argparse.Namespace) -> None:
    """Print the table."""
    kind = JSON if given.form == "json" else SAFETENSORS
    with server(given.run, TOGETHER["joined"]) as joined, server(given.run, TOGETHER["one by one"]) as apart:
        ports = dict(zip(TOGETHER, (joined, apart), strict=True))
        sent = bodies(described(joined)["modalities"], given.tokens, given.form)
        print(f"bodies of {len(sent[0]) / 1e3:.1f} kB, {kind}\n")
        print("| clients | requests | per second | 50 % within | 95 % within | 99 % within | gain |")
        print("|---|---|---|---|---|---|---|")
        for clients in given.clients:
            whole = {name: Round() for name in ports}
            gains = []
            for number in range(given.rounds + 1):
                rounds = {
                    name: load(port, clients, given.requests, sent, kind) for name, port in ports.items()
                }
                if number:  # the first warms up
                    gains.append(rounds["joined"].rate / rounds["one by one"].rate)
                    for name, each in rounds.items():
                        whole[name].add(each)
            for name, each in whole.items():
                within = [f"{each.percentile(share):.0f} ms" for share in (0.5, 0.95, 0.99)]
                gain = f"{statistics.median(gains):.2f}" if name == "joined" else ""
                print(f"| {clients} | {name} | {each.rate:.1f} | {' | '.join(within)} | {gain} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Load on alignmamba serve over loopback.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--tokens", type=int, default=50)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--form", choices=["json", "safetensors"], default="json")
    measured(parser.parse_args())
