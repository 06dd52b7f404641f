"""Protocols of missing modalities: their distributions, and what masks depend on."""

import subprocess
import sys
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpora import CLASSES
from pydantic import ValidationError

from alignmamba.contracts import ModalitySpec, Role, Sample, Split
from alignmamba.data.loader import Loader, LoaderConfig
from alignmamba.data.memory_splits import MemorySplit
from alignmamba.data.missing_protocols import MissingConfig, WithheldSplit, only, patterns, withheld
from alignmamba.errors import DataError

NAMES = ("text", "audio", "video", "touch", "smell")
# Rate -> share of the samples that keep 1, 2 and 3 of three modalities, by the closed form of GCNet's rule.
GCNET = {
    0.1: (0.0225, 0.255, 0.7225),
    0.2: (0.09, 0.42, 0.49),
    0.3: (0.2025, 0.495, 0.3025),
    0.4: (0.36, 0.48, 0.16),
    0.5: (0.5625, 0.375, 0.0625),
    0.6: (0.81, 0.18, 0.01),
    0.7: (1.0, 0.0, 0.0),
}


def split(
    count: int, modalities: int = 3, *, time: int = 1, absent: float = 0.0, role: Role = "test"
) -> MemorySplit:
    """Samples of the first so many modalities; each lacks all but a random one with the given chance."""
    random = np.random.default_rng(count)
    names = NAMES[:modalities]
    samples = []
    for row in range(count):
        there = (random.random(modalities) >= absent) | (np.arange(modalities) == random.integers(modalities))
        features = {
            name: np.full((time, 1), row, dtype=np.float32)
            for name, has in zip(names, there, strict=True)
            if has
        }
        features = {
            name: values + np.arange(time, dtype=np.float32)[:, None] / 64
            for name, values in features.items()
        }
        samples.append(
            Sample(
                id=f"{role}-{row}",
                features=features,
                target=row % 2,
                times={name: np.arange(time) / 10 for name in features},
                tokens={name: tuple(map(str, range(time))) for name in features},
            )
        )
    return MemorySplit(
        role=role, samples=samples, modalities=tuple(ModalitySpec(name=name, dim=1) for name in names)
    )


def config(protocol: str, *rates: float) -> MissingConfig:
    return MissingConfig.model_validate({"protocol": protocol, **({"rate": rates} if rates else {})})


def kept(view: WithheldSplit) -> np.ndarray:
    """(samples, modalities) bool, in the order of the modalities' names."""
    return np.stack([view.kept[name] for name in sorted(view.kept)], axis=1)


def present(whole: Split) -> np.ndarray:
    return np.stack([whole.lengths[name] > 0 for name in sorted(whole.lengths)], axis=1)


def close(found: float, expected: float, count: int) -> bool:
    """Within four standard errors of a share of so many samples."""
    return abs(found - expected) <= 4 * np.sqrt(expected * (1 - expected) / count) + 1e-12


# Distributions


@pytest.mark.parametrize(("rate", "shares"), GCNET.items())
def test_gcnet_has_its_closed_form(rate: float, shares: tuple[float, ...]) -> None:
    whole = split(3000)
    view = withheld(whole, config("gcnet", rate), seed=0)
    counts = kept(view).sum(axis=1)
    for number, share in enumerate(shares, 1):
        assert close(float(np.mean(counts == number)), share, 3000), number
    # Every modality is withheld as often as another.
    for column in range(3):
        assert close(float(np.mean(~kept(view)[:, column])), min(rate, 2 / 3), 3000)
    assert view.effective_rate == pytest.approx(min(rate, 2 / 3), abs=0.02)


@pytest.mark.parametrize("modalities", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5, 0.9])
def test_gcnet_withholds_the_rate_from_any_number_of_modalities(modalities: int, rate: float) -> None:
    view = withheld(split(1500, modalities), config("gcnet", rate), seed=1)
    expected = min(rate, 1 - 1 / modalities)
    left = kept(view)
    assert (left.sum(axis=1) >= 1).all()
    # Withheld together or not, the share of each modality is the rate.
    assert all(close(1 - float(left[:, column].mean()), expected, 1500) for column in range(modalities))
    if expected in (0, 1 - 1 / modalities):
        assert view.effective_rate == pytest.approx(expected)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
