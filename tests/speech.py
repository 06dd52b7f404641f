"""Sound that tests make themselves: vowels and hisses that an acoustic model takes for speech."""

import wave
from pathlib import Path

import numpy as np

RATE = 16_000
FORMANTS = {"ah": (730, 1090, 2440), "ee": (270, 2290, 3010)}
"""Hertz of the resonances of two vowels (Peterson and Barney, 1952)."""


def vowel(name: str, seconds: float, pitch: float = 110.0) -> np.ndarray:
    """A sung vowel: harmonics of a pitch, loud near its formants."""
    time = np.arange(round(seconds * RATE)) / RATE
    sound = np.zeros_like(time)
    for harmonic in np.arange(pitch, 4000, pitch):
        gain = sum(1 / (1 + ((harmonic - formant) / 80) ** 2) for formant in FORMANTS[name])
        sound += gain * np.sin(2 * np.pi * harmonic * time)
    edge = np.minimum(1, np.minimum(time, time[::-1]) / 0.02)
    return 0.3 * edge * sound / np.abs(sound).max()


def hiss(seconds: float) -> np.ndarray:
    """An unvoiced "sh"."""
    noise = np.random.default_rng(1).normal(size=round(seconds * RATE))
    spectrum = np.fft.rfft(noise)
    hertz = np.fft.rfftfreq(len(noise), 1 / RATE)
    shaped = np.fft.irfft(spectrum * np.exp(-(((hertz - 3500) / 1200) ** 2)), len(noise))
    return 0.1 * shaped / np.abs(shaped).max()


def silence(seconds: float) -> np.ndarray:
    """Nothing."""
    return np.zeros(round(seconds * RATE))


def utterance() -> np.ndarray:
    """Sound of "ah" from 0.5 s and "she" from 1.5 s to 2.0 s, of 2.5 s."""
    return np.concatenate(
        [silence(0.5), vowel("ah", 0.5), silence(0.5), hiss(0.2), vowel("ee", 0.3), silence(0.5)]
    ).astype(np.float32)


def write_wav(path: Path, samples: np.ndarray) -> Path:
    """A file of 16-bit samples, one channel."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path
