"""MTMD: anchor and fusion teach the other modalities; slow copies of encoders join the fusion."""

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from alignmamba.contracts import Batch, Output, Task
from alignmamba.methods.method import Method
from alignmamba.methods.search_space import LOSS_WEIGHT
from alignmamba.models.encoded import Encoded, Head, presence
from alignmamba.models.vectors import VectorConfig, VectorFusion
from alignmamba.nn.by_name import ModulesByName
from alignmamba.nn.recurrent import LastState
from alignmamba.training.objective import Objective


class MTMDConfig(VectorConfig):
    """Everything that defines MTMD as it is reconstructed here."""

    method = "MTMD"
    one_class = "teaches one class among others"
    d_model: Annotated[int, Field(ge=1)] = 32
    """Width of the vector that a modality becomes."""
    hidden: Annotated[int, Field(ge=1)] = 32
    """Width of the LSTM that reads a modality, and of its subtask."""
    fused: Annotated[int, Field(ge=1)] = 128
    """Width of the layers on the modalities together."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Before each subtask, and behind each LSTM."""
    momentum: Annotated[float, Field(ge=0, le=1)] = 0.995
    """Share of a slow copy that stays in a step: 1 keeps it as it is, 0 makes it follow at once."""
    bins: Annotated[int, Field(ge=2)] = 7
    """Classes into which a number is put for the classification beside the regression, evenly over the range
    of labels."""
    classification: Annotated[float, Field(ge=0)] = 0.1
    """Weight of that classification."""
    distillation: Annotated[float, Field(ge=0)] = 0.1
    """Weight of what teachers ask of students."""
    temperature: Annotated[float, Field(gt=0)] = 2.0
    """Temperature, the divisor of class scores before students are compared with teachers."""


class Subtask(nn.Module):
    """Dropout and two layers."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.first = nn.Linear(width, hidden)
        self.second = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width) to (batch, hidden)."""
        feature: Tensor = self.second(self.first(self.dropout(x)).relu()).relu()
        return feature