@pytest.mark.parametrize("modalities", [1, 2, 3, 4])
def test_imder_per_sample_has_its_chances(rate: float, modalities: int) -> None:
    two, one = {
        0: (0, 0),
        1: (0.1, 0.1),
        2: (0.2, 0.2),
        3: (0.3, 0.3),
        4: (0.5, 0.2),
        5: (0.7, 0.1),
        6: (0.9, 0),
        7: (1, 0),
    }[round(10 * rate)]
    left = kept(withheld(split(2000, modalities), config("imder-sample", rate), seed=0))
    lost = modalities - left.sum(axis=1)
    expected: dict[int, float] = {}
    for number, share in ((modalities - 1, two), (min(1, modalities - 1), one), (0, 1 - two - one)):
        expected[number] = expected.get(number, 0) + share
    for number, share in expected.items():
        assert close(float(np.mean(lost == number)), share, 2000), number
    assert set(lost.tolist()) <= expected.keys()
    assert all(close(float(left[:, column].mean()), float(left.mean()), 2000) for column in range(modalities))


@pytest.mark.parametrize(
    ("samples", "role", "effective"),
    [
        (229, "valid", (0.14, 0.279, 0.419, 0.559, 0.659, 0.667, 0.667)),
        (686, "test", (0.093, 0.187, 0.280, 0.373, 0.466, 0.560, 0.622)),
    ],
)
def test_imder_in_groups_has_the_published_effective_rates(
    samples: int, role: Role, effective: tuple[float, ...]
) -> None:
    whole = split(samples, role=role)
    for level, rate in enumerate(effective, 1):
        assert withheld(whole, config("imder-batch", level / 10), seed=0).effective_rate == pytest.approx(
            rate, abs=5.1e-4
        )
    assert withheld(whole, config("imder-batch", 0.0), seed=0).effective_rate == 0


def test_imder_in_groups_withholds_the_same_from_a_group() -> None:
    left = kept(withheld(split(686), config("imder-batch", 0.3), seed=0))
    groups = [left[start : start + 32] for start in range(0, 686, 32)]
    assert [int(group[0].sum()) for group in groups] == [1] * 6 + [2] * 6 + [3] * 10
    assert all((group == group[0]).all() for group in groups)
    assert len({tuple(group[0]) for group in groups[:12]}) >= 4
    # In training the groups are cut from another order every epoch.
    training = [
        kept(withheld(split(686, role="train"), config("imder-batch", 0.3), seed=0, epoch=epoch))
        for epoch in (0, 1)
    ]
    for epoch in training:
        counts = epoch.sum(axis=1)
        assert [int((counts == number).sum()) for number in (1, 2, 3)] in (
            [192, 192, 302],
            [174, 192, 320],
            [192, 174, 320],
        )
        assert len(set(counts[:64].tolist())) > 1
    assert (training[0] != training[1]).any()


def test_imder_in_groups_refuses_a_split_that_it_would_leave_whole() -> None:
    with pytest.raises(
        DataError, match=r"split 'test': found 5 groups of .*, expected at least 6 for protocol 'imder-batch'"
    ):
        withheld(split(160), config("imder-batch", 0.5), seed=0)
    withheld(split(161), config("imder-batch", 0.5), seed=0)
    withheld(split(1), config("imder-batch", 0.0), seed=0)


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_fixed_takes_every_proper_subset_evenly(modalities: int) -> None:
    names = sorted(NAMES[:modalities])
    left = kept(withheld(split(3000, modalities), config("fixed"), seed=0))
    seen, counts = np.unique(left, axis=0, return_counts=True)
    every = patterns(names)
    assert len(every) == len(set(every)) == 2**modalities - 2
    assert sorted(
        tuple(name for name, keep in zip(names, row, strict=True) if keep) for row in seen
    ) == sorted(every)
    assert all(close(count / 3000, 1 / len(every), 3000) for count in counts)


def test_fixed_needs_something_to_choose_from() -> None:
    with pytest.raises(
        DataError, match="split 'test': protocol 'fixed' needs at least 2 modalities, found 1"
    ):
        withheld(split(4, 1), config("fixed"), seed=0)


