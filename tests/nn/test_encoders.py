"""Encoders, grouping and standardisation."""

import json

import pytest
import torch

from alignmamba.contracts import ModalitySpec
from alignmamba.errors import ConfigError
from alignmamba.nn.encoders import ENCODERS, EncoderConfig, Standardise, encoder_of, group_mean
from tolerances import MODEL

AUDIO = ModalitySpec(name="audio", dim=5)
TEXT = ModalitySpec(name="text", dim=9, kind="tokens")


def masked(lengths: list[int], time: int) -> torch.Tensor:
    return torch.arange(time) < torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("kind", [kind for kind, made in ENCODERS.items() if made.reads == "features"])
@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("centring", ["none", "learned"])
def test_padding_does_not_change_valid_tokens(kind: str, stride: int, centring: str) -> None:
    torch.manual_seed(0)
    fields = {"kind": kind, "stride": stride, "kernel_size": 3, "centring": centring}
    encoder = encoder_of(AUDIO, EncoderConfig.model_validate(fields), 8).eval()
    x = torch.randn(3, 7, 5)
    mask = masked([7, 4, 0], 7)
    x = x.masked_fill(~mask.unsqueeze(-1), 0)
    tokens, short = encoder(x, mask)
    padded, padded_mask = encoder(torch.cat([x, torch.zeros(3, 5, 5)], 1), masked([7, 4, 0], 12))
    assert short.sum(1).tolist() == [-(-length // stride) for length in (7, 4, 0)]
    assert padded_mask.sum(1).tolist() == short.sum(1).tolist()
    torch.testing.assert_close(tokens[short], padded[padded_mask], **MODEL)
    assert not tokens[~short].any()


def test_centring_takes_away_what_stays_the_same() -> None:
    """All of it from long sequences, half of it from two tokens, and nothing from one."""
    x, mask = torch.randn(3, 40, 5, dtype=torch.float64), masked([40, 2, 1], 40)
    x = x.masked_fill(~mask.unsqueeze(-1), 0)
    full = encoder_of(AUDIO, EncoderConfig(kind="none", centring="full"), 8)(x, mask)[0]
    for row, (length, share) in enumerate(((40, 39 / 40), (2, 1 / 2), (1, 0.0))):
        tokens = x[row, :length]
        torch.testing.assert_close(full[row, :length], tokens - share * tokens.mean(0))
    learned = encoder_of(AUDIO, EncoderConfig(kind="none", centring="learned"), 8)
    torch.testing.assert_close(learned.double()(x, mask)[0], (x + full) / 2)
    with torch.no_grad():
        learned.centred_share.copy_(torch.tensor([-40.0, 40.0, -40.0, 40.0, -40.0]))
    shown = learned(x, mask)[0]
    torch.testing.assert_close(shown[..., ::2], x[..., ::2])
    torch.testing.assert_close(shown[..., 1::2], full[..., 1::2])
    learned(x, mask)[0].square().sum().backward()
    assert learned.centred_share.grad is not None


def test_none_leaves_features_as_they_are_in_training_too() -> None:
    torch.manual_seed(0)
    encoder = encoder_of(
        ModalitySpec(name="audio", dim=3), EncoderConfig(kind="none", dropout=0.5), 8
    ).train()
    mask = masked([4, 2], 4)
    features = torch.randn(2, 4, 3).masked_fill(~mask.unsqueeze(-1), 0)
    assert torch.equal(encoder(features, mask)[0], features)


def test_embedding_looks_ids_up() -> None:
    torch.manual_seed(0)
    encoder = encoder_of(TEXT, EncoderConfig(), 8).eval()
    tokens, _ = encoder(torch.tensor([[[3], [3], [0]]]), masked([3], 3))
    torch.testing.assert_close(tokens[0, 0], tokens[0, 1])
    assert not torch.allclose(tokens[0, 0], tokens[0, 2])


def test_embedding_drops_whole_tokens_in_training() -> None:
    torch.manual_seed(0)
    encoder = encoder_of(TEXT, EncoderConfig(dropout=0.5), 8).train()
    tokens, _ = encoder(torch.full((1, 400, 1), 3), masked([400], 400))
    dropped = (tokens == 0).all(-1)
    assert 0.4 < dropped.float().mean() < 0.6
    assert torch.equal((tokens == 0).any(-1), dropped)


@pytest.mark.parametrize(
    ("kind", "modality"),
    [("embedding", AUDIO), ("conv", TEXT), ("linear", TEXT), ("mamba", TEXT), ("none", TEXT)],
)
def test_kinds_that_do_not_fit_are_refused_with_the_cure(kind: str, modality: ModalitySpec) -> None:
    where, cure = rf"encoders\.{modality.name}\.kind", "embedding" if modality is TEXT else "auto"
    with pytest.raises(
        ConfigError,
        match=(
            rf"^{where}: '{kind}' does not fit a modality of kind '{modality.kind}'; set"
            rf" options\.{where}={cure}$"
        ),
    ):
        encoder_of(modality, EncoderConfig.model_validate({"kind": kind}), 8)


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"encoders\.audio\.kernel_size: expected an odd number, found 4"):
        encoder_of(AUDIO, EncoderConfig(kernel_size=4), 8)


def test_group_mean_counts_valid_tokens_only() -> None:
    x = torch.tensor([[[1.0], [3.0], [5.0], [torch.nan]], [[2.0], [torch.inf], [9.0], [9.0]]])
    grouped, mask = group_mean(x, masked([3, 1], 4), 2)
    assert grouped[..., 0].tolist() == [[2.0, 5.0], [2.0, 0.0]]
    assert mask.tolist() == [[True, True], [True, False]]


def test_group_mean_of_an_odd_length_and_of_times() -> None:
    times, mask = group_mean(torch.tensor([[0.0, 1.0, 2.0]]), masked([3], 3), 2)
    assert times.tolist() == [[0.5, 2.0]]
    assert mask.tolist() == [[True, True]]


def test_standardise_subtracts_and_divides_where_valid() -> None:
    module = Standardise(2)
    module.mean.copy_(torch.tensor([1.0, -1.0]))
    module.deviation.copy_(torch.tensor([2.0, 4.0]))
    out = module(torch.tensor([[[3.0, 3.0], [0.0, 0.0]]]), masked([1], 2))
    assert out.tolist() == [[[1.0, 1.0], [0.0, 0.0]]]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("linear", ["project.weight", "project.bias", "norm.weight"]),
        ("embedding", ["project.weight", "norm.weight"]),
        ("none", []),
        (
            "conv",
            ["project.weight", "project.bias", "norm.weight"]
            + [
                f"convolutions.0.{each}"
                for each in (
                    "norm.weight",
                    "convolution.weight",
                    "convolution.bias",
                    "mix.weight",
                    "mix.bias",
                )
            ],
        ),
    ],
)
def test_weights_keep_their_names(kind: str, names: list[str]) -> None:
    """Saved models hold them under these."""
    made = encoder_of(
        TEXT if kind == "embedding" else AUDIO, EncoderConfig.model_validate({"kind": kind, "depth": 1}), 8
    )
    assert sorted(made.state_dict()) == sorted(names)


@pytest.mark.parametrize("kind", ["conv", "mamba"])
def test_the_norm_comes_last(kind: str) -> None:
    """Optimisers number weights in this order, and sums over them round by it, as earlier runs have them."""
    made = encoder_of(AUDIO, EncoderConfig.model_validate({"kind": kind}), 8)
    assert [name for name, _ in made.named_parameters()][-1] == "norm.weight"


@pytest.mark.parametrize("kind", ["auto", "linear", "conv", "mamba", "embedding", "none"])
def test_dumps_stay_as_they_were(kind: str) -> None:
    """They are part of the digest of a run, which leaves out centring that is none."""
    rest = {"depth": 2, "kernel_size": 5, "stride": 1, "noise": 0.0, "gain": 0.0, "dropout": 0.1}
    dumped = EncoderConfig.model_validate({"kind": kind}).model_dump(mode="json")
    assert dumped.pop("centring") == "none"
    assert json.dumps(dumped) == json.dumps({"kind": kind, **rest})
