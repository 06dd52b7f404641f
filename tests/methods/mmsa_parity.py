"""MMSA's classes as oracles: the same sizes and the same weights give the same outputs and the same
gradients.

A parity test makes MMSA's class with `arguments`, ours with the same sizes, gives ours the weights of the
other by `copy_weights`, and compares with `check_heads`. What they found stands in the properties of the test
(``pytest --junitxml``) and, with ``pytest -s``, in one line on the terminal.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

TOLERANCE = 1e-5
"""Largest difference allowed, in units of the largest value of the compared tensor."""
NEGLIGIBLE = 1e-2
"""A gradient below this share of the largest one of all is compared in units of this: some are zero but for
rounding."""
OURS_ALONE = ("absent_tokens.", "standardisers.", "target_scaling.")
"""Prefixes of what every network here has and no class of MMSA: what stands for a missing modality, and the
scales of raw data."""


class Arguments(dict[str, Any]):
    """The bag of arguments that a class of MMSA takes: fields and keys at once."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def arguments(**values: Any) -> Arguments:
    """Arguments of a regression on the CPU, and whatever else the class reads."""
    return Arguments(train_mode="regression", num_classes=3, device="cpu", **values)


def mmsa_class(kind: str, name: str, attribute: str | None = None) -> Any:
    """A class of MMSA; skips the test, visibly, where MMSA is not installed.

    Args:
        kind: ``singleTask`` or ``multiTask``.
        name: Its module there, such as ``TFN``.
        attribute: Name of the class where it is not that of the module.
    """
    pytest.importorskip("MMSA", reason="needs MMSA: pip install alignmamba[mmsa]")
    # The package hides the module under the class of its name, so it is imported by its path.
    return getattr(importlib.import_module(f"MMSA.models.{kind}.{name}"), attribute or name)


def tiny_bert(folder: Path, *, hidden: int = 768, vocabulary: int = 100) -> str:
    """A random BERT of one layer in a folder that MMSA's classes load; its path."""
    transformers = pytest.importorskip(
        "transformers", reason="needs transformers: pip install alignmamba[mmsa]"
    )
    torch.manual_seed(11)
    config = transformers.BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=1,
        num_attention_heads=12,
        intermediate_size=64,
    )
    transformers.BertModel(config).save_pretrained(folder)
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *(f"word{number}" for number in range(vocabulary - 5)),
    ]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return str(folder)


def bert_text(count: int, length: int, *, vocabulary: int = 100, lengths: list[int] | None = None) -> Tensor:
    """Text as MMSA's classes take it, (count, 3, length) floating: token ids, mask, segments; each text as
    long as `lengths` says.

    What BERT makes of it, ``theirs.text_model(text)`` or the attribute of that name, is the text that ours
    takes as features.
    """
    ids = torch.randint(5, vocabulary, (count, length), generator=torch.Generator().manual_seed(12))
    mask = torch.arange(length) < torch.tensor(lengths or [length] * count).unsqueeze(1)
    return torch.stack([ids * mask, mask.long(), torch.zeros_like(ids)], 1).float()


@dataclass(frozen=True)
class Pair:
    """A network of ours and its oracle, with the weights that they share."""

    ours: nn.Module
    theirs: nn.Module
    shared: Mapping[str, str]
    """Name of a parameter of ours to its name over there."""
    parameters: int
    """Trained numbers that they share, which are all that either has."""


def copy_weights(
    ours: nn.Module,
    theirs: nn.Module,
    names: Mapping[str, str],
    *,
    ours_alone: tuple[str, ...] = (),
    theirs_alone: tuple[str, ...] = (),
) -> Pair:
    """Give ours the weights of the other, and both evaluation mode. Every weight and buffer of both must have
    its counterpart.

    Args:
        ours: The network here.
        theirs: The one of MMSA.
        names: Prefix of names here to the prefix over there; the longest one that fits decides.
        ours_alone: Prefixes without counterpart there, beside `OURS_ALONE`.
        theirs_alone: Prefixes without counterpart here, such as BERT and constants.
    """
    state = dict(theirs.state_dict())
    shared, used = {}, set()
    with torch.no_grad():
        for name, tensor in ours.state_dict().items():
            if name.startswith((*OURS_ALONE, *ours_alone)):
                continue
            fitting = [prefix for prefix in names if name.startswith(prefix)]
            assert fitting, f"{name}: the map names no counterpart"
            prefix = max(fitting, key=len)
            other = names[prefix] + name[len(prefix) :]
            assert other in state, f"{name}: no {other!r} over there"
            assert other not in used, f"{other}: is the counterpart of two"
            assert tensor.shape == state[other].shape, (
                f"{name}: {tuple(tensor.shape)}, over there {tuple(state[other].shape)}"
            )
            tensor.copy_(state[other])
            shared[name] = other
            used.add(other)
    left = [name for name in state if name not in used and not name.startswith(theirs_alone or ("\0",))]
    assert not left, f"over there alone: {left}"
    trained = {name: parameter.numel() for name, parameter in ours.named_parameters() if name in shared}
    counterparts = dict(theirs.named_parameters())
    assert sum(trained.values()) == sum(counterparts[shared[name]].numel() for name in trained)
    return Pair(ours.eval(), theirs.eval(), {name: shared[name] for name in trained}, sum(trained.values()))


