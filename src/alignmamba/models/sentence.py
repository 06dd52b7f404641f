"""Networks that step in between the embeddings of a sentence and the layers that read them."""

from abc import ABC
from typing import ClassVar, TypeVar

from alignmamba.models.encoded import Fusion, PlainFusionConfig
from alignmamba.nn.attention import AttentionConfig
from alignmamba.nn.language import LanguageSteps
from alignmamba.nn.sentence_encoder import SentenceEncoder


class SentenceConfig(PlainFusionConfig, AttentionConfig):
    """Fields of such a network; those of the anchor's small Transformer stand at the top level."""


ConfigT = TypeVar("ConfigT", bound=SentenceConfig)


class SentenceFusion(Fusion[ConfigT], ABC):
    """A fusion model that reads its anchor in two steps: embeddings, then hidden states.

    The steps are those of a language model, where the anchor's encoder is one; else those of a small
    Transformer, made here.
    """

    anchor_in_steps: ClassVar[bool] = True

    def __init__(self, config: ConfigT) -> None:
        super().__init__(config, config.d_model)
        encoder = self._encoder(self.config.anchors[0])
        if not isinstance(encoder, LanguageSteps):
            self.reader = SentenceEncoder(encoder.width, config)

    @property
    def _sentence(self) -> SentenceEncoder | LanguageSteps:
        """The reader of the anchor: `embedded`, then `hidden_states`."""
        encoder = self._encoder(self.config.anchors[0])
        return encoder if isinstance(encoder, LanguageSteps) else self.reader

    @property
    def _sentence_width(self) -> int:
        """Channels of an embedding and of a hidden state."""
        encoder = self._encoder(self.config.anchors[0])
        return encoder.width if isinstance(encoder, LanguageSteps) else self.config.d_model
