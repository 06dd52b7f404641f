"""Scores of the family by formula, against rules that play it, and the promises of its samples."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from alignmamba.contracts import Corpus, Sample
from alignmamba.data import synthetic_family
from alignmamba.data.archive import load_corpus
from alignmamba.data.synthetic_family import (
    KEY_BITS,
    PAIRS,
    Dials,
    family_scores,
    write_synthetic_family,
)
from alignmamba.errors import ConfigError, DataError
from tolerances import STANDARD_ERRORS

SETTINGS = {
    "at rest": Dials(),
    "warp": Dials(warp=0.3),
    "warp and clocks": Dials(warp=0.2, disagree=0.4, distractors=0),
    "lag": Dials(lag=(0, 2), rate=(1, 1)),
    "constant lag": Dials(lag=(2, 2), distractors=1),
    "all": Dials(lag=(0, 1), warp=0.4, disagree=0.7, distractors=6, rate=(1, 3)),
}
SAMPLES = 1000
CHECKSUM = "09af6a916e0e2536bd7b54f9398898c891c37023c905e415e14f08ba075898f3"


def made(dials: Dials, size: int = SAMPLES, seed: int = 5) -> Corpus:
    return synthetic_family.synthetic_family(dials, seed=seed, sizes={"test": size})


# What a rule reads of a sample, from its features and times alone.


def keys(sample: Sample, name: str) -> list[tuple[bool, ...]]:
    bits = sample.features[name][:, :KEY_BITS]
    return [tuple(row) for row in (bits if name == "text" else bits[:, ::-1]) > 0]


def cue(sample: Sample) -> int:
    (at,) = np.flatnonzero(sample.features["text"][:, KEY_BITS + 1] > 0.5)
    return int(at)


def sounding(sample: Sample) -> np.ndarray:
    return np.flatnonzero(np.abs(sample.features["audio"][:, KEY_BITS]) > 0.5)


def value(sample: Sample, name: str, at: int) -> int:
    return int(sample.features[name][at, KEY_BITS] > 0)


def slot_of_token(sample: Sample, at: int) -> int:
    rate = len(sample.features["audio"]) // len(sample.features["text"])
    return at // rate


def by_keys(sample: Sample) -> int:
    wanted = keys(sample, "text")[cue(sample)]
    heard = keys(sample, "audio")
    (partner,) = [at for at in sounding(sample) if heard[at] == wanted]
    return value(sample, "audio", partner)


def in_own_slot(sample: Sample) -> int:
    (at,) = [at for at in sounding(sample) if slot_of_token(sample, at) == cue(sample)]
    return value(sample, "audio", at)


def by_clock(sample: Sample) -> int:
    text = sample.times["text"]
    middle, half = text[cue(sample)], (text[1] - text[0]) / 2
    events = sounding(sample)
    apart = np.abs(sample.times["audio"][events] - middle)
    return value(sample, "audio", events[apart.argmin()]) if apart.min() <= half else 0


def by_bag(sample: Sample) -> int:
    return int(np.mean([value(sample, "audio", at) for at in sounding(sample)]) > 0.5)


def share_right(corpus: Corpus, heard: dict[str, int]) -> float:
    """Accuracy of a rule that reads the text's value and names these values of audio."""
    test = corpus.split("test")
    right = [2 * value(sample, "text", cue(sample)) + heard[sample.id] == sample.target for sample in test]
    return float(np.mean(right))


def assert_near(found: float, expected: float, count: int = SAMPLES) -> None:
    error = np.sqrt(max(expected * (1 - expected), 1e-9) / count)
    assert abs(found - expected) <= STANDARD_ERRORS * error


@pytest.fixture(scope="module", params=SETTINGS)
def setting(request: pytest.FixtureRequest) -> tuple[Dials, Corpus]:
    dials = SETTINGS[request.param]
    return dials, made(dials)


def test_rules_score_what_the_formulas_say(setting: tuple[Dials, Corpus]) -> None:
    dials, corpus = setting
    scores, test = family_scores(dials), corpus.split("test")
    assert corpus.references == scores
    rules = {
        "best_reachable_accuracy": by_keys,
        "proportional_accuracy": in_own_slot,
        "clock_accuracy": by_clock,
        "best_unpaired_accuracy": by_bag,
    }
    for name, rule in rules.items():
        assert_near(share_right(corpus, {sample.id: rule(sample) for sample in test}), scores[name])
    assert scores["best_reachable_accuracy"] == 1


