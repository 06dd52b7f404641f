"""Speed and memory of reading media files.

``speed`` prints how many seconds of a clip each extractor reads in a second of one processor. The clip is
generated, or one's own. ``hf`` is timed on models of the usual size with random weights, which compute as
much as trained ones. ``memory`` reads a file of minutes and one of hours, and prints the most memory held.

Usage: ``python benchmarks/media.py speed [--clip FILE] [--face FILE] [--hf]``, or
``python benchmarks/media.py memory [--minutes 2 120]``
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from alignmamba.errors import ConfigError
from alignmamba.media.clip import MediaClip
from alignmamba.media.decoding import blocks, facts, frames
from alignmamba.media.extractor import Extractor
from alignmamba.media.extractors import AUDIO, VIDEO
from alignmamba.media.tracks import Absent

WIDTH, HEIGHT, FPS, RATE = 640, 480, 25, 48_000


def write(path: Path, seconds: int, *, scale: int = 10, pieces: int = 1) -> Path:
    """A clip of coarse noise that moves and of a tone that trembles; its packets are repeated for a long one.

    Args:
        path: A file of Matroska.
        seconds: Length of one piece.
        scale: Pixels of a grain.
        pieces: Number of pieces.
    """
    import av

    generator = np.random.default_rng(0)
    grains = generator.integers(0, 256, (HEIGHT // scale, WIDTH // scale, 3), np.uint8)
    with av.open(str(path), "w", format="matroska") as container:
        shown = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast"})
        shown.width, shown.height, shown.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        heard = container.add_stream("aac", rate=RATE, layout="mono")
        packets = []
        for index in range(seconds * FPS):
            image = np.kron(
                np.roll(grains, index % grains.shape[1], axis=1), np.ones((scale, scale, 1), np.uint8)
            )
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            packets += shown.encode(frame)
        packets += shown.encode()
        for begin in range(0, seconds * RATE, 1024):
            times = (begin + np.arange(1024)) / RATE
            tone = 0.3 * np.sin(2 * np.pi * (150 * times + 5 * np.sin(2 * np.pi * 3 * times)))
            sound = av.AudioFrame.from_ndarray(tone[None].astype(np.float32), format="fltp", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = RATE, begin, Fraction(1, RATE)
            packets += heard.encode(sound)
        packets += heard.encode()
        packets.sort(key=lambda packet: packet.dts * packet.time_base)
        for piece in range(pieces):
            for packet in packets:
                if packet.pts is not None and packet.pts >= 0:
                    container.mux(_shifted(packet, round(piece * seconds / packet.time_base)))
    return path


def _shifted(packet: "object", by: int) -> "object":
    """A copy of a packet, later by some units of its time."""
    import av

    copy = av.Packet(bytes(packet))
    copy.stream, copy.time_base, copy.is_keyframe = packet.stream, packet.time_base, packet.is_keyframe
    copy.pts, copy.dts, copy.duration = packet.pts + by, packet.dts + by, packet.duration
    return copy


# Speed


def tools(face: Path | None, hf: Path | None) -> Iterator[tuple[str, Callable[[], Extractor]]]:
    """Names of extractors and what makes them."""
    for name in ("logmel", "egemaps"):
        yield name, lambda name=name: AUDIO[name].make(None, AUDIO[name].options())
    yield "pixels", lambda: VIDEO["pixels"].make(None, VIDEO["pixels"].options())
    if face is not None:
        yield "face", lambda: VIDEO["face"].make(face, VIDEO["face"].options())
    if hf is not None:
        yield "hf, wav2vec 2.0 base", lambda: AUDIO["hf"].make(hf / "speech", AUDIO["hf"].options())
        yield "hf, CLIP ViT-B/32", lambda: VIDEO["hf"].make(hf / "image", VIDEO["hf"].options())


def make_models(folder: Path) -> Path:
    """Models of the usual size with random weights."""
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
        Wav2Vec2Config,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2Model,
    )

    Wav2Vec2Model(Wav2Vec2Config()).save_pretrained(folder / "speech")
    Wav2Vec2FeatureExtractor().save_pretrained(folder / "speech")
    CLIPVisionModelWithProjection(CLIPVisionConfig()).save_pretrained(folder / "image")
    CLIPImageProcessor().save_pretrained(folder / "image")
    return folder


def speed(given: argparse.Namespace) -> None:
    """Print a table of extractors."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clip = MediaClip(path=given.clip or write(folder / "clip.mkv", given.seconds))
        seconds = facts(clip).found
        short = MediaClip(path=clip.path, end=min(1.0, seconds))
        print("| extractor | width | a second | times real time | notes |\n|---|---|---|---|---|")
        began = time.process_time()
        count = sum(1 for _ in frames(clip)) / seconds
        factor = seconds / (time.process_time() - began)
        print(f"| all pictures, decoded | | {count:.1f} | {factor:.1f} | |")
        for name, make in tools(given.face, make_models(folder) if given.hf else None):
            try:
                tool = make()
            except ConfigError as error:
                print(f"| {name} | | | | {error} |")
                continue
            tool.extract(short)
            began = time.process_time()
            track = tool.extract(clip)
            factor = seconds / (time.process_time() - began)
            if isinstance(track, Absent):
                print(f"| {name} | {tool.width} | 0 | {factor:.1f} | {track.reason} |")
            else:
                count = len(track.times) / seconds
                print(
                    f"| {name} | {tool.width} | {count:.1f} | {factor:.1f} | {'; '.join(track.notes)} |",
                    flush=True,
                )


# Memory


def read_all(path: Path, what: str) -> None:
    """Read a file and print the most memory that this process ever held, and the size of the result."""
    clip, size = MediaClip(path=path), 0
    if what == "decoding":
        for block in blocks(clip, 16_000, 30.0):
            size = max(size, block.samples.nbytes)
        for frame in frames(clip):
            size = max(size, frame.image.nbytes)
    else:
        offer = {**AUDIO, **VIDEO}[what]
        track = offer.make(None, offer.options()).extract(clip)
        size = track.values.nbytes
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, size / 2**20)


def memory(given: argparse.Namespace) -> None:
    """Print a table of lengths."""
    print("| minutes | file | what | most memory | its result |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for minutes in given.minutes:
            path = write(Path(temporary) / f"{minutes}.mkv", 60, scale=80, pieces=minutes)
            for what in ("decoding", "logmel", "pixels"):
                command = [sys.executable, __file__, "child", str(path), what]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                most, size = map(float, done.stdout.split())
                length = f"{minutes} | {path.stat().st_size / 2**20:.0f} MiB"
                print(f"| {length} | {what} | {most:.0f} MiB | {size:.1f} MiB |", flush=True)
            path.unlink()


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    fast = verbs.add_parser("speed")
    fast.add_argument("--clip", type=Path, help="a clip of one's own")
    fast.add_argument("--seconds", type=int, default=20, help="length of the generated clip")
    fast.add_argument("--face", type=Path, help="task file of MediaPipe's face landmarker")
    fast.add_argument("--hf", action="store_true", help="time models with random weights, 720 MB on disk")
    long = verbs.add_parser("memory")
    long.add_argument("--minutes", type=int, nargs="+", default=[2, 120])
    child = verbs.add_parser("child")
    child.add_argument("path", type=Path)
    child.add_argument("what")
    given = parser.parse_args()
    if given.verb == "child":
        read_all(given.path, given.what)
    else:
        {"speed": speed, "memory": memory}[given.verb](given)


if __name__ == "__main__":
    main()
