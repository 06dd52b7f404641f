"""Turn ``grid_s1.npz`` (GRID: speaker s1 says 1000 sentences of six words) into a corpus that asks for one of
the words.

Usage: ``python examples/grid.py grid_s1.npz DESTINATION --target colour|digit [--words] [--encoder FOLDER]
[--frames]``

Two modalities on one clock, with true times in seconds and, for display and for judging alignment alone, the
word spoken at each:

- ``audio`` (100 Hz, 40): log-mel energies,
- ``video`` (25 Hz, 360): the lip region at half resolution, brightness and its change.

``--words`` adds what is said, ``text`` (6 tokens of 51): a number for each word, at the middle of its time.
``--encoder`` reads it by a text encoder of the BERT family instead, which stays as it is: a vector for each
word. Its folder holds ``config.json``, ``model.safetensors`` and ``tokenizer.json``.

``--frames`` labels each frame of the video with the ``word`` spoken at it, or ``silence``, and the token of
the audio that is nearest to the frame in time with the same.

The speaker is one and there is no official split: the sentences are shuffled with seed 0 into 700, 100 and
200.

Source of the data: Cooke, Barker, Cunningham, Shao, JASA 2006.
"""

import argparse
from pathlib import Path
from typing import Literal

import numpy as np

from alignmamba import AlignMambaError, Corpus, SplitArrays, Task, write_corpus
from alignmamba.media.readers import TEXT
from alignmamba.media.tracks import Word, Words

AUDIO_HZ, VIDEO_HZ = 100.0, 25.0
TICKS = round(AUDIO_HZ / VIDEO_HZ)
"""Vectors of audio to a frame of video."""
SIZES = {"train": 700, "valid": 100, "test": 200}
UNITS = {
    "audio": "log-mel energy at 100 Hz",
    "video": "lip region 10 x 18, brightness and its change a frame, at 25 Hz",
}
SOURCE = "GRID (Cooke, Barker, Cunningham, Shao, JASA 2006), speaker s1"
SILENCE = ("", "sil", "sp")
# A sentence's id spells it: command, colour, preposition, letter, digit, adverb, one character each.
PLACE = {"colour": 1, "digit": 4}
WORDS = {
    "colour": {"b": "blue", "g": "green", "r": "red", "w": "white"},
    "digit": {
        "z": "zero",
        "1": "one",
        "2": "two",
        "3": "three",
        "4": "four",
        "5": "five",
        "6": "six",
        "7": "seven",
        "8": "eight",
        "9": "nine",
    },
}


def convert(
    source: Path,
    destination: Path,
    *,
    target: Literal["colour", "digit"],
    texts: bool = False,
    encoder: Path | None = None,
    frames: bool = False,
    overwrite: bool = False,
) -> Corpus:
    """Read the archive and write the corpus."""
    with np.load(source, allow_pickle=False) as archive:
        ids, audio, video = archive["id"], archive["audio_logmel"], archive["video"]
        spoken, spans = archive["words"], archive["word_times"]
    words = WORDS[target]
    said = [sentence(*each) for each in zip(spoken, spans, strict=True)]
    known = {word: number for number, word in enumerate(sorted({word for line in said for word, _ in line}))}
    texts = texts or encoder is not None
    if encoder is None:
        vectors = [np.array([known[word] for word, _ in line]) for line in said]
    else:
        reader = TEXT["hf"].make(encoder, None)
        vectors = [
            reader.read(Words(words=tuple(Word(word, at, at) for word, at in line), timing="given")).values
            for line in said
        ]

    def split(rows: np.ndarray) -> SplitArrays:
        seconds = {
            "audio": np.arange(audio.shape[1]) / AUDIO_HZ,
            "video": np.arange(video.shape[1]) / VIDEO_HZ,
        }
        features = {
            "audio": [audio[row].astype(np.float32) for row in rows],
            "video": [lips(video[row]) for row in rows],
        }
        labels = {}
        if frames:  # the first modality with a label is the one whose tokens a run labels
            features = dict(reversed(features.items()))
            every = [words_at(seconds["video"], spoken[row], spans[row]) for row in rows]
            labels = {
                name: {"word": [at_frames(line, seconds["video"], seconds[name]) for line in every]}
                for name in features
            }
        times = {name: [each for _ in rows] for name, each in seconds.items()}
        tokens = {
            name: [words_at(each, spoken[row], spans[row]) for row in rows] for name, each in seconds.items()
        }
        if texts:
            features["text"] = [vectors[row] for row in rows]
            times["text"] = [np.array([middle for _, middle in said[row]]) for row in rows]
            tokens["text"] = [[word for word, _ in said[row]] for row in rows]
        return SplitArrays(
            features=features,
            targets=[words[ids[row][PLACE[target]]] for row in rows],
            ids=[str(ids[row]) for row in rows],
            times=times,
            tokens=tokens,
            token_labels=labels,
        )

    return write_corpus(
        destination,
        {role: split(rows) for role, rows in dealt(len(ids)).items()},
        task=Task(kind="classification", classes=tuple(words.values())),
        name=f"grid-s1-{target}{'-words' * texts}{'-frames' * frames}",
        units=UNITS,
        vocabulary_sizes={"text": len(known)} if texts and encoder is None else {},
        source=SOURCE,
        overwrite=overwrite,
    )


