"""Transport plans of single samples, as ``plans.json`` holds them and a page draws them."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor

from alignmamba.contracts import Batch, Corpus, Output, Plan, Sequences, Split
from alignmamba.data.loader import collate
from alignmamba.methods import METHODS
from alignmamba.models.network import Network
from alignmamba.nn.encoders import group_mean
from alignmamba.recipes.configuration import RunConfig

CONTENT_ALONE: Final = "content alone"
"""Name of the ablation in which time has no part in the cost."""
UNALIGNED: Final = "w/o local, lengths kept"
"""Name of the ablation whose aligned streams are the encoded tokens at their own lengths."""
_BATCH_SIZE: Final = 16


@dataclass(frozen=True, kw_only=True)
class TokenLane:
    """The tokens of one modality in one sample."""

    modality: str
    tokens: tuple[str, ...] | None
    """Words, where they are known."""
    times: tuple[float | None, ...] | None
    """Times in seconds, where they are known."""
    length: int

    def __post_init__(self) -> None:
        for name, found in (("tokens", self.tokens), ("times", self.times)):
            if found is not None and len(found) != self.length:
                raise ValueError(
                    f"{name} of {self.modality!r}: found {len(found)}, expected length {self.length}"
                )


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Match of each token."""

    index: tuple[int, ...]
    """The matched token on the other side, -1 where there is none."""
    similarity: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Source(TokenLane):
    """A modality that was aligned, and its matches."""

    marginal: Literal["source", "anchor"]
    """``source``: each of its tokens was sent to one of the anchor; ``anchor``: each token of the anchor took
    one of it."""
    index: tuple[int, ...]
    """Field of `Matches`."""
    similarity: tuple[float | None, ...]
    content: Matches | None = None
    """The matches if time had no part in the cost; ``None`` where they are not known or the same."""

    @property
    def ways(self) -> tuple["Matches | Source", ...]:
        """Every way of matching that is known."""
        return (self,) if self.content is None else (self, self.content)


@dataclass(frozen=True, kw_only=True)
class PlanSample:
    """The transport plans of one sample."""

    id: str
    target: str | float | None
    """Name of a class, or a number."""
    prediction: str | float
    why: str
    """Reason why this sample was chosen."""
    anchor: TokenLane
    """The modality that others are aligned to."""
    sources: tuple[Source, ...]

    def __post_init__(self) -> None:
        for source in self.sources:
            lengths = (source.length, self.anchor.length)
            size, other = lengths if source.marginal == "source" else lengths[::-1]
            where = f"{source.modality!r} in {self.id!r}"
            for way in source.ways:
                for name, found in (("index", way.index), ("similarity", way.similarity)):
                    if len(found) != size:
                        raise ValueError(f"{name} of {where}: found {len(found)}, expected {size}")
                if any(not -1 <= each < other for each in way.index):
                    raise ValueError(f"index of {where}: expected numbers from -1 to {other - 1}")

    @property
    def tokens_matched(self) -> int:
        """Entries of all plans."""
        return sum(len(way.index) for source in self.sources for way in source.ways)


def shown_plans(
    config: RunConfig, corpus: Corpus, model: Network[Any], split: Split, why: Mapping[int, str]
) -> Iterator[PlanSample]:
    """Plans of samples, by place in the split with the reason why each is shown, of a model on the CPU."""
    twin, rows = on_content_alone(config, model), list(why)
    for start in range(0, len(rows), _BATCH_SIZE):
        batch = collate(
            [split[row] for row in rows[start : start + _BATCH_SIZE]], corpus.modalities, corpus.task
        )
        with torch.no_grad():
            output: Output = model(batch, return_plans=True)
            content = {} if twin is None else twin(batch, return_plans=True).plans or {}
        for row, identity in enumerate(batch.ids):
            anchor, sources = _lanes(model, batch, output.plans or {}, content, row)
            yield PlanSample(
                id=identity,
                target=_target(corpus, batch, row),
                prediction=_prediction(corpus, output.prediction[row]),
                why=why[rows[start + row]],
                anchor=anchor,
                sources=sources,
            )