def check_heads(
    pair: Pair,
    heads: Mapping[str, tuple[Tensor, Tensor]],
    record: Callable[[str, object], None],
    *,
    parameters: int | None = None,
) -> None:
    """Compare every output, then the gradient of one number that depends on all of them.

    Args:
        pair: What `copy_weights` made.
        heads: By name, what ours returns and what the other returns, on the same inputs; of one number of
            elements.
        record: The fixture ``record_property``.
        parameters: How many trained numbers both have, where that is known beforehand.
    """
    assert parameters is None or pair.parameters == parameters, (
        f"found {pair.parameters:,} parameters, expected {parameters:,}"
    )
    outputs, total, other_total = (
        0.0,
        torch.zeros((), dtype=torch.float64),
        torch.zeros((), dtype=torch.float64),
    )
    for name, (ours, theirs) in heads.items():
        assert ours.numel() == theirs.numel(), (
            f"{name}: {tuple(ours.shape)}, over there {tuple(theirs.shape)}"
        )
        apart = _difference(ours, theirs, 1e-3)
        assert apart <= TOLERANCE, f"{name}: outputs differ by {apart:.1e}"
        outputs = max(outputs, apart)
        # Weights of any size but equal ones, in which a swap of two elements would not show.
        weight = (
            torch.linspace(-1, 1, ours.numel(), dtype=torch.float64).cos()
            + 0.1 * torch.arange(ours.numel()).sin()
        )
        total = total + (ours.double().flatten() * weight).sum()
        other_total = other_total + (theirs.double().flatten() * weight).sum()
    compared = list(_gradients(total, other_total, pair))
    unit = NEGLIGIBLE * max(float(other.abs().max()) for _, _, other in compared)
    gradients = 0.0
    for name, gradient, other in compared:
        apart = _difference(gradient, other, unit)
        assert apart <= TOLERANCE, f"{name}: gradients differ by {apart:.1e}"
        gradients = max(gradients, apart)
    oracle = f"{type(pair.theirs).__module__.removeprefix('MMSA.models.')}.{type(pair.theirs).__name__}"
    values = {
        "network": type(pair.ours).__name__,
        "oracle": oracle,
        "parameters": pair.parameters,
        "outputs differ by": outputs,
        "gradients differ by": gradients,
    }
    for name, value in values.items():
        record(name, value)
    print(
        f"\nparity | {type(pair.ours).__name__} | {oracle} | {pair.parameters:,} | {outputs:.1e} |"
        f" {gradients:.1e} |"
    )


def _gradients(total: Tensor, other_total: Tensor, pair: Pair) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Each shared weight's gradient on both sides; zero where the number does not depend on it."""
    mine, counterparts = dict(pair.ours.named_parameters()), dict(pair.theirs.named_parameters())
    names = [
        name
        for name, other in pair.shared.items()
        if mine[name].requires_grad and counterparts[other].requires_grad
    ]
    ours = torch.autograd.grad(total, [mine[name] for name in names], allow_unused=True)
    theirs = torch.autograd.grad(
        other_total, [counterparts[pair.shared[name]] for name in names], allow_unused=True
    )
    for name, one, other in zip(names, ours, theirs, strict=True):
        zero = torch.zeros_like(mine[name])
        yield name, zero if one is None else one, zero if other is None else other


def _difference(ours: Tensor, theirs: Tensor, least: float) -> float:
    """Largest difference in units of the largest value, or of `least`."""
    ours, theirs = ours.detach().double().flatten(), theirs.detach().double().flatten()
    assert bool(theirs.isfinite().all())
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=least))
