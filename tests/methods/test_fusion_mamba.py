"""Fusion-Mamba: symmetric under exchange of streams and weights, one shared scan, nothing read of missing
ones.
"""

import pytest
import torch
import torch.nn.functional as F
from every_method import SPECS, TASKS, batch_of, network
from torch import Tensor

from alignmamba.errors import ConfigError
from alignmamba.methods import METHODS
from alignmamba.methods.fusion_mamba import FusionMamba, FusionMambaConfig, HiddenFusion
from alignmamba.nn.alignment import Tokens
from alignmamba.ops import reverse_valid
from tolerances import EXACT, FLOAT32

METHOD = METHODS["fusion-mamba"]
TASK = TASKS["regression"]
WIDTH = 8
MASK = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
OF_NAME = ("norms", "in_projections", "convolutions", "hidden_norms", "out_projections")


def block(*names: str, bidirectional: bool = True) -> HiddenFusion:
    torch.manual_seed(0)
    made = HiddenFusion(
        FusionMambaConfig(modalities=SPECS, task=TASK, d_model=WIDTH, bidirectional=bidirectional), names
    ).eval()
    for part in (made.norms, made.hidden_norms):  # norms of equal weights would hide an exchange
        for weight in part.parameters():
            torch.nn.init.normal_(weight)
    return made


def tokens() -> Tokens:
    return Tokens(torch.randn(2, 5, WIDTH), MASK, torch.full((2, 5), torch.nan, dtype=torch.float64))


def sending(**rows: bool) -> dict[str, Tensor]:
    return {name: torch.full((2,), value) for name, value in rows.items()}


@torch.no_grad()
def test_exchanging_streams_and_their_weights_exchanges_results() -> None:
    made, present = block("text", "audio"), sending(text=True, audio=True)
    given = {"text": tokens(), "audio": tokens()}
    before = made(given, present)
    for part in OF_NAME:
        one, other = made.get_submodule(f"{part}.text"), made.get_submodule(f"{part}.audio")
        kept = {name: value.clone() for name, value in one.state_dict().items()}
        one.load_state_dict(other.state_dict())
        other.load_state_dict(kept)
    after = made({"text": given["audio"], "audio": given["text"]}, present)
    for name, other in (("text", "audio"), ("audio", "text")):
        torch.testing.assert_close(after[name].x[MASK], before[other].x[MASK], **FLOAT32)


@torch.no_grad()
@pytest.mark.parametrize("bidirectional", [False, True])
def test_each_stream_gates_the_sum_of_all_hidden_states(*, bidirectional: bool) -> None:
    names = ("text", "audio", "video")
    made = block(*names, bidirectional=bidirectional)
    given = {name: tokens() for name in names}
    hidden, gates = {}, {}
    for name in names:
        drive, gate = made.in_projections[name](made.norms[name](given[name].x)).chunk(2, -1)
        drive = F.silu(made.convolutions[name](drive, MASK))
        y = made.scan(drive)
        if made.backward_scan is not None:
            y = y + reverse_valid(made.backward_scan(reverse_valid(drive, MASK)), MASK)
        hidden[name], gates[name] = made.hidden_norms[name](y), F.silu(gate)
    assert (made.backward_scan is not None) is bidirectional

    def expected(name: str, total: Tensor) -> Tensor:
        return (given[name].x + made.out_projections[name](total * gates[name]))[MASK]

    whole = made(given, sending(text=True, audio=True, video=True))
    lacking = made(given, sending(text=True, audio=False, video=True))
    for name in ("text", "video"):
        torch.testing.assert_close(
            whole[name].x[MASK], expected(name, sum(hidden.values(), torch.zeros(()))), **FLOAT32
        )
        two = 1.5 * (hidden["text"] + hidden["video"])
        torch.testing.assert_close(lacking[name].x[MASK], expected(name, two), **FLOAT32)


@torch.no_grad()
def test_the_second_and_fourth_quarter_move_and_what_is_missing_is_read_by_nobody() -> None:
    made = network(METHOD, TASK).eval()
    assert isinstance(made, FusionMamba)
    assert made.swapped.tolist() == [False, False, True, True] * 2
    batch = batch_of(TASK).select([0, 1, 2])
    whole = made(batch).prediction
    for name in ("text", "audio", "video"):
        lost = batch.without(name)
        expected = made(lost).prediction
        assert not torch.allclose(whole, expected, atol=1e-4)
        made.absent_tokens[name].fill_(3.0)
        for one in (
            made.shallow[name],
            made.norms[name],
            *(each.get_submodule(f"convolutions.{name}") for each in made.deep),
        ):
            for weight in one.parameters():
                weight.add_(0.5)
        torch.testing.assert_close(made(lost).prediction, expected, **EXACT)
        whole = made(batch).prediction


def test_all_streams_share_one_scan() -> None:
    made = block("text", "audio")
    scans = [name for name, _ in made.named_parameters() if name.endswith("log_decay")]
    assert scans == ["scan.log_decay", "backward_scan.log_decay"]


def test_refuses_one_modality_and_an_even_convolution() -> None:
    with pytest.raises(ConfigError, match="fusion-mamba needs at least 2"):
        network(METHOD, TASK, modalities=SPECS[:1])
    with pytest.raises(ConfigError, match="d_conv: expected an odd number, found 4"):
        network(METHOD, TASK, d_conv=4)
