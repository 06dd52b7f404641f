"""Networks that make one vector of each modality, by a recurrent reader or by pooling, before they fuse."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, TypeVar

from torch import Tensor

from alignmamba.models.encoded import Encoded, Fusion, PlainFusionConfig
from alignmamba.nn.by_name import ModulesByName
from alignmamba.nn.pooling import Pooling
from alignmamba.nn.recurrent import LastState, ReadTwice


class VectorConfig(PlainFusionConfig):
    """Fields of such a network."""

    @property
    def read(self) -> tuple[str, ...]:
        """Modalities that have a reader; the others are pooled."""
        return self.anchors


class AnchorVectorConfig(VectorConfig):
    """Fields of such a network whose anchor may be pooled."""

    pooling: Pooling = "mean"
    anchor: Literal["lstm", "recurrent", "pool"] = "lstm"
    """Way in which the anchor becomes a vector: as the others, or pooled, where its features are already
    those of a language model."""

    @property
    def read(self) -> tuple[str, ...]:
        return self.anchors[1:] if self.anchor == "pool" else self.anchors


ConfigT = TypeVar("ConfigT", bound=VectorConfig)


class VectorFusion(Fusion[ConfigT], ABC):
    """A vector per modality: a missing one is read as its learned token."""

    def __init__(self, config: ConfigT, d_model: int) -> None:
        super().__init__(config, d_model)
        self.vector_widths = {name: self._encoder(name).width for name in config.anchors}
        readers = {name: self._reader(self.vector_widths[name]) for name in config.read}
        self.streams = ModulesByName(readers)
        self.vector_widths |= {name: reader.width for name, reader in readers.items()}

    @abstractmethod
    def _reader(self, width: int) -> LastState | ReadTwice:
        """An untrained reader of tokens of that width."""

    def _vectors(self, encoded: Encoded) -> dict[str, Tensor]:
        """One vector per modality, (batch, its width)."""
        ways: dict[str, Callable[[Tensor, Tensor], Tensor]] = dict(self.streams.items())
        streams = self._with_absent(encoded)
        return {name: ways.get(name, self._pooled)(s.x, s.mask) for name, s in streams.items()}