def test_tokens_are_lost_one_by_one_and_one_is_left() -> None:
    whole = split(400, 2, time=20, absent=0.3)
    view = withheld(whole, config("tokens", 0.4), seed=0)
    total = sum(int(lengths.sum()) for lengths in whole.lengths.values())
    assert close(view.effective_rate, 0.4, total)
    assert (kept(view) == present(whole)).all()
    assert view.kept_tokens is not None
    both = [row for row in range(400) if present(whole)[row].all()]
    first, second = (np.stack([view.kept_tokens[name][row] for row in both]) for name in ("text", "audio"))
    # modalities are drawn independently
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 4 / np.sqrt(first.size)
    for row, sample in enumerate(view):
        for name, values in sample.features.items():
            places = np.flatnonzero(view.kept_tokens[name][row])
            assert view.lengths[name][row] == len(values) == len(places) >= 1
            assert np.array_equal(values, whole[row].features[name][places])
            assert np.array_equal(sample.times[name], places / 10)
            assert sample.tokens[name] == tuple(map(str, places))
    harsh = withheld(whole, config("tokens", 0.999), seed=0)
    left = np.concatenate([harsh.lengths[name][whole.lengths[name] > 0] for name in ("text", "audio")])
    assert left.min() == 1
    assert left.mean() < 1.1
    assert harsh.kept_tokens is not None
    places = np.array([mask.argmax() for mask in harsh.kept_tokens["text"] if len(mask)])
    assert len(set(places.tolist())) == 20  # not always the first


@pytest.mark.parametrize("protocol", ["gcnet", "imder-sample", "tokens"])
def test_of_several_rates_each_sample_takes_one_evenly(protocol: str) -> None:
    whole = split(3000, 3, time=10)
    rates = (0.0, 0.6)
    mixed = withheld(whole, config(protocol, *rates), seed=0)
    alone = [withheld(whole, config(protocol, rate), seed=0) for rate in rates]
    assert mixed.effective_rate == pytest.approx(np.mean([view.effective_rate for view in alone]), abs=0.03)
    lengths = np.stack([mixed.lengths[name] for name in NAMES[:3]])
    whole_ones = float(np.mean((lengths == 10).all(axis=0)))
    chance = {"gcnet": 0.01, "imder-sample": 0.1, "tokens": 0.4**30}[protocol]
    assert close(whole_ones, 0.5 + 0.5 * chance, 3000)


# What is naturally missing


@pytest.mark.parametrize(
    "missing",
    [
        config("gcnet", 0.6),
        config("imder-sample", 0.6),
        config("imder-batch", 0.5),
        config("fixed"),
        config("tokens", 0.9),
    ],
)
@pytest.mark.parametrize("epoch", [None, 2])
def test_nothing_is_given_back_and_nobody_is_left_with_nothing(
    missing: MissingConfig, epoch: int | None
) -> None:
    whole = split(600, 4, absent=0.6)
    view = withheld(whole, missing, seed=3, epoch=epoch)
    left, there = kept(view), present(whole)
    assert not (left & ~there).any()
    assert left.any(axis=1).all()
    assert (left[there.sum(axis=1) == 1] == there[there.sum(axis=1) == 1]).all()
    if missing.protocol != "tokens":
        assert (left != there).any()
        assert view.effective_rate == pytest.approx(1 - left.sum() / there.sum())


def test_gcnet_counts_the_modalities_that_are_there() -> None:
    """Either of two present ones is withheld at the rate, as if there were no third."""
    whole = split(3000, 3, absent=0.4)
    left, there = kept(withheld(whole, config("gcnet", 0.3), seed=0)), present(whole)
    pairs = there.sum(axis=1) == 2
    assert pairs.sum() > 500
    assert close(1 - left[pairs].sum() / there[pairs].sum(), 0.3, int(pairs.sum()))


