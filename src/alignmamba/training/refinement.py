"""Learning from a label of its own for each modality, which is refined as training continues."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from alignmamba.contracts import Batch, Output, Task
from alignmamba.errors import DataError
from alignmamba.training.batches import BatchSource, every_target
from alignmamba.training.objective import Objective, Stage
from alignmamba.training.sample_memory import SampleMemory, Seen

FUSED: Final = "fused"
"""Name of the fused feature in `Output.extras` and in the memory."""
LARGEST: Final = 3.0
"""Labels are refined in units in which the largest one is as far from neutral as on the scale of sentiment,
-3 to 3."""


def of(modality: str) -> str:
    """Name of a modality's vector in `Output.extras` and in the memory."""
    return f"of_{modality}"


def check_signed(task: Task, neutral: float, method: str) -> None:
    """Refuse a task whose labels do not lie on two sides of a neutral one.

    Raises:
        ValueError: With the reason; a validator of a configuration makes one line of it.
    """
    if task.kind != "regression":
        raise ValueError(
            f"task: {method} needs a regression with labels on both sides of a neutral one, found"
            f" {len(task.classes)} {'labels' if task.kind == 'multilabel' else 'classes'}"
        )
    if task.label_range is not None and not task.label_range[0] < neutral < task.label_range[1]:
        low, high = task.label_range
        raise ValueError(
            f"neutral: {method} needs labels on both sides of it, found {neutral:g} in a range from {low:g}"
            f" to {high:g}"
        )


def signed_labels(train: BatchSource, task: Task, neutral: float) -> tuple[tuple[str, ...], Tensor, float]:
    """Labels of the train split as distances from the neutral one.

    Returns:
        Ids; distances (samples,) float64, in units in which the end of the scale is 3 away; and that unit.

    Raises:
        DataError: If no label is positive, none is negative, or a sample has none.
    """
    targets = every_target(train, task, why="it learns from how far each label is from neutral")
    distances = torch.tensor(list(targets.values()), dtype=torch.float64) - neutral
    if not (bool((distances > 0).any()) and bool((distances < 0).any())):
        raise DataError(
            f"train: expected labels on both sides of options.neutral ({neutral:g}), found them on one side"
        )
    ends = task.label_range
    largest = max(abs(end - neutral) for end in ends) if ends else float(distances.abs().max())
    unit = largest / LARGEST
    return tuple(targets), distances / unit, unit


class RefinedLabels(Objective):
    """A head per modality learns a label of its own, which starts as that of the sample and moves to where
    the features lie.

    The network's `Output.extras` hold its ``fused`` feature, the vector of each modality, ``of_NAME`` (batch,
    width), and who has what, ``present`` (batch, modalities). A head turns a vector into a feature and what
    it says of the standardised label.

    In epoch n the refined label is (n - 1) / (n + 1) times the old plus 2 / (n + 1) times the new one, from
    the second epoch on; an error counts with the weight tanh of how far the label has moved, so heads learn
    nothing in the first. This is Self-MM's scheme (Yu et al., AAAI 2021, arXiv 2102.04830); a method says
    what the new label is.

    Args:
        model: The network.
        task: A regression.
        heads: By modality, (batch, width) to a feature (batch, feature) and a number (batch,).
        remembered: Width of the features that the memory keeps, by their names in it.
        neutral: Label that is neither positive nor negative.
    """

    truth: Tensor
    """(samples,): labels of the train samples from the neutral one on, the largest of them 3."""
    labels: Tensor
    """(samples, modalities): those of each modality."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        *,
        heads: nn.ModuleDict,
        remembered: Mapping[str, int],
        neutral: float,
    ) -> None:
        super().__init__(model, task)
        self.heads = heads
        self.neutral = neutral
        self.remembered = dict(remembered)
        self.epoch = 1

    def prepare(self, train: BatchSource) -> None:
        ids, distances, self.unit = signed_labels(train, self.task, self.neutral)
        self.register_buffer("truth", distances.float())
        self.register_buffer("labels", self.truth.unsqueeze(1).repeat(1, len(self.heads)))
        self.memory = SampleMemory(ids, self.remembered)

    def begin_epoch(self, stage: Stage, epoch: int) -> None:
        del stage
        self.epoch = epoch + 1

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        terms = self.supervised(batch, output)
        if not self.training:
            return terms  # valid samples have one label
        rows = self.memory.rows(batch.ids, self.labels.device)
        features = {FUSED: output.extras[FUSED]}
        present = {FUSED: torch.ones_like(rows, dtype=torch.bool)}
        unimodal = torch.zeros_like(terms["task"])
        for column, (name, head) in enumerate(self.heads.items()):
            features[of(name)], said = head(output.extras[of(name)])
            present[of(name)] = output.extras["present"][:, column]
            label = self.labels[rows, column]
            moved = torch.tanh((label - self.truth[rows]).abs())
            scale = self.target_scale
            error = self.task_loss(
                scale.mean + scale.deviation * said.double(), self.neutral + self.unit * label.double()
            )
            unimodal = unimodal + moved * present[of(name)] * error
        self.memory.note(rows, features, present)
        return {**terms, "unimodal": unimodal}

    def after_step(self) -> None:
        seen = self.memory.take()
        if self.epoch > 1:
            self._refine(seen)
        self.memory.write(seen)

    def _refine(self, seen: Seen) -> None:
        """Move the labels of the samples of a step, by the centres as they were before it."""
        earlier = self.labels.clone()
        for column, name in enumerate(self.heads):
            here = seen.present[of(name)]
            rows = seen.rows[here]
            features = {which: value[here].to(self.labels.dtype) for which, value in seen.vectors.items()}
            new = self._new_labels(
                name, features[FUSED], features[of(name)], self.truth[rows], earlier[:, column]
            )
            if new is not None and len(rows):
                share = 2 / (self.epoch + 1)
                self.labels[rows, column] = (1 - share) * earlier[rows, column] + share * new.clamp(
                    -LARGEST, LARGEST
                )

    @abstractmethod
    def _new_labels(
        self, name: str, fused: Tensor, own: Tensor, truth: Tensor, labels: Tensor
    ) -> Tensor | None:
        """Say where a modality's labels should be.

        Args:
            name: Of the modality.
            fused: (some, width), fused features of samples that have it.
            own: (some, width), their features of the modality.
            truth: (some,), their true labels.
            labels: (samples,), the present labels of this modality of all train samples.

        Returns:
            (some,), or ``None`` while too little is known to say.
        """

    def centres(self, name: str, labels: Tensor) -> tuple[Tensor, Tensor] | None:
        """Mean remembered features, (width,) each, of samples with a positive and with a negative label;
        ``None`` if one has none.

        Args:
            name: Of the features in the memory.
            labels: (samples,).
        """
        known, vectors = self.memory.known(name), self.memory.vectors(name)
        positive, negative = known & (labels > 0), known & (labels < 0)
        if not (bool(positive.any()) and bool(negative.any())):
            return None
        return vectors[positive].mean(0), vectors[negative].mean(0)