@pytest.mark.parametrize("name", ["warp", "lag", "all"])
def test_the_best_rule_by_position_reaches_its_bound_and_no_more(name: str) -> None:
    dials = SETTINGS[name]
    corpus = made(dials)
    # Learnt from samples: how often the partner of a cue in this slot is in each audio slot.
    slots = dials.slots
    counts = np.zeros((slots, slots))
    other = made(dials, 1500, seed=6)
    for sample in other.split("test"):
        at = cue(sample)
        wanted, heard = keys(sample, "text")[at], keys(sample, "audio")
        (partner,) = [each for each in sounding(sample) if heard[each] == wanted]
        counts[at, slot_of_token(sample, partner)] += 1
    named = {}
    for sample in corpus.split("test"):
        values = np.array([value(sample, "audio", at) for at in sounding(sample)])
        weights = counts[cue(sample)]
        named[sample.id] = int(weights[values == 1].sum() > weights[values == 0].sum())
    bound = family_scores(dials)["best_by_position_accuracy"]
    reached = share_right(corpus, named)
    assert reached <= bound + STANDARD_ERRORS * np.sqrt(bound * (1 - bound) / SAMPLES)
    assert reached >= bound - 0.03 - STANDARD_ERRORS * np.sqrt(bound * (1 - bound) / SAMPLES)


def test_scores_by_hand() -> None:
    at_rest = family_scores(Dials(distractors=0))
    assert at_rest["proportional_accuracy"] == at_rest["clock_accuracy"] == 1
    assert at_rest["best_by_position_accuracy"] == pytest.approx(1)
    # Of 8 even values the more frequent one is expected (8 + 2.1875) / 2 times.
    assert at_rest["best_unpaired_accuracy"] == pytest.approx((8 + 2.1875) / 16)
    # A lag of 0 or 1 slot: the two candidates agree half the time; a cue in the last slot has no lag.
    lag = family_scores(Dials(distractors=0, lag=(0, 1)))
    assert lag["proportional_accuracy"] == pytest.approx(3 / 4)
    shares = np.array([1 / 8, 1 / 7]) / 2  # of a cue in slots 0 to 6, without and with a lag
    known = 7 * (shares.sum() / 2 + shares.max() / 2) + 1 / 16
    assert lag["best_by_position_accuracy"] == pytest.approx(known)
    # A lag that never changes is no riddle to a rule that knows it.
    constant = family_scores(Dials(lag=(3, 3)))
    assert constant["best_by_position_accuracy"] == pytest.approx(1)
    assert constant["proportional_accuracy"] == constant["clock_accuracy"] == 0.5


def test_distances_of_signed_weights_are_those_of_all_patterns() -> None:
    weights = np.array([0.3, 0.3, 0.2, 0.15, 0.05])
    patterns = [abs(np.dot(signs, weights)) for signs in product((-1, 1), repeat=5)]
    assert synthetic_family._expected_distance(weights) == pytest.approx(np.mean(patterns))
    assert synthetic_family._expected_distance(weights[:0]) == 0


def test_scores_stand_in_order_and_fall_as_dials_turn() -> None:
    before = None
    for warp in (0.0, 0.1, 0.2, 0.3, 0.4):
        scores = family_scores(Dials(warp=warp, disagree=1.0 if warp else 0.0))
        assert scores["best_single_modality_accuracy"] < scores["best_unpaired_accuracy"]
        assert scores["best_unpaired_accuracy"] < scores["best_by_position_accuracy"]
        assert scores["proportional_accuracy"] <= scores["best_by_position_accuracy"] + 1e-12
        if before is not None:
            assert scores["proportional_accuracy"] < before["proportional_accuracy"]
            assert scores["best_by_position_accuracy"] < before["best_by_position_accuracy"]
        before = scores


