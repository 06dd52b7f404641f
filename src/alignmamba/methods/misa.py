"""MISA: each modality is split into a part that all share and one of its own, by losses."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from alignmamba.contracts import Batch, Output, Task
from alignmamba.methods.method import Method
from alignmamba.methods.search_space import LOSS_WEIGHT
from alignmamba.models.encoded import Encoded, Head, presence
from alignmamba.models.vectors import AnchorVectorConfig, VectorFusion
from alignmamba.nn.by_name import ModulesByName
from alignmamba.nn.factors import Factors
from alignmamba.nn.gradients import reversed_gradient
from alignmamba.nn.recurrent import Cell, ReadTwice
from alignmamba.ops import central_moment_discrepancy, subspace_overlap
from alignmamba.training.objective import Objective
from alignmamba.training.pairs import mean_present, named, over_pairs, total, within


class MISAConfig(AnchorVectorConfig):
    """Everything that defines MISA."""

    d_model: Annotated[int, Field(ge=1)] = 128
    """Width of a part; a multiple of `heads`."""
    hidden: Annotated[int, Field(ge=1)] | None = None
    """Width of the recurrent layers; none: that of the features, as published."""
    cell: Cell = "lstm"
    """Kind of recurrence."""
    anchor: Literal["recurrent", "pool"] = "recurrent"
    heads: Annotated[int, Field(ge=1)] = 2
    """Heads of the Transformer layer over the parts."""
    feedforward: Annotated[int, Field(ge=1)] = 2048
    """Inner width of that layer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Before the head, and in the discriminator."""
    difference: Annotated[float, Field(ge=0)] = 0.3
    """Weight of what parts overlap."""
    similarity: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the difference between the shared parts of two modalities."""
    reconstruction: Annotated[float, Field(ge=0)] = 1.0
    """Weight of what the two parts of a modality fail to say of it."""
    alike: Literal["moments", "adversary"] = "moments"
    """Means to make shared parts alike: central moments, or a discriminator whose gradient is reversed."""
    reversal: Annotated[float, Field(ge=0)] = 1.0
    """Factor on the discriminator's gradient."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.d_model % self.heads:
            raise ValueError(f"d_model: expected a multiple of heads ({self.heads}), found {self.d_model}")
        return self


class MISA(VectorFusion[MISAConfig]):
    """Own and shared part of every modality, read by one Transformer layer, concatenated, and two layers.

    Hazarika, Zimmermann and Poria, "MISA: Modality-Invariant and -Specific Representations for Multimodal
    Sentiment Analysis", ACM MM 2020, arXiv 2005.03545, and the code of its authors and of MMSA. Kept:
    network, losses and weights. The discriminator of
    parts that is in no loss is not made. Parts of a missing modality are hidden from the others.
    """

    config_class = MISAConfig
    summary = "Shared and own part of each modality, kept apart by losses, read by one Transformer layer"
    tags = ("disentanglement",)

    def __init__(self, config: MISAConfig) -> None:
        super().__init__(config, config.d_model)
        width, whole = config.d_model, len(config.anchors) * config.d_model
        self.factors = Factors(self.vector_widths, width)
        self.rebuild = ModulesByName({name: nn.Linear(width, width) for name in config.anchors})
        self.fusion = nn.TransformerEncoderLayer(width, config.heads, config.feedforward, batch_first=True)
        self.joined = nn.Linear(2 * whole, whole)
        self.dropout = nn.Dropout(config.dropout)
        self.head = Head(whole, config.task, dropout=0.0)

    @property
    def embedding_width(self) -> int:
        return self.joined.in_features

    def _reader(self, width: int) -> ReadTwice:
        return ReadTwice(width, self.config.hidden or width, cell=self.config.cell)

    def _read(self, encoded: Encoded) -> Output:
        parts = self.factors(self._vectors(encoded))
        present = presence(encoded)
        both = parts.own + parts.shared
        rebuilt = torch.stack([part(both[:, row]) for row, part in enumerate(self.rebuild.values())], 1)
        joined, missing = torch.cat([parts.own, parts.shared], 1), ~present.repeat(1, 2)
        fused = self.fusion(joined, src_key_padding_mask=missing).flatten(1)
        embedding = self.dropout(self.joined(fused)).relu()
        extras = {"own": parts.own, "shared": parts.shared, "projected": parts.projected}
        extras |= {"rebuilt": rebuilt, "present": present}
        return Output(prediction=self.head(embedding), embedding=fused, extras=extras)


class Disentangled(Objective):
    """The task; parts that differ, shared parts that are alike, and a modality that its parts rebuild."""

    model: MISA

    def __init__(self, model: MISA, task: Task) -> None:
        super().__init__(model, task)
        config = model.config
        self.discriminator = None
        if config.alike == "adversary":
            first = nn.Linear(config.d_model, config.d_model)
            last = nn.Linear(config.d_model, len(config.anchors))
            self.discriminator = nn.Sequential(first, nn.ReLU(), nn.Dropout(config.dropout), last)

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        config = self.model.config
        own, shared, present = (output.extras[name] for name in ("own", "shared", "present"))
        apart = total(
            within(subspace_overlap, own, shared, present) + over_pairs(subspace_overlap, own, present), own
        )
        error = (output.extras["rebuilt"] - output.extras["projected"]).square().mean(2)
        return {
            **self.supervised(batch, output),
            "difference": config.difference * apart,
            "similarity": config.similarity * self._unlike(shared, present),
            "reconstruction": config.reconstruction * mean_present(error, present),
        }

    def _unlike(self, shared: Tensor, present: Tensor) -> Tensor:
        """Difference of shared parts: () by moments, (batch,) by how well the discriminator names them."""
        if self.discriminator is None:
            return total(over_pairs(central_moment_discrepancy, shared, present), shared, mean=True)
        said = self.discriminator(reversed_gradient(shared, self.model.config.reversal))
        return named(said, present)


INVARIANT_AND_SPECIFIC = Method(
    network=MISA,
    objective=Disentangled,
    settings={
        "loader": {"batch_size": 16},
        "fit": {
            "learning_rate": 1e-4,
            "weight_decay": 0.0,
            "warmup_fraction": 0.0,
            "gradient_clip": 1.0,
            "epochs": 500,
            "patience": 7,
            "regression_loss": "mse",
        },
    },
    search={"options.difference": LOSS_WEIGHT, "options.similarity": LOSS_WEIGHT},
    source="Hazarika et al., ACM MM 2020, arXiv 2005.03545",
    differs=(
        "Feature mode: text features in place of a fine-tuned BERT. Gradients are clipped by their norm, not"
        " by value. Each modality is read at its own length."
    ),
)
