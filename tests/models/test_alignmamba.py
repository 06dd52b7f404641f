"""AlignMamba as a whole: what must never change an output, what must, and what is refused."""

from dataclasses import replace
from typing import Any

import pytest
import small_models
import torch
from torch import Tensor

from alignmamba.contracts import Batch, ModalitySpec, Output, Sequences, Standardisation, TargetScale, Task
from alignmamba.errors import ConfigError, DataError, ShapeError
from alignmamba.methods import FAMILIES
from alignmamba.models.alignmamba import AlignMamba, AlignMambaConfig
from alignmamba.models.network import Network
from alignmamba.nn.alignment import Tokens
from alignmamba.ops import interleave, masked_max
from tolerances import MODEL

MODALITIES = (
    ModalitySpec(name="text", dim=11, kind="tokens"),
    ModalitySpec(name="audio", dim=4),
    ModalitySpec(name="video", dim=6),
)
TASK = Task(kind="classification", classes=("a", "b", "c"))
# Every pattern of presence but the empty one, in one batch, with unequal lengths.
LENGTHS = {"text": [5, 0, 3, 0, 7, 1, 0], "audio": [9, 12, 0, 0, 2, 0, 1], "video": [4, 6, 5, 8, 0, 0, 0]}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "without branches": {"unimodal_branches": False},
    "anchor marginal": {"local": {"marginal": "anchor"}},
    "plain matching": {"local": {"time_weight": 0.0, "mass": "mean"}},
    "window": {"local": {"window": 1}},
    "proportional": {"local": {"method": "proportional"}},
    "not aligned": {"local": {"method": "none"}, "pool_by": "sequence"},
    "bidirectional": {"bidirectional": True, "pooling": "max"},
    "all pairs, fixed bandwidth": {"alignment": {"pairs": "all", "bandwidth": 2.0}, "pooling": "last"},
    "no loss, zeros": {"alignment": {"weight": 0.0}, "absent": "zeros"},
    "strides": {
        "encoder": {"stride": 2},
        "encoders": {"audio": {"kind": "mamba", "stride": 3}, "video": {"kind": "linear"}},
    },
    "video first": {"anchor_order": ("video",)},
    "pooled by modality": {"pool_by": "modality", "pooling": "mean"},
    "last of each modality": {"pool_by": "modality", "pooling": "last"},
    "not aligned, pooled by modality": {"local": {"method": "none"}, "pool_by": "modality"},
    "0.1": {"preset": "0.1"},
    "paper": {"preset": "paper"},
    "soft": {"local": {"method": "soft", "mass": "paper"}, "transport_loss": {"weight": 1.0}},
    "soft, balanced": {
        "local": {"method": "soft", "marginal": "both", "window": 3},
        "soft": {"iterations": 3},
        "anneal": {"to": 0.1},
    },
}


def model(task: Task = TASK, **options: Any) -> AlignMamba:
    torch.manual_seed(0)
    options = {"d_model": 16, "depth": 2, "d_state": 4, **options}
    name = options.pop("preset", "default")
    built = AlignMamba(AlignMambaConfig.preset(name, modalities=MODALITIES, task=task, **options)).eval()
    with torch.no_grad():
        for token in built.absent_tokens.values():
            if token.requires_grad:
                token.normal_()
    return built


def stepping(task: Task = TASK, **options: Any) -> AlignMamba:
    """A model that can read fused tokens one by one: branches would need raw ones."""
    return model(task, **{**options, "unimodal_branches": False})


def batch(lengths: dict[str, list[int]] = LENGTHS, seed: int = 1) -> Batch:
    return small_models.batch(lengths, modalities=MODALITIES, seed=seed)


def assert_same(first: Output, second: Output, rows: list[int] | None = None) -> None:
    rows = list(range(len(first.prediction))) if rows is None else rows
    torch.testing.assert_close(first.prediction[rows], second.prediction, **MODEL)
    torch.testing.assert_close(first.embedding[rows], second.embedding, **MODEL)
    assert first.losses.keys() == second.losses.keys()
    for name, loss in first.losses.items():
        torch.testing.assert_close(loss[rows], second.losses[name], **MODEL)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
