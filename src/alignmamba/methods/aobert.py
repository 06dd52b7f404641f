"""AOBERT: one Transformer over all modalities, which rebuilds hidden tokens and spots swapped streams."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from alignmamba.contracts import Batch, Output, Task
from alignmamba.methods.method import Method
from alignmamba.methods.search_space import LOSS_WEIGHT
from alignmamba.models.encoded import Encoded, Fusion, Head, PlainFusionConfig, presence
from alignmamba.nn.alignment import Tokens
from alignmamba.nn.attention import AttentionConfig, AttentionLayer, sinusoidal_positions
from alignmamba.nn.by_name import ModulesByName, WeightsByName
from alignmamba.training.objective import Objective


class AOBERTConfig(PlainFusionConfig, AttentionConfig):
    """Everything that defines AOBERT; the fields of the Transformer stand at the top level."""

    hidden_share: Annotated[float, Field(ge=0, le=1)] = 0.15
    """Chance that a token is hidden in training."""
    replaced_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Chance that one stream of a sample is that of another sample in training."""
    masking: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the error with which hidden tokens are rebuilt."""
    alignment: Annotated[float, Field(ge=0)] = 0.1
    """Weight of distinguishing samples with a replaced stream from whole ones."""

    @model_validator(mode="after")
    def _token_by_token(self) -> Self:
        for modality in self.modalities:
            kind = self.encoders.get(modality.name, self.encoder).kind
            if kind in ("conv", "mamba", "pretrained") or (kind == "auto" and modality.kind == "features"):
                raise ValueError(
                    f"encoders: found {kind} for {modality.name}, expected none, linear or embedding, which"
                    " encode tokens one by one"
                )
        return self


class AOBERT(Fusion[AOBERTConfig]):
    """A class token and the tokens of all modalities, each marked by its place and its modality, read by one
    Transformer.

    Kim and Park, "AOBERT: All-modalities-in-One BERT for multimodal sentiment analysis", Information Fusion
    92, 2023, doi 10.1016/j.inffus.2022.11.022; no code was found. *Reconstructed* without the full text: a
    single stream and the two tasks trained together, masked modelling and alignment prediction, are the
    paper's. Chosen here: both tasks are trained beside the prediction, on a second, corrupted reading; places
    count from the start of each stream; nothing separates streams but their marks; every hidden token becomes
    the learned one of its modality, with no share left as it is. The stream that is replaced is always that
    of another sample, never the sample's own by chance. Nothing is drawn in evaluation. Missing modality: one
    learned token.
    """

    config_class = AOBERTConfig
    summary = "One Transformer over all modalities that rebuilds hidden tokens and spots swapped streams"
    tags = ("transformer",)

    def __init__(self, config: AOBERTConfig) -> None:
        super().__init__(config, config.d_model)
        self.project = ModulesByName(
            {name: nn.Linear(self._encoder(name).width, config.d_model) for name in config.anchors}
        )
        self.marks = WeightsByName(
            {name: nn.Parameter(0.02 * torch.randn(config.d_model)) for name in config.anchors}
        )
        self.first = nn.Parameter(0.02 * torch.randn(config.d_model))
        self.embedding_norm = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(AttentionLayer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.d_model)
        self.head = Head(config.d_model, config.task, config.dropout)

    def _read(self, encoded: Encoded) -> Output:
        streams = self._with_absent(encoded)
        said, _ = self.states(streams)
        extras = {"present": presence(encoded)}
        for name, tokens in streams.items():
            extras |= {f"x_{name}": tokens.x, f"mask_{name}": tokens.mask, f"times_{name}": tokens.times}
        return Output(prediction=self.head(said), embedding=said, extras=extras)

    def states(self, streams: Mapping[str, Tokens]) -> tuple[Tensor, dict[str, Tensor]]:
        """Read encoded tokens, the sample's own or what stands in their place.

        Args:
            streams: By modality, in anchor order; at the width of its encoder.

        Returns:
            The last state of the class token, (batch, d_model), and of the tokens of each modality, (batch,
            its time, d_model).
        """
        parts = []
        for name, tokens in streams.items():
            projected = self.project[name](tokens.x)
            parts.append(projected + sinusoidal_positions(projected) + self.marks[name].to(projected.dtype))
        count = parts[0].shape[0]
        x = torch.cat([self.first.to(parts[0].dtype).expand(count, 1, -1), *parts], 1)
        masks = [tokens.mask for tokens in streams.values()]
        mask = torch.cat([masks[0].new_ones(count, 1), *masks], 1)
        x = self.dropout(self.embedding_norm(x))
        for layer in self.layers:
            x = layer(x, mask)
        first, *others = self.norm(x).split([1, *(part.shape[1] for part in parts)], 1)
        return first[:, 0], dict(zip(streams, others, strict=True))


class MaskedAndMatched(Objective):
    """The task; while training, hidden tokens are rebuilt, and samples with a swapped stream are spotted."""

    model: AOBERT

    def __init__(self, model: AOBERT, task: Task) -> None:
        super().__init__(model, task)
        widths = {
            name: layer.in_features for name, layer in model.project.items() if isinstance(layer, nn.Linear)
        }
        width = model.config.d_model
        self.hidden_tokens = WeightsByName(
            {name: nn.Parameter(0.02 * torch.randn(size)) for name, size in widths.items()}
        )
        self.rebuild = ModulesByName({name: nn.Linear(width, size) for name, size in widths.items()})
        self.matched = nn.Linear(width, 1)

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        terms = self.supervised(batch, output)
        if not self.training:
            return terms
        config, extras = self.model.config, output.extras
        streams = {
            name: Tokens(*(extras[f"{part}_{name}"] for part in ("x", "mask", "times")))
            for name in config.anchors
        }
        present = extras["present"]
        streams, replaced, asked = with_replaced(streams, present, config.replaced_share)
        hidden = {
            name: tokens.mask
            & present[:, column, None]
            & (torch.rand(tokens.mask.shape, device=present.device) < config.hidden_share)
            for column, (name, tokens) in enumerate(streams.items())
        }
        said, states = self.model.states(self.with_hidden(streams, hidden))
        error, count = torch.zeros_like(terms["task"]), present.new_zeros(len(present), dtype=torch.int64)
        for name, tokens in streams.items():
            wrong = (self.rebuild[name](states[name]) - tokens.x.detach()).square().mean(2)
            error = error + (wrong * hidden[name]).sum(1)
            count = count + hidden[name].sum(1)
        score = self.matched(said).squeeze(1).float()
        unmatched = (
            functional.binary_cross_entropy_with_logits(score, (~replaced).to(score.dtype), reduction="none")
            * asked
        )
        return {
            **terms,
            "masking": config.masking * error / count.clamp(min=1),
            "alignment": config.alignment * unmatched,
        }

    def with_hidden(self, streams: Mapping[str, Tokens], hidden: Mapping[str, Tensor]) -> dict[str, Tokens]:
        """The streams with the learned token of the modality where `hidden`, (batch, its time) bool each."""
        return {
            name: replace(
                tokens,
                x=torch.where(
                    hidden[name].unsqueeze(2), self.hidden_tokens[name].to(tokens.x.dtype), tokens.x
                ),
            )
            for name, tokens in streams.items()
        }


def with_replaced(
    streams: Mapping[str, Tokens], present: Tensor, share: float
) -> tuple[dict[str, Tokens], Tensor, Tensor]:
    """Give some samples one stream of another sample, never that of the anchor.

    Args:
        streams: By modality, the anchor first.
        present: (batch, modality) bool, what samples have.
        share: Chance that a sample gets one, where this can be seen: it has two modalities, and another
            sample has that one.

    Returns:
        The streams; the samples that got one, and those that could have, (batch,) bool both.
    """
    candidates = present & (present.sum(0) >= 2) & (present.sum(1, keepdim=True) >= 2)
    candidates[:, 0] = False
    asked = candidates.any(1)
    chosen = torch.rand(candidates.shape, device=present.device).masked_fill(~candidates, -1).argmax(1)
    replaced = asked & (torch.rand(asked.shape, device=present.device) < share)
    result = dict(streams)
    for column, name in list(enumerate(streams))[1:]:
        tokens, other = streams[name], another(present[:, column])
        result[name] = Tokens(tokens.x[other], tokens.mask[other], tokens.times[other]).where(
            replaced & (chosen == column), tokens
        )
    return result, replaced, asked


def another(having: Tensor) -> Tensor:
    """Another sample with the stream for each sample that has it, (batch,) bool, (batch,) int64: no two the
    same one.

    Without a second such sample, and for those that have none, it is the sample itself.
    """
    rows = having.nonzero().flatten()
    rows = rows[torch.randperm(len(rows), device=rows.device)]
    found = torch.arange(len(having), device=having.device)
    found[rows] = rows.roll(1)
    return found


ALL_IN_ONE = Method(
    network=AOBERT,
    objective=MaskedAndMatched,
    settings={"loader": {"batch_size": 32}, "fit": {"warmup_fraction": 0.1}},
    search={"options.masking": LOSS_WEIGHT, "options.alignment": LOSS_WEIGHT},
    source="Kim and Park, Information Fusion 92, 2023, doi 10.1016/j.inffus.2022.11.022",
    differs=(
        "Feature mode: a small Transformer from scratch over features in place of a pretrained BERT; a hidden"
        " token is rebuilt as what the encoder made of it, not as a word. Both tasks of pretraining are"
        " trained beside the prediction, without a stage of their own."
    ),
    reconstructed=(
        "The full text was not read and no code was found: layout of the sequence, shares of hidden tokens"
        " and replaced streams, weights, sizes and settings are chosen here."
    ),
)
