"""HyCon: contrasts between samples in a modality, between samples across modalities, and within a sample."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from alignmamba.contracts import Batch, Output
from alignmamba.methods.method import Method
from alignmamba.methods.search_space import LOSS_WEIGHT
from alignmamba.models.encoded import Encoded, Head, presence
from alignmamba.models.vectors import AnchorVectorConfig, VectorFusion
from alignmamba.nn.by_name import ModulesByName
from alignmamba.nn.recurrent import LastState
from alignmamba.training.objective import Objective


class HyConConfig(AnchorVectorConfig):
    """Everything that defines HyCon."""

    method = "HyCon"
    one_class = "contrasts samples of one class with others"

    d_model: Annotated[int, Field(ge=1)] = 64
    """Width of the vector that a modality becomes."""
    hidden: Annotated[int, Field(ge=1)] = 64
    """Width of the LSTM that reads a modality, and of the layer before the head."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Behind each LSTM, and before the head."""
    anchor: Literal["lstm", "pool"] = "lstm"
    within: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the contrast between samples in one modality."""
    across: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the contrast between samples in two modalities."""
    same: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the distance between the modalities of one sample."""
    margin: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Similarity to which positives of two modalities are drawn; those of one modality are drawn to 1."""
    neutral: float = 0.0
    """Labels from here on are positive, those below negative; not used with classes."""

    @model_validator(mode="after")
    def _two_signs(self) -> Self:
        bounds = self.task.label_range
        if (
            self.task.kind == "regression"
            and bounds is not None
            and not bounds[0] < self.neutral <= bounds[1]
        ):
            raise ValueError(
                f"neutral: found {self.neutral}, expected a number within {bounds}, with labels on both sides"
            )
        return self


class HyCon(VectorFusion[HyConConfig]):
    """Unit vectors of the modalities, drawn together by class while training; their sum, and two layers.

    Mai, Zeng, Zheng and Hu, "Hybrid Contrastive Learning of Tri-Modal Representation for Multimodal Sentiment
    Analysis", TAFFC 2022, arXiv 2109.01797; no code was released. *Reconstructed*: the losses follow a third
    party's transcript of the preprint's equations, a ratio of sums without logarithm or temperature and a
    distance to a margin. Chosen here: (1 + cos) / 2 as similarity, LSTMs, sizes, weights of one. The choice
    of pairs in the journal's version could not be read and is not made. A missing modality adds nothing.
    """

    config_class = HyConConfig
    summary = "Sum of unit vectors per modality, contrasted by class within and across modalities"
    tags = ("contrastive",)

    def __init__(self, config: HyConConfig) -> None:
        super().__init__(config, config.d_model)
        pooled = {name: width for name, width in self.vector_widths.items() if name not in config.read}
        self.project = ModulesByName(
            {name: nn.Linear(width, config.d_model) for name, width in pooled.items()}
        )
        self.mix = nn.Linear(config.d_model, config.hidden)
        self.head = Head(config.hidden, config.task, config.dropout)

    def _reader(self, width: int) -> LastState:
        return LastState(width, self.config.hidden, self.config.d_model, dropout=self.config.dropout)

    def _read(self, encoded: Encoded) -> Output:
        vectors = self._vectors(encoded)
        vectors |= {name: project(vectors[name]) for name, project in self.project.items()}
        present = presence(encoded)
        unit = functional.normalize(torch.stack(list(vectors.values()), 1), dim=2)
        embedding = unit.masked_fill(~present.unsqueeze(2), 0).sum(1)
        prediction = self.head(self.mix(embedding).relu())
        return Output(prediction=prediction, embedding=embedding, extras={"unit": unit, "present": present})


class HybridContrast(Objective):
    """The task, and three contrasts of unit vectors: two over the batch, one in each sample."""

    model: HyCon

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        assert batch.targets is not None
        config = self.model.config
        regression = self.task.kind == "regression"
        known = ~batch.targets.isnan() if regression else batch.targets >= 0
        kinds = batch.targets >= config.neutral if regression else batch.targets
        unit, present = output.extras["unit"], output.extras["present"]
        likeness = _likeness(unit)
        samples, modalities = present.shape
        # (anchor sample, anchor modality, other sample, other modality)
        there = present[:, :, None, None] & present[None, None]
        others = ~torch.eye(samples, dtype=torch.bool, device=unit.device)[:, None, :, None] & there
        alone = torch.eye(modalities, dtype=torch.bool, device=unit.device)[None, :, None, :]
        positive = ((kinds[:, None] == kinds[None]) & known[:, None] & known)[:, None, :, None]
        pairs = there & ~others & ~alone
        apart = ((likeness - config.margin).square() * pairs).sum((1, 2, 3)) / pairs.sum((1, 2, 3)).clamp(
            min=1
        )
        return {
            **self.supervised(batch, output),
            "within": config.within * _contrast(likeness, positive, others & alone, 1.0),
            "across": config.across * _contrast(likeness, positive, others & ~alone, config.margin),
            "same": config.same * apart,
        }


def _likeness(unit: Tensor) -> Tensor:
    """(batch, modality, width) to similarities from 0 to 1, (batch, modality, batch, modality)."""
    flat = unit.flatten(0, 1)
    shape = unit.shape[:2]
    return ((1 + flat @ flat.T) / 2).clamp(min=0).view(*shape, *shape)


def _contrast(likeness: Tensor, positive: Tensor, compared: Tensor, margin: float) -> Tensor:
    """Mean over anchors that have a positive of -sum over positives / sum over all + mean over positives of
    (s - margin)^2, ().
    """
    positive = positive & compared
    count = positive.sum((2, 3))
    among = (likeness * compared).sum((2, 3))
    share = (likeness * positive).sum((2, 3)) / among.clamp(min=torch.finfo(among.dtype).tiny)
    refinement = ((likeness - margin).square() * positive).sum((2, 3)) / count.clamp(min=1)
    anchors = count > 0
    return ((refinement - share) * anchors).sum() / anchors.sum().clamp(min=1)


HYBRID_CONTRAST = Method(
    network=HyCon,
    objective=HybridContrast,
    settings={"loader": {"batch_size": 32}, "fit": {"learning_rate": 1e-3}},
    search={"options.within": LOSS_WEIGHT, "options.across": LOSS_WEIGHT},
    source="Mai et al., IEEE TAFFC 2022, arXiv 2109.01797",
    needs="classes, or a number with a neutral value",
    differs=(
        "Feature mode: text features in place of a fine-tuned BERT. All pairs count alike; the journal's"
        " choice of pairs is not made."
    ),
    reconstructed=(
        "No code was released; the losses follow a transcript of the preprint. Similarity, encoders, sizes"
        " and weights of the terms are chosen here."
    ),
)