class TestWhatNeverChangesAnOutput:
    def test_batch_neighbours_and_order(self, options: dict[str, Any]) -> None:
        built, whole = model(**options), batch()
        out = built(whole)
        for rows in ([3], [6, 2, 0], [5, 4, 3, 2, 1]):
            assert_same(out, built(whole.select(rows)), rows)

    def test_padding(self, options: dict[str, Any]) -> None:
        built, whole = model(**options), batch()
        padded = {}
        for name, s in whole.modalities.items():
            more = s.features.new_zeros(len(whole), 5, s.features.shape[2])
            mask = torch.cat([s.mask, torch.zeros(len(whole), 5, dtype=torch.bool)], 1)
            padded[name] = Sequences(features=torch.cat([s.features, more], 1), mask=mask)
        assert_same(built(whole), built(replace(whole, modalities=padded)))

    def test_content_of_masked_tokens(self, options: dict[str, Any]) -> None:
        built, whole = model(**options), batch()
        dirty = {}
        for name, s in whole.modalities.items():
            garbage = torch.full_like(s.features, torch.nan if s.features.is_floating_point() else 10**6)
            dirty[name] = replace(s, features=torch.where(s.mask.unsqueeze(-1), s.features, garbage))
        assert_same(built(whole), built(replace(whole, modalities=dirty)))

    def test_order_of_the_modalities(self, options: dict[str, Any]) -> None:
        built, whole = model(**options), batch()
        assert_same(built(whole), built(replace(whole, modalities=dict(reversed(whole.modalities.items())))))

    def test_a_modality_left_out_of_the_batch_is_one_without_valid_tokens(
        self, options: dict[str, Any]
    ) -> None:
        built = model(**options)
        whole = batch(
            {**LENGTHS, "video": [0] * 7, "audio": [9, 12, 2, 1, 2, 3, 1]} | {"video": [1] * 7}
        ).without("video")
        rest = {name: s for name, s in whole.modalities.items() if name != "video"}
        assert_same(built(whole), built(replace(whole, modalities=rest)))

    def test_gradients_are_finite_whatever_the_padding_holds(self, options: dict[str, Any]) -> None:
        built, whole = model(**options).train(), batch()
        dirty = {}
        for name, s in whole.modalities.items():
            garbage = torch.full_like(s.features, torch.nan if s.features.is_floating_point() else 10**6)
            dirty[name] = replace(s, features=torch.where(s.mask.unsqueeze(-1), s.features, garbage))
        out = built(replace(whole, modalities=dirty))
        (out.prediction.sum() + sum(loss.sum() for loss in out.losses.values())).backward()
        for name, parameter in built.named_parameters():
            assert parameter.grad is None or bool(parameter.grad.isfinite().all()), name

    def test_saving_and_loading(self, options: dict[str, Any], tmp_path: Any) -> None:
        built, whole = model(**options), batch()
        audio, video = (torch.ones(4), torch.full((4,), 3.0)), (torch.zeros(6), torch.full((6,), 0.5))
        built.standardise(Standardisation(features={"audio": audio, "video": video}))
        built.save_pretrained(tmp_path)
        again = AlignMamba.from_pretrained(tmp_path)
        assert again.config == built.config
        assert torch.equal(built(whole).prediction, again(whole).prediction)


@pytest.mark.parametrize("name", ["text", "audio", "video"])
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_every_present_modality_matters(options: dict[str, Any], name: str) -> None:
    built, whole = model(**options), batch()
    full, without = built(whole), built(whole.select([0]).without(name))
    assert not torch.allclose(full.prediction[0], without.prediction[0], atol=1e-4)


