"""Answers to requests for predictions: what is described, checked, joined, predicted and refused."""

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from alignmamba import __version__
from alignmamba.contracts import FurtherPredictions, Predictions, Sample, Target, Task
from alignmamba.data.memory_splits import MemorySplit
from alignmamba.errors import AlignMambaError, DataError
from alignmamba.evaluation.metrics import nonfinite_problem
from alignmamba.files import verdict
from alignmamba.recipes.assembly import alone, predictions_of
from alignmamba.recipes.finished_run import OpenedRun
from alignmamba.recipes.local_server import Application, Message, Receive, Send, guarded, in_time
from alignmamba.recipes.run_interface import interface_of
from alignmamba.recipes.service.batch_queue import BatchQueue, QueueFullError
from alignmamba.recipes.service.sent_samples import JSON, SAFETENSORS, SentSamples

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
}
_STALL_SECONDS: Final = 30.0
_BODIES: Final = 8
"""Bodies of the largest size that may be arriving together."""
_DROPPED: Final = 4
"""Multiple of the largest size up to which a body that is too large is received and dropped."""
_INLINE_BYTES: Final = 64 << 10
"""A body up to this size is read at once, a larger one beside the web server, one at a time."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of a service."""

    most_bytes: int = 20_000_000
    """Largest body."""
    most_samples: int = 1024
    """Samples of a request, and of all that wait."""
    together: int = 64
    """Samples of several requests that are predicted together; 1 joins none."""
    wait_seconds: float = 0.005
    """Longest time that a request waits for others that are just arriving."""


class RefusedError(AlignMambaError):
    """A request that is refused before its content is looked at."""

    def __init__(self, line: str, status: int) -> None:
        super().__init__(line)
        self.status = status
        """Status of the response."""


class PredictionApp:
    """Application that a web server calls, and a queue that another thread answers with `work`.

    Args:
        run: Predicts.
        limits: Bounds.
        hosts: Values of the header ``Host`` that are answered; ``None`` takes any.
        address: Address, for messages.
    """

    def __init__(self, run: OpenedRun, limits: Limits, *, hosts: set[str] | None, address: str) -> None:
        self._run, self.limits = run, limits
        loader = run.config.loader.model_copy(
            update={"batch_size": limits.together, "num_workers": 0, "weights": ""}
        )
        self._config = run.config.model_copy(update={"loader": loader})
        self._fabric = alone(run.config)
        self._sent = SentSamples(run.model.config.modalities, run.model.longest)
        self.queue: BatchQueue[Sample, dict[str, Any]] = BatchQueue(
            self.predicted,
            together=limits.together,
            wait_seconds=limits.wait_seconds,
            most=limits.most_samples,
        )
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader")
        self._bytes_arriving, self._predicted = 0, 0
        self._answer: Application = guarded(self._routes(), hosts=hosts, address=address, headers=_HEADERS)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._answer(scope, receive, send)

    def predicted(self, samples: Sequence[Sample]) -> list[dict[str, Any]]:
        """Predictions of samples as `alignmamba predict` makes them, for JSON."""
        model = self._run.model
        split = MemorySplit(role="test", samples=samples, modalities=model.config.modalities)
        task: Task = model.config.task
        found = predictions_of(model, split, split.modalities, task, self._config, self._fabric)
        if problem := nonfinite_problem(found):
            raise DataError(f"{problem}; the features may be too large for the model")
        self._predicted += len(samples)
        return answers_of(found, task)

    def warm(self) -> None:
        """Predict a sample of zeros, so that whoever comes first need not wait for kernels."""
        features = {
            spec.name: np.zeros((2, spec.width), np.float32 if spec.kind == "features" else np.int64)
            for spec in self._run.model.config.modalities
        }
        with torch.no_grad():
            self.predicted([Sample(id="warm", features=features)])
        self._predicted = 0

    def end(self) -> None:
        """Let go of what reads bodies."""
        self._reader.shutdown(cancel_futures=True)

    def _routes(self) -> "Starlette":
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.routing import Route

        async def refuse(_: "Request", error: Exception) -> "Response":
            assert isinstance(error, HTTPException)
            return _json({"error": f"{error.detail}; GET / describes what there is"}, error.status_code)

        return Starlette(
            routes=[
                Route("/", self._describe, methods=["GET"]),
                Route("/health", self._report_health, methods=["GET"]),
                Route("/predict", self._predict, methods=["POST"]),
            ],
            exception_handlers={HTTPException: refuse},
        )

    async def _describe(self, request: "Request") -> "Response":
        del request
        limits = {
            "bytes": self.limits.most_bytes,
            "samples": self.limits.most_samples,
            "tokens": dict(self._run.model.longest),
        }
        return _json(
            {
                "alignmamba": __version__,
                "run": self._run.stored.path.name,
                **interface_of(self._run),
                "predict": {"method": "POST", "path": "/predict", "content_types": [JSON, SAFETENSORS]},
                "limits": limits,
            }
        )

    async def _report_health(self, request: "Request") -> "Response":
        del request
        return _json({"status": "ok", "waiting": self.queue.waiting, "predicted": self._predicted})

    async def _predict(self, request: "Request") -> "Response":
        """Read the samples of a request, let them wait, and answer."""
        from starlette.requests import ClientDisconnect

        try:
            _check_origin(request)
            with self.queue.arriving():
                samples = await self._samples(request)
                future = self.queue.put(samples)
            return _json({"predictions": await asyncio.wrap_future(future)})
        except RefusedError as error:
            return _json({"error": str(error)}, error.status)
        except QueueFullError as error:
            return _json({"error": str(error)}, 503, {"retry-after": "1"})
        except ClientDisconnect:
            return _json({"error": "the body broke off"}, 400)
        except Exception as error:
            status = 400 if isinstance(error, DataError) else 500
            return _json({"error": verdict(error)[1]}, status)

    async def _samples(self, request: "Request") -> list[Sample]:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        readers = {JSON: self._sent.of_json, SAFETENSORS: self._sent.of_safetensors}
        if kind not in readers:
            raise RefusedError(f"content-type: expected {' or '.join(readers)}, found {kind!r:.80}", 415)
        body = await self._body(request)
        if len(body) <= _INLINE_BYTES:
            samples = readers[kind](body)
        else:
            samples = await asyncio.get_running_loop().run_in_executor(self._reader, readers[kind], body)
        if len(samples) > self.limits.most_samples:
            raise RefusedError(
                f"samples: found {len(samples)}, expected at most {self.limits.most_samples}", 413
            )
        return samples

    async def _body(self, request: "Request") -> bytes:
        """Body of a request, refused when it is too large, whatever it declares.

        Of one that is, somewhat more is received and dropped: who is still sending sees no answer.
        """
        most = self.limits.most_bytes
        body, arrived = bytearray(), 0
        try:
            async for chunk in in_time(request.stream(), _STALL_SECONDS):
                arrived += len(chunk)
                if arrived > _DROPPED * most:
                    break
                if arrived <= most:
                    body += chunk
                    self._bytes_arriving += len(chunk)
                if self._bytes_arriving > _BODIES * most:
                    raise QueueFullError("too many large bodies arrive at once; try again later")
        except TimeoutError as error:
            raise RefusedError("body: stopped arriving", 408) from error
        finally:
            self._bytes_arriving -= len(body)
        if arrived > most:
            raise RefusedError(f"body: expected at most {most:,} bytes, found more", 413)
        return bytes(body)