def dealt(count: int) -> dict[str, np.ndarray]:
    """Rows of each split, of so many sentences that are shuffled with seed 0."""
    order = np.random.default_rng(0).permutation(count)
    return dict(zip(SIZES, np.split(order, np.cumsum(list(SIZES.values()))[:-1]), strict=True))


def sentence(words: np.ndarray, spans: np.ndarray) -> list[tuple[str, float]]:
    """Each word that is said, and the middle of its time in seconds."""
    return [
        (str(word), float(start + end) / 2)
        for word, (start, end) in zip(words, spans, strict=True)
        if word not in SILENCE
    ]


def words_at(seconds: np.ndarray, words: np.ndarray, spans: np.ndarray) -> list[str]:
    """The word spoken at each time, from words and their (start, end) in seconds; empty in silence."""
    at = [""] * len(seconds)
    for word, (start, end) in zip(words, spans, strict=True):
        if word not in SILENCE:
            for place in np.flatnonzero((seconds >= start) & (seconds < end)):
                at[place] = str(word)
    return at


def at_frames(line: list[str], frames: np.ndarray, seconds: np.ndarray) -> list[str | None]:
    """A label for each time of `seconds` that is the nearest to one of `frames`: what is said there."""
    labels: list[str | None] = [None] * len(seconds)
    for word, place in zip(line, np.abs(seconds[:, None] - frames).argmin(axis=0), strict=True):
        labels[place] = word or "silence"
    return labels


def most_frequent(corpus: Corpus) -> tuple[str, float]:
    """The label that frames of train have most often, and the share of test's frames that have it."""
    found = [
        [word for sample in corpus.split(role) for word in sample.token_labels["video"]["word"]]
        for role in ("train", "test")
    ]
    word = max(sorted(set(found[0]), key=str), key=found[0].count)
    return str(word), found[1].count(word) / len(found[1])


def lips(frames: np.ndarray) -> np.ndarray:
    """(time, 20, 36) grey values to brightness at half resolution and its change, (time, 360)."""
    grey = frames.astype(np.float32) / 255.0
    small = grey.reshape(len(grey), 10, 2, 18, 2).mean(axis=(2, 4)).reshape(len(grey), -1)
    return np.concatenate([small, np.gradient(small, axis=0)], axis=1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Turn grid_s1.npz into an AlignMamba corpus.")
    parser.add_argument("source", type=Path, help="the archive grid_s1.npz")
    parser.add_argument("destination", type=Path, help="directory of the corpus to make")
    parser.add_argument("--target", choices=sorted(PLACE), required=True, help="the word to predict")
    parser.add_argument("--words", action="store_true", help="add what is said, as a modality of its own")
    parser.add_argument(
        "--encoder", type=Path, metavar="FOLDER", help="text encoder that reads the words, of the BERT family"
    )
    parser.add_argument(
        "--frames", action="store_true", help="label each frame with the word spoken at it, or silence"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the corpus that is there")
    given = parser.parse_args()
    try:
        corpus = convert(
            given.source,
            given.destination,
            target=given.target,
            texts=given.words,
            encoder=given.encoder,
            frames=given.frames,
            overwrite=given.overwrite,
        )
    except (AlignMambaError, OSError) as error:
        parser.error(str(error))
    print(
        f"wrote {given.destination}:"
        f" {', '.join(f'{role} {len(part)}' for role, part in corpus.splits.items())}"
    )
    if given.frames:
        word, share = most_frequent(corpus)
        print(f"{word!r}, the most frequent label of train's frames, is that of {share:.3f} of test's")
