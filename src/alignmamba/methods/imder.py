"""IMDer: missing modalities are recovered by diffusion, guided by those that are there."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from alignmamba.contracts import Batch, Output
from alignmamba.methods.method import Method
from alignmamba.methods.search_space import LOSS_WEIGHT
from alignmamba.models.encoded import Encoded, Fusion, FusionConfig, Head
from alignmamba.nn.alignment import Tokens
from alignmamba.nn.attention import AttentionConfig, CrossModalStack
from alignmamba.nn.by_name import ModulesByName
from alignmamba.nn.diffusion import EARLIEST, Score
from alignmamba.nn.encoders import EncoderConfig
from alignmamba.nn.language import AnyEncoderConfig
from alignmamba.nn.pooling import POOLINGS, Pooling
from alignmamba.training.objective import Minimise, Objective, Stage
from alignmamba.training.withheld_batches import withhold


class IMDerConfig(FusionConfig, AttentionConfig):
    """Everything that defines IMDer; the fields of its crossmodal Transformer stand at the top level."""

    method = "IMDer"
    least_modalities = 2
    encoder: AnyEncoderConfig = EncoderConfig(kind="none", dropout=0.0)
    absent: Literal["zeros"] = "zeros"
    d_model: Annotated[int, Field(ge=1, le=8192)] = 32
    """Width of a token."""
    depth: Annotated[int, Field(ge=1, le=256)] = 4
    """Layers of each crossmodal Transformer."""
    pooling: Pooling = "last"
    hidden: Annotated[int, Field(ge=2)] = 256
    """Width of the networks of the scores."""
    sigma: Annotated[float, Field(gt=1)] = 25.0
    """Noise that the diffusion adds in the end."""
    steps: Annotated[int, Field(ge=1)] = 100
    """Steps in which a vector is recovered from noise."""
    seed: int = 0
    """Seed of the noise at inference, which also depends on the id of the sample and the name of the
    modality."""
    withhold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Chance, in training on a run that withholds nothing, that a modality of a sample is withheld."""
    score: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the error of the scores."""
    refinement: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the error of what is recovered and refined."""


