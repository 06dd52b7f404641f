"""Co-attention: independent streams where nothing is read across, and symmetry where both directions share a
module.
"""

import pytest
import torch
from every_method import SPECS, TASKS, batch_of, network
from torch import Tensor

from alignmamba.errors import ConfigError
from alignmamba.methods import METHODS
from alignmamba.methods.co_attention import CoAttentionConfig, CoAttentionLayer
from tolerances import EXACT, MODEL

METHOD = METHODS["co-attention"]
REGRESSION = TASKS["regression"]
NAMES = ("text", "audio")


def layer(*, shared: bool) -> CoAttentionLayer:
    torch.manual_seed(0)
    config = CoAttentionConfig(modalities=SPECS[:2], task=REGRESSION, d_model=8, heads=2, shared=shared)
    return CoAttentionLayer(config, NAMES).eval()


def streams() -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    x = {"text": torch.randn(3, 4, 8), "audio": torch.randn(3, 6, 8)}
    masks = {name: torch.ones(each.shape[:2], dtype=torch.bool) for name, each in x.items()}
    return x, masks, dict.fromkeys(NAMES, torch.ones(3, dtype=torch.bool))


@torch.no_grad()
def test_streams_are_independent_where_nothing_is_read_across() -> None:
    made = layer(shared=True)
    x, masks, present = streams()
    changed = {**x, "audio": torch.randn(3, 6, 8)}
    assert not torch.allclose(
        made(x, masks, present)["text"], made(changed, masks, present)["text"], atol=1e-3
    )
    nobody = {**present, "audio": torch.zeros(3, dtype=torch.bool)}
    torch.testing.assert_close(made(x, masks, nobody)["text"], made(changed, masks, nobody)["text"], **EXACT)
    made.cross["text"].get_submodule("audio").out_projection.weight.zero_()  # type: ignore[union-attr]
    torch.testing.assert_close(
        made(x, masks, present)["text"], made(changed, masks, present)["text"], **EXACT
    )


@torch.no_grad()
def test_exchanging_streams_and_their_weights_exchanges_outputs_where_both_directions_share() -> None:
    made = layer(shared=True)
    x, masks, present = streams()
    before = made(x, masks, present)
    for part in (made.own, made.feed, made.norms):
        one, other = part["text"].state_dict(), part["audio"].state_dict()
        kept = {name: value.clone() for name, value in one.items()}
        part["text"].load_state_dict(other)
        part["audio"].load_state_dict(kept)
    swapped = made(*({"text": each["audio"], "audio": each["text"]} for each in (x, masks, present)))
    torch.testing.assert_close(swapped["text"], before["audio"], **MODEL)
    torch.testing.assert_close(swapped["audio"], before["text"], **MODEL)


def test_sharing_halves_the_modules_between_streams() -> None:
    counts = {
        shared: sum(
            weight.numel()
            for name, weight in network(METHOD, REGRESSION, shared=shared).named_parameters()
            if ".cross." in name
        )
        for shared in (True, False)
    }
    assert counts[False] == 2 * counts[True] > 0
    assert network(METHOD, REGRESSION, shared=False).eval()(batch_of(REGRESSION)).prediction.isfinite().all()


def test_refuses_one_modality() -> None:
    with pytest.raises(ConfigError, match="co-attention needs at least 2"):
        network(METHOD, REGRESSION, modalities=SPECS[:1])
