"""How much of the sound of a word the clock sends to that word, in each unit of time.

Usage: ``python benchmarks/word_spans.py grid_s1.npz``

All sentences of GRID: six words that state when each begins, and vectors of sound at 100 Hz. Tokens have no
content, so that time alone decides. Printed is the share of the vectors within a word that are matched to it.
"""

import argparse
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

from alignmamba.nn.alignment import LocalAlignmentConfig, TimeUnit, Tokens, align, middles
from grid import AUDIO_HZ, SILENCE


def timed(begins: np.ndarray, unit: TimeUnit) -> Tokens:
    """One sample of tokens without content that begin at these seconds."""
    times = torch.from_numpy(begins).double().unsqueeze(0)
    mask = torch.ones_like(times, dtype=torch.bool)
    return Tokens(torch.zeros(1, len(begins), 1), mask, middles(times, mask) if unit == "spans" else times)


def shares(words: np.ndarray, spans: np.ndarray, vectors: int) -> dict[str, float]:
    """Unit of time to the share of one sentence.

    Args:
        words: (place,) what is said, silences among it.
        spans: (place, 2) seconds of its begin and its end.
        vectors: Number of vectors of sound.
    """
    said = spans[~np.isin(words, SILENCE)].astype(np.float64)
    begins = np.arange(vectors) / AUDIO_HZ
    within = (begins[:, None] >= said[:, 0]) & (begins[:, None] < said[:, 1])
    heard = within.any(1)
    found = {}
    for unit in get_args(TimeUnit):
        config = LocalAlignmentConfig(time_unit=unit)
        _, plan = align(timed(begins, unit), timed(said[:, 0], unit), config)
        assert plan is not None
        found[unit] = float((plan.index[0].numpy() == within.argmax(1))[heard].mean())
    return found


def main() -> int:
    """Print the mean over all sentences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="the archive grid_s1.npz")
    with np.load(parser.parse_args().source, allow_pickle=False) as archive:
        found = [
            shares(words, spans, archive["audio_logmel"].shape[1])
            for words, spans in zip(archive["words"], archive["word_times"], strict=True)
        ]
    for unit in found[0]:
        print(f"{unit}: {np.mean([each[unit] for each in found]):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
