"""A sample whose raw tokens are still arriving, modality by modality, in memory that does not grow."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from alignmamba.contracts import ModalitySpec, Output, TokenVectors
from alignmamba.errors import ConfigError, DataError, ShapeError
from alignmamba.models.alignmamba import AlignMamba, StreamState
from alignmamba.nn.encoders import Encoder
from alignmamba.ops import interleave, match_tokens
from alignmamba.ops.transport import nearest_in_time

MOST_WAITING: Final = 10_000
"""Tokens of a modality that wait for another one, at most."""


@dataclass
class _Arriving:
    """Encoded tokens of one modality that are still needed."""

    spec: ModalitySpec
    x: Tensor
    """(1, time, d_model)."""
    times: Tensor
    """(1, time) float64 seconds."""
    state: Any = None
    ended: bool = False
    last: float = float("-inf")
    """Time of the token that came last."""

    def drop(self, count: int) -> None:
        self.x, self.times = self.x[:, count:], self.times[:, count:]


class RawStream:
    """Prediction of one sample while its raw tokens arrive, equal to that of the whole sample at the end.

    An anchor token is read as soon as each other modality has those tokens that it may be matched to: those
    within the window of local alignment. Memory depends on the window and on how far modalities arrive
    apart, not on the length.

    Further targets come with it. One of a modality is predicted from those of its tokens that have arrived;
    zeros stand for a modality of which nothing came. Of tokens, each output has those read since the output
    before, so that all outputs one after the other are those of the whole sample.

    Only a model whose tokens do not depend on what comes later can do so: encoders that are causal, each
    anchor token matched within a window by seconds, and a scan in one direction.

    Args:
        model: In evaluation mode.
        modalities: Those that the sample has, by default all; the others are missing.

    Raises:
        ConfigError: If the model cannot stream; the message names the option.
        DataError: If a modality is unknown, or there is none.
    """

    def __init__(self, model: AlignMamba, modalities: Sequence[str] | None = None) -> None:
        anchors = model.config.anchors
        names = list(anchors) if modalities is None else list(modalities)
        unknown = [name for name in names if name not in anchors]
        if unknown or not names:
            found = repr(unknown[0]) if unknown else "none"
            raise DataError(f"modalities: expected one or more of {', '.join(anchors)}, found {found}")
        present = [name for name in anchors if name in names]
        problem = next(_problems(model, present), "")
        if problem:
            raise ConfigError(f"stream: {problem}")
        self._model, self._anchor = model, present[0]
        specs = {spec.name: spec for spec in model.config.modalities}
        like = model.absent_tokens[self._anchor]
        self._arriving = {
            name: _Arriving(
                specs[name],
                like.new_zeros(1, 0, model.config.d_model),
                like.new_zeros(1, 0, dtype=torch.float64),
            )
            for name in present
        }
        self._zero: float | None = None
        self._alone: set[str | None] = {target.modality for target in model.config.task.further} - {None}
        self._states: dict[str | None, StreamState] = {}
        """States of the sample, under ``None``, and of modalities that are read alone."""

    @torch.no_grad()
    def step(self, tokens: Mapping[str, tuple[Tensor, Tensor]]) -> Output | None:
        """Take further tokens.

        Args:
            tokens: Modality to its next tokens, (time, width), or (time,) token ids, and their times, (time,)
                seconds that never fall. A modality without new tokens may be left out.

        Returns:
            The output for all anchor tokens that were read so far, of targets of tokens for those read now;
            ``None`` before the first.

        Raises:
            DataError: If a modality is not of this sample or has ended, times fall, or too many tokens wait
                for a modality that does not arrive.
            ShapeError: If a shape does not fit.
        """
        for name, (features, times) in tokens.items():
            self._take(name, features, times)
        return self._advanced()

    @torch.no_grad()
    def close(self, *names: str) -> Output | None:
        """End modalities of which nothing comes any more, so that no other waits for them.

        Returns:
            The output as of `step`.

        Raises:
            DataError: If a modality is not of this sample.
        """
        for name in names:
            own = self._of(name)
            own.ended = True
            if own.last == float("-inf") and name != self._anchor:
                del self._arriving[name]  # nothing came: it is missing
        return self._advanced()

    def end(self) -> Output:
        """End the sample: nothing comes any more.

        Returns:
            The output for the whole sample.

        Raises:
            DataError: If the first modality had no token.
        """
        found = self.close(*self._arriving)
        if found is None:
            raise DataError(f"modality {self._anchor!r}: found no token, expected at least one")
        return found

    @property
    def waiting(self) -> dict[str, int]:
        """Tokens that are held, by modality."""
        return {name: each.x.shape[1] for name, each in self._arriving.items()}

    def _of(self, name: str) -> _Arriving:
        if name not in self._arriving:
            raise DataError(f"modality {name!r}: expected one of this sample: {', '.join(self._arriving)}")
        return self._arriving[name]

    def _take(self, name: str, features: Tensor, times: Tensor) -> None:
        """Encode further tokens of a modality."""
        own = self._of(name)
        if own.ended:
            raise DataError(f"modality {name!r}: found tokens after its end, expected none")
        given = features.unsqueeze(1) if own.spec.kind == "tokens" and features.ndim == 1 else features
        fits = given.is_floating_point() == (own.spec.kind == "features")
        if not fits or given.ndim != 2 or given.shape[1] != own.spec.width or times.shape != given.shape[:1]:
            raise ShapeError(
                f"modality {name!r}: expected {own.spec.kind} (time, {own.spec.width}) with (time,) seconds,"
                f" found {features.dtype} {tuple(features.shape)} with {tuple(times.shape)}"
            )
        if not len(given):
            return
        seconds = times.double()
        steps = torch.diff(seconds, prepend=seconds.new_tensor([own.last]))
        if not bool(seconds.isfinite().all()) or bool((steps < 0).any()):
            raise DataError(f"modality {name!r}: expected finite times that never fall, found others")
        x, state = self._encoded(own, given.unsqueeze(0))
        if name in self._alone:
            self._read_on(name, {name: x})
        own.last, own.state = float(seconds[-1]), state
        if self._zero is None:
            self._zero = float(seconds[0])
        own.x = torch.cat([own.x, x], 1)
        own.times = torch.cat([own.times, (seconds - self._zero).unsqueeze(0)], 1)

    def _encoded(self, own: _Arriving, features: Tensor) -> tuple[Tensor, Any]:
        model, name = self._model, own.spec.name
        if own.spec.kind == "tokens":
            features = features.long()
            if bool(((features < 0) | (features >= own.spec.dim)).any()):
                raise DataError(
                    f"modality {name!r}: expected token ids from 0 to {own.spec.dim - 1}, found others"
                )
        else:
            features = features.to(own.x.dtype)
            if not bool(features.isfinite().all()):
                raise DataError(f"modality {name!r}: expected finite numbers, found others")
            mask = features.new_ones(features.shape[:2], dtype=torch.bool)
            features = model.standardisers[name](features, mask)
        encoder = model.encoders[name]
        assert isinstance(encoder, Encoder)
        return encoder.extend(features, own.state)

    def _advanced(self) -> Output | None:
        """Read the anchor tokens whose partners have all arrived."""
        anchor = self._arriving[self._anchor]
        others = {name: each for name, each in self._arriving.items() if name != self._anchor}
        count = min([anchor.x.shape[1], *(self._complete(each) for each in others.values())])
        read = anchor.x.new_zeros(1, 0, self._model.token_width)
        if count:
            x, times = anchor.x[:, :count], anchor.times[:, :count]
            streams = {self._anchor: x} | {
                name: self._matched(x, times, each) for name, each in others.items()
            }
            anchor.drop(count)
            read = self._read_on(None, streams)
        for name, each in self._arriving.items():
            if each.x.shape[1] > MOST_WAITING:
                raise DataError(
                    f"modality {name!r}: {each.x.shape[1]} tokens wait for those of another modality,"
                    f" expected at most {MOST_WAITING}; close what does not come"
                )
        return self._output(read) if None in self._states else None

    def _output(self, read: Tensor) -> Output:
        """Predictions so far, and those of the anchor tokens that were read now, (1, time, channel)."""
        model = self._model
        embeddings = {key: state.pooled.value for key, state in self._states.items()}
        nothing = torch.zeros_like(embeddings[None])
        tokens = {}
        for name in model.config.task.labelled_tokens:
            x = read if name == self._anchor else read[:, :0]
            tokens[name] = TokenVectors(x=x, mask=torch.ones_like(x[..., 0], dtype=torch.bool))
        return model.output_of(dict.fromkeys(self._alone, nothing) | embeddings, tokens)

    def _complete(self, other: _Arriving) -> int:
        """Anchor tokens whose candidates in another modality have all arrived."""
        anchor, window = self._arriving[self._anchor], self._window
        if other.ended:
            return anchor.x.shape[1]
        # The nearest is known once a middle of two neighbours lies at the token or behind it.
        middles = (other.times[:, 1:] + other.times[:, :-1]) / 2
        nearest = torch.searchsorted(middles.contiguous(), anchor.times.contiguous())
        known = (nearest < middles.shape[1]) & (nearest + window < other.x.shape[1])
        return int(known[0].long().cumprod(0).sum())

    @property
    def _window(self) -> int:
        window = self._model.config.local.window
        assert window is not None
        return window

    def _matched(self, x: Tensor, times: Tensor, other: _Arriving) -> Tensor:
        """Tokens of another modality for these anchor tokens; those that no later one needs are dropped."""
        mask, other_mask = (
            torch.ones(each.shape, dtype=torch.bool, device=x.device) for each in (times, other.times)
        )
        index, _ = match_tokens(
            x,
            other.x,
            mask,
            other_mask,
            window=self._window,
            time_weight=self._model.time_weight,
            source_times=times,
            anchor_times=other.times,
        )
        taken = other.x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[2]))
        nearest = nearest_in_time(times[:, -1:], other.times, other_mask)
        other.drop(max(0, int(nearest) - self._window))
        return taken

    def _read_on(self, key: str | None, streams: Mapping[str, Tensor]) -> Tensor:
        """Read further aligned tokens, (1, time, d_model) each, of the sample or of a modality alone.

        Returns:
            The vector of each token of the anchor, (1, time, channel).
        """
        model = self._model
        like = next(iter(streams.values()))
        if model.config.local.method == "none":  # tokens stand in one sequence with no others
            fused = like
        else:
            absent = {name: token.expand_as(like) for name, token in model.absent_tokens.items()}
            fused = interleave([streams.get(name, absent[name]) for name in reversed(model.config.anchors)])
        read, self._states[key] = model.extend(fused, self._states.get(key))
        return read.reshape(*like.shape[:2], -1)[..., -model.token_width :]


def _problems(model: AlignMamba, present: Sequence[str]) -> Iterator[str]:
    """Reasons why a model cannot stream a sample with these modalities."""
    config, local = model.config, model.config.local
    if model.training:
        yield "found a model in training mode, expected evaluation mode"
    if config.bidirectional:
        yield "bidirectional: found true, expected false: the backward scan begins at the last token"
    if model.branches is not None:
        yield "unimodal_branches: found true, expected false: branches join tokens that arrive apart"
    if local.method == "none" and config.pool_by == "modality":
        yield "pool_by: found 'modality', expected 'sequence' where local.method is 'none'"
    for name in present:
        encoder = model.encoders[name]
        assert isinstance(encoder, Encoder)
        if encoder.unstreamed:
            yield f"encoders.{name}: {encoder.unstreamed}"
    if len(present) == 1:
        return
    for option, value in (("method", "match"), ("marginal", "anchor"), ("time_unit", "seconds")):
        if getattr(local, option) != value:
            yield (
                f"local.{option}: found {getattr(local, option)!r}, expected {value!r}: the match of a token"
                " must not depend on later ones"
            )
    if local.window is None:
        yield "local.window: found none, expected a number: a token could match any later one"
    for name in set(present) & set(config.timeless):
        yield f"timeless: found {name!r}, expected none: tokens are matched by their seconds"
