"""The server of predictions on a free port: answers equal to those of predict, and what is refused."""

import csv
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from alignmamba.contracts import Sample
from alignmamba.data.archive import load_corpus
from alignmamba.recipes.finished_run import OpenedRun, predict
from alignmamba.recipes.local_server import own_hosts
from alignmamba.recipes.service import prediction_app
from alignmamba.recipes.service.prediction_app import Limits, PredictionApp
from small_run import CLASSES
from tolerances import MODEL

uvicorn = pytest.importorskip("uvicorn", reason="needs alignmamba[serve]")
LIMITS = Limits(most_bytes=100_000, most_samples=20, together=16, wait_seconds=0.05)


@dataclass
class Served:
    """An application behind a web server, and what was predicted together."""

    app: PredictionApp
    port: int
    calls: list[int] = field(default_factory=list)

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] = {}
    ) -> tuple[int, Any, Mapping[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            text = response.read().decode()
            told = json.loads(text) if response.getheader("content-type") == "application/json" else text
            return response.status, told, dict(response.getheaders())
        finally:
            connection.close()

    def predict(self, body: Any, **headers: str) -> tuple[int, Any]:
        own = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        given = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", "/predict", given, own)[:2]


@pytest.fixture(scope="module")
def opened(run: Path) -> OpenedRun:
    return OpenedRun.open(run)


@pytest.fixture
def served(opened: OpenedRun) -> Iterator[Served]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        app = PredictionApp(opened, LIMITS, hosts=own_hosts(port), address=f"http://127.0.0.1:{port}/")
        given = Served(app, port)
        answer = app.queue._answer

        def counted(samples: Sequence[Sample]) -> Sequence[dict[str, Any]]:
            given.calls.append(len(samples))
            return answer(samples)

        app.queue._answer = counted
        config = uvicorn.Config(app, log_config=None, log_level="critical", lifespan="off")
        server = uvicorn.Server(config)
        threads = [
            threading.Thread(target=server.run, kwargs={"sockets": [listening]}),
            threading.Thread(target=app.queue.work),
        ]
        for thread in threads:
            thread.start()
        yield given
        server.should_exit = True
        threads[0].join()
        app.queue.close()
        threads[1].join()
        app.end()


@pytest.fixture(scope="module")
def samples(corpus: Path) -> list[Sample]:
    return list(load_corpus(corpus).split("test"))


@pytest.fixture(scope="module")
def expected(opened: OpenedRun, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Row of the table of `alignmamba predict` for each sample."""
    path = tmp_path_factory.mktemp("predicted") / "test.csv"
    predict(opened, corpus, path, split="test")
    with path.open(encoding="utf-8", newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def sent(sample: Sample) -> dict[str, Any]:
    features = {name: values.tolist() for name, values in sample.features.items()}
    return {"id": sample.id, "features": features}


def check(answers: Sequence[Mapping[str, Any]], expected: Mapping[str, Any], ids: Sequence[str]) -> None:
    assert [answer["id"] for answer in answers] == list(ids)
    for answer in answers:
        row = expected[answer["id"]]
        assert answer["prediction"] == row["prediction"]
        assert set(answer["probabilities"]) == set(CLASSES)
        found = [answer["probabilities"][name] for name in CLASSES]
        np.testing.assert_allclose(found, [float(row[f"p({name})"]) for name in CLASSES], **MODEL)


def test_answers_are_those_of_predict_with_modalities_missing(
    served: Served, samples: list[Sample], expected: dict[str, Any]
) -> None:
    assert any("audio" not in sample.features for sample in samples)
    for part in (samples, samples[:1], samples[3:10]):
        status, told = served.predict({"samples": [sent(sample) for sample in part]})
        assert status == 200
        check(told["predictions"], expected, [sample.id for sample in part])
    assert served.calls == [len(samples), 1, 7]


def test_safetensors_get_the_same_answers(
    served: Served, samples: list[Sample], expected: dict[str, Any]
) -> None:
    tensors: dict[str, np.ndarray] = {}
    for name in ("text", "audio"):
        parts = [sample.features.get(name) for sample in samples]
        tensors[name] = np.concatenate([part for part in parts if part is not None])
        tensors[f"{name}.lengths"] = np.array([0 if part is None else len(part) for part in parts])
    status, told = served.predict(save(tensors), Content_Type="application/vnd.safetensors")
    assert status == 200
    ids = [sample.id for sample in samples]
    answers = [{**answer, "id": identity} for answer, identity in zip(told["predictions"], ids, strict=True)]
    check(answers, expected, ids)


def held_up(served: Served) -> tuple[threading.Event, threading.Event]:
    """Let the model begin, which sets the first event, and wait for the second."""
    begun, go_on = threading.Event(), threading.Event()
    answer = served.app.queue._answer

    def slow(given: Sequence[Sample]) -> Sequence[dict[str, Any]]:
        begun.set()
        go_on.wait()
        return answer(given)

    served.app.queue._answer = slow
    return begun, go_on


def test_requests_that_come_together_are_predicted_together_and_stay_apart(
    served: Served, samples: list[Sample], expected: dict[str, Any]
) -> None:
    begun, go_on = held_up(served)
    with ThreadPoolExecutor(12) as pool:
        first = pool.submit(served.predict, {"samples": [sent(samples[0])]})
        begun.wait()
        others = [pool.submit(served.predict, {"samples": [sent(sample)]}) for sample in samples[1:9]]
        bad = pool.submit(served.predict, {"samples": [{"features": {"text": [[3e38] * 4] * 2}}]})
        twin = pool.submit(served.predict, {"samples": [sent(samples[1])]})
        while served.app.queue.waiting < 10:
            time.sleep(0.01)
        assert served.ask("GET", "/health")[1] == {"status": "ok", "waiting": 10, "predicted": 0}
        go_on.set()
        for future, sample in zip([first, *others, twin], [*samples[:9], samples[1]], strict=True):
            status, told = future.result()
            assert status == 200
            check(told["predictions"], expected, [sample.id])
        status, told = bad.result()
    # of what waited, all together failed, for an id came twice; then each alone
    assert served.calls[0] == 1
    assert served.calls[1] == 10
    assert status in (200, 400)
    if status == 400:
        assert "the features may be too large for the model" in told["error"]


def test_joined_requests_take_one_pass(served: Served, samples: list[Sample]) -> None:
    with ThreadPoolExecutor(8) as pool:
        with served.app.queue.arriving():
            futures = [pool.submit(served.predict, {"samples": [sent(sample)]}) for sample in samples[:8]]
            while served.app.queue.waiting < 8 and not served.calls:
                time.sleep(0.001)
        assert all(future.result()[0] == 200 for future in futures)
    assert sum(served.calls) == 8
    assert len(served.calls) < 8


def test_a_full_queue_is_503(served: Served, samples: list[Sample]) -> None:
    begun, go_on = held_up(served)
    one = {"samples": [sent(samples[0])]}
    many = {"samples": [{**sent(samples[0]), "id": str(number)} for number in range(20)]}
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(served.predict, one)
        begun.wait()
        second = pool.submit(served.predict, many)
        while served.app.queue.waiting < 20:
            time.sleep(0.01)
        status, told, headers = served.ask(
            "POST", "/predict", json.dumps(one), {"Content-Type": "application/json"}
        )
        go_on.set()
        assert (status, headers["retry-after"]) == (503, "1")
        assert told == {"error": "20 samples wait already, expected at most 20; try again later"}
        assert (first.result()[0], second.result()[0]) == (200, 200)


def test_the_description_names_modalities_targets_and_limits(served: Served) -> None:
    status, told, headers = served.ask("GET", "/")
    assert status == 200
    assert told["modalities"] == [
        {"name": "text", "kind": "features", "width": 4, "units": "", "times": False},
        {"name": "audio", "kind": "features", "width": 2, "units": "", "times": False},
    ]
    assert told["targets"] == [{"name": "prediction", "kind": "classification", "classes": list(CLASSES)}]
    assert told["limits"] == {"bytes": 100_000, "samples": 20, "tokens": {}}
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers


ONE = {"samples": [{"features": {"text": [[1, 2, 3, 4]]}}]}


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b"{", {}, 400, "body: not valid JSON: "),
        (
            {"samples": [{"features": {"text": [[1]]}}]},
            {},
            400,
            "samples[0].features.text: expected (tokens, 4)",
        ),
        ({"samples": 21 * ONE["samples"]}, {}, 413, "samples: found 21, expected at most 20"),
        (b" " * 100_001, {}, 413, "body: expected at most 100,000 bytes, found more"),
        (b" " * 900_000, {}, 413, "body: expected at most 100,000 bytes, found more"),
        (
            ONE,
            {"Content_Type": "text/plain"},
            415,
            "content-type: expected application/json or application/vnd",
        ),
        (ONE, {"Origin": "http://evil.example"}, 403, "origin: expected http://127.0.0.1:"),
        (ONE, {"Origin": "null"}, 403, "origin: expected http://127.0.0.1:"),
    ],
)
def test_what_is_refused_gets_a_line(
    served: Served, body: Any, headers: dict[str, str], status: int, said: str
) -> None:
    try:
        found, told = served.predict(body, **headers)
    except ConnectionError:  # who sends far too much may not hear why
        assert len(body) == 900_000
        return
    assert (found, told["error"][: len(said)]) == (status, said)
    assert "\n" not in told["error"]
    assert served.calls == []
    assert served.predict(ONE)[0] == 200


def test_a_body_without_a_length_has_the_same_limit(served: Served) -> None:
    parts = iter([b" " * 60_000] * 2)
    headers = {"Content-Type": "application/json"}
    status, told, _ = served.ask("POST", "/predict", parts, headers)
    assert (status, told["error"]) == (413, "body: expected at most 100,000 bytes, found more")


def test_whoever_stops_sending_is_ended(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_app, "_STALL_SECONDS", 0.2)
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", "4000")
    connection.endheaders()
    connection.send(b"{")
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())) == (408, {"error": "body: stopped arriving"})
    connection.close()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "0.0.0.0", ""])
def test_another_host_is_refused(served: Served, host: str) -> None:
    for method, path in (("GET", "/"), ("GET", "/health"), ("POST", "/predict")):
        assert served.ask(method, path, headers={"Host": host})[0] == 421


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/predict", 405), ("OPTIONS", "/predict", 405)]
)
def test_other_ways_are_refused(served: Served, method: str, path: str, status: int) -> None:
    """A page elsewhere asks with OPTIONS whether it may send JSON."""
    found, told, _ = served.ask(method, path)
    assert (found, set(told)) == (status, {"error"})
    assert served.ask("GET", "/nothing")[0] == 404


def test_a_fault_of_ours_is_500_and_does_not_end_the_server(served: Served) -> None:
    answer = served.app.queue._answer

    def broken(given: Sequence[Sample]) -> Sequence[dict[str, Any]]:
        raise ZeroDivisionError(len(given))

    served.app.queue._answer = broken
    assert served.predict(ONE) == (500, {"error": "internal: ZeroDivisionError: 1"})
    served.app.queue._answer = answer
    assert served.predict(ONE)[0] == 200


def test_the_snippet_of_the_documentation_asks(served: Served, samples: list[Sample]) -> None:
    page = (Path(__file__).parents[3] / "docs" / "elsewhere.md").read_text(encoding="utf-8")
    code = page.partition("## A server of predictions")[2].partition("```python\n")[2].partition("```")[0]
    both = next(sample for sample in samples if len(sample.features) == 2)
    names: dict[str, Any] = {**both.features, "address": f"http://127.0.0.1:{served.port}/"}
    exec(compile(code, "docs/elsewhere.md", "exec"), names)
    assert [answer["id"] for answer in names["predictions"]] == ["a", "b"]
