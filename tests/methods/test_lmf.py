"""LMF: a tensor fusion whose weights are a sum of outer products, and MMSA's numbers."""

from collections.abc import Callable

import torch
from every_method import TASKS, batch_of, network
from mmsa_parity import arguments, check_heads, copy_weights, mmsa_class

from alignmamba.contracts import Batch, ModalitySpec
from alignmamba.methods import METHODS
from alignmamba.methods.lmf import LMF
from tolerances import FLOAT64

METHOD = METHODS["lmf"]


def test_it_is_a_tensor_fusion_with_the_sum_of_outer_products_as_weights() -> None:
    task = TASKS["classification"]
    model = network(METHOD, task).eval().double()
    batch = batch_of(task).in_precision(torch.float64)
    out = model(batch)
    names = ["audio", "video", "text"]
    weights = torch.einsum(
        "r,rao,rvo,rto->avto", model.rank_weights[0], *(model.factors[name] for name in names)
    )
    extended = [torch.cat([torch.ones(len(batch), 1), out.extras[name]], 1) for name in names]
    expected = torch.einsum("ba,bv,bt,avto->bo", *extended, weights) + model.bias
    torch.testing.assert_close(out.prediction, expected, **FLOAT64)


def test_weights_of_the_ranks_learn() -> None:
    model = network(METHOD, TASKS["regression"])
    model(batch_of(TASKS["regression"])).prediction.sum().backward()
    assert model.rank_weights.grad is not None
    assert bool(model.rank_weights.grad.ne(0).any())


def test_parity_with_mmsa(record_property: Callable[[str, object], None]) -> None:
    made = mmsa_class("singleTask", "LMF")
    dims = {"text": 768, "audio": 5, "video": 20}
    torch.manual_seed(0)
    sizes = list(dims.values())
    theirs = made(
        arguments(feature_dims=sizes, hidden_dims=(128, 16, 128), rank=3, dropouts=(0.3, 0.3, 0.3, 0.3))
    )
    specs = {name: ModalitySpec(name=name, dim=dim) for name, dim in dims.items()}
    ours = LMF.for_regression(
        specs, hiddens={"audio": 16, "video": 128}, sequence_hidden=128, sequence_out=64
    )
    names = {
        "sequence.recurrent.cells.": "text_subnet.rnn.",
        "sequence.project.": "text_subnet.linear_1.",
        "rank_weights": "fusion_weights",
        "bias": "fusion_bias",
    }
    names |= {f"factors.{name}": f"{name}_factor" for name in dims}
    for name in ("audio", "video"):
        names[f"pooled.{name}.norm."] = f"{name}_subnet.norm."
        names |= {
            f"pooled.{name}.maps.{number}.": f"{name}_subnet.linear_{number + 1}." for number in range(3)
        }
    pair = copy_weights(ours, theirs, names)
    x = {name: torch.randn(4, 6, dim) for name, dim in dims.items()}
    out = ours(Batch.of(x))
    expected = theirs(x["text"], *(x[name].mean(1, keepdim=True) for name in ("audio", "video")))
    heads = {name: (out.extras[name], expected[f"Feature_{name[0]}"]) for name in dims}
    heads |= {"fusion": (out.embedding, expected["Feature_f"]), "prediction": (out.prediction, expected["M"])}
    check_heads(pair, heads, record_property, parameters=505_071)
