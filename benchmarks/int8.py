"""Weights in 8 bits: size, speed and predictions of an exported run, against the same run in float32.

The programs predict the same samples in turn, in one process with one thread; speed is the median ratio
of rounds. Scores are those of the labels of the split.

Usage: python benchmarks/int8.py RUN [--data CORPUS] [--split test] [--samples 200] [--rounds 7]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from alignmamba.contracts import Batch, Predictions, Task
from alignmamba.data.loader import Loader, LoaderConfig
from alignmamba.evaluation.metrics import score
from alignmamba.recipes.finished_run import LoadedRun, load_run
from alignmamba.recipes.program_export import LINEAR, export_program, quantised

KINDS = {"linear maps": LINEAR, "linear maps and convolutions": (*LINEAR, "Conv")}


def batches_of(loaded: LoadedRun, split: Any, samples: int, size: int) -> list[Batch]:
    """The first samples of a split."""
    config = LoaderConfig(batch_size=size)
    task = loaded.model.config.task
    source = Loader(split, loaded.modalities, config=config, task=task, shuffle=False, seed=0)
    found: list[Batch] = []
    for batch in source:
        if sum(map(len, found)) >= samples:
            break
        found.append(batch)
    return found


def fed(loaded: LoadedRun, batch: Batch) -> dict[str, np.ndarray]:
    """Tensors of a program."""
    tensors = {}
    for spec in loaded.model.config.modalities:
        sequences = batch.modalities[spec.name]
        tensors[spec.name] = sequences.features.numpy()
        tensors[f"{spec.name}_mask"] = sequences.mask.numpy()
        if spec.name in loaded.model.timed:
            times = sequences.times
            nothing = np.full(sequences.mask.shape, np.nan)
            tensors[f"{spec.name}_times"] = nothing if times is None else times.numpy()
    return tensors


def answers(session: onnxruntime.InferenceSession, inputs: list[dict[str, np.ndarray]]) -> np.ndarray:
    """Predictions of the target of the task."""
    return np.concatenate([session.run(["prediction"], each)[0] for each in inputs])


def ratios(sessions: Mapping[str, Any], inputs: list[dict[str, np.ndarray]], rounds: int) -> dict[str, float]:
    """Median over rounds of how often faster each is than the first."""
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for number in range(rounds + 1):
        for name, session in sessions.items():
            started = time.perf_counter()
            answers(session, inputs)
            if number:  # the first warms up
                seconds[name].append(time.perf_counter() - started)
    first = next(iter(seconds.values()))
    return {
        name: statistics.median(a / b for a, b in zip(first, own, strict=True))
        for name, own in seconds.items()
    }


def scores_of(task: Task, said: np.ndarray, batches: list[Batch]) -> dict[str, float]:
    """Scores of predictions."""
    ids = tuple(identity for batch in batches for identity in batch.ids)
    targets = np.concatenate([batch.targets.numpy() for batch in batches if batch.targets is not None])
    return score(task, Predictions(ids=ids, prediction=said, targets=targets, losses={}))


def changed(task: Task, said: np.ndarray, before: np.ndarray) -> str:
    """How far predictions moved."""
    if task.kind == "regression":
        return f"{np.abs(said - before).mean() / before.std():.4f} deviations"
    return f"{(said.argmax(1) != before.argmax(1)).mean():.2%} of classes"


def measured(run: Path, data: str | None, split: str, samples: int, rounds: int) -> None:
    """Print the table."""
    loaded = load_run(run, data=data)
    task = loaded.model.config.task
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_program(run, path, form="onnx")
        plain = onnx.load(path)
    contents = {"float32": plain.SerializeToString()}
    contents |= {name: quantised(plain, kind).SerializeToString() for name, kind in KINDS.items()}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    sessions = {name: onnxruntime.InferenceSession(content, options) for name, content in contents.items()}
    parts = {size: batches_of(loaded, loaded.corpus.split(split), samples, size) for size in (1, 32)}
    inputs = {size: [fed(loaded, batch) for batch in batches] for size, batches in parts.items()}
    faster = {size: ratios(sessions, each, rounds) for size, each in inputs.items()}
    before = answers(sessions["float32"], inputs[32])
    scored = scores_of(task, before, parts[32])
    metric = next(iter(scored))
    print(f"| 8 bits in | size | speed, batch 1 | speed, batch 32 | changed | {metric} |")
    print("|---|---|---|---|---|---|")
    for name, session in sessions.items():
        said = answers(session, inputs[32])
        size, speed = f"{len(contents[name]) / 1e6:.2f} MB", [f"{faster[n][name]:.2f}" for n in (1, 32)]
        told = "" if name == "float32" else changed(task, said, before)
        label = "nothing" if name == "float32" else name
        found = scores_of(task, said, parts[32])[metric]
        print(f"| {label} | {size} | {' | '.join(speed)} | {told} | {found:.4f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Weights of an exported run in 8 bits.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--split", default="test")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    measured(given.run, given.data, given.split, given.samples, given.rounds)
