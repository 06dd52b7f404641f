"""GCNet: utterances of a conversation complete one another over two graphs, of time and of speakers."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from alignmamba.contracts import Batch, Output
from alignmamba.methods.method import Method
from alignmamba.methods.search_space import LOSS_WEIGHT
from alignmamba.models.encoded import Encoded, Fusion, FusionConfig, Head
from alignmamba.nn.encoders import EncoderConfig
from alignmamba.nn.language import AnyEncoderConfig
from alignmamba.nn.pooling import Pooling
from alignmamba.nn.recurrent import Recurrent
from alignmamba.training.objective import Objective
from alignmamba.training.withheld_batches import withhold


class GCNetConfig(FusionConfig):
    """Everything that defines GCNet."""

    encoder: AnyEncoderConfig = EncoderConfig(kind="none", dropout=0.0)
    absent: Literal["zeros"] = "zeros"
    pooling: Pooling = "mean"
    hidden: Annotated[int, Field(ge=2)] = 100
    """Width of the LSTM that reads a conversation, in each direction; a graph has half of it."""
    depth: Annotated[int, Field(ge=1, le=16)] = 2
    """Layers of each LSTM."""
    window: Annotated[int, Field(ge=0)] = 2
    """Number of utterances before and after its own that an utterance is joined to."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Before each LSTM and each head."""
    withhold: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Chance, in training on a run that withholds nothing, that a modality of a sample is withheld."""
    reconstruction: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the error of reconstructed modalities."""


