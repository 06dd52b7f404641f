"""MulT: what a target reads of a source, MMSA's numbers, and the refusal of what had its name before."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from every_method import SPECS, TASKS, batch_of, network
from mmsa_parity import arguments, check_heads, copy_weights, mmsa_class

from alignmamba.contracts import Batch, ModalitySpec
from alignmamba.errors import CheckpointError, ConfigError
from alignmamba.methods import METHODS, from_pretrained
from alignmamba.methods.mult import MulT
from alignmamba.models.multi_stream import CrossmodalTransformer
from alignmamba.recipes.configuration import read_config
from tolerances import EXACT, MODEL

METHOD = METHODS["mult"]
REGRESSION = TASKS["regression"]
FORMER = "this was the simplified MulT, now called crossmodal-transformer"


def block(*, causal: bool) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    model = network(METHOD, REGRESSION, causal=causal, positions=False).eval()
    assert isinstance(model, MulT)
    crossed = model.crossed["text"]["audio"]  # type: ignore[index]
    return lambda x, source: crossed(
        x, torch.ones(x.shape[:2], dtype=torch.bool), source, torch.ones(source.shape[:2], dtype=torch.bool)
    )


def test_the_order_of_a_source_is_nothing_without_positions_and_causality() -> None:
    torch.manual_seed(0)
    x, source = torch.randn(2, 4, 8), torch.randn(2, 6, 8)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(
        block(causal=False)(x, source[:, order]), block(causal=False)(x, source), **MODEL
    )
    assert not torch.allclose(
        block(causal=True)(x, source[:, order]), block(causal=True)(x, source), atol=1e-3
    )


def test_a_causal_target_reads_as_far_ahead_as_the_lengths_differ() -> None:
    torch.manual_seed(0)
    x, source = torch.randn(2, 4, 8), torch.randn(2, 6, 8)
    changed = source.clone()
    changed[:, 4] = torch.randn(2, 8)
    before, after = block(causal=True)(x, source), block(causal=True)(x, changed)
    # Token i reads up to i + 2: the fifth token of the source is read from the third of the target on.
    torch.testing.assert_close(before[:, :2], after[:, :2], **EXACT)
    assert bool((before[:, 2:] - after[:, 2:]).abs().amax((0, 2)).gt(1e-4).all())


@pytest.mark.parametrize(("depth", "asked", "expected"), [(1, None, 3), (4, None, 4), (4, 1, 1)])
def test_own_layers_are_three_at_least_unless_asked_for(depth: int, asked: int | None, expected: int) -> None:
    model = network(METHOD, REGRESSION, depth=depth, own_depth=asked)
    assert isinstance(model, MulT)
    assert {len(each.layers) for each in model.own.values()} == {expected}  # type: ignore[arg-type]
    assert len(model.crossed["text"]["audio"].layers) == depth  # type: ignore[index]


def test_sequences_shorter_than_a_kernel_are_one_token() -> None:
    model = network(METHOD, REGRESSION, kernel_size=7).eval()
    assert model(batch_of(REGRESSION)).prediction.isfinite().all()


def test_what_had_its_name_before_is_refused_with_the_reason(tmp_path: Path) -> None:
    specs = {spec.name: spec for spec in SPECS}
    former = CrossmodalTransformer.for_regression(specs, d_model=8, depth=1)
    former.save_pretrained(tmp_path)
    description = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    old = {name: value for name, value in description.items() if not name.endswith("sha256")} | {
        "model_type": "MulT"
    }
    (tmp_path / "config.json").write_text(json.dumps(old), encoding="utf-8")
    for load in (from_pretrained, MulT.from_pretrained):
        with pytest.raises(CheckpointError, match=FORMER):
            load(tmp_path)
    run = tmp_path / "run.yaml"
    run.write_text(
        "model: mult\noptions: {d_model: 8, depth: 2, heads: 8, expand: 4, attention: fused, dropout: 0.1}\n",
        encoding="utf-8",
    )
    with pytest.raises(ConfigError, match=FORMER):
        read_config(run)
    assert read_config(assignments=["model=mult", "options.heads=4"]).options == {"heads": 4}


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="mult needs at least 2"):
        network(METHOD, REGRESSION, modalities=SPECS[:1])
    with pytest.raises(ConfigError, match="heads: found 3, expected a divisor of d_model, which is 8"):
        network(METHOD, REGRESSION, heads=3)
    with pytest.raises(ConfigError, match="kernel_sizes: found 'smell', expected some of"):
        network(METHOD, REGRESSION, kernel_sizes={"smell": 3})


@pytest.mark.parametrize("causal", [True, False])
def test_parity_with_mmsa(causal: bool, record_property: Callable[[str, object], None]) -> None:
    made = mmsa_class("singleTask", "MULT")
    dims = {"text": 768, "audio": 5, "video": 20}
    torch.manual_seed(0)
    dropouts = (
        "attn_dropout",
        "attn_dropout_a",
        "attn_dropout_v",
        "relu_dropout",
        "embed_dropout",
        "res_dropout",
        "output_dropout",
    )
    sizes = {f"conv1d_kernel_size_{letter}": 5 for letter in "lav"}
    theirs = made(
        arguments(
            use_bert=False,
            feature_dims=list(dims.values()),
            dst_feature_dim_nheads=[50, 10],
            nlevels=4,
            attn_mask=causal,
            text_dropout=0.0,
            **sizes,
            **dict.fromkeys(dropouts, 0.0),
        )
    )
    specs = {name: ModalitySpec(name=name, dim=dim) for name, dim in dims.items()}
    ours = MulT.for_regression(
        specs, d_model=50, heads=10, depth=4, kernel_size=5, causal=causal, positions=False
    )
    letters = {"text": "l", "audio": "a", "video": "v"}
    names = {"residual.0.": "proj1.", "residual.3.": "proj2.", "head.": "out_layer."}
    stacks = {}
    for name, letter in letters.items():
        names[f"convolutions.{name}."] = f"proj_{letter}."
        stacks[f"own.{name}."] = f"trans_{letter}_mem."
        stacks |= {
            f"crossed.{name}.{other}.": f"trans_{letter}_with_{letters[other]}."
            for other in letters
            if other != name
        }
    parts = {
        "attention.": "self_attn.",
        "norm.": "layer_norms.0.",
        "feed_norm.": "layer_norms.1.",
        "widen.": "fc1.",
        "narrow.": "fc2.",
    }
    for mine, other in stacks.items():
        names[f"{mine}norm."] = f"{other}layer_norm."
        names |= {
            f"{mine}layers.{n}.{part}": f"{other}layers.{n}.{there}"
            for n in range(4)
            for part, there in parts.items()
        }
    pair = copy_weights(
        ours, theirs, names, theirs_alone=tuple(f"{other}version" for other in stacks.values())
    )
    x = {
        name: torch.randn(3, length, dims[name])
        for name, length in (("text", 9), ("audio", 14), ("video", 7))
    }
    out, expected = ours(Batch.of(x)), theirs(*x.values())
    heads = {name: (out.extras[name], expected[f"Feature_{name[0]}"]) for name in dims}
    # Over there the residual block adds in place, to a tensor of its own: the features stay what they were.
    heads |= {"fusion": (out.embedding, expected["Feature_f"]), "prediction": (out.prediction, expected["M"])}
    check_heads(pair, heads, record_property, parameters=2_571_551)
