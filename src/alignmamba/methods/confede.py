"""ConFEDE: similar and dissimilar parts of each modality, contrasted with those of retrieved neighbours."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Final, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from alignmamba.contracts import Batch, Output, Task
from alignmamba.methods.method import Method
from alignmamba.methods.search_space import LOSS_WEIGHT
from alignmamba.models.encoded import Encoded, Fusion, Head, PlainFusionConfig, presence
from alignmamba.nn.alignment import Tokens
from alignmamba.nn.attention import AttentionConfig, TransformerStack
from alignmamba.nn.by_name import ModulesByName
from alignmamba.ops import masked_mean
from alignmamba.training.batches import BatchSource
from alignmamba.training.neighbours import DRAWN, Neighbours
from alignmamba.training.objective import TASK, Minimise, Objective, Stage
from alignmamba.training.pairs import mean_present
from alignmamba.training.refinement import check_signed, signed_labels
from alignmamba.training.sample_memory import SampleMemory

_NEVER: Final = -1e4
"""Logit of what is not there: its exponential is zero in every precision."""


class ConFEDEConfig(PlainFusionConfig, AttentionConfig):
    """Everything that defines ConFEDE; the fields of each Transformer stand at the top level."""

    method = "ConFEDE"
    one_target = "changes its embedding from stage to stage"
    d_model: Annotated[int, Field(ge=1, le=8192)] = 768
    """Width of a token, and of the vector that a modality becomes."""
    expand: Annotated[int, Field(ge=1, le=16)] = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    pooling: Literal["mean"] = "mean"
    hidden: Annotated[int, Field(ge=4)] = 384
    """Width of a part; predictions are made in layers of this width, a half and a quarter of it."""
    temperature: Annotated[float, Field(gt=0)] = 0.5
    """Temperature, the divisor of similarities in the contrast."""
    contrast: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the contrast."""
    unimodal: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the error of what each part alone says of the label."""
    pool: Annotated[int, Field(ge=DRAWN)] = 10
    """Most and least similar samples from which neighbours are drawn."""
    seed: int = 0
    """Seed of these draws, which also depend on the epoch and the id of the sample."""
    neutral: float = 0.0
    """Label that is neither positive nor negative."""

    @model_validator(mode="after")
    def _signed(self) -> Self:
        check_signed(self.task, self.neutral, "ConFEDE")
        return self


class Stream(nn.Module):
    """Tokens behind a learned one, through a Transformer, as their mean."""

    def __init__(self, width: int, config: ConFEDEConfig) -> None:
        super().__init__()
        self.project = nn.Linear(width, config.d_model)
        self.first = nn.Parameter(torch.zeros(config.d_model))
        self.stack = TransformerStack(config)

    def forward(self, tokens: Tokens) -> Tensor:
        """Map to (batch, d_model)."""
        x = self.project(tokens.x)
        x = torch.cat([self.first.to(x.dtype).expand(x.shape[0], 1, -1), x], 1)
        mask = torch.cat([torch.ones_like(tokens.mask[:, :1]), tokens.mask], 1)
        return masked_mean(self.stack(x, mask), mask)


def _decoder(widths: Sequence[int], task: Task) -> nn.Sequential:
    """Linear maps with GELU behind each, and a head."""
    layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.GELU())]
    return nn.Sequential(*layers, Head(widths[-1], task, dropout=0.0))


def _each(modules: ModulesByName, vectors: Tensor) -> Tensor:
    """(batch, modality, width), what the module of each modality makes of its vectors."""
    return torch.stack([module(vectors[:, number]) for number, module in enumerate(modules.values())], 1)


class ConFEDE(Fusion[ConFEDEConfig]):
    """A Transformer per modality, two parts of each vector, and layers on all parts.

    Yang, Yu, Niu, Guo and Xu, "ConFEDE: Contrastive Feature Decomposition for Multimodal Sentiment Analysis",
    ACL 2023, and the code that its authors publish. Kept: parts, pairs, weights, two stages, the anchor at
    rest in the second. Simplified: the anchor, which is BERT there, is read as the others are; positions are
    sinusoidal and norms stand before the layers. Not repeated: neighbours by rank instead of index, means
    over padding. A missing modality is read as its learned token.
    """

    config_class = ConFEDEConfig
    summary = "Similar and dissimilar parts of each modality, contrasted with those of retrieved neighbours"
    tags = ("contrastive", "disentanglement")

    def __init__(self, config: ConFEDEConfig) -> None:
        super().__init__(config, config.d_model)
        names, hidden, task = config.anchors, config.hidden, config.task
        last = (hidden, hidden // 2, hidden // 4)
        self.streams = ModulesByName({name: Stream(self._encoder(name).width, config) for name in names})
        self.alone = ModulesByName({name: _decoder((config.d_model, *last), task) for name in names})
        self.similar, self.dissimilar = (
            ModulesByName({name: self._part() for name in names}) for _ in range(2)
        )
        self.part = _decoder(last, task)
        self.whole = _decoder((2 * len(names) * hidden, 2 * hidden, *last), task)
        self.fuses = True
        """False while each modality learns alone: the prediction is then the mean of theirs."""

    def _part(self) -> nn.Module:
        width, hidden = self.config.d_model, self.config.hidden
        return nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.Tanh(), nn.Dropout(self.config.dropout)
        )

    def _read(self, encoded: Encoded) -> Output:
        present = presence(encoded)
        vectors = torch.stack(
            [self.streams[name](tokens) for name, tokens in self._with_absent(encoded).items()], 1
        )
        extras = {"vectors": vectors, "present": present}
        if self.fuses:
            parts, prediction = self.fuse(vectors)
            return Output(
                prediction=prediction, embedding=parts.flatten(1), extras={**extras, "parts": parts}
            )
        said = _each(self.alone, vectors)
        return Output(
            prediction=mean_present(said, present),
            embedding=vectors.flatten(1),
            extras={**extras, "said": said},
        )

    def fuse(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(samples, modality, d_model) to similar and dissimilar parts (samples, 2, modality, hidden), and
        predictions (samples,).
        """
        parts = torch.stack([_each(self.similar, vectors), _each(self.dissimilar, vectors)], 1)
        return parts, self.whole(parts.flatten(1))