def test_a_view_shows_what_is_left() -> None:
    whole = split(50, 3, time=4)
    view = withheld(whole, config("gcnet", 0.5), seed=0, modalities=("video", "text"))
    assert isinstance(view, Split)
    assert (view.role, view.ids, len(view)) == (whole.role, whole.ids, 50)
    assert view.lengths.keys() == {"video", "text"}
    for row, sample in enumerate(view):
        names = {name for name in ("video", "text") if view.kept[name][row]}
        assert sample.features.keys() == sample.times.keys() == sample.tokens.keys() == names
        assert (sample.id, sample.target) == (whole[row].id, whole[row].target)
        assert {name: int(view.lengths[name][row]) for name in ("video", "text")} == {
            name: 4 if name in names else 0 for name in ("video", "text")
        }
    with pytest.raises(DataError, match="split 'test' has no modality 'taste'"):
        withheld(whole, config("gcnet", 0.5), seed=0, modalities=("taste",))


def test_only_leaves_out_whom_it_would_leave_with_nothing() -> None:
    whole = split(200, 3, absent=0.5)
    for pattern in patterns(NAMES[:3]):
        view = only(whole, pattern, modalities=NAMES[:3])
        has = np.any([whole.lengths[name] > 0 for name in pattern], axis=0)
        assert view.ids == tuple(identity for identity, each in zip(whole.ids, has, strict=True) if each)
        for sample, row in zip(view, np.flatnonzero(has), strict=True):
            assert sample.id == whole.ids[row]
            assert set(sample.features) == set(whole[int(row)].features) & set(pattern)


# What masks depend on


PROTOCOLS = [
    config("gcnet", 0.5),
    config("imder-sample", 0.5),
    config("imder-batch", 0.5),
    config("fixed"),
    config("tokens", 0.5),
]


def masks(view: WithheldSplit) -> dict[str, Any]:
    """Id to what is kept of the sample."""
    if view.kept_tokens is not None:
        return {
            identity: {name: each[row].tolist() for name, each in view.kept_tokens.items()}
            for row, identity in enumerate(view.ids)
        }
    return {
        identity: {name: bool(each[row]) for name, each in view.kept.items()}
        for row, identity in enumerate(view.ids)
    }


@pytest.mark.parametrize("missing", PROTOCOLS)
def test_masks_depend_on_seed_and_id(missing: MissingConfig) -> None:
    whole = split(400, time=3)
    first = masks(withheld(whole, missing, seed=0))
    assert masks(withheld(whole, missing, seed=0)) == first
    assert masks(withheld(whole, missing, seed=1)) != first
    assert masks(withheld(whole, missing, seed=0, modalities=("video", "audio", "text"))) == first
    if missing.protocol != "imder-batch":  # which is defined by the order of the split
        others = MemorySplit(
            role="test", samples=list(reversed(whole.samples[100:])), modalities=whole.modalities
        )
        assert masks(withheld(others, missing, seed=0)) == {
            identity: first[identity] for identity in others.ids
        }


@pytest.mark.parametrize("missing", PROTOCOLS)
def test_the_epoch_matters_in_training_alone(missing: MissingConfig) -> None:
    def seen(source: Loader) -> dict[str, Any]:
        return {
            identity: {
                name: sequences.features[row][sequences.mask[row]].tolist()
                for name, sequences in batch.modalities.items()
            }
            for batch in source
            for row, identity in enumerate(batch.ids)
        }

    def loader(role: Role, **options: Any) -> Loader:
        whole = split(200, time=3, role=role)
        settings = {"batch_size": 32, "shuffle": role == "train", "rank": 0, "world_size": 1} | options
        return Loader(
            whole,
            whole.modalities,
            config=LoaderConfig(batch_size=settings.pop("batch_size")),
            task=CLASSES,
            seed=5,
            missing=missing,
            **settings,
        )

    for role in ("train", "valid"):
        source = loader(role)
        first = seen(source)
        # Neither the size of the batches nor the number of processes changes what a sample keeps.
        assert seen(loader(role, batch_size=7)) == first
        assert seen(loader(role, rank=0, world_size=2)) | seen(loader(role, rank=1, world_size=2)) == first
        source.set_epoch(1)
        assert (seen(source) == first) == (role == "valid")
        tail = [batch.ids for batch in source.iter_from(3)]
        assert tail == [batch.ids for batch in source][3:]
        source.set_epoch(0)
        assert seen(source) == first
    shown = withheld(split(200, time=3, role="valid"), missing, seed=5)
    expected = {
        sample.id: {name: sample.features.get(name, np.zeros((0, 1))).tolist() for name in NAMES[:3]}
        for sample in shown
    }
    assert first == expected