class MTMD(VectorFusion[MTMDConfig]):
    """An LSTM per modality and its slow copy, whose share in the fusion is learned per modality.

    Lin and Hu, "Multi-task momentum distillation for multimodal sentiment analysis", IEEE Transactions on
    Affective Computing 15(2), 2024. Reconstructed from its abstract: that modalities are subtasks, that text
    and fusion teach the others in a regression and a classification, momentum models of single modalities,
    and learned momentum factors are the paper's. Self-MM's network is the start. The first modality of
    `anchors` stands for text. A missing modality is read as its learned token, teaches and learns nothing.
    """

    config_class = MTMDConfig
    summary = "LSTM per modality with slow copies; anchor and fusion teach the other modalities"

    def __init__(self, config: MTMDConfig) -> None:
        super().__init__(config, config.d_model)
        widths = {name: self._encoder(name).width for name in config.anchors}
        self.slow = ModulesByName({name: self._reader(width) for name, width in widths.items()})
        self.slow.load_state_dict(self.streams.state_dict())
        for part in self.slow.requires_grad_(False).modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        self.shares = nn.Parameter(torch.zeros(len(config.anchors)))
        self.fusion = Subtask(len(config.anchors) * config.d_model, config.fused, config.dropout)
        self.head = Head(config.fused, config.task, dropout=0.0)

    def _read(self, encoded: Encoded) -> Output:
        streams = self._with_absent(encoded)
        vectors = self._vectors(encoded)
        with torch.no_grad():
            slow = torch.stack([self.slow[name](s.x, s.mask) for name, s in streams.items()], 1)
        joined = torch.stack(list(vectors.values()), 1) + self.shares.sigmoid().unsqueeze(1) * slow
        fused = self.fusion(joined.flatten(1))
        extras = {"present": presence(encoded)} | {f"of_{name}": each for name, each in vectors.items()}
        return Output(prediction=self.head(fused), embedding=fused, extras=extras)

    def _reader(self, width: int) -> LastState:
        return LastState(width, self.config.hidden, self.config.d_model, dropout=self.config.dropout)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the slow copies towards the encoders."""
        for slow, fast in zip(self.slow.parameters(), self.streams.parameters(), strict=True):
            slow.lerp_(fast, 1 - self.config.momentum)


class MomentumDistillation(Objective):
    """The task and a classification, of fusion and modalities; anchor and fusion teach the others."""

    model: MTMD

    def __init__(self, model: MTMD, task: Task) -> None:
        super().__init__(model, task)
        config, regression = model.config, task.kind == "regression"
        classes = config.bins if regression else task.num_outputs
        self.subtasks = ModulesByName(
            {name: Subtask(config.d_model, config.hidden, config.dropout) for name in config.anchors}
        )
        self.classes = ModulesByName({name: nn.Linear(config.hidden, classes) for name in config.anchors})
        self.numbers = ModulesByName(
            {name: Head(config.hidden, task, dropout=0.0) for name in config.anchors if regression}
        )
        self.fused_classes = nn.Linear(config.fused, classes) if regression else None

    def after_step(self) -> None:
        self.model.follow()

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        terms = self.supervised(batch, output)
        if not self.training:
            return terms
        assert batch.targets is not None
        config, scale = self.model.config, self.target_scale
        regression = self.fused_classes is not None
        labelled = ~batch.targets.isnan() if regression else batch.targets >= 0
        target = (self.binned(batch.targets) if regression else batch.targets).where(labelled, 0)
        zero = torch.zeros_like(terms["task"])
        unimodal, classified, distilled = zero, zero, zero
        said: Tensor | None = None
        if self.fused_classes is not None:
            scores = self.fused_classes(output.embedding)
            classified = functional.cross_entropy(scores.float(), target, reduction="none") * labelled
            said = ((output.prediction - scale.mean) / scale.deviation).to(scores.dtype)
        else:
            scores = output.prediction
        teachers = [(torch.ones_like(target, dtype=torch.bool), scores, said)]
        for column, name in enumerate(config.anchors):
            here = output.extras["present"][:, column]
            feature = self.subtasks[name](output.extras[f"of_{name}"])
            scores, said = self.classes[name](feature), None
            classified = (
                classified
                + functional.cross_entropy(scores.float(), target, reduction="none") * here * labelled
            )
            if regression:
                said = self.numbers[name](feature)
                unimodal = (
                    unimodal
                    + self.task_loss(scale.mean + scale.deviation * said.double(), batch.targets) * here
                )
            if column == 0:
                teachers.append((here, scores, said))
                continue
            for known, taught, number in teachers:
                asked = divergence(scores, taught, config.temperature)
                if said is not None and number is not None:
                    asked = asked + (said - number.detach()).abs()
                distilled = distilled + asked * (here & known)
        weighted = {
            "classes": config.classification * classified,
            "distilled": config.distillation * distilled,
        }
        return {**terms, **({"unimodal": unimodal} if regression else {}), **weighted}

    def binned(self, targets: Tensor) -> Tensor:
        """(batch,) numbers to classes, evenly over the labels' range, or three deviations around the mean."""
        scale, ends = self.target_scale, self.task.label_range
        low, high = ends or (scale.mean - 3 * scale.deviation, scale.mean + 3 * scale.deviation)
        last = self.model.config.bins - 1
        places = (targets.double() - low) / (high - low) * last
        return places.nan_to_num().round().clamp(0, last).long()


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of a student's classes from a teacher's, (batch,), in units that no
    temperature changes.

    Args:
        student: (batch, classes) scores.
        teacher: (batch, classes) scores, which get no gradient.
        temperature: By which both are divided.
    """
    asked = (teacher.detach().float() / temperature).log_softmax(1)
    said = (student.float() / temperature).log_softmax(1)
    return temperature**2 * functional.kl_div(said, asked, reduction="none", log_target=True).sum(1)


MOMENTUM_DISTILLATION = Method(
    network=MTMD,
    objective=MomentumDistillation,
    settings={
        "loader": {"batch_size": 32},
        "fit": {"learning_rate": 1e-3, "weight_decay": 1e-3, "warmup_fraction": 0.0, "patience": 8},
    },
    search={"options.classification": LOSS_WEIGHT, "options.distillation": LOSS_WEIGHT},
    source="Lin and Hu, IEEE Transactions on Affective Computing 15(2), 2024, doi 10.1109/TAFFC.2023.3282410",
    differs=(
        "Feature mode: text features in place of a fine-tuned language model. Classes of a number are seven,"
        " even over its range."
    ),
    reconstructed=(
        "The full text was not read and there is no code: network, momentum coefficient, where slow features"
        " enter, losses, weights and settings are chosen here."
    ),
)