class IMDer(Fusion[IMDerConfig]):
    """A vector for each missing modality, recovered from noise under guidance of the others, then MulT over
    all streams.

    Wang, Li and Cui, "Incomplete Multimodality-Diffused Emotion Recognition", NeurIPS 2023, and the code that
    its authors publish. Kept: diffusion, times, steps, weights, two stages of which the first is of complete
    samples, crossmodal Transformers. Simplified: one vector stands for a missing modality, so that the score
    is a network of layers and not a U-Net over time; refinement is one residual part. Not repeated: a
    condition with the noise of its target, patterns drawn at inference. Noise there depends on the seed and
    the sample alone.
    """

    config_class = IMDerConfig
    summary = "Diffusion recovers missing modalities under guidance of the others"
    unexported = "draws noise by the id of a sample"

    def __init__(self, config: IMDerConfig) -> None:
        super().__init__(config, config.d_model)
        width = config.d_model
        self.project = ModulesByName(
            {name: nn.Linear(self._encoder(name).width, width) for name in config.anchors}
        )
        self.scores = ModulesByName(
            {name: Score(width, config.hidden, config.sigma) for name in config.anchors}
        )
        self.refine = ModulesByName(
            {
                name: nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
                for name in config.anchors
            }
        )
        self.stack = CrossModalStack(config, len(config.anchors))
        self.head = Head(len(config.anchors) * (len(config.anchors) - 1) * width, config.task, config.dropout)
        self.recovers = True
        """False while the rest is learned from complete samples: what is missing is then left out."""

    def _predict(self, batch: Batch) -> Output:
        return self._fuse(self._encoded(batch), batch.ids)

    def _read(self, encoded: Encoded) -> Output:
        """Predict as `_predict`, where the ids of samples are not known."""
        return self._fuse(encoded, [str(row) for row in range(len(next(iter(encoded.values())).mask))])

    def _fuse(self, encoded: Encoded, ids: Sequence[str]) -> Output:
        streams = self._projected(encoded)
        vectors, present = _vectors(streams)
        condition = _condition(vectors, present)
        recovered = torch.zeros_like(vectors)
        if self.recovers:
            for number, (name, tokens) in enumerate(streams.items()):
                rows = (~present[:, number]).nonzero().flatten()
                if not len(rows):
                    continue
                noise = self._noise(name, [ids[row] for row in rows.tolist()]).to(vectors)
                drawn = self.scores[name].recover(condition[rows], noise)  # type: ignore[operator] # a method of `Score`
                refined = drawn + self.refine[name](drawn)
                recovered[:, number] = recovered[:, number].index_copy(0, rows, refined.to(vectors.dtype))
                first = torch.arange(tokens.mask.shape[1], device=rows.device) == 0
                there = ~present[:, number, None] & first
                x = torch.where(there.unsqueeze(-1), recovered[:, number, None], tokens.x)
                streams[name] = Tokens(x, tokens.mask | there, tokens.times)
        masks = [tokens.mask for tokens in streams.values()]
        read = self.stack([tokens.x for tokens in streams.values()], masks)
        pooled = torch.cat([self._pooled(x, mask) for x, mask in zip(read, masks, strict=True)], 1)
        return Output(
            prediction=self.head(pooled),
            embedding=pooled,
            extras={"recovered": recovered, "condition": condition},
        )

    def _projected(self, encoded: Encoded) -> dict[str, Tokens]:
        streams = {}
        for name, tokens in encoded.items():
            tokens = tokens.fitted(1) if tokens.mask.shape[1] == 0 else tokens
            streams[name] = Tokens(
                self.project[name](tokens.x).masked_fill(~tokens.mask.unsqueeze(-1), 0),
                tokens.mask,
                tokens.times,
            )
        return streams

    def _noise(self, name: str, ids: Sequence[str]) -> Tensor:
        """(batch, steps + 1, width): in evaluation the same for a sample whatever stands beside it."""
        shape = (self.config.steps + 1, self.config.d_model)
        if self.training:
            return torch.randn(len(ids), *shape)
        return torch.stack(
            [torch.randn(shape, generator=_generator(self.config.seed, name, identity)) for identity in ids]
        )

    @torch.no_grad()
    def withheld_vectors(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Vectors of the complete batch, (batch, modality, width); and which were withheld."""
        vectors, present = _vectors(self._projected(self._encoded(batch.complete())))
        there = torch.zeros_like(present)
        for number, name in enumerate(self.config.anchors):
            if name in batch.withheld:
                there[:, number] = batch.withheld[name].mask.any(1) & present[:, number]
        return vectors, there


def _generator(seed: int, name: str, identity: str) -> torch.Generator:
    """A generator that depends on these alone."""
    key = hashlib.sha256(f"{seed}/{name}/{identity}".encode()).digest()[:8]
    return torch.Generator().manual_seed(int.from_bytes(key, "little", signed=True))


def _vectors(streams: Mapping[str, Tokens]) -> tuple[Tensor, Tensor]:
    """Mean tokens, (batch, modality, width), zero where missing; and which are there, (batch, modality)."""
    means = torch.stack([POOLINGS["mean"](tokens.x, tokens.mask) for tokens in streams.values()], 1)
    return means, torch.stack([tokens.mask.any(1) for tokens in streams.values()], 1)


def _condition(vectors: Tensor, present: Tensor) -> Tensor:
    """(batch, width): mean over the modalities that a sample has."""
    return vectors.sum(1) / present.sum(1, keepdim=True).clamp(min=1)


class Diffusion(Objective):
    """First the fusion of complete samples, then scores and the fusion of what they recover."""

    model: IMDer

    @property
    def stages(self) -> Sequence[Stage]:
        unused, kept = (
            {"model.scores.": 0.0, "model.refine.": 0.0},
            {"model.project.": 0.0, "model.encoders.": 0.0},
        )
        if not any(True for _ in self.model.encoders.parameters()):
            del kept["model.encoders."]
        return (
            Stage(name="complete", optimisers=(Minimise(rates={"": 1.0, **unused}),)),
            Stage(name="recover", optimisers=(Minimise(rates={"": 1.0, **kept}),)),
        )

    def begin_epoch(self, stage: Stage, epoch: int) -> None:
        del epoch
        self.model.recovers = stage.name == "recover"

    def shown(self, batch: Batch) -> Batch:
        """The batch: in training complete in the first stage, with something withheld in the second."""
        if not self.training:
            return batch
        return withhold(batch, self.model.config.withhold) if self.model.recovers else batch.complete()

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        terms = self.supervised(batch, output)
        if not (self.training and self.model.recovers):
            return terms
        targets, withheld = self.model.withheld_vectors(batch)
        errors = []
        for number, score in enumerate(self.model.scores.values()):
            assert isinstance(score, Score)
            time = (
                torch.rand(len(batch), device=targets.device, dtype=targets.dtype) * (1 - EARLIEST) + EARLIEST
            )
            noise, deviation = torch.randn_like(targets[:, number]), score.deviation(time).unsqueeze(1)
            said = score(targets[:, number] + deviation * noise, time, output.extras["condition"].detach())
            errors.append((said * deviation + noise).square().sum(1))
        terms["score"] = self.model.config.score * (torch.stack(errors, 1) * withheld).sum(1)
        apart = (output.extras["recovered"] - targets).square().mean(2)
        terms["refinement"] = self.model.config.refinement * (apart * withheld).sum(1)
        return terms


SCORE_RECOVERY = Method(
    network=IMDer,
    objective=Diffusion,
    settings={
        "fit": {
            "learning_rate": 2e-3,
            "weight_decay": 0.0,
            "warmup_fraction": 0.0,
            "gradient_clip": 1.0,
            "epochs": 200,
            "patience": 20,
        }
    },
    search={"options.score": LOSS_WEIGHT, "options.refinement": LOSS_WEIGHT},
    source="Wang, Li and Cui, NeurIPS 2023",
    needs="at least two modalities, of which some are missing or withheld",
    differs=(
        "Feature mode. Diffusion recovers one vector for a missing modality, not a sequence; a score is a"
        " network of layers, not a U-Net. Patterns of missing modalities are drawn per sample."
    ),
    keeps_withheld=True,
)
