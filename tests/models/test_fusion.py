"""Every fusion model: what must never change an output, what must, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import ALL_PRESENT, LENGTHS, MODALITIES, TASK, THREE, batch, model, rows_that_differ

from alignmamba.contracts import Batch, ModalitySpec, Output, Sequences, Standardisation, TargetScale, Task
from alignmamba.errors import CheckpointError, ConfigError, DataError, ShapeError
from alignmamba.methods import FAMILIES
from alignmamba.models.alignmamba import AlignMamba
from alignmamba.models.exportable import TensorsIn
from alignmamba.models.network import Network
from alignmamba.models.pretrained import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE
from tolerances import MODEL

STILL: dict[str, Any] = {"dropout": 0.0, "encoder": {"dropout": 0.0}}
# Model and options that change what it does.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in FAMILIES},
    "single-stream-mamba, both ways, mean": (
        "single-stream-mamba",
        {"bidirectional": True, "pooling": "mean"},
    ),
    "multi-stream-mamba, both ways, strides": (
        "multi-stream-mamba",
        {
            "bidirectional": True,
            "encoder": {"stride": 2},
            "encoders": {"audio": {"kind": "mamba", "stride": 3}},
        },
    ),
    "single-stream-transformer, materialised": (
        "single-stream-transformer",
        {"attention": "materialised", "pooling": "mean"},
    ),
    "crossmodal-transformer, zeros, last": ("crossmodal-transformer", {"absent": "zeros", "pooling": "last"}),
    "late-fusion, video first, last": ("late-fusion", {"anchor_order": ("video",), "pooling": "last"}),
}
in_cases = pytest.mark.parametrize(("name", "options"), CASES.values(), ids=CASES)
in_models = pytest.mark.parametrize("name", FAMILIES)


def dirty(given: Batch) -> Batch:
    """The batch with garbage wherever no token is valid."""
    modalities = {}
    for name, s in given.modalities.items():
        garbage = torch.full_like(s.features, torch.nan if s.features.is_floating_point() else 10**6)
        modalities[name] = replace(s, features=torch.where(s.mask.unsqueeze(-1), s.features, garbage))
    return replace(given, modalities=modalities)


def assert_same(first: Output, second: Output, rows: list[int] | None = None) -> None:
    rows = list(range(len(first.prediction))) if rows is None else rows
    torch.testing.assert_close(first.prediction[rows], second.prediction, **MODEL)
    torch.testing.assert_close(first.embedding[rows], second.embedding, **MODEL)


def objective(out: Output) -> torch.Tensor:
    loss: torch.Tensor = out.prediction.square().sum() + sum(loss.sum() for loss in out.losses.values())
    return loss


@in_cases
class TestWhatNeverChangesAnOutput:
    def test_batch_neighbours_and_order(self, name: str, options: dict[str, Any]) -> None:
        built, whole = model(name, **options), batch()
        out = built(whole)
        for rows in ([3], [6, 2, 0], [5, 4, 3, 2, 1]):
            assert_same(out, built(whole.select(rows)), rows)

    def test_padding(self, name: str, options: dict[str, Any]) -> None:
        built, whole = model(name, **options), batch()
        padded = {}
        for modality, s in whole.modalities.items():
            more = s.features.new_zeros(len(whole), 5, s.features.shape[2])
            mask = torch.cat([s.mask, torch.zeros(len(whole), 5, dtype=torch.bool)], 1)
            padded[modality] = Sequences(features=torch.cat([s.features, more], 1), mask=mask)
        assert_same(built(whole), built(replace(whole, modalities=padded)))

    def test_content_of_masked_tokens(self, name: str, options: dict[str, Any]) -> None:
        built, whole = model(name, **options), batch()
        assert_same(built(whole), built(dirty(whole)))

    def test_a_modality_left_out_of_the_batch_is_one_without_valid_tokens(
        self, name: str, options: dict[str, Any]
    ) -> None:
        built, whole = model(name, **options), batch().select([0, 1, 4, 6]).without("video")
        rest = {modality: s for modality, s in whole.modalities.items() if modality != "video"}
        assert_same(built(whole), built(replace(whole, modalities=dict(reversed(rest.items())))))

    def test_saving_and_loading(self, name: str, options: dict[str, Any], tmp_path: Path) -> None:
        built, whole = model(name, **options), batch()
        audio, video = (torch.ones(4), torch.full((4,), 3.0)), (torch.zeros(6), torch.full((6,), 0.5))
        built.standardise(Standardisation(features={"audio": audio, "video": video}))
        assert torch.equal(built.training_means()["audio"], torch.ones(4))
        built.save_pretrained(tmp_path)
        names: dict[str, Any] = {}
        for line in (tmp_path / CARD_FILE).read_text().splitlines():
            if line.startswith("from alignmamba"):
                exec(line, names)  # the card says how to import the class
        again = names[type(built).__name__].from_pretrained(tmp_path)
        assert again.config == built.config
        assert torch.equal(built(whole).prediction, again(whole).prediction)


@in_cases
def test_gradients_are_finite_whatever_the_padding_holds(name: str, options: dict[str, Any]) -> None:
    built = model(name, **options).train()
    objective(built(dirty(batch()))).backward()
    for parameter_name, parameter in built.named_parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all()), parameter_name


@in_cases
def test_every_parameter_learns(name: str, options: dict[str, Any]) -> None:
    built = model(name, **options).train()

    def silent(given: Batch) -> set[str]:
        built.zero_grad()
        objective(built(given)).backward()
        return {
            n
            for n, p in built.named_parameters()
            if p.requires_grad and (p.grad is None or not bool(p.grad.any()))
        }

    learned = {f"absent_tokens.{m.name}" for m in THREE if built.absent_tokens[m.name].requires_grad}
    assert silent(batch(ALL_PRESENT)) == learned  # nothing is absent
    assert silent(batch()) == set()
    assert bool(learned) == (name != "late-fusion" and built.config.absent == "learned")


@in_cases
def test_every_present_modality_matters(name: str, options: dict[str, Any]) -> None:
    built, whole = model(name, **options), batch().select([0])
    full = built(whole).prediction
    for modality in LENGTHS.keys() - {"touch"}:
        assert rows_that_differ(full, built(whole.without(modality)).prediction) == [0], modality


@in_cases
def test_what_stands_for_a_modality_is_read_where_it_is_missing_and_there_alone(
    name: str, options: dict[str, Any]
) -> None:
    built, whole = model(name, **options), batch()
    before = built(whole)
    with torch.no_grad():
        built.absent_tokens["audio"].normal_(generator=torch.Generator().manual_seed(5))
    after = built(whole)
    missing = [row for row, length in enumerate(LENGTHS["audio"]) if length == 0]
    assert rows_that_differ(before.embedding, after.embedding) == missing
    # In a late fusion what is missing has no vote.
    assert rows_that_differ(before.prediction, after.prediction) == ([] if name == "late-fusion" else missing)


@in_models
@pytest.mark.parametrize("count", [1, 2, 4])
def test_any_number_of_modalities(name: str, count: int) -> None:
    modalities = MODALITIES[:count] if count > 1 else MODALITIES[1:2]
    if (name, count) == ("crossmodal-transformer", 1):
        with pytest.raises(
            ConfigError,
            match=(
                r"^modalities: crossmodal-transformer needs at least 2, found"
                r" \['text'\]$"
            ),
        ):
            model(name, modalities=modalities)
        return
    built = model(name, modalities=modalities).train()
    rows = [row for row in range(7) if any(LENGTHS[m.name][row] for m in modalities)]
    out = built(batch(modalities=modalities).select(rows))
    assert out.prediction.shape == (len(rows), 3)
    objective(out).backward()
    silent = {
        n
        for n, p in built.named_parameters()
        if p.requires_grad and (p.grad is None or not bool(p.grad.any()))
    }
    assert silent == ({"absent_tokens.text"} if count == 1 and name != "late-fusion" else set())
    missing = {
        n.removeprefix("absent_tokens.")
        for n, _ in built.named_parameters()
        if n.startswith("absent_tokens.")
    }
    assert missing == {m.name for m in modalities}


@in_models
def test_the_kind_of_task_gives_the_shape(name: str) -> None:
    out = model(name, task=Task(kind="regression", label_range=(-3, 3)))(batch())
    assert out.prediction.shape == (7,)
    assert out.embedding.ndim == 2
    assert model(name)(batch()).prediction.shape == (7, 3)


@in_models
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_of_another_precision_takes_any_batch_and_keeps_its_precision(
    name: str, dtype: torch.dtype
) -> None:
    single, built = model(name)(batch()), model(name).to(dtype)(batch())
    assert (built.prediction.dtype, built.embedding.dtype) == (dtype, dtype)
    if dtype == torch.float64:
        torch.testing.assert_close(built.prediction.float(), single.prediction, **MODEL)


@in_models
def test_modality_dropout_keeps_at_least_one_and_rests_in_evaluation(name: str) -> None:
    built, one = model(name, modality_dropout=0.99, **STILL), batch().select([0])
    alone = torch.cat(
        [
            built(one.without(*({"text", "audio", "video"} - {kept}))).prediction
            for kept in ("text", "audio", "video")
        ]
    )
    assert not rows_that_differ(built(one).prediction, model(name, **STILL)(one).prediction)
    built.train()
    torch.manual_seed(0)
    found = built(batch().select([0] * 30)).prediction
    near = torch.cdist(found, alone).argmin(1)
    torch.testing.assert_close(found, alone[near], **MODEL)
    assert set(near.tolist()) == {0, 1, 2}


def test_under_one_seed_all_models_start_from_the_same_encoders() -> None:
    shared = {"encoder": {"centring": "learned", "kernel_size": 3}}
    first, *others = (dict(model(name, **shared).encoders.named_parameters()) for name in FAMILIES)
    for other in others:
        assert other.keys() == first.keys()
        assert all(torch.equal(weight, first[name]) for name, weight in other.items())


@in_models
def test_it_meets_the_protocol(name: str) -> None:
    built = model(name)
    assert isinstance(built, Network)
    assert built(batch()).plans is None
    assert built(batch(), return_plans=True).plans is not None


@pytest.mark.parametrize("name", ["single-stream-transformer", "multi-stream-mamba"])
def test_an_exported_program_takes_other_lengths_and_missing_modalities(name: str) -> None:
    built = model(name, depth=1)

    def tensors(given: Batch) -> tuple[torch.Tensor, ...]:
        return tuple(
            tensor
            for spec in THREE
            for tensor in (given.modalities[spec.name].features, given.modalities[spec.name].mask)
        )

    time = tuple(
        {1: torch.export.Dim(f"{spec.name}_time", min=2, max=512)} for spec in THREE for _ in range(2)
    )
    with torch.no_grad():
        program = torch.export.export(
            TensorsIn(built), tensors(batch().select([0, 1, 2])), dynamic_shapes=(time,)
        ).module()
        other = batch({"text": [0, 21, 5], "audio": [4, 2, 40], "video": [3, 0, 0]}, seed=7)
        torch.testing.assert_close(program(*tensors(other)), built(other).prediction, **MODEL)


@in_models
class TestRefusals:
    def test_a_sample_with_nothing(self, name: str) -> None:
        with pytest.raises(
            DataError,
            match=r"^sample 's2': found no modality, expected at least one \(1 such samples in this batch\)$",
        ):
            model(name)(batch().select([0, 1, 2]).without("text", "video"))

    def test_an_empty_batch(self, name: str) -> None:
        with pytest.raises(ShapeError, match="batch: expected at least one sample"):
            model(name)(batch().select([]))

    def test_an_unknown_modality(self, name: str) -> None:
        whole = batch()
        with pytest.raises(DataError, match="modality 'smell' is unknown to this model, which takes"):
            model(name)(replace(whole, modalities={**whole.modalities, "smell": whole.modalities["audio"]}))

    def test_a_preset_that_is_not_there(self, name: str) -> None:
        config_class = FAMILIES[name].network.config_class
        known = ["0.1", "default", "paper"] if name == "alignmamba" else ["default"]
        assert sorted(config_class.PRESETS) == known
        with pytest.raises(ConfigError, match=r"^preset: expected one of .*, found 'magic'$"):
            config_class.preset("magic", modalities=THREE, task=TASK)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_made_from_widths(name: str) -> None:
    family = FAMILIES[name].network
    text = ModalitySpec(name="text", dim=50, kind="tokens")
    model = family.for_classification({"audio": 4, "text": text}, classes=3, d_model=16, depth=1).eval()
    assert type(model) is family
    assert [(m.name, m.dim, m.kind) for m in model.config.modalities] == [
        ("audio", 4, "features"),
        ("text", 50, "tokens"),
    ]
    assert model.config.task.classes == ("0", "1", "2")
    made = Batch.of({"audio": [torch.randn(3, 4), None], "text": [[1, 2], [49]]})
    assert model(made).prediction.shape == (2, 3)
    regression = family.for_regression(
        {"audio": 4, "text": text}, label_range=(0, 9), d_model=16, depth=1
    ).eval()
    assert regression.config.task == Task(kind="regression", label_range=(0, 9))
    assert regression(made).prediction.shape == (2,)


def test_what_no_model_can_be_made_of() -> None:
    for said, make in {
        "modalities: 'audio': dim: found 0": lambda: AlignMamba.for_regression({"audio": 0}),
        "modalities: '3': name: found '3'": lambda: AlignMamba.for_regression({"3": 3}),
        "modalities: expected a mapping of names to widths, found list": lambda: AlignMamba.for_regression(
            ["audio"]
        ),  # type: ignore[arg-type]
        "modalities: 'a' has a description of 'b'": lambda: AlignMamba.for_regression(
            {"a": ModalitySpec(name="b", dim=1)}
        ),
        "classes: a classification task needs at least 2, found 1": lambda: AlignMamba.for_classification(
            {"a": 1}, classes=1
        ),
        "classes: found the text 'ab'": lambda: AlignMamba.for_classification({"a": 1}, classes="ab"),
        "d_modle: unknown key, perhaps you meant 'd_model'": lambda: AlignMamba.for_regression(
            {"a": 1}, d_modle=3
        ),
        "preset: expected one of": lambda: AlignMamba.for_regression({"a": 1}, preset="papre"),
    }.items():
        with pytest.raises(ConfigError, match=said) as caught:
            make()
        assert "\n" not in str(caught.value)


def test_what_is_no_batch_is_pointed_to_batch_of() -> None:
    model = AlignMamba.for_regression({"audio": 2}, d_model=16, depth=1)
    for given, found in (
        ({"audio": torch.ones(1, 2, 2)}, "dict"),
        (torch.ones(1, 2, 2), r"torch\.Tensor"),
        (None, "NoneType"),
    ):
        with pytest.raises(
            ShapeError,
            match=rf"expected a Batch, found {found}; make one with Batch\.of\(\{{'audio': \.\.\.\}}\)",
        ):
            model(given)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [-1, 50, 2**40])
def test_a_token_id_outside_the_vocabulary_is_named(wrong: int) -> None:
    model = AlignMamba.for_regression(
        {"text": ModalitySpec(name="text", dim=50, kind="tokens")}, d_model=16, depth=1
    )
    with pytest.raises(
        DataError, match=rf"sample 'b', modality 'text': token id {wrong} at position 1, expected 0 to 49"
    ):
        model(Batch.of({"text": [[0, 49], [3, wrong]]}, ids=["a", "b"]))
    padding = torch.tensor([[1, wrong]])
    assert model(Batch.of({"text": padding}, lengths={"text": [1]})).prediction.isfinite().all()


# --- regression: predictions are in units of the label ------------------------------------------------------

NUMBER = Task(kind="regression")
# The deviation is a power of two and the mean far beyond what single precision tells apart.
SCALE = TargetScale(mean=1e9 + 1.5, deviation=0.25)


@in_models
class TestUnitsOfTheLabel:
    def test_a_number_is_the_mean_and_so_many_deviations(self, name: str) -> None:
        built, whole = model(name, task=NUMBER), batch()
        assert built.target_scale is None
        heads = built(whole).prediction
        built.standardise(Standardisation(features={}, targets=SCALE))
        assert built.target_scale == SCALE
        found = built(whole).prediction
        assert found.dtype == torch.float64
        torch.testing.assert_close(found - SCALE.mean, 0.25 * heads, rtol=0, atol=1e-6)
        assert float(heads.detach().std()) > 0.01

    def test_the_scale_is_saved(self, name: str, tmp_path: Path) -> None:
        built, whole = model(name, task=NUMBER), batch()
        built.scale_targets(SCALE)
        built.save_pretrained(tmp_path)
        again = type(built).from_pretrained(tmp_path)
        assert again.target_scale == SCALE
        assert torch.equal(again(whole).prediction, built(whole).prediction)

    def test_a_model_saved_before_there_was_a_scale_predicts_what_it_did(
        self, name: str, tmp_path: Path
    ) -> None:
        built, whole = model(name, task=NUMBER), batch()
        heads = built(whole).prediction
        built.scale_targets(SCALE)
        built.save_pretrained(tmp_path)
        weights = {
            key: value
            for key, value in load_file(tmp_path / WEIGHTS_FILE).items()
            if not key.startswith("target_scaling.")
        }
        assert len(weights) == len(built.state_dict()) - 2
        save_file(weights, tmp_path / WEIGHTS_FILE)
        config = json.loads((tmp_path / CONFIG_FILE).read_text())
        (tmp_path / CONFIG_FILE).write_text(
            json.dumps({key: value for key, value in config.items() if "sha256" not in key})
        )
        again = type(built).from_pretrained(tmp_path)
        assert again.target_scale == TargetScale()
        assert torch.equal(again(whole).prediction, heads)
        built.load_state_dict(weights)
        assert torch.equal(built(whole).prediction, heads)

    def test_plain_tensors_in_give_the_same(self, name: str) -> None:
        built, whole = model(name, task=NUMBER), batch()
        built.scale_targets(SCALE)
        tensors = [
            tensor
            for m in THREE
            for tensor in (whole.modalities[m.name].features, whole.modalities[m.name].mask)
        ]
        assert torch.equal(TensorsIn(built)(*tensors), built(whole).prediction)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_type_of_the_weights_leaves_the_scale_as_it_is(dtype: torch.dtype, tmp_path: Path) -> None:
    built = model("late-fusion", task=NUMBER)
    built.scale_targets(SCALE)
    built.to(dtype)
    assert built.target_scale == SCALE
    built.save_pretrained(tmp_path)
    again = type(built).from_pretrained(tmp_path)
    assert again.target_scale == SCALE
    assert {p.dtype for p in again.parameters()} == {dtype}
    copy = type(built)(built.config).to("meta").to_empty(device="cpu")
    copy.load_state_dict(built.state_dict())
    assert copy.target_scale == SCALE


def test_half_a_scale_is_refused(tmp_path: Path) -> None:
    built = model("late-fusion", task=NUMBER)
    built.save_pretrained(tmp_path)
    weights = load_file(tmp_path / WEIGHTS_FILE)
    del weights["target_scaling.mean"]
    save_file(weights, tmp_path / WEIGHTS_FILE)
    with pytest.raises(
        CheckpointError, match=r"weight 'target_scaling.mean' is missing, it needs shape \(\)"
    ):
        type(built).from_pretrained(tmp_path)


def test_classes_have_no_scale() -> None:
    built = model("late-fusion")
    built.standardise(Standardisation(features={}))
    assert not any("target" in name for name in built.state_dict())
    with pytest.raises(ConfigError, match="expected no scale for a classification"):
        built.scale_targets(SCALE)
