"""ULGM: labels of modalities from where their features lie in a space shared with their fusion."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from alignmamba.contracts import Output, Task
from alignmamba.methods.method import MMSA, Method
from alignmamba.methods.search_space import Real
from alignmamba.models.encoded import Encoded, Fusion, FusionConfig, Head, presence
from alignmamba.nn.alignment import Tokens
from alignmamba.nn.by_name import ModulesByName
from alignmamba.ops.sequence import masked_mean
from alignmamba.training.objective import Minimise, Stage
from alignmamba.training.refinement import FUSED, LARGEST, RefinedLabels, check_signed, of


class ULGMConfig(FusionConfig):
    """Everything that defines ULGM."""

    d_model: Annotated[int, Field(ge=1)] = 32
    """Width of a token."""
    hidden: Annotated[int, Field(ge=1)] = 32
    """Width of the space that all modalities share."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Within the map into this space."""
    encoder_rate: Annotated[float, Field(gt=0)] = 0.5
    """Factor on the learning rate of encoders."""
    neutral: float = 0.0
    """Label that is neither positive nor negative."""

    @model_validator(mode="after")
    def _signed(self) -> Self:
        check_signed(self.task, self.neutral, "ULGM")
        return self


class Recalibration(nn.Module):
    """Squeeze and excitation over modalities: their means say how much each channel counts, from 0 to 2."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        total = sum(widths.values())
        self.squeeze = nn.Linear(total, max(1, total // 4))
        self.excite = ModulesByName(
            {name: nn.Linear(self.squeeze.out_features, width) for name, width in widths.items()}
        )

    def forward(self, streams: Mapping[str, Tokens]) -> dict[str, Tensor]:
        """Tokens of each modality, (batch, time, width), with their channels scaled."""
        means = torch.cat([masked_mean(tokens.x, tokens.mask) for tokens in streams.values()], 1)
        squeezed = self.squeeze(means).relu()
        return {
            name: tokens.x * (2 * self.excite[name](squeezed).sigmoid()).unsqueeze(1)
            for name, tokens in streams.items()
        }


class CommonSpace(nn.Module):
    """Two layers into the space that everything shares, and a head on it."""

    def __init__(self, width: int, hidden: int, task: Task, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Linear(hidden, hidden)
        self.head = Head(hidden, task, dropout=0.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, width) to the feature (batch, hidden) and the standardised label (batch,)."""
        feature = self.second(self.dropout(self.first(x).relu()))
        return feature, self.head(feature)


class ULGM(Fusion[ULGMConfig]):
    """Encoders, recalibration of their channels across modalities, and a space in which the fusion and each
    modality are comparable.

    Hwang and Kim, "Self-supervised unimodal label generation strategy using recalibrated modality
    representations for multimodal sentiment analysis", Findings of EACL 2023, and the authors' code, where it
    is called SUGRM. Kept: recalibration, common space, label rule, weights. Simplified: our encoders and
    pooling stand for BERT and the sparse phased transformer. Not repeated: extreme samples that count several
    times, the last step of padded sequences. Where no train sample has an extreme label, the tenth with the
    largest or smallest ones stands for it. A missing modality is read as its learned token; its head and
    label then rest.
    """

    config_class = ULGMConfig
    summary = "Recalibrated modalities in one space, where distances make labels for each of them"

    def __init__(self, config: ULGMConfig) -> None:
        super().__init__(config, config.d_model)
        self.vector_widths = {name: self._encoder(name).width for name in config.anchors}
        self.recalibrate = Recalibration(self.vector_widths)
        self.mix = nn.Linear(sum(self.vector_widths.values()), config.d_model)
        self.fusion = CommonSpace(config.d_model, config.hidden, config.task, config.dropout)

    @property
    def embedding_width(self) -> int:
        return self.config.hidden

    def _read(self, encoded: Encoded) -> Output:
        streams = self._with_absent(encoded)
        scaled = self.recalibrate(streams)
        vectors = {name: self._pooled(scaled[name], tokens.mask) for name, tokens in streams.items()}
        joined = self.mix(torch.cat(list(vectors.values()), 1))
        feature, prediction = self.fusion(joined)
        extras = {FUSED: feature, "present": presence(encoded)}
        extras |= {of(name): vector for name, vector in vectors.items()}
        return Output(prediction=prediction, embedding=feature, extras=extras)


class ULGMLabels(RefinedLabels):
    """New labels from how far a feature lies from the fused one, and towards which side."""

    model: ULGM

    def __init__(self, model: ULGM, task: Task) -> None:
        config = model.config
        heads = {
            name: CommonSpace(width, config.hidden, task, config.dropout)
            for name, width in model.vector_widths.items()
        }
        super().__init__(
            model, task, heads=ModulesByName(heads), remembered={FUSED: config.hidden}, neutral=config.neutral
        )

    @property
    def stages(self) -> Sequence[Stage]:
        learned = any(True for _ in self.model.encoders.parameters())  # those of kind none have no weight
        rates = {"": 1.0, **({"model.encoders.": self.model.config.encoder_rate} if learned else {})}
        return (Stage(optimisers=(Minimise(rates=rates),)),)

    def _new_labels(
        self, name: str, fused: Tensor, own: Tensor, truth: Tensor, labels: Tensor
    ) -> Tensor | None:
        del name, labels  # all modalities are compared with the centres of the fusion
        centres, span = self.centres(FUSED, self.truth), self._span()
        if centres is None or span is None:
            return None
        positive, negative = centres
        nearer = (_ratio(own, positive, negative) - _ratio(fused, positive, negative)).sign()
        apart: Tensor = (fused - own).norm(dim=1)
        return truth - nearer * 2 * LARGEST * (apart / span.clamp(min=_LEAST)).clamp(max=1.0)

    def _span(self) -> Tensor | None:
        """(): distance between the mean fused features of the most positive and most negative samples."""
        known, vectors = self.memory.known(FUSED), self.memory.vectors(FUSED)
        means = []
        for towards in (self.truth, -self.truth):
            extreme = towards >= LARGEST - 1e-4
            if not bool(extreme.any()):
                extreme = towards >= towards.quantile(0.9)
            if not bool((known & extreme).any()):
                return None
            means.append(vectors[known & extreme].mean(0))
        distance: Tensor = (means[0] - means[1]).norm()
        return distance


_LEAST = 1e-8


def _ratio(features: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """(batch,): distance to the positive centre in distances to the negative one."""
    ratio: Tensor = (features - positive).norm(dim=1) / (features - negative).norm(dim=1).clamp(min=_LEAST)
    return ratio


UNIMODAL_LABELS = Method(
    network=ULGM,
    search={"options.encoder_rate": Real(low=0.1, high=1.0, log=True)},
    objective=ULGMLabels,
    settings={
        "loader": {"batch_size": 32},
        "fit": {**MMSA, "learning_rate": 1e-3, "weight_decay": 1e-3, "accumulate": 4},
    },
    source="Hwang and Kim, Findings of EACL 2023, pages 35-46",
    needs="a number with a neutral value, such as a sentiment",
    differs=(
        "Feature mode, and our encoders in place of BERT and the sparse phased transformer, which are not its"
        " contribution. Settings are those of its MOSEI runs; labels are refined after each step."
    ),
)
