"""Learning without labels: hidden tokens are reconstructed, modalities of one sample are matched."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Annotated, Any, ClassVar, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from alignmamba.contracts import Batch, Config, Output, Task
from alignmamba.models.encoded import Encoded, FusionConfig, Hidden, ReadsTokens, TokensRead
from alignmamba.models.network import Network, NetworkConfig
from alignmamba.nn.by_name import ModulesByName, WeightsByName
from alignmamba.nn.encoders import EmbeddingEncoder, Encoder
from alignmamba.nn.language import LanguageConfig
from alignmamba.ops import masked_mean
from alignmamba.training.objective import Objective, Parcel, Predicted, Stage
from alignmamba.training.selection import VALIDATION_LOSS

Draw = Callable[[Sequence[str], Sequence[int], str, int | None], NDArray[np.bool_]]
"""Draws hidden tokens: of ids, numbers of tokens, the modality and the epoch, ``None`` outside of training;
(samples, longest) bool."""

_Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_MATCHED_WIDTH: Final = 64


class PretrainConfig(Config):
    """Options of learning without labels."""

    reconstruction: _Weight = 1.0
    """Weight of the reconstruction of hidden tokens; 0 switches it off, and nothing is hidden."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of each modality's tokens that is hidden."""
    span: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Tokens that are hidden together, in tokens of the encoder."""
    matching: _Weight = 0.3
    """Weight of the matching of modalities of one sample within a batch; 0 switches it off."""
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    """Divisor of cosines in the matching; the smaller, the more the likest wrong sample counts."""


class Pretraining(Objective):
    """Reconstruction of hidden tokens from the backbone's outputs, and matching of modalities.

    *Reconstruction.* Spans of each modality's tokens are hidden before the encoder behind a learned vector. A
    linear map of the backbone's output at a hidden token predicts its standardised features; of token ids,
    the inner product with the encoder's own table predicts the id. Errors are squared and averaged over
    channels, cross entropies divided by the logarithm of the vocabulary, so that 1 is what the train mean or
    a guess reaches, whatever the width. The loss of a sample is the mean over its hidden tokens, then over
    modalities.

    *Matching.* The mean of each modality's encoded tokens, which no other modality had a part in, is
    projected; for every two modalities each sample is found among those of its batch that have both, in both
    directions. The cross entropy is divided by the logarithm of their number, so that 1 is chance; a sample
    without company has none. This term is a statistic of the batch, and of the share of it that a process
    holds: it changes with both.

    Beside them stand the network's own terms. Heads and stand-ins are in checkpoints and not in the model.

    Args:
        model: The network.
        task: Task of the corpus, of which nothing is learned.
        config: Terms and what is hidden.
        draw: Draws what is hidden, by sample and epoch.

    Source:
        Spans and regression: HuBERT, Hsu et al., arXiv:2106.07447, section II-B; data2vec, Baevski et al.,
        arXiv:2202.03555. Token ids: BERT, Devlin et al., arXiv:1810.04805, section 3.1. Matching: CLIP,
        Radford et al., arXiv:2103.00020, figure 3.
    """

    needs_targets: ClassVar[bool] = False
    model: ReadsTokens[Any]

    def __init__(self, model: ReadsTokens[Any], task: Task, config: PretrainConfig, draw: Draw) -> None:
        super().__init__(model, task)
        self.config = config
        self._draw = draw
        self._epoch = 0
        encoders = {name: _encoder(model, name) for name in model.config.anchors}
        self.stand_ins = WeightsByName()
        self.reconstructors = ModulesByName()
        self.matchers = ModulesByName()
        for spec in model.config.modalities if config.reconstruction else ():
            reads_ids = spec.kind == "tokens"
            width = encoders[spec.name].width if reads_ids else spec.dim
            self.stand_ins[spec.name] = nn.Parameter(0.02 * torch.randn(width))
            self.reconstructors[spec.name] = nn.Linear(model.read_width, width)
        if config.matching and len(encoders) > 1:
            for name, encoder in encoders.items():
                self.matchers[name] = nn.Linear(encoder.width, _MATCHED_WIDTH, bias=False)

    @property
    def stages(self) -> Sequence[Stage]:
        return (Stage(name="pretrain", select=VALIDATION_LOSS),)

    def begin_epoch(self, stage: Stage, epoch: int) -> None:
        del stage
        self._epoch = epoch

    def forward(self, parcel: Parcel) -> tuple[Predicted, dict[str, Tensor]]:
        """Loss terms of a batch; nothing is predicted, so that predictions are 0."""
        dtype = next(parameter.dtype for parameter in self.model.parameters())
        batch = parcel.batch.in_precision(dtype)
        hidden = self._hidden(batch)
        found = self.model.read_tokens(
            batch, {name: Hidden(where, self.stand_ins[name]) for name, where in hidden.items()}
        )
        reconstruction = self._reconstruction(batch, hidden, found)
        losses = {**found.losses, **reconstruction, **self._matching(found.encoded)}
        shape = (len(batch), self.task.num_outputs) if self.task.classes else (len(batch),)
        return Predicted(torch.zeros(shape), {}), losses

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        """Return no term: a prediction teaches nothing."""
        del batch, output
        return {}

    def _hidden(self, batch: Batch) -> dict[str, Tensor]:
        """Tokens of the batch that are hidden, (batch, time) bool each, whole tokens of the encoder."""
        hidden = {}
        for name in self.stand_ins:
            if name not in batch.modalities:
                continue
            mask, stride = batch.modalities[name].mask, self.model.strides[name]
            lengths = ((mask.sum(1) + stride - 1) // stride).tolist()
            drawn = self._draw(batch.ids, lengths, name, self._epoch if self.training else None)
            where = torch.from_numpy(drawn).to(mask.device).repeat_interleave(stride, 1)
            where = F.pad(where, (0, mask.shape[1] - where.shape[1]))
            hidden[name] = where & mask
        return hidden

    def _reconstruction(
        self, batch: Batch, hidden: Mapping[str, Tensor], found: TokensRead
    ) -> dict[str, Tensor]:
        """A term of each modality, (batch,), 0 where nothing of it is hidden."""
        if not hidden:
            return {}
        seen = self.model.tokens_seen(batch)
        present = torch.stack([tokens.mask.any(1) for tokens in found.encoded.values()]).sum(0).clamp(min=1)
        terms = {}
        for name, where in hidden.items():
            read, stride = found.read[name], self.model.strides[name]
            row, place = (where[:, ::stride] & read.mask).nonzero(as_tuple=True)
            said = self.reconstructors[name](read.x[row, place]).float()
            if name in seen:
                error = (said - seen[name].x[row, place].float()).square().mean(1)
            else:
                error = self._wrong_ids(name, said, batch, row, place)
            total = error.new_zeros(len(batch)).index_add(0, row, error)
            count = torch.bincount(row, minlength=len(batch)).clamp(min=1)
            terms[f"reconstruction.{name}"] = self.config.reconstruction * total / count / present
        return terms

    def _wrong_ids(self, name: str, said: Tensor, batch: Batch, row: Tensor, place: Tensor) -> Tensor:
        """(tokens,) mean cross entropy of the ids that became each encoded token, over that of a guess."""
        encoder = _encoder(self.model, name)
        assert isinstance(encoder, EmbeddingEncoder)
        table = encoder.project.weight.float()
        likely: Tensor = (said @ table.T / table.shape[1] ** 0.5).log_softmax(1)
        s, stride = batch.modalities[name], encoder.stride
        at = place[:, None] * stride + torch.arange(stride, device=place.device)
        inside = at < s.mask.shape[1]
        at = at.clamp(max=s.mask.shape[1] - 1)
        ids = s.features[row[:, None], at, 0]
        known = s.mask[row[:, None], at] & inside
        error = -(likely.gather(1, ids.masked_fill(~known, 0)) * known).sum(1) / known.sum(1).clamp(min=1)
        return error / math.log(max(2, len(table)))

    def _matching(self, encoded: Encoded) -> dict[str, Tensor]:
        """A term of each pair of modalities, (batch,), 0 where a sample lacks one or has no company."""
        vectors = {
            name: F.normalize(matcher(masked_mean(encoded[name].x, encoded[name].mask)).float(), dim=1)
            for name, matcher in self.matchers.items()
        }
        pairs = list(combinations(vectors, 2))
        terms = {}
        for one, other in pairs:
            rows = (encoded[one].mask.any(1) & encoded[other].mask.any(1)).nonzero().flatten()
            alike = vectors[one][rows] @ vectors[other][rows].T / self.config.temperature
            own = torch.arange(len(rows), device=rows.device)
            ways = [F.cross_entropy(each, own, reduction="none") for each in (alike, alike.T)]
            error = (ways[0] + ways[1]) / 2 / math.log(max(2, len(rows)))
            total = error.new_zeros(len(encoded[one].mask)).index_add(0, rows, error)
            terms[f"matching.{one}-{other}"] = self.config.matching * total / len(pairs)
        return terms


def _encoder(model: ReadsTokens[Any], name: str) -> Encoder:
    encoder = model.encoders[name]
    assert isinstance(encoder, Encoder)
    return encoder


def why_not_pretrained(network: type[Network[Any]], config: NetworkConfig) -> str:
    """Reason why a network cannot be pretrained; empty where it can."""
    if not issubclass(network, ReadsTokens):
        return "it has no output for each token"
    assert isinstance(config, FusionConfig)
    for spec in config.modalities:
        if isinstance(config.encoders.get(spec.name, config.encoder), LanguageConfig):
            return f"the encoder of {spec.name!r} is a language model, which is pretrained already"
    return ""
