"""``alignmamba synthetic``: what it writes and prints, and how it answers mistakes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from alignmamba.data.archive import load_corpus
from alignmamba.data.synthetic_family import Dials, family_scores
from cli.conftest import Said

Cli = Callable[..., Said]
SMALL = ("--samples", "6", "2", "3")


def test_it_writes_a_corpus_that_says_how_it_was_made(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "c"
    dials = ("--warp", ".3", "--disagree", ".5", "--lag", "0", "2", "--rate", "2", "2", "--distractors", "6")
    said = cli("synthetic", "--out", out, *dials, *SMALL, "--seed", "7", "--json")
    assert (said.code, said.err) == (0, "")
    told = json.loads(said.out)
    expected = Dials(warp=0.3, disagree=0.5, lag=(0, 2), rate=(2, 2), distractors=6)
    assert told["dials"] == expected.model_dump(mode="json")
    assert told["references"] == family_scores(expected)
    assert told["samples"] == {"train": 6, "valid": 2, "test": 3}
    source = json.loads((out / "corpus.json").read_text())["source"]
    # The command that the corpus names makes it again.
    again = cli(*source.split()[1:], "--out", tmp_path / "again", "--json")
    assert again.code == 0, again.err
    assert load_corpus(tmp_path / "again").checksum == load_corpus(out).checksum
    assert cli("inspect", out).code == 0


def test_it_prints_the_known_accuracies(cli: Cli, tmp_path: Path) -> None:
    said = cli("synthetic", "--out", tmp_path / "c", "--warp", ".3", *SMALL)
    assert said.code == 0, said.err
    for row in (
        "best reachable         1.000",
        "proportional           0.646",
        "next: alignmamba train --data",
    ):
        assert row in said.out


def test_a_trained_model_is_compared_with_them(cli: Cli, tmp_path: Path) -> None:
    assert cli("synthetic", "--out", tmp_path / "c", *SMALL).code == 0
    settings = ("fit.epochs=1", "options.d_model=8", "options.depth=1", "loader.batch_size=4")
    said = cli("train", "--data", tmp_path / "c", "--out", tmp_path / "run", "--set", *settings)
    assert said.code == 0, said.err
    assert "proportional accuracy" in said.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--warp", ".6"), "error: warp: found 0.6 (float), expected less than or equal to 0.45"),
        (("--warp", "nan"), "error: warp: found nan"),
        (("--lag", "4", "0"), "error: lag: found 4 0, expected the lower number first"),
        (("--lag", "0", "1000000000"), "error: lag.1: found 1000000000"),
        (("--rate", "0", "2"), "error: rate.0: found 0"),
        (("--disagree", ".5"), "error: disagree: found it without warp"),
        (("--lag", "0", "11"), "error: lag, warp: leave 1 of 12 events"),
        (("--samples", "0", "1", "1"), "error: samples: expected 1 to 100000 in split 'train', found 0"),
        (("--wrap", ".2"), "perhaps you meant --warp"),
    ],
)
def test_mistakes_get_one_line_and_write_nothing(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    said = cli("synthetic", "--out", tmp_path / "c", *arguments)
    assert said.code == 2
    assert message in said.err
    assert said.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_it_wants_a_place_and_keeps_what_is_there(cli: Cli, tmp_path: Path) -> None:
    assert "expected --out DIR" in cli("synthetic").err
    assert cli("synthetic", "--out", tmp_path / "c", *SMALL).code == 0
    before = load_corpus(tmp_path / "c").checksum
    refused = cli("synthetic", "--out", tmp_path / "c", *SMALL, "--seed", "1")
    assert refused.code == 2
    assert "exists already" in refused.err
    assert load_corpus(tmp_path / "c").checksum == before
    assert cli("synthetic", "--out", tmp_path / "c", *SMALL, "--seed", "1", "--overwrite").code == 0
    assert load_corpus(tmp_path / "c").checksum != before
