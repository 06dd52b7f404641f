"""Turn ``mosi_text_audio.npz`` (CMU-MOSI: 2199 opinions in videos) into a corpus.

Usage: ``python examples/mosi.py mosi_text_audio.npz DESTINATION [--encoder FOLDER] [--groups]``

The standard split and the label, sentiment from -3 to 3, are the archive's. ``--groups`` makes the segments
of a video, whose speaker is one, a group; intervals of test then draw whole videos. Two modalities:

- ``text``: the words of the transcript as ids; 0 stands for every word that the train split has less than
  twice. With ``--encoder`` a vector for each word, by the text encoder of a folder, which stays as it is,
- ``audio`` (one vector a segment, 73): means of COVAREP features.

An encoder is one of the BERT family, for example ``sentence-transformers/all-MiniLM-L6-v2``. The folder holds
``config.json``, ``model.safetensors`` and ``tokenizer.json``.

Source of the data: Zadeh et al. 2016; research use.
"""

import argparse
import re
from collections import Counter
from pathlib import Path

import numpy as np

from alignmamba import AlignMambaError, Corpus, SplitArrays, Task, write_corpus
from alignmamba.media.readers import TEXT
from alignmamba.media.tracks import Word, Words

LEAST_COUNT = 2


def convert(
    source: Path,
    destination: Path,
    *,
    encoder: Path | None = None,
    groups: bool = False,
    overwrite: bool = False,
) -> Corpus:
    """Read the archive and write the corpus."""
    with np.load(source, allow_pickle=False) as archive:
        text, audio, label, ids, videos, role_of = (
            archive[name] for name in ("text", "audio", "label", "id", "video_id", "split")
        )
    if encoder is None:
        words = [re.findall(r"[a-z0-9']+", transcript.lower()) for transcript in text]
        tokens, known = word_ids(words, role_of == "train")
        vocabulary, unit = {"text": known}, "words of the transcript"
    else:
        words = [transcript.lower().split() for transcript in text]
        reader = TEXT["hf"].make(encoder, None)
        tokens = [reader.read(untimed(said)).values for said in words]
        vocabulary, unit = {}, reader.unit
    return write_corpus(
        destination,
        {
            role: SplitArrays(
                features={
                    "text": [tokens[row] for row in rows],
                    "audio": [audio[row, None] for row in rows],
                },
                targets=[float(label[row]) for row in rows],
                ids=[str(ids[row]) for row in rows],
                tokens={"text": [words[row] for row in rows]},
                groups=[str(videos[row]) for row in rows] if groups else None,
            )
            for role in ("train", "valid", "test")
            for rows in [np.flatnonzero(role_of == role)]
        },
        task=Task(kind="regression", label_range=(-3.0, 3.0)),
        name="cmu-mosi",
        vocabulary_sizes=vocabulary,
        units={"text": unit, "audio": "COVAREP means of the segment"},
        source="CMU-MOSI (Zadeh et al. 2016)",
        licence="research use",
        overwrite=overwrite,
    )


def word_ids(words: list[list[str]], trains: np.ndarray) -> tuple[list[np.ndarray], int]:
    """Ids of the words of each segment, and how many there are; words that train hardly has are 0."""
    count = Counter(word for said, learned in zip(words, trains, strict=True) if learned for word in said)
    known = sorted(word for word, times in count.items() if times >= LEAST_COUNT)
    number = {word: place for place, word in enumerate(known, start=1)}
    return [np.array([number.get(word, 0) for word in said], dtype=np.int64) for said in words], len(
        known
    ) + 1


def untimed(said: list[str]) -> Words:
    """Words of a segment as a text encoder reads them; nothing here asks for their times."""
    return Words(words=tuple(Word(word, 0.0, 0.0) for word in said), timing="spread")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Turn mosi_text_audio.npz into an AlignMamba corpus.")
    parser.add_argument("source", type=Path, help="the archive mosi_text_audio.npz")
    parser.add_argument("destination", type=Path, help="directory of the corpus to make")
    parser.add_argument(
        "--encoder", type=Path, metavar="FOLDER", help="text encoder that reads the words, of the BERT family"
    )
    parser.add_argument(
        "--groups",
        action="store_true",
        help="make the segments of a video a group, so that intervals draw whole videos",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the corpus that is there")
    given = parser.parse_args()
    try:
        corpus = convert(
            given.source,
            given.destination,
            encoder=given.encoder,
            groups=given.groups,
            overwrite=given.overwrite,
        )
    except (AlignMambaError, OSError) as error:
        parser.error(str(error))
    print(
        f"wrote {given.destination}:"
        f" {', '.join(f'{role} {len(part)}' for role, part in corpus.splits.items())}"
    )
