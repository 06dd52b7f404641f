"""CM-BERT: which tokens of the anchor attend to which is decided by how alike they are in all modalities."""

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
from alignmamba.nn.by_name import ModulesByName, WeightsByName
from alignmamba.nn.sentence_encoder import beside
from alignmamba.ops import masked_mean


class CMBERTConfig(SentenceConfig):
    """Everything that defines CM-BERT; the fields of the anchor's Transformer stand at the top level."""

    method = "CM-BERT"
    least_modalities = 2
    hidden: Annotated[int, Field(ge=1)] = 30
    """Width in which tokens are compared."""
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Dropout on the weights of the multimodal attention."""
    head_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Behind the dense layer, and before the head."""


class MaskedMultimodalAttention(nn.Module):
    """Softmax over weighted likenesses of tokens, one for the sentence and one for each stream beside it.

    Args:
        width: Channels of a hidden state.
        sides: Channels of each stream beside them.
        hidden: Width in which tokens are compared.
        dropout: On the weights.
    """

    def __init__(self, width: int, sides: Mapping[str, int], hidden: int, dropout: float) -> None:
        super().__init__()
        self.own = nn.Linear(width, hidden, bias=False)
        self.others = ModulesByName(
            {name: nn.Linear(side, hidden, bias=False) for name, side in sides.items()}
        )
        self.own_weight = nn.Parameter(torch.ones(()))
        self.weights = WeightsByName({name: nn.Parameter(torch.ones(())) for name in sides})
        self.bias = nn.Parameter(torch.zeros(()))
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, mask: Tensor, sides: Mapping[str, Tensor]) -> Tensor:
        """Attend, and keep what was there.

        Args:
            states: (batch, time, width).
            mask: (batch, time) bool.
            sides: By name, (batch, time, its channels); zero where a sample lacks the stream.

        Returns:
            (batch, time, width).
        """
        mixed: Tensor = self.dropout(self.shares(states, mask, sides)) @ states + states
        return mixed

    def shares(self, states: Tensor, mask: Tensor, sides: Mapping[str, Tensor]) -> Tensor:
        """(batch, time, time): weights of each token's attention, which sum to one over the valid ones."""
        scores = self.own_weight * _likeness(self.own(states)) + self.bias
        for name, side in sides.items():
            scores = scores + self.weights[name] * _likeness(self.others[name](side))
        shares: Tensor = scores.masked_fill(~mask.unsqueeze(1), -torch.inf).softmax(2)
        return shares


def _likeness(tokens: Tensor) -> Tensor:
    """(batch, time, channel) to (batch, time, time): scaled products, none below zero."""
    products: Tensor = tokens @ tokens.transpose(1, 2) * float(tokens.shape[2]) ** -0.5
    return products.relu()


class CMBERT(SentenceFusion[CMBERTConfig]):
    """A Transformer over the anchor's tokens, whose last states attend to one another as all modalities say.

    Yang, Xu and Gao, "CM-BERT: Cross-Modal BERT for Text-Audio Sentiment Analysis", ACM MM 2020, doi
    10.1145/3394171.3413690, and its public code. Kept: the masked multimodal attention, the dense layer with
    a norm behind it, the head on the first token.

    Changed: any number of streams, one weight for each. Likeness is divided by the root of its width, where
    the public code divides by a norm over the whole batch, in which neighbours change a prediction. The first
    token, which predicts, holds the mean of each stream: beside the published zeros its likeness to every
    token is zero, and no stream would reach the head. Not repeated: a head that the public optimiser forgets.

    Where a language model from a folder encodes the anchor, its last hidden states are mixed. Feature mode
    else: a small Transformer over the anchor's features, above any encoder of kind other than ``none``.
    """

    config_class = CMBERTConfig
    summary = "Attention among the anchor's tokens by their likeness in every modality"
    tags = ("transformer",)

    def __init__(self, config: CMBERTConfig) -> None:
        super().__init__(config)
        others, width = self.config.anchors[1:], self._sentence_width
        sides = {name: self._encoder(name).width for name in others}
        self.multimodal = MaskedMultimodalAttention(width, sides, config.hidden, config.attention_dropout)
        self.dense = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.head_dropout)
        self.norm = nn.LayerNorm(width)
        self.head = Head(width, config.task, config.head_dropout)

    def _read(self, encoded: Encoded) -> Output:
        anchor, *others = self.config.anchors
        first = self._with_absent({anchor: encoded[anchor]})[anchor]
        embedding, mask = self._sentence.embedded(first.x, first.mask)
        sides = {}
        for name in others:
            x, valid = encoded[name].x, encoded[name].mask
            sides[name] = torch.cat([masked_mean(x, valid).unsqueeze(1), beside(x, valid, mask)[:, 1:]], 1)
        mixed = self.multimodal(self._sentence.hidden_states(embedding, mask), mask, sides)
        said = self.norm(self.dropout(self.dense(mixed)) + mixed)[:, 0]
        return Output(prediction=self.head(said), embedding=said)


MASKED_ATTENTION = Method(
    network=CMBERT,
    search={"options.attention_dropout": Real(low=0.0, high=0.5)},
    settings={"loader": {"batch_size": 24}, "fit": {"warmup_fraction": 0.1, "regression_loss": "mse"}},
    source="Yang et al., ACM MM 2020, doi 10.1145/3394171.3413690",
    needs="two or more modalities, the first of which is read as text; published for text and audio",
    differs=(
        "Feature mode: a small Transformer over text features in place of a fine-tuned BERT, so its rates and"
        " three epochs do not apply. With a language model from a folder, the form is the published one. Any"
        " number of streams, resampled to the tokens of text by relative time. The token that predicts holds"
        " their means: beside the published zeros no stream reaches it. Likeness is scaled by its width, not"
        " by a norm over the batch."
    ),
)
