"""One training step and one inference pass on a batch of MOSI's unaligned size: our models beside MMSA
2.2.1's own MulT.

Usage: ``python benchmarks/mosi_batch.py [--repeats 9] [--json FILE]``

The batch is drawn, not read: 16 samples, text of 50 x 768, audio of 375 x 5, video of 500 x 20, of which each
sample has a share; both sides get the same tensors. One thread, processor time, in turn in one process,
medians. MMSA's MulT has the settings that MMSA ships for MOSI as tuned; ours are what ``train`` takes unless
told otherwise.

A training step is forward, loss, backward, clipping and the optimiser that each library takes (Adam; AdamW).
MulT attends within and between sequences of full length, padding included; ours meet at the text's 50 tokens.
Widths and weights stand in the table.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from alignmamba.contracts import Batch, ModalitySpec, Sequences, Task
from alignmamba.evaluation.computing_cost import time_in_turn
from alignmamba.methods import FAMILIES

SAMPLES = 16
SHAPES = {"text": (50, 768), "audio": (375, 5), "video": (500, 20)}
SHORTEST = 0.25
"""Of the longest; lengths are drawn evenly from there on, and one sample has the longest of each."""
OURS = "alignmamba"
THEIRS = "MulT of MMSA"


def drawn_batch() -> Batch:
    """Normal features with valid tokens first, and labels in [-3, 3]; seeded."""
    generator = torch.Generator().manual_seed(0)
    modalities = {}
    for name, (length, width) in SHAPES.items():
        lengths = (length * (SHORTEST + (1 - SHORTEST) * torch.rand(SAMPLES, generator=generator))).long()
        lengths[0] = length
        mask = torch.arange(length) < lengths.unsqueeze(1)
        features = torch.randn(SAMPLES, length, width, generator=generator).masked_fill(
            ~mask.unsqueeze(-1), 0
        )
        modalities[name] = Sequences(features=features, mask=mask)
    targets = torch.rand(SAMPLES, generator=generator) * 6 - 3
    return Batch(modalities=modalities, ids=tuple(str(n) for n in range(SAMPLES)), targets=targets)


def mmsa_mult() -> tuple[nn.Module, Any]:
    """MMSA's MulT with its settings for unaligned MOSI, in regression."""
    from MMSA.config import get_config_regression
    from MMSA.models.singleTask.MULT import MULT

    config = get_config_regression("mult", "mosi")
    given = {**config, "feature_dims": [width for _, width in SHAPES.values()], "train_mode": "regression"}
    settings = SimpleNamespace(**given)
    return MULT(settings), settings


def our_model(name: str) -> nn.Module:
    """A model of the library with its default preset."""
    modalities = tuple(ModalitySpec(name=each, dim=width) for each, (_, width) in SHAPES.items())
    made = FAMILIES[name].network
    config = made.config_class.preset(
        "default", modalities=modalities, task=Task(kind="regression", label_range=(-3, 3))
    )
    return made(config)


def training_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor], clip: Callable[[], object]
) -> None:
    """Forward, backward, clip, step."""
    model.train()
    optimizer.zero_grad()
    loss().backward()
    clip()
    optimizer.step()


def calls(
    batch: Batch,
) -> tuple[dict[str, Callable[[], object]], dict[str, Callable[[], object]], dict[str, nn.Module]]:
    """Training steps and inference passes by model, and the models."""
    assert batch.targets is not None
    steps: dict[str, Callable[[], object]] = {}
    passes: dict[str, Callable[[], object]] = {}
    models: dict[str, nn.Module] = {}

    def inference(model: nn.Module, run: Callable[[], object]) -> Callable[[], object]:
        def call() -> object:
            model.eval()
            with torch.no_grad():
                return run()

        return call

    theirs, settings = mmsa_mult()
    text, audio, video = (sequences.features for sequences in batch.modalities.values())
    labels = batch.targets.view(-1, 1)
    adam = torch.optim.Adam(theirs.parameters(), lr=settings.learning_rate)
    models[THEIRS] = theirs
    steps[THEIRS] = lambda: training_step(
        theirs,
        adam,
        lambda: nn.functional.l1_loss(theirs(text, audio, video)["M"], labels),
        lambda: nn.utils.clip_grad_value_(list(theirs.parameters()), settings.grad_clip),
    )
    passes[THEIRS] = inference(theirs, lambda: theirs(text, audio, video))
    for name in FAMILIES:
        model = our_model(name)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)

        def loss(model: nn.Module = model) -> Tensor:
            out = model(batch)
            own = [term.mean() for term in out.losses.values()]
            return torch.stack([nn.functional.l1_loss(out.prediction, batch.targets), *own]).sum()

        def step(
            model: nn.Module = model,
            optimizer: torch.optim.Optimizer = optimizer,
            loss: Callable[[], Tensor] = loss,
        ) -> None:
            training_step(model, optimizer, loss, lambda: nn.utils.clip_grad_norm_(model.parameters(), 1.0))

        models[name] = model
        steps[name] = step
        passes[name] = inference(model, lambda model=model: model(batch))  # type: ignore[misc]
    return steps, passes, models


def main() -> int:
    """Measure, print a table, and write it where asked."""
    parser = argparse.ArgumentParser(
        description="A batch of MOSI's unaligned size: our models beside MMSA's MulT."
    )
    parser.add_argument("--repeats", type=int, default=9, help="rounds; the median counts")
    parser.add_argument("--json", type=Path, help="where the figures go")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        steps, passes, models = calls(drawn_batch())
    except ImportError as error:
        print(
            f"MMSA cannot be imported ({error}); install it with: pip install 'alignmamba[mmsa]'",
            file=sys.stderr,
        )
        return 2
    timings = [time_in_turn(each, repeats=given.repeats) for each in (steps, passes)]
    ours = [timing[OURS].busy.median for timing in timings]
    rows = {}
    for name, model in models.items():
        seconds = [timing[name].busy.median for timing in timings]
        rows[name] = {
            "weights": sum(weight.numel() for weight in model.parameters()),
            "step_ms": 1e3 * seconds[0],
            "step_ratio": seconds[0] / ours[0],
            "pass_ms": 1e3 * seconds[1],
            "pass_ratio": seconds[1] / ours[1],
        }
    print("| model | weights | training step | over AlignMamba | inference | over AlignMamba |")
    print("|---|---|---|---|---|---|")
    for name, row in sorted(rows.items(), key=lambda item: -item[1]["step_ratio"]):
        cells = (
            f"{row['step_ms']:.0f} ms | {row['step_ratio']:.1f}x | {row['pass_ms']:.0f} ms |"
            f" {row['pass_ratio']:.1f}x"
        )
        print(f"| {name} | {row['weights']:,} | {cells} |")
    if given.json is not None:
        given.json.write_text(
            json.dumps({"repeats": given.repeats, "torch": torch.__version__, "models": rows}, indent=2)
            + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
