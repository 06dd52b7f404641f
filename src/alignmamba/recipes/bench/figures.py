"""The paper's efficiency analysis again: Figure 3 (memory), Figure 4 (time of 50 passes) and section 4.3.3
(operations).

The paper (Li et al., arXiv 2412.00833) states neither width nor depth, and ran on a GPU. Only ratios can be
compared, and a ratio depends on the width. Lengths here are tokens per modality, of which there are three.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from alignmamba.errors import ConfigError
from alignmamba.recipes.bench.measurement import BenchConfig, Report, Say, measure, silent

FIGURE_LENGTHS = (800, 1600, 3200, 6400, 12_800, 25_600)
FLOPS_LENGTH = 1024
PASSES = 50

FIGURE_PEERS: Mapping[str, str | None] = {
    "alignmamba": "AlignMamba",
    "windowed": None,
    "transformer-materialised": "single-stream",
    "transformer-fused": None,
    "mult-materialised": "multi-stream",
    "mult-fused": None,
}
"""Peer to the method of the paper that it stands for; the paper has neither a window nor fused attention."""

PAPER_LENGTH = 6400
"""Tokens at which the paper tells memory."""
PAPER: Mapping[str, Mapping[str, float]] = {
    "memory": {"AlignMamba": 8.53, "single-stream": 10.7, "multi-stream": 20.3},
    "passes": {"AlignMamba": 6.05, "single-stream": 36.13, "multi-stream": 48.61},
    "flops": {"AlignMamba": 46.7, "single-stream": 101.6, "multi-stream": 203.2},
}
"""The paper's figures: GB at 6.4k tokens, seconds of 50 passes, GFLOP at 1024 tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The three parts."""

    memory: Report
    passes: Report
    flops: Report

    @property
    def told_length(self) -> int:
        """Tokens at which memory is put beside the paper's: 6400, or the nearest that was measured."""
        return min(
            dict.fromkeys(row.length for row in self.memory.rows),
            key=lambda length: abs(length - PAPER_LENGTH),
        )

    @property
    def passes_length(self) -> int:
        """Tokens at which passes were timed."""
        return self.passes.rows[0].length


def figure_parts(config: BenchConfig) -> dict[str, BenchConfig]:
    """Lay out what the paper's analysis shows, in inference, and measure nothing.

    Memory is measured at every length, time at the one nearest to 6400 and told for 50 passes, and operations
    are counted at 1024.

    Args:
        config: Of the subject ``model``; its lengths and peers may be left empty.

    Returns:
        Part of `Figures` to what is measured for it, in the order of the work.

    Raises:
        ConfigError: If the subject is another, gradients are asked for, a peer belongs to no method of the
            paper, or it cannot be measured here.
    """
    if config.subject != "model" or config.training:
        raise ConfigError("figures: expected subject 'model' without training")
    strangers = [name for name in config.against if name not in FIGURE_PEERS]
    if strangers:
        raise ConfigError(
            f"against: found {strangers[0]!r}, which the paper's figures lack, expected some of"
            f" {', '.join(FIGURE_PEERS)}"
        )
    lengths = config.lengths or FIGURE_LENGTHS
    nearest = min(lengths, key=lambda length: abs(length - PAPER_LENGTH))
    common = config.model_copy(update={"against": config.against or tuple(FIGURE_PEERS)})
    return {
        "flops": common.model_copy(update={"lengths": (FLOPS_LENGTH,), "measure": ("flops",)}),
        "passes": common.model_copy(update={"lengths": (nearest,), "measure": ("time",)}),
        "memory": common.model_copy(update={"lengths": lengths, "measure": ("memory",)}),
    }


def paper_figures(config: BenchConfig, say: Say = silent) -> Figures:
    """Measure the parts of `figure_parts`.

    Args:
        config: As for `figure_parts`.
        say: Called with a line whenever a part begins.

    Raises:
        ConfigError: As for `figure_parts`.
    """
    return Figures(**{part: measure(each, say) for part, each in figure_parts(config).items()})


def paper_value(part: str, peer: str) -> float | None:
    """The paper's figure for what a peer stands for."""
    method = FIGURE_PEERS[peer]
    return None if method is None else PAPER[part][method]


def paper_ratio(part: str, peer: str) -> float | None:
    """The same over the paper's figure for AlignMamba."""
    value = paper_value(part, peer)
    return None if value is None else value / PAPER[part]["AlignMamba"]
