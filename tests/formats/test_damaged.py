"""Damaged files of every format: refused in one line, or read, and never anything half-written."""

from collections import Counter
from pathlib import Path

import damaging
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stub_reader
from alignmamba.formats import FORMATS
from alignmamba.formats.known_formats import recognised

CRASHES = Path(__file__).with_name("crashes")
"""One folder per format; every file that ever broke its reader, as the fuzzer found it."""


SLOW = ("csd",)
"""Readers that start a process for every file; `benchmarks/corruption.py` tries them as often as the
others."""


def one_of_each_kind(files: list[Path]) -> list[Path]:
    """The largest file of each suffix."""
    return list({path.suffix: path for path in sorted(files, key=lambda path: path.stat().st_size)}.values())


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "stub", stub_reader)


def test_every_format_has_a_seed() -> None:
    assert set(damaging.SEEDS) == set(FORMATS)


@pytest.mark.parametrize("format", damaging.SEEDS)
def test_a_sound_file_is_recognised_as_what_it_is(format: str, tmp_path: Path) -> None:
    seed = damaging.seed(format, tmp_path / "seed")
    assert recognised(seed.sources) == [format]


@pytest.mark.parametrize("format", damaging.SEEDS)
def test_a_file_that_was_cut_off(format: str, tmp_path: Path) -> None:
    seed = damaging.seed(format, tmp_path / "seed")
    (tmp_path / "out").mkdir()
    sound = damaging.sound(format, seed, tmp_path / "out")
    outcomes: Counter[str] = Counter()
    for path in one_of_each_kind(seed.files)[: 1 if format in SLOW else None]:
        content = path.read_bytes()
        for part in damaging.truncated(content)[:: 4 if format in SLOW else 1]:
            path.write_bytes(part)
            outcomes[damaging.attempt(format, seed, tmp_path / "out", sound)[0]] += 1
        path.write_bytes(content)
    assert outcomes["refused"] >= 3
    assert damaging.attempt(format, seed, tmp_path / "out", sound) == ("unchanged", "")


_MUTATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), st.floats(0, 1, exclude_max=True), st.integers(0, 7)),
        st.tuples(st.just("insert"), st.floats(0, 1, exclude_max=True), st.binary(max_size=16)),
        st.tuples(st.just("delete"), st.floats(0, 1, exclude_max=True), st.integers(1, 64)),
        st.tuples(st.just("repeat"), st.floats(0, 1, exclude_max=True), st.integers(1, 64)),
        st.tuples(
            st.just("write"),
            st.floats(0, 1, exclude_max=True),
            st.sampled_from([b"\xff" * 8, b"\x00" * 8, b"\x7f" * 4, b"-1", b"1e9"]),
        ),
    ),
    min_size=1,
    max_size=4,
)


def _mutated(content: bytes, mutations: list[tuple[str, float, int | bytes]]) -> bytes:
    for kind, place, given_value in mutations:
        at = int(place * len(content))
        if isinstance(given_value, bytes):
            content = (
                content[:at] + given_value + content[at + (len(given_value) if kind == "write" else 0) :]
            )
        elif kind == "flip" and content:
            content = damaging.flipped(content, 8 * at + given_value)
        elif kind == "delete":
            content = content[:at] + content[at + given_value :]
        else:
            content = content[:at] + content[at : at + given_value] + content[at:]
    return content


@pytest.mark.parametrize("format", damaging.SEEDS)
def test_a_file_that_was_changed_at_random(format: str, tmp_path: Path) -> None:
    seed = damaging.seed(format, tmp_path / "seed")
    contents = {path: path.read_bytes() for path in seed.files}

    @settings(max_examples=6 if format in SLOW else 40)
    @given(st.sampled_from(seed.files), _MUTATIONS)
    def mutate(path: Path, mutations: list[tuple[str, float, int | bytes]]) -> None:
        path.write_bytes(_mutated(contents[path], mutations))
        try:
            damaging.read_through(format, seed)
        finally:
            path.write_bytes(contents[path])

    mutate()


@pytest.mark.parametrize(
    "path", sorted(CRASHES.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}"
)
def test_what_once_broke_a_reader(path: Path, tmp_path: Path) -> None:
    seed = damaging.seed(path.parent.name, tmp_path / "seed")
    damaging.place_input(seed, path.read_bytes())
    damaging.read_through(path.parent.name, seed)
