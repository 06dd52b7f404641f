"""Feature folders as GCNet and MERBench keep them, of small random data."""

from pathlib import Path

import numpy as np

CONVERSATIONS = {"ses1": 3, "ses2": 2, "ses3": 3}
ROLES = {"ses1": "train", "ses2": "val", "ses3": "test"}
CLASSES = ("happy", "neutral", "sad")


def utterances() -> list[tuple[str, str, str]]:
    """Conversation, utterance and label, with conversations taking turns, as rows of a table may stand."""
    rows = [
        (conversation, f"{conversation}_u{turn}", CLASSES[(turn + len(conversation)) % 3])
        for turn in range(3)
        for conversation, size in CONVERSATIONS.items()
        if turn < size
    ]
    return [
        (conversation, identity, CLASSES[number % 3])
        for number, (conversation, identity, _) in enumerate(rows)
    ]


def features(identity: str) -> dict[str, np.ndarray]:
    """True values by modality: one vector of text, frames of audio, single frames of vision."""
    random = np.random.default_rng(sum(identity.encode()))
    return {
        "text": random.normal(size=(1, 4)).astype(np.float32),
        "audio": random.normal(size=(int(random.integers(2, 6)), 3)),
        "vision": random.normal(size=(3, 2)),
    }


def write_folder(folder: Path) -> Path:
    """The folder: `-UTT` text, `-FRA` audio, and a folder of faces per utterance. The first utterance has no
    audio.
    """
    names = {"text": "deberta-large-UTT", "audio": "hubert-large-FRA", "vision": "manet-FRA"}
    for name in names.values():
        (folder / "features" / name).mkdir(parents=True)
    lines = ["name,emo,split,video"]
    for number, (conversation, identity, label) in enumerate(utterances()):
        values = features(identity)
        np.save(folder / "features" / names["text"] / f"{identity}.npy", values["text"][0])
        if number:
            np.save(folder / "features" / names["audio"] / f"{identity}.npy", values["audio"])
        faces = folder / "features" / names["vision"] / identity
        faces.mkdir()
        for frame, face in enumerate(values["vision"]):
            np.save(faces / f"{frame:03d}.npy", face)
        lines.append(f"{identity},{label},{ROLES[conversation]},{conversation}")
    (folder / "label-3way.csv").write_text("\n".join(lines) + "\n")
    (folder / "transcription.csv").write_text(
        "name,english\n" + "\n".join(f"{row[1]},oh" for row in utterances()) + "\n"
    )
    return folder
