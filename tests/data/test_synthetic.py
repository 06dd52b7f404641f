from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from alignmamba.contracts import Corpus, Sample
from alignmamba.data import synthetic
from alignmamba.data.synthetic import synthetic_corpus
from alignmamba.errors import DataError
from tolerances import STANDARD_ERRORS


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return synthetic_corpus(seed=3, sizes={"train": 3000, "test": 1500})


def symbols(sample: Sample) -> dict[str, np.ndarray]:
    return {name: features.argmax(axis=1) for name, features in sample.features.items()}


def pulses(sample: Sample, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Times in seconds and values of a modality's pulses, read off the features."""
    shown = symbols(sample)[name]
    at = np.flatnonzero(shown < 2)
    return sample.times[name][at], shown[at]


def cue_time(sample: Sample) -> float:
    (at,) = np.flatnonzero(symbols(sample)["text"] == 0)
    return float(sample.times["text"][at])


def oracle(sample: Sample) -> int:
    cue = cue_time(sample)
    audio, video = (
        values[times < cue][-1] for times, values in (pulses(sample, "audio"), pulses(sample, "video"))
    )
    return int(2 * audio + video)


def accuracy(corpus: Corpus, rule: Callable[[Sample], int]) -> float:
    return float(
        np.mean([rule(sample) == sample.target for split in corpus.splits.values() for sample in split])
    )


def standard_error(probability: float, count: int) -> float:
    return float(np.sqrt(probability * (1 - probability) / count))


def test_an_oracle_that_reads_all_features_misses_only_the_replaced_labels(corpus: Corpus) -> None:
    test = corpus.split("test")
    right = np.mean([oracle(sample) == sample.target for sample in test])
    assert right == corpus.references["test_labels_kept"]
    best = corpus.references["best_reachable_accuracy"]
    assert best == pytest.approx(0.95)
    assert abs(accuracy(corpus, oracle) - best) < STANDARD_ERRORS * standard_error(best, 4500)


def test_replaced_labels_spread_evenly_over_the_other_classes(corpus: Corpus) -> None:
    shifts = [
        (int(sample.target or 0) - oracle(sample)) % 4 for split in corpus.splits.values() for sample in split
    ]
    counts = np.bincount(shifts, minlength=4)[1:]
    share = counts.sum() / 3
    assert (np.abs(counts - share) < STANDARD_ERRORS * np.sqrt(share)).all()


def test_samples_keep_the_promised_distances(corpus: Corpus) -> None:
    for sample in corpus.split("test"):
        shown = symbols(sample)
        lengths = {name: len(values) for name, values in shown.items()}
        assert 20 <= lengths["text"] <= 28
        assert len(set(lengths.values())) == 3
        clean = {name: np.eye(sample.features[name].shape[1])[values] for name, values in shown.items()}
        assert all(np.abs(sample.features[name] - clean[name]).max() <= 0.25 + 1e-6 for name in shown)
        assert all((np.diff(times) > 0).all() for times in sample.times.values())
        cue = cue_time(sample)
        # The moment of the k-th text token lies in the k-th share of the timeline, which brackets the
        # sample's duration.
        k = np.arange(lengths["text"])
        longest = np.min(sample.times["text"][1:] / k[1:]) * lengths["text"]
        shortest = np.max(sample.times["text"] / (k + 1)) * lengths["text"]
        assert shortest <= longest
        lag = 1.5 / 20 * shortest
        for name in ("audio", "video"):
            times, _ = pulses(sample, name)
            assert 2 <= len(times) <= 6
            assert times[0] < cue < times[-1]
            assert np.abs(times - cue).min() >= lag
            assert np.diff(times).min() >= 2 * lag


def test_resampling_to_the_text_rate_keeps_the_order_of_pulse_and_cue(corpus: Corpus) -> None:
    for sample in corpus.split("test"):
        num_text = len(sample.features["text"])
        cue = int(np.flatnonzero(symbols(sample)["text"] == 0)[0])
        for name in ("audio", "video"):
            shown = symbols(sample)[name]
            times, _ = pulses(sample, name)
            at = np.flatnonzero(shown < 2)
            # By index alone, as a model without times resamples: the middle of each token's share of the
            # timeline.
            text_token = np.floor((at + 0.5) / len(shown) * num_text).astype(int)
            assert ((text_token < cue) == (times < cue_time(sample))).all()
            assert (text_token != cue).all()
            assert len(set(text_token.tolist())) == len(text_token)


# Rules that see one modality alone. Where a value is out of reach they name class 0 of it: the classes are
# even.
def _majority(sample: Sample, name: str) -> int:
    _, values = pulses(sample, name)
    return int(values[:-1].mean() > 0.5)


def _before_the_middle(sample: Sample, name: str) -> int:
    times, values = pulses(sample, name)
    return int(values[times <= max(sample.times[name][-1] / 2, times[0])][-1])


def _before_the_widest_gap(sample: Sample, name: str) -> int:
    times, values = pulses(sample, name)
    return int(values[np.argmax(np.diff(times))])


def _first(sample: Sample, name: str) -> int:
    return int(pulses(sample, name)[1][0])


def _weighted_by_gap(sample: Sample, name: str) -> int:
    times, values = pulses(sample, name)
    return int(np.average(values[:-1], weights=np.diff(times)) > 0.5)


@pytest.mark.parametrize(
    "rule", [_majority, _before_the_middle, _before_the_widest_gap, _first, _weighted_by_gap]
)
@pytest.mark.parametrize(("name", "factor"), [("audio", 2), ("video", 1)])
def test_no_rule_on_one_modality_exceeds_the_bound(
    corpus: Corpus, rule: Callable[[Sample, str], int], name: str, factor: int
) -> None:
    bound = corpus.references["best_single_modality_accuracy"]
    reached = accuracy(corpus, lambda sample: factor * rule(sample, name))
    assert reached < bound + STANDARD_ERRORS * standard_error(bound, 4500)


def test_the_bound_on_one_modality_is_nearly_reached(corpus: Corpus) -> None:
    # Weighing the values by the gaps that follow them comes close: the bound also grants the slots, which a
    # rule has to guess.
    reached = accuracy(corpus, lambda sample: 2 * _weighted_by_gap(sample, "audio"))
    assert reached > corpus.references["best_single_modality_accuracy"] - 0.03


def test_text_and_one_more_modality_know_half_the_classes(corpus: Corpus) -> None:
    expected = 0.5 * 0.95 + 0.5 * 0.05 / 3
    assert expected < corpus.references["best_pair_accuracy"]
    reached = accuracy(corpus, lambda sample: oracle(sample) & 2)
    assert abs(reached - expected) < STANDARD_ERRORS * standard_error(expected, 4500)


def test_the_sums_behind_the_bounds_agree_with_simulation() -> None:
    random = np.random.default_rng(0)
    slots, draws = synthetic.SLOTS - 1, 20000
    held = []
    for _ in ("audio", "video"):
        present = random.random((draws, slots)) >= synthetic.OMISSION
        present[:, 0] = True
        last = np.maximum.accumulate(np.where(present, np.arange(slots), 0), axis=1)
        held.append(np.take_along_axis(random.integers(0, 2, size=(draws, slots)), last, axis=1))
    both = 2 * held[0] + held[1]
    for modalities, selected in ((1, held[0]), (2, both)):
        right = np.max([(selected == label).mean(axis=1) for label in range(4)], axis=0)
        assert abs(
            right.mean() - synthetic._best_guess(modalities)
        ) < STANDARD_ERRORS * right.std() / np.sqrt(draws)


def test_the_sums_behind_the_bounds_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two cue slots: the second pulse is absent (1/4), equal (3/8), or different, when either guess is right
    # half the time.
    monkeypatch.setattr(synthetic, "SLOTS", 3)
    same = 1 / 4 + 3 / 8
    assert synthetic._best_guess.__wrapped__(1) == pytest.approx(same + (1 - same) / 2)
    assert synthetic._best_guess.__wrapped__(2) == pytest.approx(same**2 + (1 - same**2) / 2)


def test_a_sample_depends_on_seed_split_and_place_alone() -> None:
    small = synthetic_corpus(seed=7, sizes={"valid": 3})
    large = synthetic_corpus(seed=7, sizes={"train": 2, "valid": 600})
    for one, other in zip(small.split("valid"), large.split("valid"), strict=False):
        assert one.id == other.id
        assert one.target == other.target
        assert one.tokens == other.tokens
        assert all((one.features[name] == other.features[name]).all() for name in one.features)
        assert all((one.times[name] == other.times[name]).all() for name in one.times)
    assert not np.array_equal(large.split("train")[0].times["text"], large.split("valid")[0].times["text"])
    assert synthetic_corpus(seed=7, sizes={"valid": 3}).checksum == small.checksum
    assert synthetic_corpus(seed=8, sizes={"valid": 3}).checksum != small.checksum


def test_values_are_the_same_everywhere() -> None:
    # Written down once: another platform or library version must give the same corpus.
    sample = synthetic_corpus(seed=0, sizes={"train": 1}).split("train")[0]
    assert sample.target == 1
    assert [len(sample.features[name]) for name in ("text", "audio", "video")] == [20, 52, 33]
    assert sample.features["audio"][10, :2].tolist() == [-0.13281089067459106, -0.0906246080994606]


def test_tokens_name_the_symbols(corpus: Corpus) -> None:
    sample = corpus.split("train")[0]
    assert sample.tokens["text"].count("cue") == 1
    assert [word for word in sample.tokens["audio"] if word in ("low", "high")] == [
        ("low", "high")[value] for value in pulses(sample, "audio")[1]
    ]


@pytest.mark.parametrize(
    ("sizes", "message"), [({"dev": 3}, "'dev'"), ({"train": 0}, "'train' needs at least 1 sample, found 0")]
)
def test_wrong_sizes_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        synthetic_corpus(sizes=sizes)  # type: ignore[arg-type]


def test_references_lie_in_order(corpus: Corpus) -> None:
    names = [
        "chance_accuracy",
        "best_single_modality_accuracy",
        "best_pair_accuracy",
        "best_reachable_accuracy",
    ]
    assert all(corpus.references[low] < corpus.references[high] for low, high in pairwise(names))
