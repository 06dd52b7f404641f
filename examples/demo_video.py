"""Make a folder of small video clips with sound, subtitles and labels, from nothing.

Usage: ``python examples/demo_video.py DESTINATION``

Each clip lasts two seconds. A tone is high or low, its subtitles praise or complain, and a square moves left
or right. Praise in a high tone is *glad* and in a low one *ironic*. A complaint in a high tone is *upset* and
in a low one *tired*. Words alone and sound alone know half of it, and the picture knows nothing.
"""

import argparse
import csv
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SECONDS, FRAMES_PER_SECOND, SAMPLE_RATE, SIZE = 2.0, 10, 16_000, 64
TONES = {"high": 880.0, "low": 220.0}
PHRASES = {
    "praise": ("what a lovely day", "this is great work", "I really like it", "wonderful and so kind"),
    "complaint": ("what an awful day", "this is poor work", "I really hate it", "terrible and so rude"),
}
LABELS = {
    ("praise", "high"): "glad",
    ("praise", "low"): "ironic",
    ("complaint", "high"): "upset",
    ("complaint", "low"): "tired",
}
CLIPS = {"train": 140, "valid": 40, "test": 60}


def make_clips(folder: Path, *, seed: int = 0, clips: dict[str, int] = CLIPS) -> None:
    """Write the clips, their subtitles and ``labels.csv``."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows = []
    for split, count in clips.items():
        for number in range(count):
            name = f"{split}-{number:03d}"
            mood, pitch = str(rng.choice(list(PHRASES))), str(rng.choice(list(TONES)))
            phrase = str(rng.choice(PHRASES[mood]))
            write_clip(folder / f"{name}.mp4", rng, pitch=TONES[pitch], to_the_right=bool(rng.integers(2)))
            (folder / f"{name}.srt").write_text(subtitles(phrase, rng), encoding="utf-8")
            rows.append({"file": f"{name}.mp4", "split": split, "label": LABELS[mood, pitch]})
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ["file", "split", "label"])
        table.writeheader()
        table.writerows(rows)


def write_clip(path: Path, rng: np.random.Generator, *, pitch: float, to_the_right: bool) -> None:
    """Write a video of a moving square with a trembling tone."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("h264", rate=FRAMES_PER_SECOND)
        video.width = video.height = SIZE
        video.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for image in pictures(rng, to_the_right=to_the_right):
            for packet in video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        frame = av.AudioFrame.from_ndarray(tone(rng, pitch)[None], format="flt", layout="mono")
        frame.sample_rate, frame.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
        for stream, last in ((sound, frame), (sound, None), (video, None)):
            for packet in stream.encode(last):
                container.mux(packet)


def pictures(rng: np.random.Generator, *, to_the_right: bool) -> list[np.ndarray]:
    """Frames, (height, width, 3) uint8, of a bright square that moves over noise."""
    count, side = int(SECONDS * FRAMES_PER_SECOND), SIZE // 5
    top = int(rng.integers(SIZE - side))
    frames = []
    for step in range(count):
        image = rng.integers(0, 60, (SIZE, SIZE, 3), dtype=np.uint8)
        way = step / (count - 1)
        left = int((way if to_the_right else 1 - way) * (SIZE - side))
        image[top : top + side, left : left + side] = 220
        frames.append(image)
    return frames


def tone(rng: np.random.Generator, pitch: float) -> np.ndarray:
    """Samples, (time,) float32, of a tone near a pitch in hertz, with a tremble and noise."""
    time = np.arange(int(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    near = pitch * rng.uniform(0.85, 1.15)
    wave = np.sin(2 * np.pi * near * time + rng.uniform(2, 4) * np.sin(2 * np.pi * 5 * time))
    return (0.3 * wave + 0.02 * rng.normal(size=len(time))).astype(np.float32)


def subtitles(phrase: str, rng: np.random.Generator) -> str:
    """One cue of a SubRip file."""
    start = rng.uniform(0.0, 0.5)
    return f"1\n00:00:00,{int(start * 1000):03d} --> 00:00:01,{int(500 + start * 900):03d}\n{phrase}\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("destination", type=Path, help="folder to make")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything that is drawn")
    parser.add_argument("--one", action="store_true", help="make a single clip, to be predicted")
    given = parser.parse_args()
    clips = {"test": 1} if given.one else CLIPS
    make_clips(given.destination, seed=given.seed, clips=clips)
    print(f"{sum(clips.values())} clips in {given.destination}")
