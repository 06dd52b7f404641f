"""ICCN: outer products of the anchor's vector with those of the others, drawn to correlate."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from alignmamba.contracts import Batch, Output, Task
from alignmamba.errors import ConfigError
from alignmamba.methods.method import Method
from alignmamba.methods.search_space import BATCHES_OF_VIEWS
from alignmamba.models.encoded import Encoded, Head, presence
from alignmamba.models.vectors import VectorConfig, VectorFusion
from alignmamba.nn.by_name import ModulesByName
from alignmamba.nn.pooling import Pooling
from alignmamba.nn.recurrent import LastState
from alignmamba.ops.correlation import paired_correlation
from alignmamba.training.batches import BatchSource, most_together
from alignmamba.training.objective import TASK, Minimise, Objective, Stage

CORRELATION = "correlation"


class ICCNConfig(VectorConfig):
    """Everything that defines ICCN."""

    method = "ICCN"
    least_modalities = 3
    one_target = "learns its vectors before it sees a target"
    d_model: Annotated[int, Field(ge=1)] = 32
    """Width of the vector of a modality that is not the anchor, and of the LSTM that makes it."""
    pooling: Pooling = "mean"
    channels: Annotated[int, Field(ge=1)] = 8
    """Channels of the first convolution over an outer product; the second has twice as many."""
    components: Annotated[int, Field(ge=1, le=512)] = 10
    """Numbers that an outer product becomes, which correlate with those of the others; a batch must hold more
    samples."""
    hidden: Annotated[int, Field(ge=1)] = 64
    """Width of the layer before the head."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Before the head."""
    ridge: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    """Added to the variances of what an outer product becomes."""
    joint: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Weight of the correlation in one stage together with the task; 0: a stage of its own, then a head on
    frozen features."""
    correlation_epochs: Annotated[int, Field(ge=1)] | None = None
    """Passes of the first of two stages at most; empty: as many as `fit.epochs`."""

    @property
    def read(self) -> tuple[str, ...]:
        return self.anchors[1:]


class Interaction(nn.Module):
    """The outer product of two vectors, read by two convolutions of stride 2 and a linear map."""

    def __init__(self, rows: int, columns: int, channels: int, out: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.project = nn.Linear(2 * channels * -(-rows // 4) * -(-columns // 4), out)

    def forward(self, anchor: Tensor, other: Tensor) -> Tensor:
        """(batch, rows) and (batch, columns) to (batch, out)."""
        product = anchor.unsqueeze(2) * other.unsqueeze(1)
        read: Tensor = self.project(self.convolutions(product.unsqueeze(1)).flatten(1))
        return read


class ICCN(VectorFusion[ICCNConfig]):
    """The anchor's mean token as it is, and one interaction with it for every other modality.

    Sun, Sarma, Sethares and Liang, "Learning Relationships between Text, Audio, and Video via Deep Canonical
    Correlation for Multimodal Language Analysis", AAAI 2020, arXiv 1911.05544. Reconstructed from the
    abstract: outer products with the text, a small convolutional network on each, a canonical correlation
    between the results, and the text kept beside them. Chosen here: an LSTM per modality, sizes, two stages
    in place of whatever schedule was used, one hidden layer before the head. A missing modality is read as
    its learned token; correlations count the samples that have the anchor and both others.
    """

    config_class = ICCNConfig
    summary = "Outer products of the anchor with each other modality, drawn to correlate"

    def __init__(self, config: ICCNConfig) -> None:
        super().__init__(config, config.d_model)
        width, others = self.vector_widths[config.anchors[0]], config.read
        self.interactions = ModulesByName(
            {name: Interaction(width, config.d_model, config.channels, config.components) for name in others}
        )
        self.read_out = nn.Linear(width + len(others) * config.components, config.hidden)
        self.head = Head(config.hidden, config.task, config.dropout)

    def _read(self, encoded: Encoded) -> Output:
        vectors = self._vectors(encoded)
        vector = vectors[self.config.anchors[0]]
        found = {name: meet(vector, vectors[name]) for name, meet in self.interactions.items()}
        embedding = torch.cat([vector, *found.values()], 1)
        present = presence(encoded)
        extras = {f"interaction.{name}": each for name, each in found.items()}
        extras["present"] = present[:, :1] & present[:, 1:]
        prediction = self.head(self.read_out(embedding).relu())
        return Output(prediction=prediction, embedding=embedding, extras=extras)

    def _reader(self, width: int) -> LastState:
        return LastState(width, self.config.d_model, self.config.d_model)


class Interactions(Objective):
    """Stage ``correlation`` without labels, then ``head`` on frozen features; or both at once."""

    model: ICCN

    def __init__(self, model: ICCN, task: Task) -> None:
        super().__init__(model, task)
        self.stage = self.stages[0].name

    @property
    def stages(self) -> Sequence[Stage]:
        config = self.model.config
        if config.joint:
            return (Stage(),)
        head = ("model.read_out.", "model.head.")
        first = Minimise(rates={"": 1.0, **dict.fromkeys(head, 0.0)})
        second = Minimise(rates={"": 0.0, **dict.fromkeys(head, 1.0)})
        return (
            Stage(name=CORRELATION, optimisers=(first,), epochs=config.correlation_epochs, select="loss"),
            Stage(name="head", optimisers=(second,)),
        )

    def prepare(self, train: BatchSource) -> None:
        config = self.model.config
        anchor, *others = config.anchors
        most = most_together(train, [(anchor, name) for name in others])
        if most <= config.components:
            raise ConfigError(
                f"loader.batch_size: found at most {most} samples of a batch with {anchor} and another"
                f" modality, expected more than options.components={config.components}"
            )

    def begin_epoch(self, stage: Stage, epoch: int) -> None:
        del epoch
        self.stage = stage.name

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        config = self.model.config
        found: dict[str, Tensor] = {}
        if self.stage != CORRELATION:
            assert batch.targets is not None
            found[TASK] = self.leading_loss(batch, output.prediction)
        if self.stage == CORRELATION or config.joint:
            views = [output.extras[f"interaction.{name}"] for name in config.anchors[1:]]
            least = config.components + 1 if self.training else 2
            total = paired_correlation(views, output.extras["present"], ridge=config.ridge, least=least)
            found[CORRELATION] = -(config.joint or 1.0) * total
        return found


INTERACTIONS = Method(
    network=ICCN,
    objective=Interactions,
    settings={"loader": {"batch_size": 256}},
    source="Sun et al., AAAI 2020, arXiv 1911.05544",
    needs="three or more modalities, and batches with more samples than components",
    search={"loader.batch_size": BATCHES_OF_VIEWS},
    differs="Feature mode: the mean of text features in place of a sentence vector of BERT.",
    reconstructed=(
        "The full text could not be read and no code was found: networks, sizes, rates and the two stages are"
        " chosen here; `joint` trains both at once."
    ),
)
