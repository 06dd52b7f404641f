"""TFN: the outer product of one vector per modality, each with a constant one beside it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from alignmamba.contracts import Name, Output
from alignmamba.methods.method import MMSA, Method
from alignmamba.methods.search_space import Choice
from alignmamba.models.encoded import Encoded, Fusion, FusionConfig, Head
from alignmamba.nn.by_name import ModulesByName
from alignmamba.nn.encoders import EncoderConfig
from alignmamba.nn.language import AnyEncoderConfig
from alignmamba.nn.recurrent import LastState
from alignmamba.nn.unimodal import PooledPerceptron


class TFNConfig(FusionConfig):
    """Everything that defines a TFN; `absent` decides nothing: a missing modality is a vector of zeros."""

    encoder: AnyEncoderConfig = EncoderConfig(kind="none", dropout=0.0)
    d_model: Annotated[int, Field(ge=1, le=8192)] = 64
    """Width of an encoded token where a modality has an encoder; unused with kind ``none``."""
    hidden: Annotated[int, Field(ge=1, le=1024)] = 32
    """Width of the vector of each modality but the first anchor."""
    hiddens: Mapping[Name, Annotated[int, Field(ge=1, le=1024)]] = Field(default_factory=dict)
    """The same for named modalities."""
    sequence_hidden: Annotated[int, Field(ge=1, le=1024)] = 128
    """Width of the LSTM that reads the first anchor."""
    sequence_out: Annotated[int, Field(ge=1, le=1024)] = 32
    """Width of the first anchor's vector."""
    post_hidden: Annotated[int, Field(ge=1, le=8192)] = 64
    """Width of the two layers after the fusion."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Dropout on the pooled features of each modality but the first anchor."""
    dropouts: Mapping[Name, Annotated[float, Field(ge=0, lt=1)]] = Field(default_factory=dict)
    """The same for named modalities."""
    post_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Dropout on the fusion tensor."""
    bounded: bool = True
    """Regression with a range of labels: keep predictions within it by a sigmoid."""

    @model_validator(mode="after")
    def _known_widths(self) -> Self:
        first, *others = self.anchors
        for field, given in (("hiddens", self.hiddens), ("dropouts", self.dropouts)):
            wrong = [name for name in given if name not in others]
            if wrong:
                raise ValueError(
                    f"{field}: found {wrong[0]!r}, expected names of {others}; {first!r} is read by an LSTM"
                )
        return self


class TFN(Fusion[TFNConfig]):
    """Tensor Fusion Network.

    Kept from the source: an LSTM over the first anchor (text), the mean over time of every other modality
    through a perceptron of three layers, a constant one beside each vector, their outer product, and a
    perceptron of three layers. Predictions of a regression stay within the range of labels where that is
    known. With other modalities than three it is the outer product of those there are. A missing modality is
    a vector of zeros: what is left is the product of the others.

    Not repeated of the public code: the range -3 to 3 for every corpus, the mean over padding, and the last
    state of an LSTM that has read padding.

    The fusion tensor, flattened, with the first anchor as its last axis, is the embedding.

    Source:
        Zadeh et al., EMNLP 2017, arXiv:1707.07250; widths and rates as MMSA has them for MOSI.
    """

    config_class = TFNConfig
    summary = "Outer product of one vector per modality (Tensor Fusion Network)"
    tags = ("tensor-fusion",)

    def __init__(self, config: TFNConfig) -> None:
        super().__init__(config, config.d_model)
        self.absent_tokens.requires_grad_(False)
        first, *others = config.anchors
        self.sequence = LastState(self._encoder(first).width, config.sequence_hidden, config.sequence_out)
        widths = {name: config.hiddens.get(name, config.hidden) for name in others}
        self.pooled = ModulesByName(
            {
                name: PooledPerceptron(
                    self._encoder(name).width, width, config.dropouts.get(name, config.dropout)
                )
                for name, width in widths.items()
            }
        )
        self.dropout = nn.Dropout(config.post_dropout)
        size = config.sequence_out + 1
        for width in widths.values():
            size *= width + 1
        self.post = nn.ModuleList(
            nn.Linear(width, config.post_hidden) for width in (size, config.post_hidden)
        )
        self.head = Head(config.post_hidden, config.task, 0.0)

    @property
    def embedding_width(self) -> int:
        first = self.post[0]
        assert isinstance(first, nn.Linear)
        return first.in_features

    def _read(self, encoded: Encoded) -> Output:
        vectors = self._vectors(encoded)
        tensor = outer_product(list(vectors.values()))
        hidden: Tensor = self.dropout(tensor)
        for linear in self.post:
            hidden = linear(hidden).relu()
        return Output(prediction=self.head(hidden), embedding=tensor, extras=vectors)

    def _vectors(self, encoded: Encoded) -> dict[str, Tensor]:
        """(batch, width) of each modality, the first anchor last; zero where it is missing."""
        first, *others = encoded
        vectors = {name: self.pooled[name](encoded[name].x, encoded[name].mask) for name in others}
        present = encoded[first].mask.any(1, keepdim=True)
        vectors[first] = self.sequence(encoded[first].x, encoded[first].mask).masked_fill(~present, 0)
        return vectors

    def _in_label_units(self, output: Output) -> Output:
        limits = self.config.task.label_range
        if self.target_scaling is None or limits is None or not self.config.bounded:
            return super()._in_label_units(output)
        low, high = limits
        return replace(output, prediction=low + (high - low) * output.prediction.double().sigmoid())


def outer_product(vectors: list[Tensor]) -> Tensor:
    """(batch, width) each to (batch, product of width + 1): the outer product, a one before each vector."""
    tensor = vectors[0].new_ones(vectors[0].shape[0], 1)
    for vector in vectors:
        extended = torch.cat([torch.ones_like(vector[:, :1]), vector], 1)
        tensor = (tensor.unsqueeze(2) * extended.unsqueeze(1)).flatten(1)
    return tensor


TENSOR_FUSION = Method(
    network=TFN,
    search={"options.post_hidden": Choice((32, 64, 128))},
    settings={"loader": {"batch_size": 32}, "fit": {**MMSA, "learning_rate": 1e-3, "weight_decay": 0.0}},
    source="Zadeh et al., EMNLP 2017, arXiv 1707.07250",
    differs="Feature mode. Means and last states without padding; the range of labels is that of the corpus. "
    "Widths are 32 for each modality but the first, MMSA's for MOSI are 32 (audio) and 128 (video).",
)
"""TFN as a method; rates are MMSA's for MOSI."""
