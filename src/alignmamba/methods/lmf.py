"""LMF: tensor fusion whose weights are a sum of few outer products, so that the tensor is never made."""

from collections.abc import Mapping
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from alignmamba.contracts import Name, Output
from alignmamba.methods.method import MMSA, Method
from alignmamba.methods.search_space import Choice
from alignmamba.models.encoded import Encoded, Fusion, FusionConfig
from alignmamba.models.heads import Ordered
from alignmamba.nn.by_name import ModulesByName, WeightsByName
from alignmamba.nn.encoders import EncoderConfig
from alignmamba.nn.language import AnyEncoderConfig
from alignmamba.nn.recurrent import LastState
from alignmamba.nn.unimodal import PooledPerceptron


class LMFConfig(FusionConfig):
    """Everything that defines an LMF; `absent` decides nothing: a missing modality is a vector of zeros."""

    encoder: AnyEncoderConfig = EncoderConfig(kind="none", dropout=0.0)
    d_model: Annotated[int, Field(ge=1, le=8192)] = 64
    """Width of an encoded token where a modality has an encoder; unused with kind ``none``."""
    rank: Annotated[int, Field(ge=1, le=1024)] = 3
    """Number of outer products that the weights of the fusion are a sum of."""
    hidden: Annotated[int, Field(ge=1, le=8192)] = 64
    """Width of the vector of each modality but the first anchor."""
    hiddens: Mapping[Name, Annotated[int, Field(ge=1, le=8192)]] = Field(default_factory=dict)
    """The same for named modalities."""
    sequence_hidden: Annotated[int, Field(ge=1, le=8192)] = 128
    """Width of the LSTM that reads the first anchor."""
    sequence_out: Annotated[int, Field(ge=1, le=8192)] = 64
    """Width of the first anchor's vector."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Dropout on the pooled features of each modality but the first anchor."""

    @model_validator(mode="after")
    def _known_widths(self) -> Self:
        first, *others = self.anchors
        wrong = [name for name in self.hiddens if name not in others]
        if wrong:
            raise ValueError(
                f"hiddens: found {wrong[0]!r}, expected names of {others}; {first!r} is read by an LSTM"
            )
        return self


class LMF(Fusion[LMFConfig]):
    """Low-rank Multimodal Fusion.

    Kept from the source: the vectors of a tensor fusion network, a constant one beside each, a learned factor
    of each modality and rank, their product over modalities, a learned weight of each rank. With other
    modalities than three it is the product over those there are. For a missing modality the constant one
    remains.

    Not repeated of the public code: weights of the ranks that an optimiser forgets (MMSA), a dropout that is
    made and never used, and means over padding.

    The products of the ranks, (batch, rank * outputs), are the embedding.

    Source:
        Liu et al., ACL 2018, arXiv:1806.00064; widths and rates as MMSA has them for MOSI.
    """

    config_class = LMFConfig
    summary = "Tensor fusion with weights of low rank (Low-rank Multimodal Fusion)"
    tags = ("tensor-fusion",)

    def __init__(self, config: LMFConfig) -> None:
        super().__init__(config, config.d_model)
        self.absent_tokens.requires_grad_(False)
        first, *others = config.anchors
        self.sequence = LastState(self._encoder(first).width, config.sequence_hidden, config.sequence_out)
        widths = {name: config.hiddens.get(name, config.hidden) for name in others}
        self.pooled = ModulesByName(
            {
                name: PooledPerceptron(self._encoder(name).width, width, config.dropout)
                for name, width in widths.items()
            }
        )
        outputs = config.task.num_scores
        self.order = Ordered(len(config.task.classes)) if config.task.kind == "ordinal" else None
        sizes = {**widths, first: config.sequence_out}
        self.factors = WeightsByName(
            {
                name: nn.Parameter(torch.empty(config.rank, width + 1, outputs))
                for name, width in sizes.items()
            }
        )
        self.rank_weights = nn.Parameter(torch.empty(1, config.rank))
        self.bias = nn.Parameter(torch.zeros(1, outputs))
        for weights in (*self.factors.values(), self.rank_weights):
            nn.init.xavier_normal_(weights)

    @property
    def embedding_width(self) -> int:
        return self.config.rank * self.config.task.num_scores

    def _read(self, encoded: Encoded) -> Output:
        first, *others = encoded
        vectors = {name: self.pooled[name](encoded[name].x, encoded[name].mask) for name in others}
        present = encoded[first].mask.any(1, keepdim=True)
        vectors[first] = self.sequence(encoded[first].x, encoded[first].mask).masked_fill(~present, 0)
        products = self.rank_weights.new_ones(())
        for name, vector in vectors.items():
            extended = torch.cat([torch.ones_like(vector[:, :1]), vector], 1)
            products = products * torch.einsum("bw,rwo->bro", extended, self.factors[name])
        prediction: Tensor = torch.einsum("r,bro->bo", self.rank_weights[0], products) + self.bias
        if self.order is not None:
            prediction = self.order(prediction)
        elif self.config.task.kind == "regression":
            prediction = prediction.squeeze(1)
        return Output(prediction=prediction, embedding=products.flatten(1), extras=vectors)


LOW_RANK_FUSION = Method(
    network=LMF,
    search={"options.rank": Choice((2, 3, 4, 8))},
    settings={"loader": {"batch_size": 64}, "fit": {**MMSA, "learning_rate": 1e-3, "weight_decay": 5e-3}},
    source="Liu et al., ACL 2018, arXiv 1806.00064",
    differs=(
        "Feature mode. Means and last states without padding. Weights of the ranks learn, which MMSA freezes."
    ),
)
"""LMF as a method; rates are MMSA's for MOSI."""