class WindowGraph(nn.Module):
    """Two graph convolutions over the utterances within a window: one that knows relations, one that does
    not.

    Args:
        width: Of an utterance.
        out: Width of what the graph says of it.
        window: Utterances before and after that it is joined to.
        relations: ``time``: past, itself and future are three relations; ``speaker``: all are one, of a
            single speaker.
    """

    def __init__(self, width: int, out: int, window: int, relations: Literal["time", "speaker"]) -> None:
        super().__init__()
        self.window = window
        self.relations = relations
        self.own = nn.Linear(width, out)
        self.of_relation = nn.ModuleList(
            nn.Linear(width, out, bias=False) for _ in range(3 if relations == "time" else 1)
        )
        self.second = nn.Linear(out, out)
        self.second_joined = nn.Linear(out, out, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(conversation, utterance, width) and a bool mask to (conversation, utterance, out)."""
        place = torch.arange(x.shape[1], device=x.device)
        apart = place - place.unsqueeze(1)
        near = (apart.abs() <= self.window) & mask.unsqueeze(1) & mask.unsqueeze(2)
        kinds = (
            (near & (apart < 0), near & (apart == 0), near & (apart > 0))
            if self.relations == "time"
            else (near,)
        )
        first = self.own(x)
        for joined, linear in zip(kinds, self.of_relation, strict=True):
            share = joined.to(x.dtype)
            first = first + linear(share @ x / share.sum(2, keepdim=True).clamp(min=1))
        second: Tensor = self.second(first) + self.second_joined(near.to(x.dtype) @ first)
        return second


class GraphPath(nn.Module):
    """A graph, an LSTM over what it says beside what it read, and a layer."""

    def __init__(self, width: int, config: GCNetConfig, relations: Literal["time", "speaker"]) -> None:
        super().__init__()
        self.graph = WindowGraph(width, config.hidden // 2, config.window, relations)
        both = width + config.hidden // 2
        self.dropout = nn.Dropout(config.dropout)
        self.recurrent = Recurrent(both, both, depth=config.depth, dropout=config.dropout, bidirectional=True)
        self.project = nn.Linear(2 * both, both)
        self.width = both

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(conversation, utterance, width) to (conversation, utterance, `self.width`)."""
        beside = torch.cat([x, self.graph(x, mask)], 2)
        said: Tensor = self.project(self.recurrent(self.dropout(beside), mask).tokens).relu()
        return said


class GCNet(Fusion[GCNetConfig]):
    """Each sample is one utterance; those of a conversation, which `Batch.groups` names, are read together in
    their order.

    Lian, Chen, Sun, Liu and Tao, "GCNet: Graph Completion Network for Incomplete Multimodal Learning in
    Conversation", TPAMI 2023, arXiv 2203.02177, and the code that its authors publish. Kept: LSTMs, both
    graphs, their sum, reconstruction of what is withheld. Simplified: speakers are not known here, so that
    the graph of speakers has one relation; the optional attention is left out. Not repeated: masks of padded
    utterances, relations in the order of a set.
    """

    config_class = GCNetConfig
    summary = "Graphs over the utterances of a conversation, which reconstruct missing modalities"
    unexported = "reads the samples of a conversation together"

    def __init__(self, config: GCNetConfig) -> None:
        super().__init__(config, config.hidden)
        self.widths = [self._encoder(name).width for name in config.anchors]
        self.dropout = nn.Dropout(config.dropout)
        self.recurrent = Recurrent(
            sum(self.widths), config.hidden, depth=config.depth, dropout=config.dropout, bidirectional=True
        )
        self.time = GraphPath(self.recurrent.width, config, "time")
        self.speaker = GraphPath(self.recurrent.width, config, "speaker")
        self.reconstruct = nn.Linear(self.time.width, sum(self.widths))
        self.head = Head(self.time.width, config.task, config.dropout)

    def _predict(self, batch: Batch) -> Output:
        return self._converse(self.utterances(self._encoded(batch)), batch.groups or batch.ids)

    def _read(self, encoded: Encoded) -> Output:
        """Predict as `_predict`, where nothing is known of conversations."""
        vectors = self.utterances(encoded)
        return self._converse(vectors, [str(row) for row in range(len(vectors))])

    def _converse(self, vectors: Tensor, groups: Sequence[str]) -> Output:
        conversation, place = _places(groups)
        conversations = vectors.new_zeros(max(conversation) + 1, max(place) + 1, vectors.shape[1])
        conversations[conversation, place] = vectors
        mask = torch.zeros(conversations.shape[:2], dtype=torch.bool, device=vectors.device)
        mask[conversation, place] = True
        x = self.recurrent(self.dropout(conversations), mask).tokens
        fused = (self.time(x, mask) + self.speaker(x, mask))[conversation, place]
        return Output(
            prediction=self.head(fused), embedding=fused, extras={"reconstructed": self.reconstruct(fused)}
        )

    def utterances(self, encoded: Encoded) -> Tensor:
        """(batch, sum of widths): the pooled modalities one after the other, zero where missing."""
        pooled = []
        for tokens in encoded.values():
            tokens = tokens.fitted(1) if tokens.mask.shape[1] == 0 else tokens
            pooled.append(
                self._pooled(tokens.x, tokens.mask).masked_fill(~tokens.mask.any(1, keepdim=True), 0)
            )
        return torch.cat(pooled, 1)

    def withheld_parts(self, batch: Batch) -> tuple[Sequence[Tensor], Tensor]:
        """Pooled vectors of the complete batch, and which of them were withheld, (batch, modality)."""
        encoded = self._encoded(batch.complete())
        absent = torch.zeros(len(batch), dtype=torch.bool, device=self._weight.device)
        there = [
            batch.withheld[name].mask.any(1) & encoded[name].mask.any(1) if name in batch.withheld else absent
            for name in encoded
        ]
        return self.utterances(encoded).split(self.widths, 1), torch.stack(there, 1)


def _places(groups: Sequence[str]) -> tuple[list[int], list[int]]:
    """The number of each sample's conversation, and its place there, in the order in which they stand."""
    numbers: dict[str, int] = {}
    sizes: dict[str, int] = {}
    conversation, place = [], []
    for group in groups:
        conversation.append(numbers.setdefault(group, len(numbers)))
        place.append(sizes.get(group, 0))
        sizes[group] = place[-1] + 1
    return conversation, place


class Completion(Objective):
    """The loss of the task, and the error of what is reconstructed of the modalities that were withheld."""

    model: GCNet

    def shown(self, batch: Batch) -> Batch:
        """The batch, in training with something withheld."""
        return withhold(batch, self.model.config.withhold) if self.training else batch

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        terms = self.supervised(batch, output)
        if self.training:
            with torch.no_grad():
                targets, withheld = self.model.withheld_parts(batch)
            said = output.extras["reconstructed"].split(self.model.widths, 1)
            errors = torch.stack(
                [(x - target).square().mean(1) for x, target in zip(said, targets, strict=True)], 1
            )
            terms["reconstruction"] = self.model.config.reconstruction * (errors * withheld).sum(1)
        return terms


GRAPH_COMPLETION = Method(
    network=GCNet,
    objective=Completion,
    settings={
        "fit": {
            "learning_rate": 1e-3,
            "weight_decay": 1e-5,
            "warmup_fraction": 0.0,
            "gradient_clip": 0.0,
            "epochs": 100,
            "patience": 0,
        }
    },
    required={"loader": {"keep_groups": True}},
    search={"options.reconstruction": LOSS_WEIGHT},
    source="Lian et al., TPAMI 2023, arXiv 2203.02177",
    needs="conversations: groups of samples in their order; without them each sample stands alone",
    differs=(
        "Feature mode, each modality pooled to one vector. Speakers are not known, so that the graph of"
        " speakers has one relation. Batches are counted in utterances, not in conversations."
    ),
    keeps_withheld=True,
)
