"""DMD: modalities teach one another along learned graphs, in what they share and in what is their own."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from alignmamba.contracts import Batch, Output, Task
from alignmamba.methods.method import Method
from alignmamba.methods.search_space import LOSS_WEIGHT
from alignmamba.models.crossmodal import CrossmodalFusion, CrossmodalFusionConfig
from alignmamba.models.encoded import Encoded, Head
from alignmamba.nn.by_name import ModulesByName
from alignmamba.nn.crossmodal_transformer import Reader, Residual
from alignmamba.nn.distillation import Graph, Prior, distance_to_prior
from alignmamba.ops import last_valid, masked_mean
from alignmamba.training.objective import Objective
from alignmamba.training.pairs import margin_triplets

_REGULAR: Final = 10.0
"""Weight of the prior, and of what vectors say, beside what predictions say."""


class DMDConfig(CrossmodalFusionConfig):
    """Everything that defines DMD."""

    method = "dmd"
    one_class = "parts samples of one class from others"
    d_model: Annotated[int, Field(ge=1, le=8192)] = 48
    kernel_size: Annotated[int, Field(ge=1, le=255)] = 5
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    anchor_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    output_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    gate: Literal["replace", "multiply"] = "replace"
    """Sigmoids stand for what was read, as in the public code, or weigh it."""
    unimodal: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the errors of each modality's two heads, and of the head of all shared parts."""
    homogeneous: Annotated[float, Field(ge=0)] = 0.05
    """Weight of what modalities teach one another about their shared parts."""
    homogeneous_size: Annotated[int, Field(ge=1)] = 64
    """Width of a node of the graph that decides who teaches."""
    homogeneous_prior: Prior = "anchor"
    heterogeneous: Annotated[float, Field(ge=0)] = 0.05
    """The same for own parts, after each modality has read the others."""
    heterogeneous_size: Annotated[int, Field(ge=1)] = 32
    heterogeneous_prior: Prior = "order"
    alike: Literal["similar", "released"] = "similar"
    """Vectors of student and teacher are drawn together, or apart, as the public code does."""
    reconstruction: Annotated[float, Field(ge=0)] = 0.1
    """Weight of what the two parts fail to rebuild, and of what is lost when the rebuilt tokens are split
    again."""
    orthogonality: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the similarity of a token's two parts."""
    similarity: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the margin between shared parts of equal and of other labels."""
    margin: Annotated[float, Field(ge=0)] = 0.15
    """That margin, per deviation of the labels; between any two classes."""


class DMD(CrossmodalFusion[DMDConfig]):
    """Shared parts through self-attention, own parts through MulT, and gates over both.

    Kept from the source: convolutions, the split of tokens, MulT over own parts, gates that replace what they
    read, all losses and weights.

    Simplified: the mean over valid tokens stands where the public code flattens a sequence of fixed length;
    one attention dropout serves all modalities. Distillation of homogeneous vectors, which the public code
    computes and never adds, is not made.

    Not repeated of the public code: vectors that are pushed apart where they should agree (``alike``);
    orthogonality along the batch axis; last tokens and keys that are padding; convolutions that are skipped
    at equal widths; edges through which a student moves its teacher.

    A missing modality neither teaches nor learns, and is in no loss. The gated vectors are the embedding,
    (batch, modalities ** 2 * d_model).

    Source:
        Li, Wang and Cui, "Decoupled Multimodal Distilling for Emotion Recognition", CVPR 2023,
        arXiv:2303.13802.
    """

    config_class = DMDConfig
    summary = "Shared and own parts of tokens; modalities teach one another along learned graphs"
    tags = ("disentanglement", "transformer")

    def __init__(self, config: DMDConfig) -> None:
        super().__init__(config)
        names, width = config.anchors, config.d_model
        self.specific = ModulesByName({name: nn.Linear(width, width, bias=False) for name in names})
        self.common = nn.Linear(width, width, bias=False)
        self.alone = ModulesByName({name: Reader(config, width, config.depth) for name in names})
        self.gates = ModulesByName({name: nn.Linear(self.read_width, self.read_width) for name in names})
        shared = len(names) * width
        self.shared_gate = nn.Linear(shared, shared)
        whole = len(names) * self.read_width + shared
        self.residual = Residual(whole, config.output_dropout)
        self.head = Head(whole, config.task, 0.0)

    def _read(self, encoded: Encoded) -> Output:
        present = {name: tokens.mask.any(1, keepdim=True) for name, tokens in encoded.items()}
        streams = self._streams(encoded)
        own = {name: self.specific[name](x) for name, (x, _) in streams.items()}
        common = {name: self.common(x) for name, (x, _) in streams.items()}
        masks = {name: mask for name, (_, mask) in streams.items()}
        shared = torch.cat(
            [last_valid(self.alone[name](x, masks[name]), masks[name]) for name, x in common.items()], 1
        )
        read = self._exchanged({name: (x, masks[name]) for name, x in own.items()}, present)
        gated = [self._gated(self.gates[name], x) for name, x in read.items()]
        embedding = torch.cat([*gated, self._gated(self.shared_gate, shared)], 1)
        extras = {
            "present": torch.cat(list(present.values()), 1),
            "shared": shared,
            "read": torch.stack(list(read.values()), 1),
        }
        for name, (x, mask) in streams.items():
            extras |= {
                f"tokens {name}": x,
                f"valid {name}": mask,
                f"own {name}": own[name],
                f"common {name}": common[name],
            }
        return Output(prediction=self.head(self.residual(embedding)), embedding=embedding, extras=extras)

    def _gated(self, gate: nn.Module, x: Tensor) -> Tensor:
        weights: Tensor = gate(x).sigmoid()
        return weights if self.config.gate == "replace" else weights * x


class Student(nn.Module):
    """A residual block and a head."""

    def __init__(self, width: int, hidden: int, task: Task, dropout: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)
        self.head = Head(width, task, 0.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, width) to the inner vector (batch, hidden), the outer one (batch, width), predictions."""
        inner = self.first(x)
        outer = x + self.second(self.dropout(inner.relu()))
        return inner, outer, self.head(outer)


