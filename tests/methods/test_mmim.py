"""MMIM: its bounds have the values they must, its two optimisers leave each other's weights alone, and the
network is MMSA's.
"""

import copy
import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from every_method import SPECS, TASKS, learn, network, prepared, sources
from mmsa_parity import arguments, bert_text, check_heads, copy_weights, mmsa_class, tiny_bert
from torch import Tensor

from alignmamba.contracts import Batch, ModalitySpec
from alignmamba.errors import ConfigError
from alignmamba.methods.mmim import MMIM, MULTIMODAL_INFOMAX, InformationBounds, MMIMConfig, entropy_of
from alignmamba.nn.likelihood import Likelihood
from alignmamba.training.fit_config import FitConfig
from alignmamba.training.objective import Parcel, Stage
from alignmamba.training.pairs import contrast_of
from alignmamba.training.progress import Progress
from tolerances import FLOAT32

TASK = TASKS["regression"]


def begun() -> InformationBounds:
    objective = prepared(MULTIMODAL_INFOMAX, TASK)
    assert isinstance(objective, InformationBounds)
    objective.prepare(sources(MULTIMODAL_INFOMAX, TASK, missing=False)[0])
    objective.begin_epoch(Stage(), 0)
    return objective.train()


def test_a_contrast_without_information_is_the_log_of_the_samples() -> None:
    torch.manual_seed(0)
    x, alike = torch.randn(5, 3), torch.ones(5, 4 - 1)
    everyone = torch.ones(5, dtype=torch.bool)
    torch.testing.assert_close(contrast_of(x, alike, everyone), torch.tensor(math.log(5)), **FLOAT32)
    three = torch.tensor([True, False, True, True, False])
    spoilt = x.masked_fill(~three.unsqueeze(1), 1e3)
    torch.testing.assert_close(contrast_of(spoilt, alike, three), torch.tensor(math.log(3)), **FLOAT32)
    assert contrast_of(x, x, everyone) < math.log(5)
    assert contrast_of(x, alike, torch.tensor([True, *[False] * 4])) == 0


def test_the_likelihood_is_that_of_a_normal_distribution_and_is_largest_at_its_mean() -> None:
    torch.manual_seed(0)
    bound = Likelihood(4, 3, "gaussian")
    given, x = torch.randn(5, 4), torch.randn(5, 3)
    deviation = (0.5 * bound.log_variance(given).tanh()).exp()
    expected = torch.distributions.Normal(bound.mean(given), deviation).log_prob(x).sum(1) + 1.5 * math.log(
        2 * math.pi
    )
    torch.testing.assert_close(bound(given, x), expected, **FLOAT32)
    assert (bound(given, bound.mean(given)) >= bound(given, x)).all()


def test_the_entropy_grows_with_the_spread_and_needs_enough_samples() -> None:
    torch.manual_seed(0)
    values, codes = torch.randn(40, 4), torch.arange(40) % 2
    plain = entropy_of(values, codes, classes=2, ridge=0.0)
    torch.testing.assert_close(
        entropy_of(3 * values, codes, classes=2, ridge=0.0) - plain, torch.tensor(4 * math.log(3)), **FLOAT32
    )
    by_hand = 0.25 * sum(torch.logdet(values[codes == code].T.cov(correction=0)) for code in (0, 1))
    torch.testing.assert_close(plain, by_hand, **FLOAT32)
    # 4 samples of class 1, as many as channels
    one = codes.masked_fill((codes == 1) & (torch.arange(40) > 7), -1)
    torch.testing.assert_close(
        entropy_of(values, one, classes=2, ridge=0.0),
        0.5 * torch.logdet(values[::2].T.cov(correction=0)),
        **FLOAT32,
    )
    few = values[:3].clone().requires_grad_()
    nothing = entropy_of(few, codes[:3], classes=2, ridge=1e-4)
    nothing.backward()
    assert nothing == 0
    assert few.grad is not None
    assert not few.grad.any()


