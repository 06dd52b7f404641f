"""DCCA and DCCAE: networks whose outputs correlate most, then a linear head on what they learned."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Annotated, Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from alignmamba.contracts import Batch, Output, Task
from alignmamba.errors import ConfigError
from alignmamba.methods.method import Method
from alignmamba.methods.search_space import BATCHES_OF_VIEWS
from alignmamba.models.encoded import Encoded, Fusion, Head, PlainFusionConfig, presence
from alignmamba.nn.by_name import ModulesByName
from alignmamba.nn.pooling import Pooling
from alignmamba.ops.correlation import paired_correlation
from alignmamba.training.batches import BatchSource, most_together
from alignmamba.training.objective import TASK, Minimise, Objective, Stage

CORRELATION = "correlation"
RECONSTRUCTION = "reconstruction"


class DCCAConfig(PlainFusionConfig):
    """Everything that defines DCCA."""

    method = "canonical correlation"
    least_modalities = 2
    one_target = "learns its views before it sees a target"
    absent: Literal["learned", "zeros"] = "zeros"
    pooling: Pooling = "mean"
    hidden: Annotated[int, Field(ge=1)] = 256
    """Width of the hidden layers of a view."""
    depth: Annotated[int, Field(ge=0, le=16)] = 3
    """Hidden layers of a view."""
    components: Annotated[int, Field(ge=1, le=512)] = 10
    """Numbers that a view becomes, which correlate with those of the others; a batch must hold more
    samples."""
    ridge: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    """Added to the variances of a view."""
    correlation_epochs: Annotated[int, Field(ge=1)] | None = None
    """Passes of the first stage at most; empty: as many as `fit.epochs`."""

    @model_validator(mode="after")
    def _several(self) -> Self:
        if self.absent != "zeros":
            raise ValueError(
                f"absent: expected 'zeros', which is the mean of the train tokens, found {self.absent!r}"
            )
        return self


class DCCAEConfig(DCCAConfig):
    """Everything that defines DCCAE."""

    reconstruction: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-3
    """Weight of the squared errors of the decoders."""


class _Normalised(nn.BatchNorm1d):
    """Batch normalisation, by what is stored where a batch has one sample or the view has learned."""

    learning = True

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.learning and len(x) > 1:
            return super().forward(x)
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


def _layers(width: int, hidden: int, depth: int, out: int) -> nn.Sequential:
    """Linear, batch normalisation and ReLU for each hidden layer; the last one is linear."""
    parts: list[nn.Module] = []
    for _ in range(depth):
        parts += [nn.Linear(width, hidden), _Normalised(hidden), nn.ReLU()]
        width = hidden
    return nn.Sequential(*parts, nn.Linear(width, out))


class DCCA(Fusion[Any]):
    """Mean token of each modality, a network per modality, and a linear head on all they say.

    Andrew, Arora, Bilmes and Livescu, "Deep Canonical Correlation Analysis", ICML 2013, in the form in which
    GCNet's public code trains it as a baseline: sizes, ridge, sum over all pairs. Kept: views, loss, two
    stages. Changed: a head trained on frozen views in place of an external linear SVM, so that numbers can be
    predicted and one file holds all. A missing modality is the mean of the train tokens, as there, though not
    of valid and test ones; such samples are left out of the correlation. The third view has a network of its
    own, where the public code takes that of the second.
    """

    config_class = DCCAConfig
    summary = "Networks per modality whose outputs correlate most, then a head on them"

    def __init__(self, config: DCCAConfig) -> None:
        super().__init__(config, config.hidden)
        self.views = ModulesByName(
            {
                name: _layers(self._encoder(name).width, config.hidden, config.depth, config.components)
                for name in config.anchors
            }
        )
        self.head = Head(len(config.anchors) * config.components, config.task, dropout=0.0)

    def _read(self, encoded: Encoded) -> Output:
        present = presence(encoded)
        pooled = {name: self._pooled(t.x, t.mask) for name, t in self._with_absent(encoded).items()}
        views = {name: self.views[name](vector) for name, vector in pooled.items()}
        embedding = torch.cat(list(views.values()), 1)
        extras = {"present": present} | {f"view.{name}": view for name, view in views.items()}
        extras |= {f"pooled.{name}": vector for name, vector in pooled.items()}
        return Output(prediction=self.head(embedding), embedding=embedding, extras=extras)


class DCCAE(DCCA):
    """DCCA whose views can be turned back into what they were made from.

    Wang, Arora, Livescu and Bilmes, "On Deep Multi-View Representation Learning", ICML 2015, arXiv
    1602.01024; kept and changed as in DCCA. Decoders mirror the views, serve training alone, and learn from
    the samples that have the modality.
    """

    config_class = DCCAEConfig
    summary = "DCCA with autoencoders: views correlate and can be decoded, then a head on them"


class Correlated(Objective):
    """Stage ``correlation`` trains the views without labels, stage ``head`` the head on frozen views."""

    model: DCCA

    def __init__(self, model: DCCA, task: Task) -> None:
        super().__init__(model, task)
        config = model.config
        self.decoders = ModulesByName()
        if isinstance(config, DCCAEConfig):
            for name in config.anchors:
                width = model._encoder(name).width
                self.decoders[name] = _layers(config.components, config.hidden, config.depth, width)
        self.stage = CORRELATION

    @property
    def stages(self) -> Sequence[Stage]:
        first = Minimise(rates={"": 1.0, "model.head.": 0.0})
        return (
            Stage(
                name=CORRELATION,
                optimisers=(first,),
                epochs=self.model.config.correlation_epochs,
                select="loss",
            ),
            Stage(name="head", optimisers=(Minimise(rates={"": 0.0, "model.head.": 1.0}),)),
        )

    def prepare(self, train: BatchSource) -> None:
        config = self.model.config
        most = most_together(train, list(combinations(config.anchors, 2)))
        if most <= config.components:
            raise ConfigError(
                f"loader.batch_size: found at most {most} samples of a batch with two modalities,"
                f" expected more than options.components={config.components}"
            )

    def begin_epoch(self, stage: Stage, epoch: int) -> None:
        del epoch
        self.stage = stage.name
        for module in self.modules():
            if isinstance(module, _Normalised):
                module.learning = stage.name == CORRELATION

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        if self.stage != CORRELATION:
            assert batch.targets is not None
            return {TASK: self.leading_loss(batch, output.prediction)}
        config = self.model.config
        views = [output.extras[f"view.{name}"] for name in config.anchors]
        least = config.components + 1 if self.training else 2
        found = {
            CORRELATION: -paired_correlation(views, output.extras["present"], ridge=config.ridge, least=least)
        }
        if isinstance(config, DCCAEConfig):
            found[RECONSTRUCTION] = config.reconstruction * self._errors(output)
        return found

    def _errors(self, output: Output) -> Tensor:
        """(batch,): sum over the modalities of a sample of the mean squared error of its decoder."""
        total = torch.zeros(len(output.prediction), device=output.prediction.device)
        for number, name in enumerate(self.model.config.anchors):
            decoded = self.decoders[name](output.extras[f"view.{name}"])
            error = (decoded - output.extras[f"pooled.{name}"].detach()).square().mean(1)
            total = total + error.masked_fill(~output.extras["present"][:, number], 0)
        return total


_SETTINGS = {
    "loader": {"batch_size": 1024},
    "fit": {
        "epochs": 100,
        "learning_rate": 1e-3,
        "weight_decay": 1e-4,
        "warmup_fraction": 0.0,
        "gradient_clip": 0.0,
        "patience": 0,
    },
}
_DIFFERS = (
    "Mean tokens in place of vectors of an utterance; a head on frozen views in place of a linear SVM. A"
    " missing modality is the mean of train tokens alone. The best epoch of the first stage has the lowest"
    " loss on the valid split."
)

CORRELATED_VIEWS = Method(
    network=DCCA,
    objective=Correlated,
    settings=_SETTINGS,
    source="Andrew et al., ICML 2013, as trained by Lian et al., TPAMI 2023, arXiv 2203.02177",
    needs="two or more modalities, and batches with more samples than components",
    search={"loader.batch_size": BATCHES_OF_VIEWS},
    differs=_DIFFERS,
)
CORRELATED_AUTOENCODERS = replace(
    CORRELATED_VIEWS,
    network=DCCAE,
    source=(
        "Wang et al., ICML 2015, arXiv 1602.01024, as trained by Lian et al., TPAMI 2023, arXiv 2203.02177"
    ),
)
