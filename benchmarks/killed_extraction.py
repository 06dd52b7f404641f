"""Kill extractions with SIGKILL at random moments, resume them, and compare the corpora.

Usage: ``python benchmarks/killed_extraction.py [--kills 20] [--clips 40] [--workers 2]``

Makes clips from nothing (examples/demo_video.py), extracts them once without interruption, and then kills
another extraction again and again, each time after a random part of the time that the first one took. Prints
how many clips each killed attempt kept, and whether the last corpus has the checksum of the first.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Run and compare; returns 1 where the corpora differ or a whole clip was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        clips, out = Path(folder) / "clips", Path(folder) / "killed"
        make_clips(clips, given.clips)
        began = time.monotonic()
        wanted = finished(extraction(clips, Path(folder) / "whole", given.workers))
        whole_seconds = time.monotonic() - began
        lost = 0
        before: set[str] = set()
        for number in range(1, given.kills + 1):
            process = extraction(clips, out, given.workers)
            time.sleep(chance.uniform(0.3, 1.0) * whole_seconds)
            process.send_signal(signal.SIGKILL)
            process.wait()
            kept = whole_clips(out)
            lost += len(before - kept)
            print(f"kill {number}: {len(kept)} of {given.clips} clips kept")
            before = kept
            if out.exists():  # it was quicker than the signal: begin anew
                remove(out)
                before = set()
        found = finished(extraction(clips, out, given.workers))
    same = found == wanted
    print(f"{given.kills} kills: {lost} whole clips lost; checksum {'the same' if same else 'DIFFERENT'}")
    return 0 if same and not lost else 1


def make_clips(folder: Path, count: int) -> None:
    """Some clips of the example."""
    sys.path.insert(0, str(ROOT / "examples"))
    import demo_video

    third = count // 3
    demo_video.make_clips(folder, clips={"train": count - 2 * third, "valid": third, "test": third})


def extraction(clips: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    """An extraction in a process of its own."""
    command = [sys.executable, "-m", "alignmamba", "extract", str(clips), "--out", str(out), "--json"]
    command += ["--words", "subtitles", "--workers", str(workers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def finished(process: subprocess.Popen[bytes]) -> str:
    """Checksum of the corpus that an extraction has written."""
    out, _ = process.communicate()
    return str(json.loads(out)["checksum"])


def whole_clips(out: Path) -> set[str]:
    """Names of the clips in the store that are complete; a partial one has a hidden name."""
    store = out.with_name(out.name + ".clips")
    return {path.name for path in store.rglob("*.safetensors") if not path.name.startswith(".")}


def remove(out: Path) -> None:
    """Remove a corpus and its clips."""
    import shutil

    shutil.rmtree(out)
    shutil.rmtree(out.with_name(out.name + ".clips"))


if __name__ == "__main__":
    sys.exit(main())
