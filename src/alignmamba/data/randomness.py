"""Randomness by name: every draw belongs to a seed and a purpose, never to a global state."""

import hashlib

import numpy as np


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A generator that depends on `seed` and `purpose` alone, the same in every process and on every
    platform.

    Args:
        seed: The user's seed.
        purpose: What is drawn and for whom, for example ``"batches", epoch`` or ``"synthetic", sample_id``.
    """
    key = "/".join(map(str, (seed, *purpose)))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little"))