def test_the_entropy_is_exact_in_half_precision_too() -> None:
    """Nearly of rank one, so that a covariance rounded to bfloat16 is not positive definite."""
    random = torch.Generator().manual_seed(0)
    along = torch.randn(64, 1, generator=random) @ torch.randn(1, 4, generator=random)
    codes = torch.zeros(64, dtype=torch.long)
    for noise in torch.randn(20, 64, 4, generator=random):
        values = along + 0.01 * noise
        plain = entropy_of(values, codes, classes=1, ridge=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = entropy_of(values, codes, classes=1, ridge=1e-4)
        torch.testing.assert_close(mixed, plain, **FLOAT32)


def test_estimators_and_the_rest_take_epochs_in_turn() -> None:
    objective = prepared(MULTIMODAL_INFOMAX, TASK)
    seen: list[dict[str, Tensor]] = [
        {name: value.detach().clone() for name, value in objective.named_parameters()}
    ]

    class Look(Progress):
        def epoch_finished(self, record: Mapping[str, float], *, best: bool) -> None:
            del record, best
            seen.append({name: value.detach().clone() for name, value in objective.named_parameters()})

    learn(objective, *sources(MULTIMODAL_INFOMAX, TASK, missing=False), progress=Look())
    for number, (before, after) in enumerate(pairwise(seen)):
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed
        assert all(name.startswith("bounds.") == (number == 0) for name in changed), changed


def test_the_entropy_counts_the_step_before_and_no_other_epoch() -> None:
    objective = begun()
    batches = list(sources(MULTIMODAL_INFOMAX, TASK, missing=False)[0])
    _, first = objective(Parcel(batches[0]))
    assert torch.equal(first["bound"], 0.1 * first["likelihood"]), "an entropy without history"
    objective.after_step()
    before = copy.deepcopy(objective.state_dict())
    assert int(objective.memory.known("pair_1").sum()) == int(
        batches[0].modalities["video"].mask.any(1).sum()
    )
    _, second = objective(Parcel(batches[1]))
    entropy = (second["bound"] - 0.1 * second["likelihood"]) / -0.1
    assert (entropy - entropy[0]).abs().max() < 1e-3
    assert entropy[0].abs() > 0.1
    objective.begin_epoch(Stage(), 0)  # as on resuming within the epoch
    assert torch.equal(objective.memory.vectors("pair_0"), before["memory.vectors_pair_0"])
    objective.begin_epoch(Stage(), 1)
    assert not objective.memory.known("pair_0").any()


def test_one_epoch_is_refused_as_estimators_would_take_it() -> None:
    objective = prepared(MULTIMODAL_INFOMAX, TASK)
    train, valid = sources(MULTIMODAL_INFOMAX, TASK, missing=False)
    with pytest.raises(
        ConfigError, match=r"fit\.epochs: found 1, expected 2 or more, as 2 optimisers take epochs"
    ):
        learn(objective, train, valid, config=FitConfig(epochs=1))


def test_one_modality_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"modalities: MMIM needs at least 2, found \['text'\]"):
        network(MULTIMODAL_INFOMAX, TASK, modalities=SPECS[:1])


