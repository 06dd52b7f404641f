"""FDMER: common and private parts by one discriminator, which the common ones deceive."""

from collections.abc import Mapping
from itertools import combinations
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from alignmamba.contracts import Batch, Output, Task
from alignmamba.methods.method import Method
from alignmamba.methods.search_space import LOSS_WEIGHT
from alignmamba.models.encoded import Encoded, Head, presence
from alignmamba.models.vectors import AnchorVectorConfig, VectorFusion
from alignmamba.nn.factors import Factors
from alignmamba.nn.gradients import reversed_gradient
from alignmamba.nn.recurrent import ReadTwice
from alignmamba.ops import subspace_overlap
from alignmamba.training.objective import Objective
from alignmamba.training.pairs import mean_present, named, over_pairs, total, within


class FDMERConfig(AnchorVectorConfig):
    """Everything that defines FDMER."""

    method = "FDMER"
    least_modalities = 2
    d_model: Annotated[int, Field(ge=1)] = 128
    """Width of a part; a multiple of `heads`."""
    hidden: Annotated[int, Field(ge=1)] = 64
    """Width of the recurrent layers, and of the discriminator's inner one."""
    anchor: Literal["recurrent", "pool"] = "recurrent"
    heads: Annotated[int, Field(ge=1)] = 2
    """Heads of the attention between parts."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Before the head."""
    consistency: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the distance between common parts."""
    disparity: Annotated[float, Field(ge=0)] = 0.3
    """Weight of what parts overlap."""
    adversary: Annotated[float, Field(ge=0)] = 0.1
    """Weight of how well the discriminator names the modality of a part."""
    reversal: Annotated[float, Field(ge=0)] = 1.0
    """Factor on its gradient, which is reversed in the common parts."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.d_model % self.heads:
            raise ValueError(f"d_model: expected a multiple of heads ({self.heads}), found {self.d_model}")
        return self


class FDMER(VectorFusion[FDMERConfig]):
    """Common and private part of every modality; attention among them, and a sum by learned weights.

    Yang, Huang, Kuang, Du and Zhang, "Disentangled Representation Learning for Multimodal Emotion
    Recognition", ACM MM 2022, doi 10.1145/3503161.3547754. *Reconstructed* from the abstract: common and
    private encoders, one discriminator for both, losses of consistency and disparity, a cross-modal attention
    with adaptive weights. Neither full text nor code could be read. Chosen here: what reads a modality, which
    is MISA's, the form of each loss, and all weights. Parts of a missing modality are hidden and weigh
    nothing.
    """

    config_class = FDMERConfig
    summary = "Common and private parts by one adversarial discriminator, fused by adaptive attention"
    tags = ("disentanglement", "adversarial")

    def __init__(self, config: FDMERConfig) -> None:
        super().__init__(config, config.d_model)
        self.factors = Factors(self.vector_widths, config.d_model)
        self.attention = nn.MultiheadAttention(config.d_model, config.heads, batch_first=True)
        self.norm = nn.LayerNorm(config.d_model)
        self.weigh = nn.Linear(config.d_model, 1)
        self.head = Head(config.d_model, config.task, config.dropout)

    def _reader(self, width: int) -> ReadTwice:
        return ReadTwice(width, self.config.hidden)

    def _read(self, encoded: Encoded) -> Output:
        parts = self.factors(self._vectors(encoded))
        present = presence(encoded)
        joined, missing = torch.cat([parts.shared, parts.own], 1), ~present.repeat(1, 2)
        attended, _ = self.attention(joined, joined, joined, key_padding_mask=missing, need_weights=False)
        fused = self.norm(joined + attended)
        weights = self.weigh(fused).squeeze(2).masked_fill(missing, -torch.inf).softmax(1)
        embedding = (weights.unsqueeze(2) * fused).sum(1)
        extras = {"common": parts.shared, "private": parts.own, "weights": weights, "present": present}
        return Output(prediction=self.head(embedding), embedding=embedding, extras=extras)


class AdversarialParts(Objective):
    """The task; common parts that agree and deceive a discriminator, private ones that differ and help."""

    model: FDMER

    def __init__(self, model: FDMER, task: Task) -> None:
        super().__init__(model, task)
        config = model.config
        self.discriminator = nn.Sequential(
            nn.Linear(config.d_model, config.hidden), nn.ReLU(), nn.Linear(config.hidden, len(config.anchors))
        )

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        config = self.model.config
        common, private, present = (output.extras[name] for name in ("common", "private", "present"))
        overlaps = within(subspace_overlap, common, private, present) + over_pairs(
            subspace_overlap, private, present
        )
        deceived = named(self.discriminator(reversed_gradient(common, config.reversal)), present)
        return {
            **self.supervised(batch, output),
            "consistency": config.consistency * _distance(common, present),
            "disparity": config.disparity * total(overlaps, common),
            "adversary": config.adversary * (deceived + named(self.discriminator(private), present)),
        }


def _distance(common: Tensor, present: Tensor) -> Tensor:
    """(batch,): mean square between the common parts of every two modalities that a sample has."""
    pairs = list(combinations(range(common.shape[1]), 2))
    if not pairs:
        return common.new_zeros(len(common))
    apart = torch.stack([(common[:, m] - common[:, n]).square().mean(1) for m, n in pairs], 1)
    return mean_present(apart, torch.stack([present[:, m] & present[:, n] for m, n in pairs], 1))


ADVERSARIAL_PARTS = Method(
    network=FDMER,
    objective=AdversarialParts,
    settings={
        "loader": {"batch_size": 64},
        "fit": {
            "learning_rate": 1e-4,
            "weight_decay": 0.0,
            "warmup_fraction": 0.0,
            "gradient_clip": 1.0,
            "regression_loss": "mse",
        },
    },
    search={"options.disparity": LOSS_WEIGHT, "options.adversary": LOSS_WEIGHT},
    source="Yang et al., ACM MM 2022, doi 10.1145/3503161.3547754",
    needs="two modalities or more, to have something in common",
    differs="Feature mode: text features in place of a fine-tuned BERT.",
    reconstructed=(
        "From the abstract; neither full text nor code could be read. What reads a modality, the form of each"
        " loss, all weights and the settings are chosen here, after MISA."
    ),
)