def answers_of(predictions: Predictions, task: Task) -> list[dict[str, Any]]:
    """Predictions for JSON, one object a sample: ``id``, ``prediction``, of classes their ``probabilities``,
    and by name under ``further`` the same of each further target, ``null`` where a sample lacks its modality,
    and a list with the same of each token where tokens have it; a multilabel has probabilities alone.
    """
    further = {
        target.name: _further_answers(target, predictions.further[target.name]) for target in task.further
    }
    made = []
    for row, identity in enumerate(predictions.ids):
        answer = {"id": identity, **_answer(task, predictions.prediction[row])}
        if further:
            answer["further"] = {name: answers[row] for name, answers in further.items()}
        made.append(answer)
    return made


def _further_answers(target: Target, said: FurtherPredictions) -> list[Any]:
    """Answer of each sample for a further target."""
    each = [_answer(target, one) for one in said.prediction]
    if said.lengths is None:
        return each
    tokens = iter(each)
    return [list(islice(tokens, length)) for length in said.lengths.tolist()]


def _answer(target: Task | Target, said: Any) -> dict[str, Any]:
    absent = bool(np.isnan(said).any())
    if target.kind == "regression":
        return {"prediction": None if absent else float(said)}
    shares = {
        name: None if absent else float(share) for name, share in zip(target.classes, said, strict=True)
    }
    if target.kind == "multilabel":
        return {"probabilities": shares}
    return {"prediction": None if absent else target.classes[int(said.argmax())], "probabilities": shares}


def _check_origin(request: "Request") -> None:
    """Refuse a page of another server, which a browser of this machine shows."""
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
        raise RefusedError(f"origin: expected http://{host}, found {origin!r:.80}", 403)


def _json(content: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> "Response":
    from starlette.responses import Response

    text = json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"
    return Response(text, status, headers, media_type=JSON)
