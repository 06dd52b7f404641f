"""AOBERT: hidden tokens are not seen, streams come from other samples, and nothing is drawn in evaluation."""

import pytest
import torch
from every_method import SPECS, TASKS, batch_of, network, prepared
from torch import Tensor

from alignmamba.contracts import Batch, ModalitySpec
from alignmamba.errors import ConfigError
from alignmamba.methods.aobert import ALL_IN_ONE, AOBERT, MaskedAndMatched, another, with_replaced
from alignmamba.nn.alignment import Tokens
from alignmamba.training.objective import Parcel
from tolerances import FLOAT32, MODEL

TASK = TASKS["regression"]
NAMES = tuple(spec.name for spec in SPECS)


def objective() -> MaskedAndMatched:
    learner = prepared(ALL_IN_ONE, TASK)
    assert isinstance(learner, MaskedAndMatched)
    return learner


def transformer(learner: MaskedAndMatched) -> AOBERT:
    assert isinstance(learner.model, AOBERT)
    return learner.model


def numbered(count: int, *, equal: bool = False) -> dict[str, Tokens]:
    """Streams whose tokens hold the number of their sample, or all the same."""
    number = torch.arange(count).float() * (0 if equal else 1)
    lengths = {name: 2 + place for place, name in enumerate(NAMES)}
    return {
        name: Tokens(
            number[:, None, None].expand(count, length, 1),
            torch.ones(count, length, dtype=torch.bool),
            torch.zeros(count, length),
        )
        for name, length in lengths.items()
    }


def terms(learner: MaskedAndMatched, batch: Batch) -> dict[str, Tensor]:
    torch.manual_seed(5)
    return learner(Parcel(batch))[1]


def test_what_a_hidden_token_held_changes_nothing_but_what_others_hold_does() -> None:
    learner = objective().eval()
    streams = transformer(learner)._with_absent(transformer(learner)._encoded(batch_of(TASK)))
    hidden = {name: torch.zeros_like(tokens.mask) for name, tokens in streams.items()}
    hidden["audio"][:, 1] = True

    def states(place: int) -> Tensor:
        x = streams["audio"].x.clone()
        x[:, place] = 7.0
        changed = {**streams, "audio": Tokens(x, streams["audio"].mask, streams["audio"].times)}
        return transformer(learner).states(learner.with_hidden(changed, hidden))[1]["audio"]

    expected = transformer(learner).states(learner.with_hidden(streams, hidden))[1]["audio"]
    assert torch.equal(states(1), expected)
    assert not torch.allclose(states(0)[:, 1], expected[:, 1])


def test_a_replaced_stream_is_whole_and_of_another_sample_and_the_anchor_stays() -> None:
    torch.manual_seed(0)
    own = torch.arange(9).float()
    for _ in range(20):
        streams, replaced, asked = with_replaced(numbered(9), torch.ones(9, 3, dtype=torch.bool), 1.0)
        assert replaced.all()
        assert asked.all()
        foreign = torch.stack([tokens.x[:, 0, 0] != own for tokens in streams.values()], 1)
        assert not foreign[:, 0].any()
        assert torch.equal(foreign.sum(1), torch.ones(9, dtype=torch.int64))
        assert all(bool((tokens.x == tokens.x[:, :1]).all()) for tokens in streams.values())


def test_every_sample_that_has_a_stream_gets_one_that_has_it() -> None:
    torch.manual_seed(0)
    having = torch.tensor([True, False, True, True, False, True])
    for _ in range(20):
        found = another(having)
        assert sorted(found.tolist()) == list(range(6))
        assert torch.equal(found != torch.arange(6), having)
    assert another(torch.tensor([False, True])).tolist() == [0, 1]


def test_what_cannot_be_seen_is_not_asked() -> None:
    present = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 1, 0], [1, 0, 1], [1, 0, 0]]).bool()
    _, replaced, asked = with_replaced(numbered(5), present, 1.0)
    # The third has audio alone, the fourth is the only one with video, the fifth has the anchor alone.
    assert asked.tolist() == replaced.tolist() == [True, True, False, False, False]


def test_among_equal_samples_replacing_changes_nothing() -> None:
    streams, replaced, _ = with_replaced(numbered(6, equal=True), torch.ones(6, 3, dtype=torch.bool), 0.5)
    assert 0 < int(replaced.sum()) < 6
    for name, tokens in numbered(6, equal=True).items():
        assert torch.equal(streams[name].x, tokens.x)


def test_both_tasks_are_learned_in_training_alone() -> None:
    learner, batch = objective(), batch_of(TASK)
    found = terms(learner.train(), batch)
    assert set(found) == {"task", "masking", "alignment"}
    (found["masking"].sum() + found["alignment"].sum()).backward()
    without = {name for name, parameter in learner.named_parameters() if parameter.grad is None}
    assert without == {"model.head.weight", "model.head.bias"}
    learner.eval()
    state = torch.get_rng_state()
    assert set(learner(Parcel(batch))[1]) == {"task"}
    assert torch.equal(torch.get_rng_state(), state)


def test_a_sample_alone_is_asked_for_its_hidden_tokens() -> None:
    learner = MaskedAndMatched(
        AOBERT.for_regression({"text": 6, "audio": 4, "video": 5}, d_model=8, depth=1, hidden_share=1.0), TASK
    ).train()
    found = terms(learner, batch_of(TASK).select([0]))
    assert float(found["alignment"].detach()) == 0
    assert float(found["masking"].detach()) > 0


def test_hidden_tokens_are_compared_with_standardised_features() -> None:
    learner = objective().train()
    with torch.no_grad():
        for layer in learner.rebuild.values():
            for parameter in layer.parameters():
                parameter.zero_()
    batch = batch_of(TASK)
    model = transformer(learner)
    model.config = model.config.model_copy(
        update={"hidden_share": 1.0, "replaced_share": 0.0, "masking": 1.0}
    )
    encoded = model._encoded(batch)
    squares = sum(tokens.x.square().mean(2).sum(1) for tokens in encoded.values())
    counts = sum(tokens.mask.sum(1) for tokens in encoded.values())
    assert isinstance(squares, Tensor)
    torch.testing.assert_close(terms(learner, batch)["masking"], squares / counts, **FLOAT32)


def test_streams_that_are_marked_alike_may_change_places() -> None:
    model = network(
        ALL_IN_ONE, TASK, modalities=tuple(ModalitySpec(name=name, dim=4) for name in ("audio", "video"))
    ).eval()
    random = torch.Generator().manual_seed(0)
    one, other = torch.randn(3, 5, 4, generator=random), torch.randn(3, 2, 4, generator=random)
    batch, turned = Batch.of({"audio": one, "video": other}), Batch.of({"audio": other, "video": one})
    assert isinstance(model, AOBERT)
    assert not torch.allclose(model(batch).prediction, model(turned).prediction)
    model.project["video"] = model.project["audio"]
    with torch.no_grad():
        model.marks["video"].copy_(model.marks["audio"])
    torch.testing.assert_close(model(turned).prediction, model(batch).prediction, **MODEL)


def test_an_encoder_that_mixes_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"found conv for audio, expected none, linear or embedding"):
        AOBERT.for_regression({"text": 3, "audio": 2}, encoders={"audio": {"kind": "conv"}})
    AOBERT.for_regression({"text": 3, "audio": 2}, encoder={"kind": "linear"})
