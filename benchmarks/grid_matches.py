"""How many audio-video pairs that matching makes on GRID lie close in true time, by trained and by untrained
encoders.

Usage: ``python benchmarks/grid_matches.py RUN [RUN ...]`` with runs that ``benchmarks/accuracy.py grid-...``
made

A matched pair counts as close where the two tokens' times, in seconds, differ by at most 0.2. For each run
the trained model is compared with the same model before training, once with the run's own cost and once on
content alone (no time in the cost, as in the paper), and with pairs drawn evenly.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from alignmamba import AlignMamba, Batch, Corpus, load_corpus
from alignmamba.contracts import Plan
from alignmamba.data.loader import collate
from alignmamba.nn.encoders import group_mean
from alignmamba.recipes.run_directory import RunDirectory

CLOSE_SECONDS = 0.2


def untrained(trained: AlignMamba, seed: int) -> AlignMamba:
    """The same model with its first weights; what the data alone decides, the standardisation, is kept."""
    torch.manual_seed(seed)
    fresh = AlignMamba(trained.config)
    fresh.standardisers.load_state_dict(trained.standardisers.state_dict())
    return fresh.eval()


def on_content_alone(model: AlignMamba) -> AlignMamba:
    """The same weights, with the paper's cost and marginal."""
    local = model.config.local.model_copy(
        update={"method": "match", "time_weight": 0.0, "marginal": "source", "window": None}
    )
    twin = AlignMamba(model.config.model_copy(update={"local": local}))
    twin.load_state_dict(model.state_dict())
    return twin.eval()


@torch.no_grad()
def share_close(model: AlignMamba, batch: Batch) -> float:
    """Share of matched pairs that lie close in time."""
    plans = model(batch, return_plans=True).plans
    (name,) = (name for name in plans if name != model.config.anchors[0])
    return float(
        _close(
            plans[name],
            *(token_times(model, batch, modality) for modality in (name, model.config.anchors[0])),
        )
    )


def _close(plan: Plan, source: Tensor, anchor: Tensor) -> Tensor:
    here, there = (source, anchor) if plan.marginal == "source" else (anchor, source)
    matched = plan.index >= 0
    return ((here - there.gather(1, plan.index.clamp(min=0))).abs() <= CLOSE_SECONDS)[matched].float().mean()


def token_times(model: AlignMamba, batch: Batch, name: str) -> Tensor:
    """(batch, tokens) seconds of a modality's tokens after its encoder's stride."""
    sequences = batch.modalities[name]
    stride = model.config.encoders.get(name, model.config.encoder).stride
    return group_mean(sequences.times, sequences.mask, stride)[0]


def share_by_chance(model: AlignMamba, batch: Batch) -> float:
    """The share if every token were matched evenly to every other."""
    first, second = (token_times(model, batch, name) for name in model.config.anchors)
    return float(((first.unsqueeze(2) - second.unsqueeze(1)).abs() <= CLOSE_SECONDS).float().mean())


def measure(run: Path) -> dict[str, float]:
    """All shares of one run, on its test split."""
    found = RunDirectory.open(run)
    config = found.config()
    corpus: Corpus = load_corpus(config.data)
    batch = replace(collate(list(corpus.split("test")), corpus.modalities, corpus.task), targets=None)
    trained = AlignMamba.from_pretrained(run / "model")
    fresh = untrained(trained, config.seed)
    return {
        "own cost, trained": share_close(trained, batch),
        "own cost, untrained": share_close(fresh, batch),
        "content alone, trained": share_close(on_content_alone(trained), batch),
        "content alone, untrained": share_close(on_content_alone(fresh), batch),
        "by chance": share_by_chance(trained, batch),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Share of matched audio-video pairs whose true times lie within 0.2 s."
    )
    parser.add_argument("runs", type=Path, nargs="+", help="run directories")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    shares = {str(run): measure(run) for run in given.runs}
    for what in next(iter(shares.values())):
        values = [found[what] for found in shares.values()]
        print(
            f"{what:26s} {sum(values) / len(values):.3f}   ({', '.join(f'{value:.3f}' for value in values)})"
        )
    if given.json:
        given.json.write_text(json.dumps(shares, indent=1) + "\n")
