"""MAG-BERT: other modalities shift each token of the anchor, before the first layer of its encoder."""

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from alignmamba.contracts import Output
from alignmamba.methods.method import Method
from alignmamba.methods.search_space import Real
from alignmamba.models.encoded import Encoded, Head
from alignmamba.models.sentence import SentenceConfig, SentenceFusion
from alignmamba.nn.by_name import ModulesByName
from alignmamba.nn.sentence_encoder import beside

_LEAST = 1e-6


class MAGBERTConfig(SentenceConfig):
    """Everything that defines MAG-BERT; the fields of the anchor's Transformer stand at the top level."""

    method = "MAG-BERT"
    least_modalities = 2
    shift: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Longest step of a token, in lengths of that token (beta)."""
    gate_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Dropout on shifted tokens."""
    head_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Before the head."""


class AdaptationGate(nn.Module):
    """Each token plus a gated sum of what stands beside it, no longer than `shift` times the token, then a
    norm.

    Args:
        width: Channels of a token.
        sides: Channels of each stream beside it.
        shift: Longest step, in lengths of the token.
        dropout: On the result.
    """

    def __init__(self, width: int, sides: Mapping[str, int], *, shift: float, dropout: float) -> None:
        super().__init__()
        self.shift = shift
        self.gates = ModulesByName({name: nn.Linear(side + width, width) for name, side in sides.items()})
        self.steps = ModulesByName({name: nn.Linear(side, width) for name, side in sides.items()})
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, sides: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """Shift tokens.

        Args:
            tokens: (batch, time, width).
            sides: By name, (batch, time, its channels), the same tokens' time.
            present: By name, (batch, time) bool; elsewhere a stream shifts nothing, its biases included.
        """
        shifted: Tensor = self.dropout(self.norm(tokens + self.step(tokens, sides, present)))
        return shifted

    def step(self, tokens: Tensor, sides: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """(batch, time, width): by what tokens are shifted."""
        whole = torch.zeros_like(tokens)
        for name, side in sides.items():
            gated = self.gates[name](torch.cat([side, tokens], 2)).relu() * self.steps[name](side)
            whole = whole + gated.masked_fill(~present[name].unsqueeze(2), 0)
        length = whole.norm(dim=2, keepdim=True)
        longest = self.shift * tokens.norm(dim=2, keepdim=True)
        factor = longest / (torch.where(length == 0, 1, length) + _LEAST)
        step: Tensor = factor.clamp(max=1) * whole
        return step


class MAGBERT(SentenceFusion[MAGBERTConfig]):
    """The anchor's tokens, shifted by the others, read by a Transformer whose first token predicts.

    Rahman et al., "Integrating Multimodal Information in Large Pretrained Transformers", ACL 2020, arXiv
    1908.05787, and the code that the authors and MMSA publish. Kept: the gate, its place between embedding
    and first layer, its bound, the tanh of the first token before the head. Where a language model from a
    folder encodes the anchor, the gate stands inside it. Feature mode else: a small Transformer over the
    anchor's features, above any encoder of kind other than ``none``. The authors' script reports its best
    test accuracy over epochs; here the valid split chooses.
    """

    config_class = MAGBERTConfig
    summary = "Gate that shifts each token of the anchor by what the others say, inside its Transformer"
    tags = ("transformer",)

    def __init__(self, config: MAGBERTConfig) -> None:
        super().__init__(config)
        others, width = self.config.anchors[1:], self._sentence_width
        sides = {name: self._encoder(name).width for name in others}
        self.gate = AdaptationGate(width, sides, shift=config.shift, dropout=config.gate_dropout)
        self.pooler = nn.Linear(width, width)
        self.head = Head(width, config.task, config.head_dropout)

    def _read(self, encoded: Encoded) -> Output:
        anchor, *others = self.config.anchors
        first = self._with_absent({anchor: encoded[anchor]})[anchor]
        embedding, mask = self._sentence.embedded(first.x, first.mask)
        inside = mask.clone()
        inside[:, 0] = False
        sides = {name: beside(encoded[name].x, encoded[name].mask, mask) for name in others}
        present = {name: inside & encoded[name].mask.any(1, keepdim=True) for name in others}
        said = self._sentence.hidden_states(self.gate(embedding, sides, present), mask)
        pooled = self.pooler(said[:, 0]).tanh()
        return Output(prediction=self.head(pooled), embedding=pooled)


ADAPTATION_GATE = Method(
    network=MAGBERT,
    search={"options.shift": Real(low=0.1, high=2.0)},
    settings={
        "loader": {"batch_size": 48},
        "fit": {"epochs": 40, "weight_decay": 0.01, "warmup_fraction": 0.1, "regression_loss": "mse"},
    },
    source="Rahman et al., ACL 2020, arXiv 1908.05787",
    needs="two or more modalities, the first of which is read as text",
    differs=(
        "Feature mode: a small Transformer over text features in place of a fine-tuned BERT, so its learning"
        " rate does not apply. With a language model from a folder, the form is the published one. Others are"
        " resampled to the tokens of text by relative time; a modality that a sample lacks shifts nothing."
    ),
)