class Distillation(Objective):
    """The task, heads of each modality that teach one another, and parts that rebuild tokens and differ."""

    model: DMD

    def __init__(self, model: DMD, task: Task) -> None:
        super().__init__(model, task)
        config, names, read = model.config, model.config.anchors, model.read_width
        width, count, drop = config.d_model, len(names), config.output_dropout
        self.decoders = ModulesByName({name: nn.Linear(2 * width, width, bias=False) for name in names})
        self.align = ModulesByName({name: nn.Linear(width, width) for name in names})
        self.of_common = ModulesByName({name: Student(width, width, task, drop) for name in names})
        self.of_own = ModulesByName({name: Student(read, read, task, drop) for name in names})
        self.of_shared = Student(count * width, count * width, task, drop)
        self.homogeneous = Graph(
            count, task.num_outputs, width, config.homogeneous_size, config.homogeneous_prior
        )
        self.heterogeneous = Graph(
            count, task.num_outputs, read, config.heterogeneous_size, config.heterogeneous_prior
        )

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        assert batch.targets is not None
        config, extras, present = self.model.config, output.extras, output.extras["present"]
        common = torch.stack(
            [masked_mean(extras[f"common {name}"], extras[f"valid {name}"]) for name in config.anchors], 1
        )
        inner, _, of_common = _each(self.of_common, common)
        _, outer, of_own = _each(self.of_own, extras["read"])
        errors = (self._error(of_common, batch.targets) + self._error(of_own, batch.targets)) * present
        of_shared = self._error(self.of_shared(extras["shared"])[2].unsqueeze(1), batch.targets).squeeze(1)
        edges, expected = self.homogeneous(_vectors(of_common), inner, present)
        taught = self._taught(self.homogeneous, of_common, edges + expected)
        own_edges, own_expected = self.heterogeneous(_vectors(of_own), outer, present)
        own_taught = self._taught(self.heterogeneous, of_own, own_edges + own_expected)
        agreed = self._agreed(self.heterogeneous, outer, own_edges + own_expected)
        rebuilt, overlap = self._parts(extras)
        aligned = torch.stack(
            [align(common[:, number]) for number, align in enumerate(self.align.values())], 1
        )
        return {
            **self.supervised(batch, output),
            "unimodal": config.unimodal * (errors.sum(1) + of_shared),
            "homogeneous": config.homogeneous * taught,
            "homogeneous prior": config.homogeneous * _REGULAR * distance_to_prior(edges, expected),
            "heterogeneous": config.heterogeneous * (own_taught + _REGULAR * agreed),
            "heterogeneous prior": config.heterogeneous
            * _REGULAR
            * distance_to_prior(own_edges, own_expected),
            "reconstruction": config.reconstruction * (rebuilt * present).sum(1),
            "orthogonality": config.orthogonality * (overlap * present).sum(1),
            "similarity": config.similarity * self._similarity(aligned, present, batch.targets),
        }

    def _error(self, said: Tensor, targets: Tensor) -> Tensor:
        """(batch, modality, ...) standardised predictions to (batch, modality) task losses."""
        flat, truth = said.flatten(0, 1), targets.repeat_interleave(said.shape[1], 0)
        if self.task.kind == "regression":
            flat = self.target_scale.mean + self.target_scale.deviation * flat.double()
        return self.task_loss(flat, truth).view(said.shape[:2])

    def _taught(self, graph: Graph, said: Tensor, weights: Tensor) -> Tensor:
        """(batch,): how far what students say is from what teachers say."""
        student, teacher = said[:, graph.students], said[:, graph.teachers].detach()
        if self.task.kind == "regression":
            return (weights * (student - teacher).abs()).sum(1)
        apart = functional.kl_div(
            student.log_softmax(2), teacher.log_softmax(2), reduction="none", log_target=True
        )
        return (weights * apart.sum(2)).sum(1)

    def _agreed(self, graph: Graph, vectors: Tensor, weights: Tensor) -> Tensor:
        """(batch,): how unlike the vectors of students and teachers are."""
        alike = functional.cosine_similarity(
            vectors[:, graph.students], vectors[:, graph.teachers].detach(), dim=2
        )
        return (weights * (1 - alike if self.model.config.alike == "similar" else alike.relu())).sum(1)

    def _parts(self, extras: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(batch, modality) each: squared errors of what parts rebuild, and similarity of a token's parts."""
        rebuilt, overlap = [], []
        for name, decoder in self.decoders.items():
            tokens, mask, own, common = (
                extras[f"{part} {name}"] for part in ("tokens", "valid", "own", "common")
            )
            again = decoder(torch.cat([own, common], 2))
            error = (again - tokens).square() + (self.model.specific[name](again) - own).square()
            rebuilt.append(masked_mean(error, mask).mean(1))
            alike = functional.cosine_similarity(own, common, dim=2).relu()
            overlap.append(masked_mean(alike.unsqueeze(2), mask).squeeze(1))
        return torch.stack(rebuilt, 1), torch.stack(overlap, 1)

    def _similarity(self, vectors: Tensor, present: Tensor, targets: Tensor) -> Tensor:
        """Margin between shared vectors, (batch, modality, width), of equal and of other labels, ()."""
        unit = functional.normalize(vectors, dim=2).flatten(0, 1)
        known = ~targets.isnan() if self.task.kind == "regression" else targets >= 0
        labels = targets.where(known, 0).repeat_interleave(vectors.shape[1])
        there = (present & known.unsqueeze(1)).flatten()
        compared = there.unsqueeze(1) & there & ~torch.eye(len(there), dtype=torch.bool, device=there.device)
        equal = labels.unsqueeze(1) == labels
        apart = torch.ones_like(equal, dtype=unit.dtype)
        if self.task.kind == "regression":
            apart = ((labels.double().unsqueeze(1) - labels.double()).abs() / self.target_scale.deviation).to(
                unit.dtype
            )
        return margin_triplets(
            unit @ unit.T, self.model.config.margin * apart, compared & equal, compared & ~equal
        )


def _each(students: ModulesByName, x: Tensor) -> tuple[Tensor, ...]:
    """Vectors that each student makes of its modality of (batch, modality, width), stacked again."""
    made = [student(x[:, number]) for number, student in enumerate(students.values())]
    return tuple(torch.stack(part, 1) for part in zip(*made, strict=True))


def _vectors(said: Tensor) -> Tensor:
    return said if said.ndim == 3 else said.unsqueeze(2)


_FIT = {
    "learning_rate": 1e-4,
    "weight_decay": 0.0,
    "accumulate": 10,
    "warmup_fraction": 0.0,
    "gradient_clip": 0.6,
    "patience": 10,
}
DECOUPLED_DISTILLATION = Method(
    network=DMD,
    objective=Distillation,
    settings={"loader": {"batch_size": 16}, "fit": _FIT | {"epochs": 100}},
    search={"options.homogeneous": LOSS_WEIGHT, "options.reconstruction": LOSS_WEIGHT},
    source="Li et al., CVPR 2023, arXiv 2303.13802",
    needs="two modalities or more",
    differs=(
        "Feature mode: text features in place of a fine-tuned BERT. A mean over valid tokens replaces layers"
        " of fixed length. Students never move teachers, and draw near them, where the public code pushes"
        " vectors apart. Margins are per deviation of the labels. Width 48 and 8 heads in place of 50 and 10."
        " Gradients are clipped by their norm."
    ),
)
"""DMD as a method; rates are the authors' for MOSI."""