def test_every_parameter_of_the_default_learns() -> None:
    built = model().train()
    out = built(batch())
    (out.prediction.square().sum() + out.losses["mmd"].sum()).backward()
    silent = [name for name, p in built.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert silent == []


@pytest.mark.parametrize(
    "options",
    [v for k, v in VARIANTS.items() if k not in ("bidirectional", "not aligned, pooled by modality")],
)
def test_step_by_step_equals_the_full_pass(options: dict[str, Any]) -> None:
    built, one = stepping(**options), batch().select([0])
    tokens, mask = built.fused_tokens(one)
    state, sizes = None, set()
    for time in range(int(mask.sum())):
        out, state = built.step(tokens[:, time], state)
        sizes.add(
            sum(part.inputs.numel() + part.state.numel() for part in state.layers)
            + state.pooled.value.numel()
        )
    torch.testing.assert_close(out.prediction, built(one).prediction, **MODEL)
    assert len(sizes) == 1  # memory does not grow


def test_step_by_step_gives_units_of_the_label() -> None:
    built, whole = stepping(Task(kind="regression")), batch()
    built.scale_targets(TargetScale(mean=1e9, deviation=0.25))
    tokens, mask = built.fused_tokens(whole)
    state = None
    for number in range(tokens.shape[1]):
        out, state = built.step(tokens[:, number], state, valid=mask[:, number])
    torch.testing.assert_close(out.prediction - 1e9, built(whole).prediction - 1e9, rtol=0, atol=1e-5)


def test_step_by_step_skips_what_is_not_valid() -> None:
    for pooling in ("mean", "max", "last"):
        built, whole = stepping(pooling=pooling), batch()
        tokens, mask = built.fused_tokens(whole)
        state = None
        for time in range(tokens.shape[1]):
            out, state = built.step(tokens[:, time], state, valid=mask[:, time])
        torch.testing.assert_close(out.prediction, built(whole).prediction, **MODEL)


def test_step_by_step_refuses_branches_which_read_raw_tokens() -> None:
    with pytest.raises(ConfigError, match="unimodal_branches: found true, expected false where fused tok"):
        model().step(torch.zeros(1, 16))


def test_step_by_step_needs_modalities_that_take_turns() -> None:
    built = stepping(local={"method": "none"}, pool_by="modality")
    with pytest.raises(ConfigError, match=r"pool_by: step needs 'sequence' .* found 'modality'"):
        built.step(torch.zeros(1, 16))


@pytest.mark.parametrize("method", ["match", "none"])
def test_pooling_by_modality_reads_the_positions_of_each(method: str) -> None:
    built, whole = model(local={"method": method}, pool_by="modality"), batch()
    with torch.no_grad():
        for parameter in built.backbone.parameters():
            parameter.zero_()  # what is read is what was fused, up to the last norm
        built.backbone.norm.weight.fill_(1.0)
    embedding = built(whole).embedding[:, :48].unflatten(1, (3, -1))
    streams = built.aligned_streams(whole)
    for place, stream in enumerate(streams.values()):
        rows = stream.mask.any(1)
        read = torch.nn.functional.rms_norm(stream.x, (16,), eps=1e-5)
        torch.testing.assert_close(embedding[rows, place], masked_max(read, stream.mask)[rows], **MODEL)


@pytest.mark.parametrize("unit", ["seconds", "spans"])
def test_times_in_seconds_count_sample_by_sample(unit: str) -> None:
    built = model(local={"time_unit": unit, "time_weight": 50.0})
    whole = batch()
    timed = {}
    for name, s in whole.modalities.items():
        seconds = torch.arange(s.mask.shape[1]).float().expand(s.mask.shape).clone() * 0.3
        seconds[4] = torch.nan  # nothing is known of this sample's times
        timed[name] = replace(s, times=seconds)
    known = replace(whole, modalities=timed)
    out = built(known)
    for row in range(len(whole)):
        assert_same(out, built(known.select([row])), [row])
    without = built(whole)
    torch.testing.assert_close(out.prediction[4], without.prediction[4], **MODEL)
    assert not torch.allclose(out.prediction[0], without.prediction[0], atol=1e-4)


def test_a_strided_token_has_the_middle_of_its_group() -> None:
    """Words begin at 0, 0.5 s and so on, pictures at 0, 0.1 s and so on, of which two make a token."""
    built, whole = model(local={"time_unit": "spans"}, encoders={"video": {"stride": 2}}), batch()
    steps, timed = {"text": 0.5, "video": 0.1}, dict(whole.modalities)
    for name, step in steps.items():
        begins = torch.arange(timed[name].mask.shape[1]) * step
        timed[name] = replace(timed[name], times=begins.expand(timed[name].mask.shape))
    encoded = built._encoded(replace(whole, modalities=timed))
    row = int((whole.modalities["video"].mask.sum(1) * whole.modalities["text"].mask.any(1)).argmax())
    torch.testing.assert_close(encoded["text"].times[row, 0], torch.tensor(0.25, dtype=torch.float64))
    for place in range(int(whole.modalities["video"].mask[row].sum()) // 2):
        expected = torch.tensor(0.2 * place + 0.1, dtype=torch.float64)
        torch.testing.assert_close(encoded["video"].times[row, place], expected)
    assert place > 0


STRIDES: dict[str, Any] = {"encoder": {"stride": 2}, "local": {"window": 0, "marginal": "anchor"}}
SPANS: dict[str, Any] = {"encoder": {"stride": 2}, "local": {"time_unit": "spans"}}


@pytest.mark.parametrize(
    "options", [{}, {"local": {"window": 1}}, STRIDES, {"local": {"time_unit": "spans"}}, SPANS]
)
@pytest.mark.parametrize(
    ("dtype", "zeros"), [(torch.float64, (1000.0, 512345.0, 1.7e9, -1.7e9)), (torch.float32, (10.0, 1000.0))]
)
def test_the_zero_of_the_clock_is_of_no_account(
    options: dict[str, Any], dtype: torch.dtype, zeros: tuple[float, ...]
) -> None:
    """Still passages and steps that are multiples of one another make ties of which a lost digit would
    decide.
    """
    local = {"time_unit": "seconds", **options.get("local", {})}
    built, whole = model(**{**options, "local": local}), batch()
    still = {
        name: replace(s, features=s.features * (torch.arange(s.mask.shape[1]) % 5 == 0)[:, None])
        for name, s in whole.modalities.items()
    }

    def at(zero: float) -> Tensor:
        timed = {}
        for name, s in still.items():
            seconds = (
                zero
                + torch.arange(s.mask.shape[1], dtype=torch.float64)
                * {"text": 0.06, "audio": 0.02, "video": 0.04}[name]
            )
            timed[name] = replace(s, times=seconds.expand(s.mask.shape).to(dtype))
        return built(replace(whole, modalities=timed)).prediction

    expected = at(0.0)
    for zero in zeros:
        assert torch.equal(at(zero), expected), zero
    assert not torch.allclose(expected, built(replace(whole, modalities=still)).prediction, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_of_another_precision_takes_any_batch_and_keeps_its_precision(
    dtype: torch.dtype, tmp_path: Any
) -> None:
    built, whole = model().to(dtype), batch()
    assert built(whole).prediction.dtype == dtype
    built.save_pretrained(tmp_path)
    again = AlignMamba.from_pretrained(tmp_path)
    assert torch.equal(built(whole).prediction, again(whole).prediction)


def test_noise_and_gain_disturb_training_alone() -> None:
    options = {"dropout": 0.0, "encoder": {"dropout": 0.0, "noise": 0.5, "gain": 0.3}}
    built, whole = model(**options), batch()
    assert_same(built(whole), model(dropout=0.0, encoder={"dropout": 0.0})(whole))
    built.train()
    torch.manual_seed(0)
    first, second = built(whole).prediction, built(whole).prediction
    text_alone = 5  # token ids are not disturbed
    changed = (first != second).any(-1)
    assert not bool(changed[text_alone])
    assert bool(changed[:5].all())


def test_the_anchor_is_the_first_modality_present() -> None:
    built, whole = model(), batch()
    tokens, mask = built.fused_tokens(whole)
    # Text first, then audio, then video; three streams each.
    expected = [3 * length for length in (5, 12, 3, 8, 7, 1, 1)]
    assert mask.sum(1).tolist() == expected
    assert tokens.shape[1] == max(expected)


def test_streams_stand_in_the_paper_order_with_the_anchor_last() -> None:
    built, one = model(absent="learned"), batch().select([5])  # one text token alone
    tokens, _ = built.fused_tokens(one)
    torch.testing.assert_close(tokens[0, 0], built.absent_tokens["video"])
    torch.testing.assert_close(tokens[0, 1], built.absent_tokens["audio"])
    assert not torch.allclose(tokens[0, 2], built.absent_tokens["text"])


@pytest.mark.parametrize("method", ["match", "proportional"])
def test_aligned_streams_are_what_is_interleaved(method: str) -> None:
    built, whole = model(local={"method": method}, absent="zeros"), batch()
    streams = built.aligned_streams(whole)
    assert list(streams) == ["video", "audio", "text"]
    tokens, mask = built.fused_tokens(whole)
    x = interleave([stream.x for stream in streams.values()])
    torch.testing.assert_close(x, tokens, **MODEL)
    for name, stream in streams.items():
        there = torch.tensor(LENGTHS[name]) > 0
        # At the length of the first modality that the sample has, where it has this one.
        assert stream.mask.sum(1).tolist() == (there * torch.tensor([5, 12, 3, 8, 7, 1, 1])).tolist()
        assert torch.equal(stream.mask, mask[:, ::3] & there[:, None])
    # The anchor is among them, as it was encoded.
    torch.testing.assert_close(streams["text"].x[0, :5], built._encoded(whole)["text"].x[0, :5], **MODEL)


def test_without_local_alignment_the_streams_keep_their_lengths() -> None:
    built, whole = model(local={"method": "none"}), batch()
    streams, encoded = built.aligned_streams(whole), built._encoded(whole)
    assert list(streams) == ["video", "audio", "text"]
    for name, stream in streams.items():
        assert stream.mask.sum(1).tolist() == LENGTHS[name]
        assert torch.equal(stream.x, encoded[name].x)


@pytest.mark.parametrize("row", AlignMamba.ablations)
def test_every_ablation_is_another_model_that_can_be_made(row: str) -> None:
    changes = dict(AlignMamba.ablations[row])
    config_class = FAMILIES[changes.pop("model", "alignmamba")].network.config_class
    config = config_class.preset("default", modalities=MODALITIES, task=TASK, **changes.pop("options", {}))
    assert changes == {}
    assert config != AlignMambaConfig.preset("default", modalities=MODALITIES, task=TASK)


def test_missing_modalities_have_no_discrepancy() -> None:
    loss = model(alignment={"weight": 1.0})(batch()).losses["mmd"]
    alone = torch.tensor([sum(lengths[row] > 0 for lengths in LENGTHS.values()) == 1 for row in range(7)])
    assert bool((loss[alone] == 0).all())
    assert bool((loss[~alone] > 0).all())


def test_the_contrast_teaches_encoders_and_spares_predictions() -> None:
    plain, built = model(), model(contrast={"weight": 2.0})
    out = built(batch())
    assert torch.equal(out.prediction, plain(batch()).prediction)
    assert "contrast" not in plain(batch()).losses
    alone = torch.tensor([sum(lengths[row] > 0 for lengths in LENGTHS.values()) == 1 for row in range(7)])
    assert bool((out.losses["contrast"][alone] == 0).all())
    assert bool((out.losses["contrast"][~alone] > 0).all())
    half = model(contrast={"weight": 1.0})(batch()).losses["contrast"]
    torch.testing.assert_close(out.losses["contrast"], 2 * half, **MODEL)
    among_all = model(contrast={"weight": 2.0, "among": "batch"})(batch()).losses["contrast"]
    assert bool((among_all[~alone] > out.losses["contrast"][~alone]).all())
    out.losses["contrast"].sum().backward()
    for name in ("text", "audio", "video"):
        assert any(p.grad is not None and bool(p.grad.any()) for p in built.encoders[name].parameters())
    assert all(p.grad is None for p in built.backbone.parameters())


def test_the_contrast_goes_by_true_times_where_both_sides_know_them() -> None:
    """Tokens that stand still in time while their positions move are other partners."""
    built, whole = model(contrast={"weight": 1.0, "reach": 0}), batch()
    timed = {
        name: replace(s, times=torch.linspace(0, 1, s.mask.shape[1]).square().expand(s.mask.shape).double())
        for name, s in whole.modalities.items()
    }
    assert not torch.allclose(
        built(whole).losses["contrast"], built(replace(whole, modalities=timed)).losses["contrast"]
    )


ORDERED = {"weight": 1.0, "untimed": "order", "flat_steps": 2}


def timed(whole: Batch, *names: str) -> Batch:
    """The same with a clock for these modalities."""
    clocks = {
        name: torch.arange(s.mask.shape[1]).square().expand(s.mask.shape).double()
        for name, s in whole.modalities.items()
        if name in names
    }
    return replace(
        whole,
        modalities={
            name: replace(s, times=clocks[name]) if name in clocks else s
            for name, s in whole.modalities.items()
        },
    )


def test_without_times_the_contrast_goes_by_order_and_spares_predictions() -> None:
    whole, plain = batch(), model()
    built, positions = model(contrast=ORDERED), model(contrast={"weight": 1.0})
    missing = built.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing == ["contrast.null", "contrast.steps"]
    out = built(whole)
    assert torch.equal(out.prediction, plain(whole).prediction)
    alone = torch.tensor([sum(lengths[row] > 0 for lengths in LENGTHS.values()) == 1 for row in range(7)])
    assert bool((out.losses["contrast"][alone] == 0).all())
    assert bool((out.losses["contrast"][~alone] > 0).all())
    assert not torch.allclose(out.losses["contrast"], positions(whole).losses["contrast"])
    out.losses["contrast"].sum().backward()
    for name in ("text", "audio", "video"):
        assert any(p.grad is not None and bool(p.grad.any()) for p in built.encoders[name].parameters())
    assert built.contrast.null.grad is not None
    known = timed(whole, "text", "audio", "video")
    torch.testing.assert_close(built(known).losses["contrast"], positions(known).losses["contrast"], **MODEL)


def test_the_first_steps_of_training_are_flat_and_counted_with_the_weights() -> None:
    whole = batch()
    still = {"dropout": 0.0, "encoder": {"dropout": 0.0}}
    built = model(contrast=ORDERED, **still)
    looked_for = built(whole).losses["contrast"]
    built.train()
    flat = [built(whole).losses["contrast"] for _ in range(2)]
    assert torch.equal(flat[0], flat[1])
    assert not torch.allclose(flat[0], looked_for)
    again = model(contrast=ORDERED, **still).train()
    again.load_state_dict(built.state_dict())
    for each in (built, again):
        torch.testing.assert_close(each(whole).losses["contrast"], looked_for, **MODEL)


def test_a_modality_alone_is_no_step_of_the_contrast() -> None:
    """As where a further target of one modality is predicted from it, besides the batch."""
    built = model(contrast=ORDERED).train()
    there, untimed = torch.ones(2, 3, dtype=torch.bool), torch.full((2, 3), torch.nan, dtype=torch.float64)
    text, audio = (Tokens(torch.randn(2, 3, built.config.d_model), there, untimed) for _ in range(2))
    first, second = torch.ones(2, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)
    built.contrast({"text": text}, text, {"text": first})
    assert int(built.contrast.steps) == 0
    built.contrast({"text": text, "audio": audio}, text, {"text": first, "audio": second})
    assert int(built.contrast.steps) == 1


def test_times_of_a_timeless_modality_are_not_looked_at() -> None:
    options = {"local": {"time_unit": "seconds"}, "contrast": {"weight": 1.0}, "timeless": ["text"]}
    whole = timed(batch(), "audio", "video")
    assert_same(model(**options)(timed(batch(), "text", "audio", "video")), model(**options)(whole))
    options["timeless"] = []
    assert not torch.allclose(
        model(**options)(timed(batch(), "text", "audio", "video")).losses["contrast"],
        model(**options)(whole).losses["contrast"],
    )
    with pytest.raises(ConfigError, match=r"timeless: found 'smell', expected some of \['text', 'audio', 'v"):
        model(timeless=["smell"])


def test_a_soft_plan_teaches_encoders_by_the_prediction() -> None:
    """Through the cost: the anchor's tokens decide what of another modality they receive."""
    for method, learns in (("soft", True), ("match", False)):
        built, one = model(local={"method": method, "time_weight": 0.0}), batch().select([0])
        encoded = built._encoded(one)
        anchor = replace(encoded["text"], x=encoded["text"].x.detach().requires_grad_())
        streams, _ = built._aligned(
            encoded, anchor, {name: torch.tensor([name == "text"]) for name in encoded}
        )
        (slope,) = torch.autograd.grad(streams["audio"].x.square().sum(), anchor.x, allow_unused=True)
        assert (slope is not None and bool(slope.any())) == learns


def test_plans_of_a_soft_plan_are_the_largest_shares() -> None:
    soft = {"regularisation": 1e-4}
    hard = model(local={"marginal": "anchor"})(batch(), return_plans=True).plans
    for marginal in ("anchor", "both", "source"):
        local = {"method": "soft", "marginal": marginal}
        found = model(local=local, soft=soft)(batch(), return_plans=True).plans
        assert found.keys() == hard.keys()
        for name, plan in found.items():
            assert plan.marginal == "anchor"
            assert torch.equal(plan.index >= 0, hard[name].index >= 0)
            if marginal == "anchor":
                assert torch.equal(plan.index, hard[name].index)
                torch.testing.assert_close(plan.similarity, hard[name].similarity, **MODEL)


def test_little_regularisation_takes_what_the_hard_matching_takes() -> None:
    local = {"marginal": "anchor"}
    soft = model(local={**local, "method": "soft"}, soft={"regularisation": 1e-4})
    assert_same(soft(batch()), model(local=local)(batch()))


def test_the_transport_loss_teaches_encoders_and_spares_predictions() -> None:
    plain, built = model(), model(transport_loss={"weight": 2.0})
    out = built(batch())
    assert torch.equal(out.prediction, plain(batch()).prediction)
    assert "transport" not in plain(batch()).losses
    alone = torch.tensor([sum(lengths[row] > 0 for lengths in LENGTHS.values()) == 1 for row in range(7)])
    assert bool((out.losses["transport"][alone] == 0).all())
    assert bool((out.losses["transport"][~alone] > 0).all())
    half = model(transport_loss={"weight": 1.0})(batch()).losses["transport"]
    torch.testing.assert_close(out.losses["transport"], 2 * half, **MODEL)
    timed = model(transport_loss={"weight": 1.0, "time_weight": 9.0})(batch()).losses["transport"]
    assert bool((timed[~alone] > half[~alone]).all())
    out.losses["transport"].sum().backward()
    for name in ("text", "audio", "video"):
        assert any(p.grad is not None and bool(p.grad.any()) for p in built.encoders[name].parameters())
    assert all(p.grad is None for p in built.backbone.parameters())


def test_a_prior_fades_while_training_and_is_saved_as_far_as_it_was(tmp_path: Any) -> None:
    built, whole = model(anneal={"to": 0.0}), batch()
    assert_same(built(whole), model()(whole))
    built.follow_training(0.5)
    middle = built(whole)
    assert_same(middle, model(local={"time_weight": 250.0})(whole))
    built.save_pretrained(tmp_path)
    assert torch.equal(AlignMamba.from_pretrained(tmp_path)(whole).prediction, middle.prediction)
    built.follow_training(1.0)
    assert_same(built(whole), model(local={"time_weight": 0.0})(whole))
    plain = model()
    plain.follow_training(1.0)
    assert_same(plain(whole), model()(whole))
    assert plain.state_dict().keys() == model().state_dict().keys()


def test_plans_match_valid_tokens_to_the_anchor() -> None:
    plans = model(preset="paper")(batch(), return_plans=True).plans
    assert plans is not None
    audio = plans["audio"].index
    assert audio[0, :9].max() < 5  # nine audio tokens onto five text tokens
    assert audio[0, :9].min() >= 0
    assert bool((audio[0, 9:] == -1).all())
    assert bool((audio[2] == -1).all())  # sample 2 has no audio


def test_modality_dropout_keeps_at_least_one_and_rests_in_evaluation() -> None:
    built, whole = (
        model(modality_dropout=0.99, dropout=0.0, encoder={"dropout": 0.0}).train(),
        batch().select([0] * 40),
    )
    torch.manual_seed(0)
    lengths = {int(n) for n in built.fused_tokens(whole)[1].sum(1)}
    assert lengths <= {3 * 5, 3 * 9, 3 * 4}  # each sample has one modality left, which is its anchor
    assert len(lengths) > 1
    built.eval()
    assert_same(built(whole), built(whole))


def test_regression_gives_one_number() -> None:
    out = model(Task(kind="regression", label_range=(-3, 3)))(batch())
    assert out.prediction.shape == (7,)


def test_it_meets_the_protocol_under_its_name() -> None:
    assert isinstance(model(), Network)
    assert FAMILIES["alignmamba"].network is AlignMamba


def test_what_a_preset_sets_of_encoders_holds_for_named_ones() -> None:
    def made(preset: str, **options: Any) -> AlignMambaConfig:
        return AlignMambaConfig.preset(preset, modalities=MODALITIES, task=TASK, **options)

    named = made("default", encoders={"audio": {"stride": 2}, "video": {"centring": "full"}})
    assert [named.encoder.centring, named.encoders["audio"].centring, named.encoders["audio"].stride] == [
        "learned",
        "learned",
        2,
    ]
    assert named.encoders["video"].centring == "full"
    assert made("0.1", encoders={"audio": {"stride": 2}}).encoders["audio"].centring == "none"
    first = AlignMambaConfig(modalities=MODALITIES, task=TASK)
    assert made("0.1") == first


def test_the_paper_preset_is_the_paper() -> None:
    local, loss = (
        AlignMambaConfig.preset("paper", modalities=MODALITIES, task=TASK).model_dump()[k]
        for k in ("local", "alignment")
    )
    assert local == {
        "method": "match",
        "mass": "paper",
        "marginal": "source",
        "time_weight": 0,
        "time_unit": "relative",
        "window": None,
    }
    assert loss["pairs"] == "anchor"


class TestRefusals:
    def test_a_sample_with_nothing(self) -> None:
        with pytest.raises(DataError, match="sample 's2': found no modality"):
            model()(batch().select([0, 1, 2]).without("text", "video"))

    def test_an_empty_batch(self) -> None:
        with pytest.raises(ShapeError, match="batch: expected at least one sample"):
            model()(batch().select([]))

    def test_a_mask_of_another_length_in_step(self) -> None:
        with pytest.raises(ShapeError, match=r"valid: expected bool of shape \(2,\)"):
            stepping().step(torch.zeros(2, 16), valid=torch.ones(3, dtype=torch.bool))

    def test_an_unknown_modality(self) -> None:
        whole = batch()
        with pytest.raises(DataError, match="modality 'smell' is unknown"):
            model()(replace(whole, modalities={**whole.modalities, "smell": whole.modalities["audio"]}))

    def test_a_wrong_width(self) -> None:
        whole = batch()
        with pytest.raises(ShapeError, match="modality 'audio': expected 4 floating channels"):
            model()(replace(whole, modalities={"audio": whole.modalities["video"]}))

    def test_features_where_ids_are_wanted(self) -> None:
        whole = batch()
        with pytest.raises(ShapeError, match="modality 'text': expected one channel of int64 token ids"):
            model()(replace(whole, modalities={"text": whole.modalities["audio"]}))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"d_model": 0}, "d_model"),
            ({"depht": 2}, "depht"),
            ({"local": {"window": -1}}, r"local\.window"),
            ({"local": {"mass": "half"}}, r"local\.mass"),
            ({"local": {"marginal": "both"}}, "local: marginal: found 'both' with method 'match', expected"),
            ({"soft": {"regularisation": 0.0}}, r"soft\.regularisation"),
            ({"soft": {"iterations": 0}}, r"soft\.iterations"),
            ({"anneal": {"to": 1.5}}, r"anneal\.to"),
            ({"anneal": {"over": 0.0}}, r"anneal\.over"),
            ({"transport_loss": {"weight": -1.0}}, r"transport_loss\.weight"),
            ({"anchor_order": ("smell",)}, "anchor_order: found 'smell', expected some of"),
            ({"anchor_order": ("text", "text")}, "anchor_order: names must be distinct"),
            ({"encoders": {"smell": {}}}, "encoders: found 'smell', expected some of"),
            ({"alignment": {"bandwidth": 0}}, r"alignment\.bandwidth"),
            ({"preset": "magic"}, "preset: expected one of"),
        ],
    )
    def test_wrong_options(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            model(**options)

    def test_two_modalities_of_one_name(self) -> None:
        with pytest.raises(ConfigError, match="modalities: names must be distinct"):
            AlignMambaConfig.preset("default", modalities=(*MODALITIES, MODALITIES[0]), task=TASK)

    def test_statistics_of_another_width(self) -> None:
        with pytest.raises(ShapeError, match="statistics of 'audio': expected width 4, found"):
            model().standardise(Standardisation(features={"audio": (torch.zeros(5), torch.ones(5))}))

    def test_a_token_of_another_width(self) -> None:
        with pytest.raises(ShapeError, match=r"token: expected \(batch, 16\)"):
            stepping().step(torch.zeros(2, 15))
