"""MMIN: the vectors of missing modalities are imagined from those of the others, and back."""

import copy
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Final, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from alignmamba.contracts import Batch, Output, Task
from alignmamba.methods.method import Method
from alignmamba.methods.search_space import Real
from alignmamba.models.encoded import Encoded, Fusion, FusionConfig, Head, presence
from alignmamba.nn.by_name import ModulesByName
from alignmamba.nn.encoders import EncoderConfig
from alignmamba.nn.language import AnyEncoderConfig
from alignmamba.nn.pooling import POOLINGS
from alignmamba.nn.recurrent import Recurrent
from alignmamba.training.objective import Minimise, Objective, Stage
from alignmamba.training.withheld_batches import withhold


class MMINConfig(FusionConfig):
    """Everything that defines MMIN."""

    method = "MMIN"
    least_modalities = 2
    one_target = "changes its embedding from stage to stage"
    encoder: AnyEncoderConfig = EncoderConfig(kind="none", dropout=0.0)
    absent: Literal["zeros"] = "zeros"
    d_model: Annotated[int, Field(ge=1)] = 128
    """Width of the vector that a modality becomes."""
    hidden: Annotated[int, Field(ge=1)] = 128
    """Width of the two layers before a prediction."""
    depth: Annotated[int, Field(ge=1, le=64)] = 5
    """Blocks of each cascade of autoencoders."""
    autoencoder: Annotated[tuple[int, ...], Field(min_length=1)] = (256, 128, 64)
    """Widths of the layers of a block down to its latent vector; those up again mirror them."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Before the layers of the prediction."""
    withhold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Chance, in training on a run that withholds nothing, that a modality of a sample is withheld."""
    imagination: Annotated[float, Field(ge=0)] = 4.0
    """Weight of the error of the vectors that are imagined."""
    cycle: Annotated[float, Field(ge=0)] = 2.0
    """Weight of the error of the vectors that are imagined back from these."""


class Cascade(nn.Module):
    """Autoencoders, each of which reads its input plus what the one before it said (section 3.3)."""

    def __init__(self, width: int, widths: Sequence[int], depth: int) -> None:
        super().__init__()
        down, up = (width, *widths), (*reversed(widths), width)
        self.down = nn.ModuleList(_layers(down) for _ in range(depth))
        self.up = nn.ModuleList(_layers(up) for _ in range(depth))
        self.transition = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, width) to imagined vectors, latents (batch, depth * latent), and all inputs."""
        said = torch.zeros_like(x)
        latents, inputs = [], []
        for down, up in zip(self.down, self.up, strict=True):
            x = x + said
            inputs.append(x)
            latents.append(down(x))
            said = up(latents[-1])
        return self.transition(said), torch.cat(latents, 1), torch.stack(inputs, 1)