def test_batches_are_bucketed_by_what_is_left() -> None:
    whole = split(640, time=40, role="train")

    def spread(missing: MissingConfig) -> float:
        source = Loader(
            whole,
            whole.modalities,
            config=LoaderConfig(batch_size=8),
            task=CLASSES,
            shuffle=True,
            seed=0,
            missing=missing,
        )
        totals = [
            torch.stack([sequences.lengths for sequences in batch.modalities.values()]).sum(0).double()
            for batch in source
        ]
        return float(torch.stack([total.max() - total.min() for total in totals]).mean())

    assert spread(config("gcnet", 0.5)) < 10  # of 40, 80 or 120 tokens


def test_another_process_draws_the_same() -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_missing import PROTOCOLS, masks, split
from alignmamba.data.missing_protocols import withheld
print([masks(withheld(split(200, time=2), missing, seed=0)) for missing in PROTOCOLS])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == str(
        [masks(withheld(split(200, time=2), missing, seed=0)) for missing in PROTOCOLS]
    )


@pytest.mark.parametrize("protocol", ["gcnet", "tokens"])
def test_what_is_kept_at_a_rate_holds_what_is_kept_at_a_higher_one(protocol: str) -> None:
    whole = split(300, time=5)
    views = [withheld(whole, config(protocol, rate), seed=0) for rate in (0.1, 0.3, 0.6, 0.9)]
    for milder, harsher in pairwise(views):
        for row in range(300):
            for name in NAMES[:3]:
                more, less = milder[row].features.get(name, []), harsher[row].features.get(name, [])
                assert {float(value[0]) for value in less} <= {float(value[0]) for value in more}


# Configurations


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rate": 0.3}, "found 0.3, but protocol 'none' has no rate"),
        ({"protocol": "fixed", "rate": 0.3}, "found 0.3, but protocol 'fixed' has no rate"),
        ({"protocol": "gcnet"}, "protocol 'gcnet' needs a rate"),
        ({"protocol": "gcnet", "rate": 1.0}, "found 1.0, expected a number from 0 to less than 1"),
        ({"protocol": "gcnet", "rate": -0.1}, "found -0.1, expected a number"),
        ({"protocol": "gcnet", "rate": float("nan")}, "found nan, expected a number"),
        ({"protocol": "gcnet", "rate": "0.3"}, "found '0.3', expected a number"),
        ({"protocol": "gcnet", "rate": True}, "found True, expected a number"),
        ({"protocol": "gcnet", "rate": []}, r"found \[\], expected a number"),
        (
            {"protocol": "gcnet", "rate": [0.3, 0.3]},
            r"found \[0.3, 0.3\], expected a number .* or several different ones",
        ),
        ({"protocol": "imder-sample", "rate": 0.35}, "found 0.35, expected one of 0, 0.1, 0.2 .. 0.7"),
        ({"protocol": "imder-batch", "rate": 0.8}, "found 0.8, expected one of 0, 0.1, 0.2 .. 0.7"),
        ({"protocol": "imder-batch", "rate": [0.1, 0.2]}, "expected one rate"),
        ({"protocol": "gcnt", "rate": 0.1}, "protocol"),
    ],
)
def test_a_wrong_protocol_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        MissingConfig.model_validate(values)


def test_a_protocol_survives_being_written_down() -> None:
    for missing in (
        *PROTOCOLS,
        config("none"),
        config("gcnet", 0.1, 0.5),
        config("gcnet", 0.0),
        config("imder-sample", 0.1 + 0.2),
    ):
        assert MissingConfig.model_validate_json(missing.model_dump_json(), strict=True) == missing
    assert (
        config("gcnet", 0.3)
        == MissingConfig(protocol="gcnet", rate=0.3)
        == MissingConfig(protocol="gcnet", rate=(0.3,))
    )
    assert config("imder-sample", *np.arange(0, 0.8, 0.1).tolist()).rates[-1] == pytest.approx(0.7)
    assert (
        [len(list(combinations(NAMES, size))) for size in (1, 2)]
        == [5, 10]
        == [sum(len(pattern) == size for pattern in patterns(NAMES)) for size in (1, 2)]
    )
