"""TFN: a multilinear tensor, predictions within the range of labels, and MMSA's numbers."""

from collections.abc import Callable

import pytest
import torch
from every_method import TASKS, batch_of, network
from mmsa_parity import arguments, check_heads, copy_weights, mmsa_class

from alignmamba.contracts import Batch, ModalitySpec, Task
from alignmamba.errors import ConfigError
from alignmamba.methods import METHODS
from alignmamba.methods.tfn import TFN, outer_product
from tolerances import EXACT, FLOAT64

METHOD = METHODS["tfn"]
REGRESSION = TASKS["regression"]


def test_zeros_give_the_first_unit_vector_and_the_tensor_is_linear_in_each_extended_vector() -> None:
    zeros = [torch.zeros(2, width) for width in (3, 2, 4)]
    unit = torch.zeros(2, 4 * 3 * 5)
    unit[:, 0] = 1
    torch.testing.assert_close(outer_product(zeros), unit, **EXACT)
    torch.manual_seed(0)
    a, b, c, other = (torch.randn(2, width, dtype=torch.float64) for width in (3, 2, 4, 2))
    # With weights that sum to one, the constant stays one.
    mixed = outer_product([a, 0.25 * b + 0.75 * other, c])
    torch.testing.assert_close(
        mixed, 0.25 * outer_product([a, b, c]) + 0.75 * outer_product([a, other, c]), **FLOAT64
    )


def test_what_is_missing_leaves_the_product_of_the_others() -> None:
    model = network(METHOD, REGRESSION).eval()
    batch = batch_of(REGRESSION).select([0, 1, 2, 3]).without("audio")
    out = model(batch)
    without = outer_product([torch.zeros_like(out.extras["audio"]), out.extras["video"], out.extras["text"]])
    torch.testing.assert_close(out.embedding, without, **EXACT)
    assert bool(out.extras["text"].ne(0).any())


@pytest.mark.parametrize("bounded", [True, False])
def test_predictions_stay_within_the_range_of_labels_if_asked(bounded: bool) -> None:
    model = network(METHOD, REGRESSION, bounded=bounded).eval()
    with torch.no_grad():
        model.head.bias.fill_(50.0)
    inside = model(batch_of(REGRESSION)).prediction.abs() <= 3
    assert bool(inside.all()) == bounded
    with torch.no_grad():
        free = network(METHOD, Task(kind="regression"), bounded=bounded).eval()
        free.head.bias.fill_(50.0)
        assert bool((free(batch_of(REGRESSION)).prediction > 3).all())


def test_any_number_of_modalities() -> None:
    for count in (1, 2, 4):
        specs = tuple(ModalitySpec(name=f"sensor-{number}", dim=3) for number in range(count))
        made = network(METHOD, REGRESSION, modalities=specs).eval()
        batch = Batch.of({spec.name: torch.randn(2, 4, 3) for spec in specs})
        assert made(batch).prediction.isfinite().all()


def test_refuses_widths_of_others() -> None:
    with pytest.raises(ConfigError, match=r"hiddens: found 'text', expected names of \['audio', 'video'\]"):
        network(METHOD, REGRESSION, hiddens={"text": 4})


def test_parity_with_mmsa(record_property: Callable[[str, object], None]) -> None:
    made = mmsa_class("singleTask", "TFN")
    dims = {"text": 768, "audio": 5, "video": 20}
    torch.manual_seed(0)
    theirs = made(
        arguments(
            feature_dims=list(dims.values()),
            hidden_dims=(128, 32, 128),
            text_out=32,
            post_fusion_dim=64,
            dropouts=(0.3, 0.3, 0.3, 0.5),
        )
    )
    options = {
        "sequence_hidden": 128,
        "hiddens": {"audio": 32, "video": 128},
        "sequence_out": 32,
        "post_hidden": 64,
    }
    specs = {name: ModalitySpec(name=name, dim=dim) for name, dim in dims.items()}
    ours = TFN.for_regression(specs, label_range=(-3, 3), **options)
    names = {
        "sequence.recurrent.cells.": "text_subnet.rnn.",
        "sequence.project.": "text_subnet.linear_1.",
        "post.0.": "post_fusion_layer_1.",
        "post.1.": "post_fusion_layer_2.",
        "head.": "post_fusion_layer_3.",
    }
    for name in ("audio", "video"):
        names[f"pooled.{name}.norm."] = f"{name}_subnet.norm."
        names |= {
            f"pooled.{name}.maps.{number}.": f"{name}_subnet.linear_{number + 1}." for number in range(3)
        }
    pair = copy_weights(ours, theirs, names, theirs_alone=("output_range", "output_shift"))
    x = {name: torch.randn(4, 6, dim) for name, dim in dims.items()}
    out = ours(Batch.of(x))
    expected = theirs(x["text"], *(x[name].mean(1, keepdim=True) for name in ("audio", "video")))
    heads = {name: (out.extras[name], expected[f"Feature_{name[0]}"]) for name in dims}
    heads |= {"fusion": (out.embedding, expected["Feature_f"]), "prediction": (out.prediction, expected["M"])}
    check_heads(pair, heads, record_property, parameters=9_497_045 - 2)
