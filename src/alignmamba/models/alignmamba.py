"""AlignMamba: align all to an anchor, interleave, read by one Mamba stack (arXiv 2412.00833)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor

from alignmamba.contracts import Batch, Branches, FollowsTraining, Output, Plan, TokenVectors
from alignmamba.errors import ConfigError, ShapeError
from alignmamba.models.branches import JOINED, UnimodalBranches
from alignmamba.models.encoded import Encoded, Head, presence
from alignmamba.models.side_by_side import SideBySide, SideBySideConfig, mean_vote, of_votes
from alignmamba.nn.alignment import (
    Contrast,
    ContrastConfig,
    GlobalAlignmentConfig,
    LocalAlignmentConfig,
    SoftPlanConfig,
    Tokens,
    TransportLossConfig,
    align,
    discrepancies,
    distances,
    first_present,
    merge_by_time,
    middles,
    returned,
)
from alignmamba.nn.annealed_prior import AnnealConfig, AnnealedPrior
from alignmamba.nn.encoders import EncoderConfig, encoder_of
from alignmamba.nn.mamba import BlockState, MambaConfig, MambaStack
from alignmamba.nn.pooling import PooledState, pool_step
from alignmamba.ops import deinterleave, interleave
from alignmamba.ops.backends import exporting


class AlignMambaConfig(SideBySideConfig, MambaConfig):
    """Everything that defines an AlignMamba; the fields of the Mamba backbone stand at the top level."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {
            "pool_by": "modality",
            "unimodal_weight": 0.5,
            "modality_weights": "validation",
            "unimodal_branches": True,
            "encoder": {"centring": "learned", "kernel_size": 11},
        },
        "0.1": {},
        "paper": {
            "bidirectional": False,
            "absent": "zeros",
            "pooling": "mean",
            "local": {
                "method": "match",
                "mass": "paper",
                "marginal": "source",
                "time_weight": 0.0,
                "window": None,
            },
            "alignment": {"pairs": "anchor", "bandwidth": 1.0, "weight": 0.1},
        },
    }
    """``default``, chosen by measurement; ``0.1``, the default of version 0.1; and ``paper``, the paper's
    equations to the letter (docs/decisions.md)."""

    no_tokens = ""
    SILENT: ClassVar[Mapping[str, Any]] = {
        **SideBySideConfig.SILENT,
        "contrast": {"weight": 0.0},
        "unimodal_branches": False,
        "pool_by": "sequence",
        "soft": {"regularisation": 0.05, "iterations": 20},
        "anneal": {"to": 1.0},
        "transport_loss": {"weight": 0.0},
    }

    pool_by: Literal["sequence", "modality"] = "sequence"
    """Positions that are pooled to one vector: those of the whole sequence that the backbone read, or each
    modality's apart, whose vectors are then concatenated."""

    unimodal_branches: bool = False
    """A branch for each modality beside the fusion: an encoder of twice the stride, one Mamba block and a
    head, which no other modality reaches. It learns by its own loss, of weight 1; the prediction is the mean
    of the fusion and of the mean branch that a sample has. A pretrained encoder is shared. With one modality,
    or one vector of the whole sequence, there are none."""

    local: LocalAlignmentConfig = LocalAlignmentConfig()
    """Local alignment: tokens to anchor tokens."""
    alignment: GlobalAlignmentConfig = GlobalAlignmentConfig()
    """Global alignment: the MMD loss."""
    contrast: ContrastConfig = ContrastConfig()
    """Contrast of tokens: a loss by which local alignment learns."""
    soft: SoftPlanConfig = SoftPlanConfig()
    """Plan of local method ``soft``."""
    anneal: AnnealConfig = AnnealConfig()
    """Fall of the time weight while training."""
    transport_loss: TransportLossConfig = TransportLossConfig()
    """Transport distance of encoded tokens: a loss by which local alignment learns."""

    @property
    def has_vectors(self) -> bool:
        return super().has_vectors and self.pool_by == "modality"

    @property
    def has_branches(self) -> bool:
        """True where modalities have branches."""
        return self.unimodal_branches and self.has_vectors

    @model_validator(mode="after")
    def _tokens_are_of_the_anchor(self) -> Self:
        first = self.anchors[0]
        for target in self.task.further:
            if target.tokens not in (None, first) and self.local.method != "none":
                raise ValueError(
                    f"targets.{target.name}: found tokens of {target.tokens!r}, expected of the first anchor"
                    f" {first!r}, to which others are moved; anchor_order names another, and local.method"
                    " 'none' moves nothing"
                )
        return self