def _layers(widths: Sequence[int]) -> nn.Sequential:
    """Linear maps with ReLU between them."""
    layers: list[nn.Module] = []
    for first, second in pairwise(widths):
        layers += [nn.Linear(first, second), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _tower(width: int, hidden: int, task: Task, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(width, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        Head(hidden, task, dropout=0.0),
    )


class MMIN(Fusion[MMINConfig]):
    """A vector per modality; cascades of autoencoders imagine those of missing ones, and their latents
    predict.

    Zhao, Li and Jin, "Missing Modality Imagination Network for Emotion Recognition with Uncertain Missing
    Modalities", ACL 2021, and the code that its authors publish. Kept: two stages, a teacher of complete
    samples, residual cascades both ways, the prediction from latents, weights. Simplified: an LSTM with
    max-pooling reads every modality, text too. Not repeated: targets of modalities that are present are zero,
    not what the teacher says of zeros; convolutions over padding. A missing modality has the vector zero.
    """

    config_class = MMINConfig
    summary = "Cascaded autoencoders imagine the vectors of missing modalities and back"

    def __init__(self, config: MMINConfig) -> None:
        super().__init__(config, config.d_model)
        self.streams = ModulesByName(
            {name: Recurrent(self._encoder(name).width, config.d_model) for name in config.anchors}
        )
        width = len(config.anchors) * config.d_model
        self.ahead = Cascade(width, config.autoencoder, config.depth)
        self.back = Cascade(width, config.autoencoder, config.depth)
        self.whole = _tower(width, config.hidden, config.task, config.dropout)
        self.predict = _tower(
            config.depth * config.autoencoder[-1], config.hidden, config.task, config.dropout
        )
        self.imagines = True
        """False while its vectors are learned from complete samples: the prediction is then made of the
        vectors themselves."""

    def _read(self, encoded: Encoded) -> Output:
        vectors, present = self.vectors(encoded)
        joined = vectors.flatten(1)
        if not self.imagines:
            return Output(prediction=self.whole(joined), embedding=joined)
        imagined, latents, _ = self.ahead(joined)
        extras = {"vectors": vectors, "imagined": imagined.view_as(vectors), "present": present}
        if self.training:
            extras["returned"] = self.back(imagined)[0].view_as(vectors)
        return Output(prediction=self.predict(latents), embedding=latents, extras=extras)

    def vectors(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """Vectors (batch, modality, d_model), zero where missing; which are there, (batch, modality) bool."""
        present = presence(encoded)
        read = []
        for name, tokens in encoded.items():
            tokens = tokens.fitted(1) if tokens.mask.shape[1] == 0 else tokens
            read.append(POOLINGS["max"](self.streams[name](tokens.x, tokens.mask).tokens, tokens.mask))
        return torch.stack(read, 1).masked_fill(~present.unsqueeze(-1), 0), present

    def withheld_vectors(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Vectors, as in `vectors`, of what was withheld from a batch."""
        vectors, present = self.vectors(self._encoded(batch.complete()))
        there = torch.zeros_like(present)
        for number, name in enumerate(self.config.anchors):
            if name in batch.withheld:
                there[:, number] = batch.withheld[name].mask.any(1)
        there = there & present
        return vectors.masked_fill(~there.unsqueeze(-1), 0), there


class Imagination(Objective):
    """First complete samples, then incomplete ones, whose vectors the network of the first stage knows."""

    model: MMIN
    learned: Tensor

    def __init__(self, model: MMIN, task: Task) -> None:
        super().__init__(model, task)
        self.teacher = copy.deepcopy(model).requires_grad_(False)
        self.register_buffer("learned", torch.zeros((), dtype=torch.bool))

    @property
    def stages(self) -> Sequence[Stage]:
        unused = dict.fromkeys(("model.ahead.", "model.back.", "model.predict."), 0.0)
        return (
            Stage(name="complete", optimisers=(Minimise(rates={"": 1.0, **unused}),)),
            Stage(name="imagine", optimisers=(Minimise(rates={"": 1.0, "model.whole.": 0.0}),)),
        )

    def begin_epoch(self, stage: Stage, epoch: int) -> None:
        del epoch
        self.model.imagines = stage.name == "imagine"
        if self.model.imagines and not self.learned:
            self.teacher.load_state_dict(self.model.state_dict())
            self.learned.fill_(True)

    def shown(self, batch: Batch) -> Batch:
        """The batch: in training complete in the first stage, with something withheld in the second."""
        if not self.training:
            return batch
        return withhold(batch, self.model.config.withhold) if self.model.imagines else batch.complete()

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        terms = self.supervised(batch, output)
        if not (self.training and self.model.imagines):
            return terms
        with torch.no_grad():
            target, withheld = self.teacher.eval().withheld_vectors(batch)
        imagined, returned, own = (output.extras[name] for name in ("imagined", "returned", "vectors"))
        known = (withheld | output.extras["present"]).unsqueeze(-1)
        error = ((imagined - target).square() * known).mean((1, 2)) * (
            known.shape[1] / known.sum((1, 2)).clamp(min=1)
        )
        terms["imagination"] = self.model.config.imagination * error.masked_fill(~withheld.any(1), 0)
        terms["cycle"] = self.model.config.cycle * (returned - own.detach()).square().mean((1, 2))
        return terms


_WEIGHT: Final = Real(low=0.1, high=10.0, log=True)
"""Values for a loss beside the task's; the published ones are above 1."""

IMAGINATION_NETWORK = Method(
    network=MMIN,
    search={"options.imagination": _WEIGHT, "options.cycle": _WEIGHT},
    objective=Imagination,
    settings={
        "loader": {"batch_size": 128},
        "fit": {
            "learning_rate": 2e-4,
            "weight_decay": 0.0,
            "warmup_fraction": 0.0,
            "gradient_clip": 1.0,
            "epochs": 30,
            "patience": 0,
        },
    },
    source="Zhao, Li and Jin, ACL 2021",
    needs="at least two modalities, of which some are missing or withheld",
    differs=(
        "Feature mode. An LSTM with max-pooling reads text as it reads the others. Patterns of missing"
        " modalities are drawn again each epoch, not listed. Targets of present modalities are zero."
    ),
    keeps_withheld=True,
)