def test_samples_keep_their_promises(setting: tuple[Dials, Corpus]) -> None:
    dials, corpus = setting
    for sample in list(corpus.split("test"))[:200]:
        slots, length = len(sample.features["text"]), len(sample.features["audio"])
        assert slots == PAIRS + dials.distractors
        assert dials.rate[0] * slots <= length <= dials.rate[1] * slots
        assert [slot_of_token(sample, at) for at in sounding(sample)] == list(range(slots))
        text, heard = keys(sample, "text"), [keys(sample, "audio")[at] for at in sounding(sample)]
        assert len(set(text)) == len(set(heard)) == slots
        shared = set(text) & set(heard)
        assert 2 <= len(shared) <= PAIRS
        assert text[cue(sample)] in shared
        assert all((np.diff(times) > 0).all() for times in sample.times.values())
        # Words are those of true partners alone.
        words = [word for word in sample.tokens["text"] if word]
        assert sorted(words) == sorted(word for word in sample.tokens["audio"] if word)
        assert len(words) == len(shared)
        assert all(np.abs(each).max() <= 1.25 for each in sample.features.values())


def test_clocks_are_wrong_by_the_stated_amount() -> None:
    corpus = made(Dials(warp=0.3, disagree=0.5), 300)
    for sample in corpus.split("test"):
        text, audio = sample.times["text"], sample.times["audio"]
        length = len(text) * (text[1] - text[0])
        worst = 0.0
        for at, word in enumerate(sample.tokens["audio"]):
            if word:
                worst = max(worst, abs(audio[at] - text[sample.tokens["text"].index(word)]))
        if sample.labels["clocks"] == "agree":
            assert worst <= 1e-9
        else:
            # a token stands anywhere in its slot
            assert worst <= abs(float(sample.labels["warp"])) * length + length / len(text)
            assert np.allclose(np.diff(audio), np.diff(audio)[0])
    shares = [sample.labels["clocks"] == "agree" for sample in corpus.split("test")]
    assert abs(np.mean(shares) - 0.5) < STANDARD_ERRORS * 0.5 / np.sqrt(300)


def test_a_sample_depends_on_dials_seed_split_and_place_alone() -> None:
    dials = Dials(warp=0.2)
    few, many = made(dials, 3), made(dials, 5)
    for one, other in zip(few.split("test"), many.split("test"), strict=False):
        assert one.id == other.id
        assert one.target == other.target
        assert one.labels == other.labels
        assert all((one.features[name] == other.features[name]).all() for name in one.features)
        assert all((one.times[name] == other.times[name]).all() for name in one.times)
    assert few.checksum == made(dials, 3).checksum
    assert few.checksum != made(dials, 3, seed=6).checksum
    assert few.checksum != made(Dials(warp=0.1), 3).checksum


def test_values_are_the_same_everywhere() -> None:
    # Written down once: another platform or library version must give the same corpus.
    assert made(Dials(warp=0.3, disagree=0.5, lag=(0, 2)), 4, seed=0).checksum == CHECKSUM


def test_a_written_corpus_is_the_one_in_memory(tmp_path: Path) -> None:
    dials = Dials(warp=0.3, disagree=0.5)
    sizes = {"train": 4, "valid": 2, "test": 3}
    write_synthetic_family(tmp_path / "c", dials, seed=3, sizes=sizes, source="a test")
    found = load_corpus(tmp_path / "c")
    kept = synthetic_family.synthetic_family(dials, seed=3, sizes=sizes)
    assert found.references == kept.references
    assert found.task == kept.task
    for role in sizes:
        for one, other in zip(found.split(role), kept.split(role), strict=True):
            assert (one.id, one.target, one.tokens, one.labels) == (
                other.id,
                other.target,
                other.tokens,
                other.labels,
            )
            assert all((one.features[name] == other.features[name]).all() for name in other.features)
            assert all((one.times[name] == other.times[name]).all() for name in other.times)


@pytest.mark.parametrize(
    ("dials", "message"),
    [
        ({"warp": 0.5}, "warp: found 0.5"),
        ({"lag": (3, 1)}, "lag: found 3 1, expected the lower number first"),
        ({"rate": (0, 2)}, "rate.0: found 0"),
        ({"disagree": 0.5}, "disagree: found it without warp"),
        ({"lag": (0, 11)}, "lag, warp: leave 1 of 12 events with a partner"),
        ({"distractors": -1}, "distractors: found -1"),
    ],
)
def test_wrong_dials_are_refused(dials: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Dials(**dials)  # type: ignore[arg-type]


@pytest.mark.parametrize(("sizes", "message"), [({"dev": 3}, "'dev'"), ({"train": 0}, "'train', found 0")])
def test_wrong_sizes_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        synthetic_family.synthetic_family(Dials(), sizes=sizes)  # type: ignore[arg-type]
