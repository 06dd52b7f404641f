"""Self-MM: each modality learns a label of its own, made from where its features lie among others."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from alignmamba.contracts import Output, Task
from alignmamba.methods.method import MMSA, Method
from alignmamba.methods.search_space import Choice
from alignmamba.models.encoded import Encoded, Head, presence
from alignmamba.models.vectors import AnchorVectorConfig, VectorFusion
from alignmamba.nn.by_name import ModulesByName
from alignmamba.nn.recurrent import LastState
from alignmamba.training.objective import Minimise, Stage
from alignmamba.training.refinement import FUSED, RefinedLabels, check_signed, of


class SelfMMConfig(AnchorVectorConfig):
    """Everything that defines Self-MM."""

    d_model: Annotated[int, Field(ge=1)] = 32
    """Width of the vector that a modality becomes."""
    hidden: Annotated[int, Field(ge=1)] = 32
    """Width of the LSTM that reads a modality, and of its head."""
    fused: Annotated[int, Field(ge=1)] = 128
    """Width of the layers on the modalities together."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Before each head, and behind each LSTM."""
    anchor: Literal["lstm", "pool"] = "lstm"
    stream_rate: Annotated[float, Field(gt=0)] = 5.0
    """Factor on the learning rate of what reads the modalities."""
    neutral: float = 0.0
    """Label that is neither positive nor negative."""

    @model_validator(mode="after")
    def _signed(self) -> Self:
        check_signed(self.task, self.neutral, "Self-MM")
        return self


class Tower(nn.Module):
    """Dropout, two layers, the first of which gives the feature to be compared, and a head."""

    def __init__(self, width: int, hidden: int, task: Task, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.first = nn.Linear(width, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.head = Head(hidden, task, dropout=0.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, width) to the feature (batch, hidden) and the standardised label (batch,)."""
        feature = self.first(self.dropout(x)).relu()
        return feature, self.head(self.second(feature).relu())


class SelfMM(VectorFusion[SelfMMConfig]):
    """Last states of an LSTM per modality, concatenated, and two layers.

    Yu, Xu, Yuan and Wu, "Learning Modality-Specific Representations with Self-Supervised Multi-Task
    Learning", AAAI 2021, arXiv 2102.04830, and the code that its authors and MMSA publish. Kept: network,
    label rule, weights, rates per part. Centres are as in the code, without the paper's division by the root
    of the width, which cancels. A missing modality is read as its learned token; its head and its label then
    rest.
    """

    config_class = SelfMMConfig
    summary = "LSTM per modality, whose own labels are made from distances to class centres"

    def __init__(self, config: SelfMMConfig) -> None:
        super().__init__(config, config.d_model)
        self.fusion = Tower(sum(self.vector_widths.values()), config.fused, config.task, config.dropout)

    @property
    def embedding_width(self) -> int:
        return sum(self.vector_widths.values())

    def _reader(self, width: int) -> LastState:
        return LastState(width, self.config.hidden, self.config.d_model, dropout=self.config.dropout)

    def _read(self, encoded: Encoded) -> Output:
        vectors = self._vectors(encoded)
        joined = torch.cat(list(vectors.values()), 1)
        feature, prediction = self.fusion(joined)
        extras = {FUSED: feature, "present": presence(encoded)}
        extras |= {of(name): vector for name, vector in vectors.items()}
        return Output(prediction=prediction, embedding=joined, extras=extras)


class SelfMMLabels(RefinedLabels):
    """New labels from how much nearer to the centre of its sign a feature is than the fused one."""

    model: SelfMM

    def __init__(self, model: SelfMM, task: Task) -> None:
        config = model.config
        heads = {
            name: Tower(width, config.hidden, task, config.dropout)
            for name, width in model.vector_widths.items()
        }
        remembered = {FUSED: config.fused, **{of(name): config.hidden for name in heads}}
        super().__init__(
            model, task, heads=ModulesByName(heads), remembered=remembered, neutral=config.neutral
        )

    @property
    def stages(self) -> Sequence[Stage]:
        rates = {"": 1.0}
        if len(self.model.streams):
            rates["model.streams."] = self.model.config.stream_rate
        return (Stage(optimisers=(Minimise(rates=rates),)),)

    def _new_labels(
        self, name: str, fused: Tensor, own: Tensor, truth: Tensor, labels: Tensor
    ) -> Tensor | None:
        of_fused, of_own = self.centres(FUSED, self.truth), self.centres(of(name), labels)
        if of_fused is None or of_own is None:
            return None
        whole, part = _leaning(fused, *of_fused), _leaning(own, *of_own)
        return 0.5 * truth * part / (whole + _LEAST) + 0.5 * (truth + part - whole)


_LEAST = 1e-8


def _leaning(features: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """(batch,): by how much nearer features lie to the positive centre, in distances to it."""
    near: Tensor = (features - positive).norm(dim=1)
    far: Tensor = (features - negative).norm(dim=1)
    return (far - near) / (near + _LEAST)


SELF_MM = Method(
    network=SelfMM,
    search={"options.fused": Choice((32, 64, 128))},
    objective=SelfMMLabels,
    settings={
        "loader": {"batch_size": 16},
        "fit": {**MMSA, "learning_rate": 1e-3, "weight_decay": 1e-3, "accumulate": 4},
    },
    source="Yu et al., AAAI 2021, arXiv 2102.04830",
    needs="a number with a neutral value, such as a sentiment",
    differs=(
        "Feature mode: text features in place of a fine-tuned BERT. One size of LSTM and one rate for all"
        " modalities; labels are refined after each step, not after each of its micro batches."
    ),
)
