"""Time and memory of converting a file of MOSI-unaligned size, against `pickle.load` of the same file.

The file is laid out as MMSA's: 2199 clips (1284 / 229 / 686), audio 375 x 5, vision 500 x 20, text 50 x 768,
float32, zeros behind the end of each clip. Each is done in a fresh process, in turn; the file is in the page
cache for both. Memory is what the process grows by at its peak, after its imports. Medians. Processor seconds
tell what would remain on a machine that does nothing else.

Usage: ``python benchmarks/conversion.py [--rounds 5] [--clips 2199] [--folder DIR]``
"""

import argparse
import json
import os
import pickle
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WIDTHS = {"audio": (375, 5), "vision": (500, 20), "text": (50, 768)}
"""Modality to longest clip and width."""
SHARES = {"train": 1284, "valid": 229, "test": 686}


def write(path: Path, clips: int) -> None:
    """The file."""
    random = np.random.default_rng(0)
    content = {}
    for role, share in SHARES.items():
        size = max(1, clips * share // sum(SHARES.values()))
        arrays: dict[str, object] = {}
        for name, (longest, width) in WIDTHS.items():
            lengths = random.integers(longest // 10, longest + 1, size)
            values = random.normal(size=(size, longest, width)).astype(np.float32)
            if name != "text":  # padded positions of text are not zero
                values[np.arange(longest) >= lengths[:, None]] = 0
                arrays[f"{name}_lengths"] = lengths.tolist()
            else:
                mask = np.arange(longest) < lengths[:, None]
                ids = random.integers(1000, 30000, (size, longest)) * mask
                arrays["text_bert"] = np.stack([ids, mask, np.zeros_like(ids)], axis=1).astype(np.float32)
            arrays[name] = values
        labels = random.uniform(-3, 3, size).astype(np.float32)
        content[role] = {
            **arrays,
            "raw_text": [f"words of clip {row}" for row in range(size)],
            "id": [f"{role}video{row // 10}$_${row % 10}" for row in range(size)],
            "annotations": [("Negative", "Neutral", "Positive")[int(np.sign(label)) + 1] for label in labels],
            "classification_labels": np.sign(labels) + 1,
            "regression_labels": labels,
        }
    with path.open("wb") as file:
        pickle.dump(content, file, protocol=4)


def resident(field: str) -> int:
    """Bytes of this process in memory: ``VmRSS`` now, ``VmHWM`` at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise SystemExit(f"/proc/self/status has no {field}")


def measure(what: str, path: Path, destination: Path) -> dict[str, float]:
    """Seconds and bytes of one way, in this process."""
    # before the clock starts, and in both, so that both start from the same size
    from alignmamba.formats.conversion import convert

    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, started, busy = resident("VmRSS"), time.perf_counter(), time.process_time()
    loaded = None
    if what == "convert":
        convert("mmsa", [path], destination)
    else:
        with path.open("rb") as file:
            loaded = pickle.load(file)
    found = {"seconds": time.perf_counter() - started, "processor_seconds": time.process_time() - busy}
    del loaded
    return {**found, "bytes": resident("VmHWM") - before}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measure(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))))
        raise SystemExit
    parser = argparse.ArgumentParser(description="Converting against pickle.load.")
    parser.add_argument("--rounds", type=int, default=5, help="processes of each kind; the median counts")
    parser.add_argument("--clips", type=int, default=sum(SHARES.values()), help="clips in the file")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the file and the corpus go for the time being"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        path, destination = Path(temporary) / "unaligned.pkl", Path(temporary) / "corpus"
        write(path, given.clips)
        found: dict[str, list[dict[str, float]]] = {"pickle.load": [], "convert": []}
        for _ in range(given.rounds):
            for what, results in found.items():
                os.sync()  # or else what was written before is still on its way to the disk
                command = [sys.executable, __file__, "--child", what, str(path), str(destination)]
                output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                results.append(json.loads(output))
                corpus_bytes = (
                    sum(each.stat().st_size for each in destination.iterdir()) if destination.exists() else 0
                )
                shutil.rmtree(destination, ignore_errors=True)
        print(
            f"file {path.stat().st_size / 1e6:.0f} MB, corpus {corpus_bytes / 1e6:.0f} MB, {given.rounds}"
            " rounds"
        )
    medians = {
        what: {key: statistics.median(each[key] for each in results) for key in results[0]}
        for what, results in found.items()
    }
    for what, median in medians.items():
        ratios = {key: median[key] / medians["pickle.load"][key] for key in median}
        print(
            f"{what:12s} {median['seconds']:6.2f} s ({ratios['seconds']:.2f}x),"
            f" {median['processor_seconds']:.2f} s of the processor ({ratios['processor_seconds']:.2f}x),"
            f" {median['bytes'] / 1e6:.0f} MB at its peak ({ratios['bytes']:.2f}x),"
            f" {given.clips / median['seconds']:.0f} clips a second"
        )