def test_it_is_the_network_of_mmsa(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    theirs_class = mmsa_class("singleTask", "MMIM")
    widths = (768, 5, 20)
    sizes = {
        "d_vh": 16,
        "d_ah": 16,
        "d_vout": 16,
        "d_aout": 16,
        "n_layer": 1,
        "bidirectional": True,
        "d_prjh": 128,
    }
    sizes |= {
        "dropout_a": 0.1,
        "dropout_v": 0.1,
        "dropout_prj": 0.1,
        "cpc_layers": 1,
        "cpc_activation": "Tanh",
        "add_va": False,
    }
    sizes |= {
        "mmilb_mid_activation": "ReLU",
        "mmilb_last_activation": "Tanh",
        "need_data_aligned": False,
        "feature_dims": list(widths),
    }
    theirs = theirs_class(
        arguments(
            use_bert=True, use_finetune=True, transformers="bert", pretrained=tiny_bert(tmp_path), **sizes
        )
    )
    modalities = tuple(ModalitySpec(name=spec.name, dim=dim) for spec, dim in zip(SPECS, widths, strict=True))
    ours = InformationBounds(
        MMIM(MMIMConfig(modalities=modalities, task=TASK, anchor="pool", likelihood="released", ridge=0.0)),
        TASK,
    )
    mapped = {
        "model.first.": "fusion_prj.linear_1.",
        "model.second.": "fusion_prj.linear_2.",
        "model.head.": "fusion_prj.linear_3.",
    }
    for name, encoder, letter in (
        ("text", "", "t"),
        ("audio", "acoustic_enc.", "a"),
        ("video", "visual_enc.", "v"),
    ):
        mapped[f"predictors.{name}."] = f"cpc_z{letter}.net."
        mapped[f"model.streams.{name}.recurrent.cells."] = f"{encoder}rnn."
        mapped[f"model.streams.{name}.project."] = f"{encoder}linear_1."
    for number, letters in enumerate(("ta", "tv")):
        parts = {"mean.": "mlp_mu.", "log_variance.": "mlp_logvar.", "project.": "entropy_prj.0."}
        mapped |= {f"bounds.{number}.{part}": f"mi_{letters}.{its}" for part, its in parts.items()}
    alone = ("model.absent_tokens.", "model.target_scaling.", "model.standardisers.")
    pair = copy_weights(ours, theirs, mapped, ours_alone=alone, theirs_alone=("bertmodel.",))

    torch.manual_seed(0)
    count, targets = 16, torch.linspace(-3, 3, 16, dtype=torch.float64)
    lengths = {"audio": torch.randint(1, 8, (count,)), "video": torch.randint(1, 8, (count,))}
    streams = {
        name: torch.randn(count, int(lengths[name].max()), dim) for name, dim in (("audio", 5), ("video", 20))
    }
    text = bert_text(count, 6)
    said = theirs.bertmodel(text)[:, :1].detach()
    batch = Batch.of({"text": said, **streams}, lengths={"text": [1] * count, **lengths}, targets=targets)
    history = {name: torch.randn(count, 4).tanh() for name in ("ta", "tv")}
    earlier = {name: {"pos": [each[8:]], "neg": [each[:8]]} for name, each in history.items()}
    inputs = (text, (streams["audio"], lengths["audio"]), (streams["video"], lengths["video"]))
    expected = theirs(*inputs, y=targets.float(), mem=earlier)

    class Source:
        role, ids = "train", (*batch.ids, *(f"earlier-{number}" for number in range(count)))

        def set_epoch(self, epoch: int) -> None:
            del epoch

        def __iter__(self):
            yield batch
            yield Batch(modalities=batch.modalities, ids=self.ids[count:], targets=targets)

    ours.prepare(Source())  # type: ignore[arg-type]
    rows = torch.arange(count, 2 * count)
    for number, name in enumerate(("ta", "tv")):
        ours.memory.vectors(f"pair_{number}")[rows] = history[name]
        ours.memory.known(f"pair_{number}")[rows] = True
    ours.training = True  # a step of training, without dropout
    output = ours.model(batch)
    losses = ours.losses(batch, output)
    likelihood, entropy = -losses["likelihood"].mean(), (losses["likelihood"] - losses["bound"] / 0.1).mean()
    heads = {
        "M": (output.prediction, expected["M"]),
        "Feature_f": (output.embedding, expected["Feature_f"]),
        "nce": (losses["contrast"] / 0.1, expected["nce"]),
        "lld": (likelihood, expected["lld"]),
        "H": (entropy, expected["H"]),
    }
    check_heads(pair, heads, record_property, parameters=281_673)