def contrast(parts: Tensor, there: Tensor, temperature: float) -> Tensor:
    """Mean over the positive pairs of each sample of -log of the share of a pair beside its negatives,
    (batch,).

    Similar parts are drawn to those of neighbours with one label, and those of the first modality to those of
    the others; similar parts are driven from those of neighbours with another label, and those of the first
    modality from dissimilar ones.

    Args:
        parts: (batch, 7, 2, modality, width), the sample, then two neighbours of each kind; similar parts,
            then dissimilar ones.
        there: (batch, 7, modality) bool.
        temperature: By which cosines are divided.
    """
    similar, dissimilar = functional.normalize(parts, dim=-1).unbind(2)
    across = torch.einsum("bmd,bjmd->bmj", similar[:, 0], similar[:, 1:]) / temperature
    compared = there[:, 0].unsqueeze(2) & there[:, 1:].transpose(1, 2)
    aligned = torch.einsum("bjd,bjmd->bjm", similar[:, :, 0], similar[:, :, 1:]) / temperature
    apart = torch.einsum("bjd,bjmd->bjm", similar[:, :, 0], dissimilar) / temperature
    among = there[:, :, :1] & there
    others = across.masked_fill(~compared, _NEVER)[:, :, DRAWN:].logsumexp(2)
    own = apart.masked_fill(~among, _NEVER).logsumexp(2)
    of_sample = torch.logaddexp(others[:, :1], own[:, :1])  # of its first modality
    negatives = torch.cat([of_sample, others[:, 1:]], 1).unsqueeze(2)
    inward = torch.cat([of_sample, own[:, 1:]], 1).unsqueeze(2)
    pairs = ((across[:, :, :DRAWN], negatives), (aligned, inward))
    lost = torch.cat(
        [(torch.logaddexp(positive, others) - positive).flatten(1) for positive, others in pairs], 1
    )
    return mean_present(lost, torch.cat([compared[:, :, :DRAWN].flatten(1), among[:, :, 1:].flatten(1)], 1))