def on_content_alone(config: RunConfig, model: Network[Any]) -> Network[Any] | None:
    """Copy a model with the paper's cost and its own weights; None where that is no variant, or the same."""
    return as_ablation(config, model, CONTENT_ALONE)


def as_ablation(config: RunConfig, model: Network[Any], name: str) -> Network[Any] | None:
    """Copy a model with its own weights and an ablation's options; None where that is none, or the same."""
    ablation = METHODS[config.model].network.ablations.get(name)
    if ablation is None:
        return None
    values = model.config.model_dump(mode="json")
    for field, changes in ablation["options"].items():
        values[field] = {**values[field], **changes}
    other = type(model).config_class.model_validate(values)
    if other == model.config:
        return None
    twin = type(model)(other)
    twin.load_state_dict(model.state_dict())
    return twin.eval()


def token_count(model: Network[Any], batch: Batch, name: str, row: int) -> int:
    """Tokens of a sample's modality after its encoder's stride."""
    return -(-int(batch.modalities[name].mask[row].sum()) // _stride(model, name))


def token_times(model: Network[Any], sequences: Sequences, name: str) -> Tensor | None:
    """(batch, tokens) seconds after the encoder's stride, or None where no sample has times."""
    if sequences.times is None:
        return None
    return group_mean(sequences.times.double(), sequences.mask, _stride(model, name))[0]


def token_words(model: Network[Any], sequences: Sequences, name: str, row: int) -> list[str] | None:
    """Words shown of each token: the one in the middle of each group that the encoder's stride makes one."""
    words = () if sequences.tokens is None else sequences.tokens[row]
    stride = _stride(model, name)
    return (
        [words[min(start + stride // 2, len(words) - 1)] for start in range(0, len(words), stride)]
        if words
        else None
    )


def _stride(model: Network[Any], name: str) -> int:
    return model.strides[name]


def _target(corpus: Corpus, batch: Batch, row: int) -> float | str | None:
    if batch.targets is None:
        return None
    known = corpus.task.known(batch.targets[row].tolist())
    return None if known is None else corpus.task.words(known)


def _prediction(corpus: Corpus, prediction: Tensor) -> float | str:
    return corpus.task.words(prediction.argmax().item() if corpus.task.has_one_class else prediction.tolist())


def _lanes(
    model: Network[Any], batch: Batch, plans: Mapping[str, Plan], content: Mapping[str, Plan], row: int
) -> tuple[TokenLane, tuple[Source, ...]]:
    """One sample's anchor and sources with what matches what."""
    anchor, *others = (
        name
        for name in model.config.anchors
        if name in batch.modalities and bool(batch.modalities[name].mask[row].any())
    )
    sources = []
    for name in others:
        if name in plans:
            sender = name if plans[name].marginal == "source" else anchor
            length = token_count(model, batch, sender, row)
            source = Source(
                **asdict(_lane(model, batch, name, row)),
                **asdict(_matches(plans[name], row, length)),
                marginal=plans[name].marginal,
                content=_matches(content[name], row, length) if name in content else None,
            )
            sources.append(source)
    return _lane(model, batch, anchor, row), tuple(sources)


def _matches(plan: Plan, row: int, length: int) -> Matches:
    return Matches(
        index=tuple(plan.index[row, :length].tolist()),
        similarity=tuple(round(float(value), 4) for value in plan.similarity[row, :length]),
    )


def _lane(model: Network[Any], batch: Batch, name: str, row: int) -> TokenLane:
    sequences = batch.modalities[name]
    length, words = token_count(model, batch, name, row), token_words(model, sequences, name, row)
    times = token_times(model, sequences, name)
    known = None if times is None or not times[row, :length].isfinite().all() else times[row, :length]
    return TokenLane(
        modality=name,
        length=length,
        tokens=None if words is None else tuple(words),
        times=None if known is None else tuple(round(float(value), 4) for value in known),
    )
