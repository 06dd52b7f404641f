"""Turn ``mosi_text_audio.npz`` (CMU-MOSI: 2199 opinions in videos) into a corpus.

Usage: ``python examples/mosi.py mosi_text_audio.npz DESTINATION``

The standard split and the label, sentiment from -3 to 3, are the archive's. Two modalities:

- ``text``: the words of the transcript as ids; 0 stands for every word that the train split has less than
  twice,
- ``audio`` (one vector a segment, 73): means of COVAREP features.

Source of the data: Zadeh et al. 2016; research use.
"""

import argparse
import re
from collections import Counter
from pathlib import Path

import numpy as np

from alignmamba import Corpus, SplitArrays, Task, write_corpus

LEAST_COUNT = 2


def convert(source: Path, destination: Path, *, overwrite: bool = False) -> Corpus:
    """Read the archive and write the corpus."""
    with np.load(source, allow_pickle=False) as archive:
        text, audio, label, ids, role_of = (
            archive[name] for name in ("text", "audio", "label", "id", "split")
        )
    words = [re.findall(r"[a-z0-9']+", transcript.lower()) for transcript in text]
    count = Counter(
        word for said, role in zip(words, role_of, strict=True) if role == "train" for word in said
    )
    known = sorted(word for word, times in count.items() if times >= LEAST_COUNT)
    number = {word: place for place, word in enumerate(known, start=1)}
    token_ids = [np.array([number.get(word, 0) for word in said], dtype=np.int64) for said in words]
    return write_corpus(
        destination,
        {
            role: SplitArrays(
                features={
                    "text": [token_ids[row] for row in rows],
                    "audio": [audio[row, None] for row in rows],
                },
                targets=[float(label[row]) for row in rows],
                ids=[str(ids[row]) for row in rows],
                tokens={"text": [words[row] for row in rows]},
            )
            for role in ("train", "valid", "test")
            for rows in [np.flatnonzero(role_of == role)]
        },
        task=Task(kind="regression", label_range=(-3.0, 3.0)),
        name="cmu-mosi",
        vocabulary_sizes={"text": len(known) + 1},
        units={"text": "words of the transcript", "audio": "COVAREP means of the segment"},
        source="CMU-MOSI (Zadeh et al. 2016)",
        licence="research use",
        overwrite=overwrite,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Turn mosi_text_audio.npz into an AlignMamba corpus.")
    parser.add_argument("source", type=Path, help="the archive mosi_text_audio.npz")
    parser.add_argument("destination", type=Path, help="directory of the corpus to make")
    parser.add_argument("--overwrite", action="store_true", help="replace the corpus that is there")
    given = parser.parse_args()
    corpus = convert(given.source, given.destination, overwrite=given.overwrite)
    print(
        f"wrote {given.destination}:"
        f" {', '.join(f'{role} {len(part)}' for role, part in corpus.splits.items())}"
    )