@dataclass(frozen=True, slots=True)
class FusedTokens:
    """The sequence that the backbone reads, and what was made on the way to it."""

    x: Tensor
    """(batch, time, d_model)."""
    mask: Tensor
    """(batch, time) bool, valid tokens first."""
    stream: Tensor
    """(batch, time) int64, the place of each token's modality in the order of the interleaving."""
    losses: dict[str, Tensor]
    plans: dict[str, Plan]


@dataclass(frozen=True, slots=True)
class StreamState:
    """State of the model for a sequence that arrives token by token: constant in size."""

    layers: tuple[BlockState, ...]
    pooled: PooledState

    def where(self, valid: Tensor, before: "StreamState") -> "StreamState":
        """This state in the samples where `valid`, (batch,) bool, and the state `before` in the others."""
        return StreamState(
            tuple(
                BlockState(
                    torch.where(valid[:, None, None], new.inputs, old.inputs),
                    torch.where(valid[:, None, None], new.state, old.state),
                )
                for new, old in zip(self.layers, before.layers, strict=True)
            ),
            PooledState(
                torch.where(valid[:, None], self.pooled.value, before.pooled.value),
                torch.where(valid, self.pooled.count, before.pooled.count),
            ),
        )


class AlignMamba(SideBySide[AlignMambaConfig], FollowsTraining):
    """Fusion of any number of modalities, any of which may be missing from any sample.

    A sample is aligned to its anchor, the first modality it has in the configured order. Every other modality
    is resampled to the anchor's length (eq. 3-6), compared with the anchor by MMD (eq. 8-10), and interleaved
    with it (eq. 11). One Mamba stack reads the result; its pooled output gives the prediction.
    """

    config_class = AlignMambaConfig
    summary = "Multimodal fusion by token alignment and Mamba (Li et al., CVPR 2025, arXiv 2412.00833)"
    tags = ("mamba", "optimal-transport", "mmd")
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "w/o local alignment": {"options": {"local": {"method": "proportional"}}},
        "w/o local, lengths kept": {"options": {"local": {"method": "none"}}},
        "w/o global alignment": {"options": {"alignment": {"weight": 0.0}}},
        "w/o both alignments": {
            "options": {"local": {"method": "proportional"}, "alignment": {"weight": 0.0}}
        },
        "content alone": {"options": {"local": {"time_weight": 0.0}}},
        "w/o unimodal losses": {"options": {"unimodal_weight": 0.0}},
        "equal weights": {"options": {"modality_weights": "equal"}},
        "w/o unimodal branches": {"options": {"unimodal_branches": False}},
        "pooled as one": {"options": {"pool_by": "sequence"}},
        "not centred": {"options": {"encoder": {"centring": "none"}}},
        "narrow convolutions": {"options": {"encoder": {"kernel_size": 5}}},
        "single-stream": {"model": "single-stream-mamba"},
        "multi-stream": {"model": "multi-stream-mamba"},
    }

    def __init__(self, config: AlignMambaConfig) -> None:
        super().__init__(config, config.d_model)
        self.backbone = MambaStack(config)
        self.head = Head(self._scopes * config.d_model, config.task, config.dropout)
        self.contrast = Contrast(config.contrast, config.d_model)
        self.prior = AnnealedPrior(config.anneal) if config.anneal.to < 1 else None
        self.branches = self._made_branches() if config.has_branches else None

    def follow_training(self, progress: float) -> None:
        if self.prior is not None:
            self.prior.follow(progress)

    @property
    def vectors(self) -> tuple[str, ...]:
        return self.config.anchors[::-1]

    @property
    def _names_of_vectors(self) -> Mapping[str, str]:
        names = {} if self.branches is None else {f"{name} alone": name for name in self.branches.names}
        return {**super()._names_of_vectors, **names}

    def _said(self, embedding: Tensor, present: Tensor) -> Tensor:
        if self.branches is None:
            return super()._said(embedding, present)
        fused, alone = embedding.tensor_split([-self.branches.width], 1)
        votes = self.branches.heads.votes(alone)
        return _mean_of_both(self.head(fused), votes, present[:, -len(self.branches.names) :])

    def _parts(self) -> tuple[Tensor, ...]:
        own = super()._parts()
        return own if self.branches is None else (*own, *self.branches.heads.weights)

    @property
    def embedding_width(self) -> int:
        alone = 0 if self.branches is None else self.branches.width
        return self._scopes * self.config.d_model + alone

    @property
    def timed(self) -> tuple[str, ...]:
        local, names = self.config.local, [modality.name for modality in self.config.modalities]
        if local.time_unit == "relative" or local.method not in ("match", "soft") or len(names) == 1:
            return ()
        return tuple(name for name in names if name not in self.config.timeless)

    @property
    def time_weight(self) -> float:
        """Weight of the squared time difference in the cost, as it is now."""
        return self.config.local.time_weight * (self.prior.share if self.prior is not None else 1.0)

    @property
    def _scopes(self) -> int:
        """Number of vectors that the sequence is pooled to."""
        return len(self.config.anchors) if self.config.pool_by == "modality" else 1

    def _made_branches(self) -> UnimodalBranches:
        config = self.config
        own = {
            m.name: encoder_of(
                m, encoder.model_copy(update={"stride": JOINED * encoder.stride}), config.d_model
            )
            for m in config.modalities
            if isinstance(encoder := config.encoder_of(m.name), EncoderConfig)
        }
        return UnimodalBranches(
            config.anchors, own, backbone=config, pooling=config.pooling, task=config.task
        )

    def _predict(self, batch: Batch) -> Output:
        inputs = self._inputs(batch)
        encoded = self._encoded_inputs(inputs)
        output = self._read(encoded)
        if self.branches is None:
            return output
        vectors = self.branches(inputs, encoded)
        votes = self.branches.heads.votes(vectors)
        return replace(
            output,
            prediction=_mean_of_both(output.prediction, votes, presence(encoded)),
            branches=Branches(
                fused=output.prediction, alone=of_votes(self.branches.names, votes, encoded, weight=1.0)
            ),
            # further targets read the branches and do not change them
            embedding=torch.cat([output.embedding, vectors.detach()], 1),
        )

    def _read(self, encoded: Encoded) -> Output:
        fused = self._fused(encoded)
        read = self.backbone(fused.x, fused.mask)
        masks = [fused.mask]
        if self.config.pool_by == "modality":
            masks = [fused.mask & (fused.stream == place) for place in range(self._scopes)]
        embedding = torch.cat([self._pooled(read, mask) for mask in masks], 1)
        return Output(
            prediction=self.head(embedding),
            unimodal=self._unimodal(embedding, encoded),
            losses=fused.losses,
            embedding=embedding,
            tokens=self._tokens_of(read, fused, encoded),
            plans=fused.plans,
        )

    def _times_of(self, given: Tokens) -> Tensor:
        return middles(given.times, given.mask) if self.config.local.time_unit == "spans" else given.times

    def _tokens_read(self, encoded: Encoded) -> tuple[Mapping[str, TokenVectors], Mapping[str, Tensor]]:
        fused = self._fused(encoded)
        read = self.backbone(fused.x, fused.mask)
        order = self.vectors
        if self.config.local.method == "none":
            return self._placed(read, fused.mask, fused.stream, encoded, order), fused.losses
        anchor, is_anchor = first_present(encoded)
        outputs = {}
        for name, stream in zip(order, deinterleave(read, len(order)), strict=True):
            tokens, rows = encoded[name], is_anchor[name]
            own = Tokens(stream, anchor.mask, anchor.times).fitted(tokens.mask.shape[1])
            if not bool(rows.all()):
                own = own.where(rows, returned(stream, tokens, anchor, fused.plans.get(name)))
            outputs[name] = TokenVectors(x=own.x, mask=own.mask)
        return outputs, fused.losses

    def _tokens_of(self, read: Tensor, fused: FusedTokens, encoded: Encoded) -> dict[str, TokenVectors]:
        """Vectors of tokens that have a target: what stands at their own positions, or side by side what all
        modalities have at the times of the anchor.
        """
        count, names = self._streams_of_token, self.config.task.labelled_tokens
        if not names:
            return {}
        mask, stream = (each[:, count - 1 :: count] for each in (fused.mask, fused.stream))
        return self._placed(read.unflatten(1, (-1, count)).flatten(2), mask, stream, encoded, names)

    @property
    def _streams_of_token(self) -> int:
        """Number of positions that a token is predicted from."""
        return self._scopes if self.config.local.method != "none" else 1

    @property
    def token_width(self) -> int:
        return self._streams_of_token * self.config.d_model

    def fused_tokens(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The sequence that the backbone reads, (batch, time, d_model), and its mask: input for `step`. What
        branches read is not in it.
        """
        fused = self._fused(self._encoded(batch))
        return fused.x, fused.mask

    def aligned_streams(self, batch: Batch) -> dict[str, Tokens]:
        """Every modality's tokens after local alignment, before they are interleaved, in the order of the
        interleaving.

        Returns:
            Modality to its tokens, (batch, anchor time, d_model), the anchor's among them; no token is valid
            in the samples that lack the modality. With local method ``none``, each modality's encoded tokens
            at its own length.
        """
        encoded = self._encoded(batch)
        streams, _ = self._aligned(encoded, *first_present(encoded))
        return {name: streams[name] for name in self.vectors}

    def step(
        self, token: Tensor, state: StreamState | None = None, *, valid: Tensor | None = None
    ) -> tuple[Output, StreamState]:
        """Read one more token of the fused sequence; memory does not grow with the number of tokens.

        Args:
            token: (batch, d_model), the next token of `fused_tokens`.
            state: What the call before returned; ``None`` at the start.
            valid: (batch,) bool, the samples that have a token at this step: the mask's column. The others
                stay as they are. All if not given.

        Returns:
            The output for the valid tokens so far, equal to the full pass over them, and the state. Further
            targets of the sample are in it: others need more than fused tokens.

        Raises:
            ConfigError: If the backbone is bidirectional, or modalities have branches.
            ShapeError: If the token's shape does not fit.
        """
        if token.ndim != 2 or token.shape[1] != self.config.d_model:
            raise ShapeError(
                f"token: expected (batch, {self.config.d_model}), found shape {tuple(token.shape)}"
            )
        if valid is not None and (valid.shape != token.shape[:1] or valid.dtype != torch.bool):
            raise ShapeError(
                f"valid: expected bool of shape ({len(token)},), found {valid.dtype} of shape"
                f" {tuple(valid.shape)}"
            )
        before = state or self._initial_state(token)
        _, after = self.extend(token.unsqueeze(1), before)
        if valid is not None:
            after = after.where(valid, before)
        return self.output_of({None: after.pooled.value}, {}), after

    def extend(self, tokens: Tensor, state: StreamState | None = None) -> tuple[Tensor, StreamState]:
        """Read several more tokens of the fused sequence, all of them valid, as `step` reads one.

        Args:
            tokens: (batch, time, d_model).
            state: As of `step`.

        Returns:
            Outputs of the backbone for these tokens, (batch, time, d_model), and the state.

        Raises:
            ConfigError: If the backbone is bidirectional, or modalities are pooled apart and do not take
                turns.
            ShapeError: If the tokens' shape does not fit.
        """
        if tokens.ndim != 3 or tokens.shape[2] != self.config.d_model:
            raise ShapeError(
                f"tokens: expected (batch, time, {self.config.d_model}), found shape {tuple(tokens.shape)}"
            )
        if self.config.pool_by == "modality" and self.config.local.method == "none":
            raise ConfigError("pool_by: step needs 'sequence' where local.method is 'none', found 'modality'")
        state = state or self._initial_state(tokens)
        read, layers = self.backbone.extend(tokens, state.layers)
        pooled = state.pooled
        for token in read.unbind(1):
            pooled = self._pool_step(pooled, token)
        return read, StreamState(layers, pooled)

    def output_of(
        self, embeddings: Mapping[str | None, Tensor], tokens: Mapping[str, TokenVectors]
    ) -> Output:
        """Predictions of all targets whose vectors are given.

        Args:
            embeddings: (batch, channel), that of the sample under ``None``, and perhaps those of modalities
                read alone, by name.
            tokens: Vectors of tokens by modality, perhaps.

        Raises:
            ConfigError: If modalities have branches, which read more than fused tokens.
        """
        if self.branches is not None:
            raise ConfigError(
                "unimodal_branches: found true, expected false where fused tokens are read one by one:"
                " branches read others"
            )
        output = Output(
            prediction=self.head(embeddings[None]),
            further=self._further(embeddings, {name: each.x for name, each in tokens.items()}),
            embedding=embeddings[None],
            tokens=tokens,
        )
        return self._in_label_units(output)

    def _initial_state(self, like: Tensor) -> StreamState:
        """State before the first token, (batch, ..., d_model)."""
        pooled = PooledState(
            like.new_zeros(len(like), self._scopes * like.shape[-1]), like.new_zeros(len(like))
        )
        return StreamState(self.backbone.initial_states(len(like)), pooled)

    def _pool_step(self, state: PooledState, token: Tensor) -> PooledState:
        """Pool one more token, (batch, d_model), into the vector of its modality; modalities take turns."""
        vectors = state.value.unflatten(1, (self._scopes, -1))
        turn = state.count.long() % self._scopes
        row = torch.arange(len(token), device=token.device)
        before = PooledState(vectors[row, turn], (state.count / self._scopes).floor())
        pooled = pool_step(self.config.pooling, before, token).value
        return PooledState(vectors.index_put((row, turn), pooled).flatten(1), state.count + 1)

    def _fused(self, encoded: Encoded) -> FusedTokens:
        anchor, is_anchor = first_present(encoded)
        order = self.vectors
        streams, plans = self._aligned(encoded, anchor, is_anchor)
        if self.config.local.method == "none":
            tokens, mask, stream = merge_by_time([streams[name] for name in order])
        else:
            tokens = interleave([self._filled(name, streams[name], anchor.mask) for name in order])
            mask = anchor.mask.repeat_interleave(len(order), dim=1)
            stream = (torch.arange(mask.shape[1], device=mask.device) % len(order)).expand_as(mask)
        # An exported program predicts; losses would bound the lengths that it takes.
        several = len(streams) > 1 and not exporting()
        losses = self._losses(encoded, streams, anchor, is_anchor) if several else {}
        return FusedTokens(tokens, mask, stream, losses, plans)

    def _losses(
        self, encoded: Encoded, streams: Encoded, anchor: Tokens, is_anchor: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Losses that have a weight, (batch,) each, of tokens before and after local alignment."""
        losses = {}
        if weight := self.config.alignment.weight:
            losses["mmd"] = weight * discrepancies(streams, anchor, is_anchor, self.config.alignment)
        if weight := self.config.contrast.weight:
            losses["contrast"] = weight * self.contrast(encoded, anchor, is_anchor)
        if weight := self.config.transport_loss.weight:
            losses["transport"] = weight * distances(
                encoded, anchor, is_anchor, self.config.transport_loss, self.config.local.time_unit
            )
        return losses

    def _aligned(
        self, encoded: Encoded, anchor: Tokens, is_anchor: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tokens], dict[str, Plan]]:
        """Every modality at the anchor's length, its mask empty in the samples that lack it, and the
        matchings.

        Without local alignment, the modalities as they are.
        """
        if self.config.local.method == "none":
            return dict(encoded), {}
        streams, plans = {}, {}
        weight = self.time_weight
        for name, tokens in encoded.items():
            rows = is_anchor[name]
            x = anchor.x
            if torch.compiler.is_compiling() or not bool(rows.all()):
                moved, plan = align(
                    tokens, anchor, self.config.local, soft=self.config.soft, time_weight=weight
                )
                x = torch.where(rows[:, None, None], anchor.x, moved)
                if plan is not None:
                    plans[name] = plan
            streams[name] = Tokens(x, anchor.mask & tokens.mask.any(1, keepdim=True), anchor.times)
        return streams, plans

    def _filled(self, name: str, stream: Tokens, anchor_mask: Tensor) -> Tensor:
        """A stream with the absent token in the samples that lack the modality, zero at padding."""
        x = torch.where(stream.mask.unsqueeze(-1), stream.x, self.absent_tokens[name].to(stream.x.dtype))
        return x.masked_fill(~anchor_mask.unsqueeze(-1), 0)


def _mean_of_both(fused: Tensor, votes: Tensor, present: Tensor) -> Tensor:
    """Mean of what the fusion says and of the mean vote, (batch, modality, ...), of the modalities that are
    present.
    """
    return (fused + mean_vote(votes, present)) / 2
