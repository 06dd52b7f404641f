"""MMIM: lower bounds of mutual information are raised, between modalities and with the fusion."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Annotated, Final, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from alignmamba.contracts import Batch, Output, Task
from alignmamba.methods.method import Method
from alignmamba.methods.search_space import LOSS_WEIGHT
from alignmamba.models.encoded import Encoded, Head, presence
from alignmamba.models.vectors import AnchorVectorConfig, VectorFusion
from alignmamba.nn.by_name import ModulesByName
from alignmamba.nn.likelihood import Likelihood, LikelihoodKind
from alignmamba.nn.recurrent import LastState
from alignmamba.ops.backends import without_autocast
from alignmamba.training.batches import BatchSource, every_target
from alignmamba.training.objective import Minimise, Objective, Stage
from alignmamba.training.pairs import contrast_of
from alignmamba.training.refinement import check_signed
from alignmamba.training.sample_memory import SampleMemory


class MMIMConfig(AnchorVectorConfig):
    """Everything that defines MMIM."""

    method = "MMIM"
    one_class = "bounds the information of samples of one class"
    least_modalities = 2
    d_model: Annotated[int, Field(ge=1)] = 16
    """Width of the vector that a modality becomes."""
    hidden: Annotated[int, Field(ge=1)] = 16
    """Width of each direction of the LSTM that reads a modality."""
    fused: Annotated[int, Field(ge=1)] = 128
    """Width of the layers on the modalities together."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Before these layers."""
    anchor: Literal["lstm", "pool"] = "lstm"
    contrast: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the bound between fusion and modalities, alpha of the paper."""
    bound: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the bound between modalities, beta of the paper."""
    other_pairs: bool = False
    """Bound the information between modalities other than the anchor as well."""
    likelihood: LikelihoodKind = "gaussian"
    """Likelihood of one modality given another: that of a normal distribution whose log-variance stays within
    -1 and 1, or the released code's, which lacks the term that keeps the variance from growing without end.
    """
    ridge: Annotated[float, Field(ge=0)] = 1e-4
    """Added to the diagonal of covariances."""
    neutral: float = 0.0
    """Label of a regression that is neither positive nor negative."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.task.kind == "regression":
            check_signed(self.task, self.neutral, "MMIM")
        return self


class MMIM(VectorFusion[MMIMConfig]):
    """Last states of a bidirectional LSTM per modality, concatenated, and two layers.

    Han, Chen and Poria, "Improving Multimodal Fusion with Hierarchical Mutual Information Maximization for
    Multimodal Sentiment Analysis", EMNLP 2021, arXiv 2109.00412, and the authors' code. Kept: network, both
    bounds, entropy with the step before as history, two optimisers. The released likelihood omits the
    log-variance, and the entropy of a step without samples of both signs is not a number there; neither is
    repeated. As in the code, the projection of the entropy is random and fixed. A missing modality is read as
    its learned token, and no bound holds for it.
    """

    config_class = MMIMConfig
    summary = "LSTM per modality; lower bounds of mutual information among them and with the fusion"

    def __init__(self, config: MMIMConfig) -> None:
        super().__init__(config, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.first = nn.Linear(sum(self.vector_widths.values()), config.fused)
        self.second = nn.Linear(config.fused, config.fused)
        self.head = Head(config.fused, config.task, dropout=0.0)
        for part in (self.streams, self.first, self.second, self.head):
            _drawn_afresh(part)

    def _reader(self, width: int) -> LastState:
        return LastState(width, self.config.hidden, self.config.d_model, bidirectional=True)

    def _read(self, encoded: Encoded) -> Output:
        vectors = self._vectors(encoded)
        joined = self.dropout(torch.cat(list(vectors.values()), 1))
        fused = self.second(self.first(joined).tanh()).tanh()
        extras = {"present": presence(encoded)} | {f"of_{name}": each for name, each in vectors.items()}
        return Output(prediction=self.head(fused), embedding=fused, extras=extras)


class InformationBounds(Objective):
    """Estimators of the likelihood and everything else take epochs in turn, by two optimisers."""

    model: MMIM
    codes: Tensor
    """(samples,): class of each train sample, or 1 and 0 for the signs of a number, -1 for a neutral one."""
    at_epoch: Tensor

    def __init__(self, model: MMIM, task: Task) -> None:
        super().__init__(model, task)
        widths, names = model.vector_widths, model.config.anchors
        pairs = [
            pair for pair in combinations(range(len(names)), 2) if pair[0] == 0 or model.config.other_pairs
        ]
        self.pairs: Final = pairs  # a modality, and another that is predicted from it, by their places
        self.bounds = nn.ModuleList(
            Likelihood(widths[names[i]], widths[names[j]], model.config.likelihood) for i, j in pairs
        )
        self.predictors = ModulesByName({name: nn.Linear(model.config.fused, widths[name]) for name in names})
        _drawn_afresh(self.bounds)
        _drawn_afresh(self.predictors)

    @property
    def stages(self) -> Sequence[Stage]:
        estimators = Minimise(terms=("likelihood",), rates={"": 0.0, "bounds.": 1.0})
        rest = Minimise(terms=("task", "contrast", "bound"), rates={"": 1.0, "bounds.": 0.0})
        return (Stage(optimisers=(estimators, rest), alternate="epoch"),)

    def prepare(self, train: BatchSource) -> None:
        targets = every_target(train, self.task, why="its bounds are of samples by their label")
        self.register_buffer("codes", self._codes(torch.tensor(list(targets.values()))))
        self.register_buffer("at_epoch", torch.tensor(-1))
        self.memory = SampleMemory(
            tuple(targets), {f"pair_{number}": bound.project.out_features for number, bound in self._bounds()}
        )

    def begin_epoch(self, stage: Stage, epoch: int) -> None:
        del stage
        if int(self.at_epoch) != epoch:  # begun, not resumed
            self.memory.forget()
            self.at_epoch.fill_(epoch)

    def after_step(self) -> None:
        seen = self.memory.take()
        self.memory.forget()
        self.memory.write(seen)

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        terms = self.supervised(batch, output)
        if not self.training:
            return terms
        config, names = self.model.config, self.model.config.anchors
        present, vectors = output.extras["present"], [output.extras[f"of_{name}"] for name in names]
        contrast = [
            contrast_of(vector, self.predictors[name](output.embedding), present[:, number])
            for number, (name, vector) in enumerate(zip(names, vectors, strict=True))
        ]
        rows = self.memory.rows(batch.ids, self.codes.device)
        likelihood, entropy = torch.zeros_like(terms["task"]), torch.zeros_like(terms["task"][0])
        squashed, both = {}, {}
        for (number, bound), (i, j) in zip(self._bounds(), self.pairs, strict=True):
            key = f"pair_{number}"
            both[key] = present[:, i] & present[:, j]
            likelihood = likelihood + bound(vectors[i], vectors[j]) * both[key]
            squashed[key] = bound.squashed(vectors[j])
            known = self.memory.known(key)
            values = torch.cat([squashed[key], self.memory.vectors(key).to(squashed[key].dtype)])
            codes = torch.cat(
                [self.codes[rows].masked_fill(~both[key], -1), self.codes.masked_fill(~known, -1)]
            )
            entropy = (
                entropy + entropy_of(values, codes, classes=self._classes, ridge=config.ridge) * known.any()
            )
        self.memory.note(rows, squashed, both)
        bounds = -config.bound * (likelihood + entropy)
        return {
            **terms,
            "contrast": config.contrast * torch.stack(contrast).sum(),
            "bound": bounds,
            "likelihood": -likelihood,
        }

    @property
    def _classes(self) -> int:
        return 2 if self.task.kind == "regression" else self.task.num_outputs

    def _codes(self, targets: Tensor) -> Tensor:
        if self.task.kind != "regression":
            return targets.long()
        return torch.where(
            targets == self.model.config.neutral, -1, (targets > self.model.config.neutral).long()
        )

    def _bounds(self) -> list[tuple[int, Likelihood]]:
        return [(number, bound) for number, bound in enumerate(self.bounds) if isinstance(bound, Likelihood)]


def entropy_of(values: Tensor, codes: Tensor, *, classes: int, ridge: float) -> Tensor:
    """Entropy of normal distributions, one per class: (), half the mean log-determinant over classes with
    more samples than channels.

    Args:
        values: (samples, width).
        codes: (samples,), class of each; -1 for samples that do not count.
        classes: How many there are.
        ridge: Added to the diagonal of covariances.
    """
    values = values.float()
    weight = (codes == torch.arange(classes, device=codes.device)[:, None]).to(values.dtype)
    count = weight.sum(1)
    share = weight / count.clamp(min=1)[:, None]
    identity = torch.eye(values.shape[1], dtype=values.dtype, device=values.device)
    enough = count > values.shape[1]
    # covariances in half precision need not be positive definite beside so small a ridge
    with without_autocast(values.device):
        centred = values - (share @ values)[:, None]
        covariance = torch.einsum("cn,cnk,cnl->ckl", share, centred, centred)
        definite = torch.where(enough[:, None, None], covariance + ridge * identity, identity)
        return 0.5 * torch.logdet(definite).sum() / enough.sum().clamp(min=1)


def _drawn_afresh(module: nn.Module) -> None:
    """Matrices as the published code draws them."""
    for parameter in module.parameters():
        if parameter.ndim >= 2:
            nn.init.xavier_normal_(parameter)


MULTIMODAL_INFOMAX = Method(
    network=MMIM,
    objective=InformationBounds,
    settings={
        "loader": {"batch_size": 32},
        "fit": {
            "learning_rate": 1e-3,
            "weight_decay": 1e-4,
            "warmup_fraction": 0.0,
            "gradient_clip": 1.0,
            "epochs": 80,
            "patience": 20,
        },
    },
    search={"options.contrast": LOSS_WEIGHT, "options.bound": LOSS_WEIGHT},
    source="Han et al., EMNLP 2021, arXiv 2109.00412",
    needs="two modalities or more",
    differs=(
        "Feature mode: text features in place of a fine-tuned BERT. An epoch there, a pass for the estimators"
        " and one for the rest, is two here. The likelihood is that of a normal distribution; `likelihood:"
        " released` is the form of the code."
    ),
)
