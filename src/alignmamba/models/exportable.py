"""A fusion model with plain tensors in and out, as `torch.export` and ONNX want it."""

from typing import Any

from torch import Tensor, nn

from alignmamba.contracts import Batch, Sequences
from alignmamba.errors import ShapeError
from alignmamba.models.network import Network


class TensorsIn(nn.Module):
    """A model that takes features and mask of each modality, in the order of its configuration, and gives the
    predictions of all targets, whose names are its `outputs`.

    ``torch.export.export(TensorsIn(model), tensors, dynamic_shapes=...)`` and ``torch.onnx.export`` of the
    same accept lengths of their own for every modality; the number of samples is fixed. A program may not
    look at data, so what the model refuses otherwise, a sample without any modality, gives a meaningless
    prediction, and AlignMamba has every sequence to the length of the longest modality in place of the
    anchor's: padding, which changes no prediction. Its matching holds all pairs at once there. The model that
    is given is put into evaluation mode.
    """

    def __init__(self, model: Network[Any]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(modality.name for modality in model.config.modalities)
        self.outputs = ("prediction", *(target.name for target in model.config.task.further))
        self.eval()

    def forward(self, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Predict.

        Args:
            *tensors: features (batch, time, channel) and mask (batch, time) bool of the first modality, of
                the second, and so on.

        Returns:
            (batch,) for regression, (batch, class) scores for classification; with further targets a tuple of
            that and one for each of them.

        Raises:
            ShapeError: If their number is not twice the number of modalities.
        """
        if len(tensors) != 2 * len(self.names):
            raise ShapeError(
                f"expected features and mask of each of {list(self.names)}, found {len(tensors)} tensors"
            )
        sequences = {
            name: Sequences(features=features, mask=mask)
            for name, features, mask in zip(self.names, tensors[::2], tensors[1::2], strict=True)
        }
        output = self.model(Batch(modalities=sequences, ids=("",) * len(tensors[0])))
        if len(self.outputs) == 1:
            return output.prediction  # type: ignore[no-any-return]
        return (output.prediction, *(output.further[name] for name in self.outputs[1:]))
