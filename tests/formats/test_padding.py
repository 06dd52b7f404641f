"""Clips with declared lengths: on which side they are padded, where the padding is not zero."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts_pickled import write
from safetensors.numpy import load_file

from alignmamba.cli.main import main
from alignmamba.formats.conversion import Conversion, convert
from alignmamba.formats.foreign import NeedsOptionError
from alignmamba.formats.known_formats import any_options

STEPS, WIDTH = 20, 3


def _content(kind: str, length: int, random: np.random.Generator) -> np.ndarray:
    if kind == "constant":
        return np.full((length, WIDTH), 1000.0)
    return random.normal(size=(length, WIDTH)) + (3 * np.arange(WIDTH) if kind == "channels" else 0)


def _padding(kind: str, content: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    if kind == "row":
        return np.tile(np.arange(3.0, 3 + WIDTH), (count, 1))
    if kind == "like content":  # as preparation scripts make it
        return random.normal(content.mean(), content.std(), (count, WIDTH))
    return np.zeros((count, WIDTH)) if kind == "zeros" else random.normal(size=(count, WIDTH))


def pickled(
    path: Path, content: str, padding: str, *, front: bool, lengths: tuple[int, int] = (3, 18)
) -> tuple[Path, np.ndarray]:
    """An MMSA file, and the rows of its audio that are content, in order."""
    random = np.random.default_rng(0)
    rows: list[np.ndarray] = []

    def split(count: int, first: int) -> dict[str, Any]:
        declared = random.integers(*lengths, count)
        clips = []
        for length in declared:
            rows.append(_content(content, length, random))
            parts = [rows[-1], _padding(padding, rows[-1], STEPS - length, random)]
            clips.append(np.concatenate(parts[::-1] if front else parts))
        return {
            "id": [f"v{first + row}$_$1" for row in range(count)],
            "text": np.ones((count, 4, 2), np.float32),
            "audio": np.array(clips, np.float32),
            "audio_lengths": declared.tolist(),
            "regression_labels": random.uniform(-3, 3, count),
        }

    write(path, {"train": split(40, 0), "valid": split(8, 40), "test": split(8, 48)})
    return path, np.concatenate(rows).astype(np.float32)


def kept(corpus: Path) -> np.ndarray:
    return np.concatenate(
        [
            load_file(corpus / f"{role}-00000.safetensors")["audio.values"]
            for role in ("train", "valid", "test")
        ]
    )


def _converted(path: Path, **options: Any) -> Conversion:
    return convert("mmsa", [path], path.parent / "corpus", any_options()(**options), overwrite=True)


@pytest.mark.parametrize("front", [True, False])
@pytest.mark.parametrize(
    ("content", "padding"),
    [
        ("constant", "noise"),
        ("channels", "noise"),
        ("channels", "like content"),
        ("channels", "row"),
        ("white", "row"),
        ("white", "zeros"),
    ],
)
def test_the_side_is_seen_whatever_the_padding_is(
    tmp_path: Path, content: str, padding: str, front: bool
) -> None:
    path, rows = pickled(tmp_path / "x.pkl", content, padding, front=front)
    done = _converted(path)
    np.testing.assert_array_equal(kept(tmp_path / "corpus"), rows)
    side = "front" if front else "back"
    how = (
        ""
        if padding == "zeros"
        else " with what is not zero (seen by its values; --padding states another side)"
    )
    assert any(f"audio by declared lengths, padded at the {side}{how}" in note for note in done.notes)
    faults = {kind: count for kind, where, _, count in done.faults if where == "audio"}
    assert faults == ({} if padding == "zeros" else {"padding that is not zero": 56})


@pytest.mark.parametrize("front", [True, False])
@pytest.mark.parametrize("lengths", [(3, 18), (3, 9)])
def test_where_nothing_tells_the_side_the_user_states_it(
    tmp_path: Path, front: bool, lengths: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    path, rows = pickled(tmp_path / "x.pkl", "white", "noise", front=front, lengths=lengths)
    with pytest.raises(
        NeedsOptionError,
        match=(
            r"audio: expected padding on one side, .*; state it by padding front or back \(--padding"
            r" front\|back\)"
        ),
    ) as refused:
        _converted(path)
    assert refused.value.option == "--padding front|back"
    side = "front" if front else "back"
    assert main(["convert", "mmsa", str(path), str(tmp_path / "corpus"), "--padding", side]) == 0
    assert f"padded at the {side} with what is not zero (as stated)" in capsys.readouterr().out
    np.testing.assert_array_equal(kept(tmp_path / "corpus"), rows)
    assert main(["train", "--data", str(path)]) == 2
    said = capsys.readouterr().err
    assert "alignmamba convert auto" in said
    assert "--padding front|back" in said


def test_what_zeros_show_is_not_overruled(tmp_path: Path) -> None:
    path, rows = pickled(tmp_path / "x.pkl", "white", "zeros", front=False)
    _converted(path, padding="front")
    np.testing.assert_array_equal(kept(tmp_path / "corpus"), rows)
