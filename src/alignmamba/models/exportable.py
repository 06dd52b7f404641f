"""A fusion model with plain tensors in and out, as `torch.export` and ONNX want it."""

from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any, Final

import torch
from torch import Tensor, nn

from alignmamba.contracts import Batch, ModalitySpec, Sequences, Target, Task
from alignmamba.errors import ConfigError, ShapeError, brief
from alignmamba.models.branches import JOINED
from alignmamba.models.network import Network
from alignmamba.ops.backends import exporting

SAMPLES: Final = "samples"
"""Name of the dimension whose size is the number of samples."""


@dataclass(frozen=True, slots=True)
class TensorIn:
    """One tensor that a program takes."""

    name: str
    modality: str
    kind: str
    """``features``, ``mask`` or ``times``."""


class TensorsIn(nn.Module):
    """A model that takes features and mask of each modality, in the order of its configuration, and gives the
    predictions of all targets, whose names are its `outputs`. Behind a target of tokens stands its mask,
    (batch, time) bool, called NAME_mask: true where a token was read.

    A modality whose times the model reads has a third tensor, (batch, time) float64 seconds, NaN where they
    are unknown; `inputs` lists all. `exported_program` makes a program of it, for any number of samples and
    lengths of their own. A program may not look at data, so AlignMamba has every sequence to the length of
    the longest modality in place of the anchor's: padding, which changes no prediction. Its matching holds
    all pairs at once there. The model that is given is put into evaluation mode.

    Args:
        model: The network.
        as_predicted: Give what `alignmamba predict` writes in place of what heads say: probabilities of
            classes, and NaN where there is nothing to predict from. Without it, a sample without any modality
            has a meaningless prediction, and so has padding.

    Raises:
        ConfigError: If the model cannot be exported.
    """

    def __init__(self, model: Network[Any], *, as_predicted: bool = False) -> None:
        super().__init__()
        if model.unexported:
            raise ConfigError(f"export: {type(model).__name__} cannot be exported: it {model.unexported}")
        self.model = model
        self.as_predicted = as_predicted
        self.names = tuple(modality.name for modality in model.config.modalities)
        self.inputs = tuple(_inputs(model))
        self.outputs = tuple(_outputs(model))
        self.eval()

    def forward(self, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Predict.

        Args:
            *tensors: features (batch, time, channel) and mask (batch, time) bool of the first modality, of
                the second, and so on.

        Returns:
            (batch,) for regression, (batch, class) scores for classification; with further targets a tuple of
            that and those of each, of tokens with time behind the batch and followed by their mask.

        Raises:
            ShapeError: If their number is not that of `inputs`.
        """
        if len(tensors) != len(self.inputs):
            what = (
                "features, mask and times" if len(self.inputs) > 2 * len(self.names) else "features and mask"
            )
            raise ShapeError(f"expected {what} of each of {list(self.names)}, found {len(tensors)} tensors")
        given: dict[str, dict[str, Tensor]] = {name: {} for name in self.names}
        for place, tensor in zip(self.inputs, tensors, strict=True):
            given[place.modality][place.kind] = tensor
        sequences = {
            name: Sequences(features=each["features"], mask=each["mask"], times=each.get("times"))
            for name, each in given.items()
        }
        if exporting():
            # Padding for one more token, also where branches join more, so that no length is 1, of
            # which a program would make a case of its own.
            longest, strides = self.model.longest, self.model.strides
            sequences = {
                name: each if name in longest else each.padded(each.mask.shape[1] + JOINED * strides[name])
                for name, each in sequences.items()
            }
        ids = () if exporting() else ("",) * tensors[0].shape[0]
        batch = Batch(modalities=sequences, ids=ids)
        output = self.model(batch)
        task: Task = self.model.config.task
        answer = [self._said(output.prediction, task, reduce(or_, map(batch.having, self.names)))]
        for target in task.further:
            said = output.further[target.name]
            if target.tokens is not None:
                time = given[target.tokens]["mask"].shape[1]
                read = output.tokens[target.tokens].mask[:, :time]
                answer += [self._said(said[:, :time], target, read), read]
                continue
            names = self.names if target.modality is None else [target.modality]
            answer.append(self._said(said, target, reduce(or_, map(batch.having, names))))
        return answer[0] if len(answer) == 1 else tuple(answer)

    def _said(self, said: Tensor, target: Task | Target, there: Tensor) -> Tensor:
        """Predictions of a target, NaN where there is nothing to predict from."""
        if not self.as_predicted:
            return said
        if target.kind == "regression":
            return said.masked_fill(~there, torch.nan)
        probable = said.sigmoid() if target.kind == "multilabel" else said.softmax(-1)
        return probable.masked_fill(~there.unsqueeze(-1), torch.nan)

    def example(self) -> tuple[Tensor, ...]:
        """Tensors to trace the model with, whose content is of no account: three samples of some tokens."""
        return tuple(
            _example(spec, place.kind, 5 + 2 * number)
            for number, spec in enumerate(self.model.config.modalities)
            for place in self.inputs
            if place.modality == spec.name
        )

    def free(self) -> tuple[tuple[dict[int, Any], ...]]:
        """Dimensions that are free, as ``dynamic_shapes`` of an export: the number of samples, and one length
        for each modality, both 1 or more.
        """
        samples = torch.export.Dim(SAMPLES, min=1)
        lengths = {
            name: torch.export.Dim(
                f"{name}_tokens".replace("-", "_"), min=1, max=self.model.longest.get(name)
            )
            for name in self.names
        }
        return (tuple({0: samples, 1: lengths[place.modality]} for place in self.inputs),)


def exported_program(wrapped: TensorsIn) -> torch.export.ExportedProgram:
    """The program of a model, for any number of samples and lengths of their own.

    Raises:
        ConfigError: If `torch.export` refuses the model.
    """
    # sizes that PyTorch remembers of an earlier export would become constants of this one
    torch.compiler.reset()
    try:
        with torch.no_grad():
            return torch.export.export(wrapped, wrapped.example(), dynamic_shapes=wrapped.free())
    except Exception as error:  # whatever stands in the way of tracing has a class of its own
        raise ConfigError(
            f"export: {type(wrapped.model).__name__} with these options is refused by torch.export:"
            f" {brief(error)}"
        ) from error


def _inputs(model: Network[Any]) -> list[TensorIn]:
    places = []
    for spec in model.config.modalities:
        places += [
            TensorIn(spec.name, spec.name, "features"),
            TensorIn(f"{spec.name}_mask", spec.name, "mask"),
        ]
        if spec.name in model.timed:
            places.append(TensorIn(f"{spec.name}_times", spec.name, "times"))
    double = _repeated([place.name for place in places])
    if double is not None:
        raise ConfigError(f"export: modality {double!r} has the name of another one's tensor; rename it")
    return places


def _outputs(model: Network[Any]) -> list[str]:
    names = ["prediction"]
    for target in model.config.task.further:
        names += [target.name] if target.tokens is None else [target.name, f"{target.name}_mask"]
    double = _repeated(names)
    if double is not None:
        raise ConfigError(f"export: target {double!r} has the name of another output; rename it")
    return names


def _repeated(names: list[str]) -> str | None:
    return next((name for name in names if names.count(name) > 1), None)


def _example(spec: ModalitySpec, kind: str, length: int) -> Tensor:
    if kind == "mask":
        return torch.ones(3, length, dtype=torch.bool)
    if kind == "times":
        return torch.arange(length, dtype=torch.float64).repeat(3, 1)
    dtype = torch.float32 if spec.kind == "features" else torch.int64
    return torch.zeros(3, length, spec.width, dtype=dtype)
