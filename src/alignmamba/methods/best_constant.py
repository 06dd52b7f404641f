"""The best constant: the median of the train labels or the classes' shares, whatever the features say."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from alignmamba.contracts import Batch, Output
from alignmamba.methods.method import Method
from alignmamba.models.network import Network, NetworkConfig
from alignmamba.training.batches import BatchSource, known_targets
from alignmamba.training.objective import Objective, Stage
from alignmamba.training.selection import VALIDATION_LOSS


class BestConstantConfig(NetworkConfig):
    """Everything that defines a constant: nothing."""

    method = "best-constant"
    one_target = "is one number for the target of the task"


class BestConstant(Network[BestConstantConfig]):
    """One prediction for all samples.

    Its ``output`` is a number in deviations from the targets' mean, or a logit per class.
    """

    config_class = BestConstantConfig
    summary = "The median label or the most frequent class for every sample"
    tags = ("baseline",)

    def __init__(self, config: BestConstantConfig) -> None:
        super().__init__(config)
        self.output = nn.Parameter(torch.zeros(config.task.num_outputs))

    def _predict(self, batch: Batch) -> Output:
        self._sequences(batch)  # refuses what any other network refuses
        said = self.output.expand(batch.size, -1)
        prediction = said.squeeze(1) if self.config.task.kind == "regression" else said
        return Output(prediction=prediction, embedding=said)


class MostLikely(Objective):
    """The median of the train labels, which has the least mean absolute error, or the logarithm of the share
    of each class, of several labels of their odds, counted once more than they are seen.
    """

    model: BestConstant

    @property
    def stages(self) -> Sequence[Stage]:
        # correlations of a constant are not defined, the loss always is
        return (Stage(optimisers=(), epochs=1, select=VALIDATION_LOSS, solved=True),)

    def prepare(self, train: BatchSource) -> None:
        known = known_targets(train, self.task)
        self.targets = torch.tensor(list(known.values()), dtype=torch.float64)

    @torch.no_grad()
    def begin_epoch(self, stage: Stage, epoch: int) -> None:
        del stage, epoch
        if self.task.kind == "regression":
            scale = self.target_scale
            self.model.output.fill_((float(self.targets.quantile(0.5)) - scale.mean) / scale.deviation)
        elif self.task.kind == "multilabel":
            there = (self.targets == 1).sum(0) + 1
            self.model.output.copy_((there / ((self.targets == 0).sum(0) + 1)).log())
        else:
            counts = torch.bincount(self.targets.long(), minlength=self.task.num_outputs) + 1
            self.model.output.copy_((counts / counts.sum()).log())

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        return self.supervised(batch, output)


BEST_CONSTANT = Method(
    network=BestConstant,
    objective=MostLikely,
    source="Hastie, Tibshirani & Friedman, The Elements of Statistical Learning (2009), section 2.4",
)
"""The best constant as a method."""