class Decomposition(Objective):
    """First each modality alone; then the whole, its parts and the contrast, over neighbours too."""

    model: ConFEDE
    truth: Tensor
    """(samples,): labels of the train samples from the neutral one on, the end of the scale 3."""

    @property
    def stages(self) -> Sequence[Stage]:
        fusing = dict.fromkeys(("model.similar.", "model.dissimilar.", "model.part.", "model.whole."), 0.0)
        names, first = [name for name, _ in self.named_parameters()], self.model.config.anchors[0]
        # kind none has no weights
        resting = ("model.alone.", f"model.streams.{first}.", f"model.encoders.{first}.")
        rest = {prefix: 0.0 for prefix in resting if any(name.startswith(prefix) for name in names)}
        return (
            Stage(name="alone", optimisers=(Minimise(rates={"": 1.0, **fusing}),)),
            Stage(name="fuse", optimisers=(Minimise(rates={"": 1.0, **rest}),)),
        )

    def prepare(self, train: BatchSource) -> None:
        config = self.model.config
        ids, truth, self.unit = signed_labels(train, self.task, config.neutral)
        self.register_buffer("truth", truth.float())
        self.neighbours = Neighbours(ids, config.pool, config.seed)
        modalities = len(config.anchors)
        self.memory = SampleMemory(ids, {"vectors": modalities * config.d_model, "present": modalities})

    def begin_epoch(self, stage: Stage, epoch: int) -> None:
        self.model.fuses = stage.name == "fuse"
        if self.model.fuses and int(self.neighbours.drawn) != epoch:  # a resumed epoch has them
            if epoch % 2 == 0:
                present = self.memory.vectors("present").unsqueeze(2)
                vectors = self.memory.vectors("vectors").unflatten(1, (present.shape[1], -1)) * present
                self.neighbours.retrieve(vectors.flatten(1), self.memory.known("vectors"), self.truth.round())
            self.neighbours.draw(epoch)

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        terms = self.supervised(batch, output)
        if not self.training:
            return terms  # without neighbours
        config, rows = self.model.config, self.memory.rows(batch.ids, self.truth.device)
        vectors, present = output.extras["vectors"], output.extras["present"]
        whole = torch.ones_like(rows, dtype=torch.bool)
        seen = {"vectors": vectors.flatten(1), "present": present.to(self.truth.dtype)}
        self.memory.note(rows, seen, dict.fromkeys(seen, whole))
        if not self.model.fuses:
            return {
                **terms,
                TASK: mean_present(self._error(output.extras["said"], rows.unsqueeze(1)), present),
            }
        near = self.neighbours.rows[rows]
        found, near = near >= 0, near.clamp(min=0)
        remembered = self.memory.vectors("vectors")[near].unflatten(2, vectors.shape[1:]).to(vectors.dtype)
        parts, said = self.model.fuse(remembered.flatten(0, 1))
        parts = torch.cat([output.extras["parts"].unsqueeze(1), parts.unflatten(0, near.shape)], 1)
        has = found.unsqueeze(2) & (self.memory.vectors("present")[near] > 0)
        there = torch.cat([present.unsqueeze(1), has], 1)
        errors = torch.cat([terms[TASK].unsqueeze(1), self._error(said.unflatten(0, near.shape), near)], 1)
        of_parts = self._error(
            self.model.part(parts), torch.cat([rows.unsqueeze(1), near], 1)[:, :, None, None]
        ).mean(2)
        return {
            **terms,
            TASK: mean_present(errors, torch.cat([whole.unsqueeze(1), found], 1)),
            "contrast": config.contrast * contrast(parts, there, config.temperature),
            "unimodal": config.unimodal * mean_present(of_parts.flatten(1), there.flatten(1)),
        }

    def _error(self, said: Tensor, rows: Tensor) -> Tensor:
        """Loss of standardised predictions for samples of the train split, whose rows broadcast to them."""
        target = self.model.config.neutral + self.unit * self.truth[rows].double()
        return self.task_loss(self.target_scale.mean + self.target_scale.deviation * said.double(), target)

    def after_step(self) -> None:
        self.memory.write(self.memory.take())


_FIT = {
    "learning_rate": 1e-4,
    "weight_decay": 1e-3,
    "warmup_fraction": 0.04,
    "gradient_clip": 0.0,
    "epochs": 25,
    "patience": 0,
    "regression_loss": "mse",
}
CONTRASTED_PARTS = Method(
    network=ConFEDE,
    objective=Decomposition,
    settings={"loader": {"batch_size": 16}, "fit": _FIT},
    search={"options.contrast": LOSS_WEIGHT, "options.unimodal": LOSS_WEIGHT},
    source="Yang et al., ACL 2023",
    needs="a number with a neutral value, such as a sentiment",
    differs=(
        "Feature mode: text is read by a Transformer as the others are, in place of BERT. A neighbour is not"
        " loaded beside its sample: the vectors of its modalities are remembered from its last step, and read"
        " by the present parts and heads. Neighbours are found by these vectors from the first epoch on. The"
        " first stage is one for all modalities, with one best epoch."
    ),
)
