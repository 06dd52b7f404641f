"""Make a folder of small video clips with sound, subtitles and labels, from nothing.

Usage: ``python examples/demo_video.py DESTINATION [--weights FOLDER]``

Each clip lasts two seconds. A tone is high or low, its subtitles praise or complain, and a square moves left
or right. Praise in a high tone is *glad* and in a low one *ironic*. A complaint in a high tone is *upset* and
in a low one *tired*. Words alone and sound alone know half of it, and the picture knows nothing.

With a folder of weights the pictures are those of its ``face.mp4``, from some moment on. Where espeak-ng is
installed it speaks the words, in a high or a low voice.
"""

import argparse
import csv
import io
import shutil
import subprocess
import wave
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np

SECONDS, FRAMES_PER_SECOND, SAMPLE_RATE, SIZE = 2.0, 10, 16_000, 64
TONES = {"high": 880.0, "low": 220.0}
VOICES = {"high": 85, "low": 15}
"""Pitch of a voice, from 0 to 99 as espeak-ng has it."""
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


def make_clips(
    folder: Path, *, seed: int = 0, clips: dict[str, int] = CLIPS, weights: Path | None = None
) -> None:
    """Write the clips, their subtitles and ``labels.csv``."""
    spoken = weights is not None and shutil.which("espeak-ng") is not None
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows = []
    for split, count in clips.items():
        for number in range(count):
            name = f"{split}-{number:03d}"
            mood, pitch = str(rng.choice(list(PHRASES))), str(rng.choice(list(TONES)))
            phrase = str(rng.choice(PHRASES[mood]))
            to_the_right = bool(rng.integers(2))
            if weights is None:
                images = pictures(rng, to_the_right=to_the_right)
            else:
                images = filmed(weights / "face.mp4", rng)
            said = speech(phrase, rng, VOICES[pitch]) if spoken else tone(rng, TONES[pitch])
            write_clip(folder / f"{name}.mp4", images, said)
            (folder / f"{name}.srt").write_text(subtitles(phrase, rng, spoken=spoken), encoding="utf-8")
            rows.append({"file": f"{name}.mp4", "split": split, "label": LABELS[mood, pitch]})
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ["file", "split", "label"])
        table.writeheader()
        table.writerows(rows)


def write_clip(path: Path, images: list[np.ndarray], sound_wave: np.ndarray) -> None:
    """Write a video of pictures (height, width, 3) uint8, and of sound (time,) float32."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("h264", rate=FRAMES_PER_SECOND)
        video.height, video.width = images[0].shape[:2]
        video.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for image in images:
            for packet in video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        frame = av.AudioFrame.from_ndarray(sound_wave[None], format="flt", layout="mono")
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


def filmed(path: Path, rng: np.random.Generator) -> list[np.ndarray]:
    """As many frames of a video, from some moment on."""
    frames, count = film(path), int(SECONDS * FRAMES_PER_SECOND)
    first = int(rng.integers(max(1, len(frames) - count)))
    return frames[first : first + count]


@lru_cache(maxsize=1)
def film(path: Path) -> list[np.ndarray]:
    """Frames of a video at the rate of the clips, (180, width, 3) uint8."""
    frames: list[np.ndarray] = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if frame.time * FRAMES_PER_SECOND >= len(frames):
                width = 2 * round(90 * frame.width / frame.height)
                frames.append(frame.reformat(width, 180, "rgb24").to_ndarray())
    return frames


def tone(rng: np.random.Generator, pitch: float) -> np.ndarray:
    """Samples, (time,) float32, of a tone near a pitch in hertz, with a tremble and noise."""
    time = np.arange(int(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    near = pitch * rng.uniform(0.85, 1.15)
    wave = np.sin(2 * np.pi * near * time + rng.uniform(2, 4) * np.sin(2 * np.pi * 5 * time))
    return (0.3 * wave + 0.02 * rng.normal(size=len(time))).astype(np.float32)


def speech(phrase: str, rng: np.random.Generator, pitch: int) -> np.ndarray:
    """Samples, (time,) float32, of a phrase that espeak-ng speaks after a short silence."""
    command = ["espeak-ng", "-v", "en-us", "-s", "180", "-p", str(pitch + int(rng.integers(-10, 11)))]
    spoken = subprocess.run([*command, "--stdout", phrase], capture_output=True, check=True).stdout
    with wave.open(io.BytesIO(spoken)) as file:
        rate, samples = file.getframerate(), np.frombuffer(file.readframes(1 << 30), np.int16)
    length = int(len(samples) * SAMPLE_RATE / rate)
    said = np.interp(np.arange(length) * rate / SAMPLE_RATE, np.arange(len(samples)), samples / 32768)
    silence = np.zeros(int(rng.uniform(0.0, 0.3) * SAMPLE_RATE))
    sound = np.concatenate(
        [silence, said, np.zeros(max(0, int(SECONDS * SAMPLE_RATE) - len(silence) - length))]
    )
    return (sound + 0.002 * rng.normal(size=len(sound))).astype(np.float32)


def subtitles(phrase: str, rng: np.random.Generator, *, spoken: bool) -> str:
    """One cue of a SubRip file; of speech it covers the clip, for the words have times in the sound."""
    start = 0.0 if spoken else rng.uniform(0.0, 0.5)
    end = 1990 if spoken else int(1500 + start * 900)
    return f"1\n00:00:00,{int(start * 1000):03d} --> 00:00:01,{end - 1000:03d}\n{phrase}\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("destination", type=Path, help="folder to make")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything that is drawn")
    parser.add_argument("--one", action="store_true", help="make a single clip, to be predicted")
    parser.add_argument("--weights", type=Path, help="folder with face.mp4")
    given = parser.parse_args()
    if given.weights is not None and not (given.weights / "face.mp4").is_file():
        parser.error(f"--weights {given.weights}: expected a folder with face.mp4, found none there")
    clips = {"test": 1} if given.one else CLIPS
    make_clips(given.destination, seed=given.seed, clips=clips, weights=given.weights)
    print(f"{sum(clips.values())} clips in {given.destination}")
