"""Measuring a subject: this library and its peers in turn in one run, at each length."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from alignmamba.capacity import available_bytes
from alignmamba.errors import ConfigError, nearest
from alignmamba.evaluation.computing_cost import (
    Call,
    ChildError,
    Spread,
    counted_flops,
    in_fresh_process,
    log_slope,
    memory_problem,
    peak_bytes,
    time_in_turn,
)
from alignmamba.recipes.bench.case import Built, Case, Peer, Shape
from alignmamba.recipes.bench.subjects import LENGTHS, OWN, SUBJECTS

Say = Callable[[str], None]

GROWTH_LENGTHS = (1000, 3000, 10_000, 30_000, 100_000)
"""Tokens at which growth is measured."""

# Peers whose results must agree may differ by this much, relative to the largest entry of ours.
TOLERANCE = {"float32": 2e-3, "bfloat16": 1e-1, "float16": 3e-2}

# Tokens of the first call in a process that measures memory: enough to load every kernel, too few to count.
_FIRST_TOKENS = 256


class BenchConfig(Shape):
    """Measurement and its options."""

    subject: str
    """Subject: a key of `SUBJECTS`."""
    lengths: tuple[Annotated[int, Field(ge=1, le=10_000_000)], ...] = ()
    """Tokens; empty takes the subject's own."""
    against: tuple[str, ...] = ()
    """Peers to compare with; empty takes all that can be measured here."""
    repeats: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Timed rounds, after one that is not timed."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """Threads on the CPU."""
    measure: Annotated[tuple[Literal["time", "memory", "flops"], ...], Field(min_length=1)] = (
        "time",
        "memory",
        "flops",
    )
    """Quantities: time; peak memory, on a CPU in a new process for each peer and length; operations counted
    in a call.
    """
    memory_limit_gb: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Skip what would need more, in 1e9 bytes; empty takes half of what is available."""
    tflop_limit: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    """Skip what would take more operations, in 1e12."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.subject not in SUBJECTS:
            raise ValueError(
                f"subject: found {self.subject!r}, expected one of"
                f" {', '.join(SUBJECTS)}{nearest(self.subject, SUBJECTS)}"
            )
        peers = SUBJECTS[self.subject]
        for name in self.against:
            if name not in peers:
                known = ", ".join(list(peers)[1:])
                raise ValueError(
                    f"against: found {name!r}, expected some of the peers of {self.subject}:"
                    f" {known}{nearest(name, peers)}"
                )
        if len(set(self.lengths)) != len(self.lengths):
            raise ValueError(f"lengths: expected different ones, found {', '.join(map(str, self.lengths))}")
        if self.d_model % self.heads:
            raise ValueError(
                f"heads: found {self.heads}, expected a divisor of d_model, which is {self.d_model}"
            )
        return self

    @classmethod
    def checked(cls, **values: Any) -> Self:
        """A configuration from plain values; a `ConfigError` names every mistake."""
        return cls(**values)

    def case(self, length: int) -> Case:
        """The point of measurement at that length."""
        return Case(length=length, **{name: getattr(self, name) for name in Shape.model_fields})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One peer at one length."""

    peer: str
    what: str
    length: int
    state: str
    """``measured``, or why not: ``skipped`` (a limit), ``unavailable`` (not on this machine), ``failed`` or
    ``wrong`` (another result)."""
    reason: str = ""
    """Reason why it was not measured, or what is missing from it."""
    flops: float
    """Floating-point operations by formula."""
    flops_counted: int | None = None
    """Operations of the matrix products that PyTorch dispatched; a scan is not one of them."""
    num_parameters: int = 0
    seconds: Spread | None = None
    """Processor time of all threads; on a GPU, time between events."""
    wall_seconds: Spread | None = None
    peak_bytes: int | None = None
    """Memory above weights and inputs."""
    time_ratio: float | None = None
    """Median seconds over those of this library."""
    memory_ratio: float | None = None
    """Peak memory over that of this library."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """Growth of a peer: exponents of the power laws in length that fit best."""

    peer: str
    lengths: tuple[int, ...]
    time: float | None
    memory: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that was measured of a subject."""

    config: BenchConfig
    memory_limit_bytes: float
    rows: tuple[Row, ...]
    slopes: tuple[Slope, ...]

    @property
    def baseline(self) -> str:
        """The peer that the others are compared with: this library."""
        return next(iter(SUBJECTS[self.config.subject]))

    def row(self, peer: str, length: int) -> Row:
        """The row of a peer at a length."""
        return next(row for row in self.rows if (row.peer, row.length) == (peer, length))


def silent(_: str) -> None:
    """Say nothing."""


def measure(config: BenchConfig, say: Say = silent) -> Report:
    """Measure a subject at every length. Every peer computes once untimed, where its result is compared and
    its operations are counted. Then all are timed in turn, and the memory of each is measured. Raises a
    `ConfigError` for a device or a peer that is not there.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: found 'cuda', but PyTorch sees no GPU here")
    lengths = config.lengths or LENGTHS[config.subject]
    peers = _chosen(config, lengths)
    limit = 1e9 * config.memory_limit_gb if config.memory_limit_gb else available_bytes(config.device) / 2
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        rows = [row for length in lengths for row in _at(config, config.case(length), peers, limit, say)]
    finally:
        torch.set_num_threads(threads)
    return Report(config=config, memory_limit_bytes=limit, rows=tuple(rows), slopes=tuple(_slopes(rows)))


def growth(config: BenchConfig) -> BenchConfig:
    """The same of this library alone at `GROWTH_LENGTHS`, where lengths and peers are not given."""
    own = tuple(
        name for name in OWN[config.subject] if not SUBJECTS[config.subject][name].why_not(config.case(1))
    )
    return config.model_copy(
        update={"lengths": config.lengths or GROWTH_LENGTHS, "against": config.against or own}
    )


def _chosen(config: BenchConfig, lengths: Sequence[int]) -> dict[str, Peer]:
    """This library, then the peers asked for, or all."""
    known = SUBJECTS[config.subject]
    ours = next(iter(known))
    if not config.against:
        return {name: peer for name, peer in known.items() if not peer.by_name_only}
    for name in config.against:
        problem = known[name].why_not(config.case(min(lengths)))
        if problem:
            raise ConfigError(f"against: {name} cannot be measured here: {problem}")
    return {name: known[name] for name in dict.fromkeys((ours, *config.against))}


def _out_of_memory(error: RuntimeError) -> bool:
    """Return whether memory ran out: on a CPU PyTorch says so in words alone."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _at(
    config: BenchConfig, case: Case, peers: Mapping[str, Peer], memory_limit: float, say: Say
) -> list[Row]:
    """All peers at one length."""
    ours = next(iter(peers))
    rows: dict[str, Row] = {}
    calls: dict[str, Call] = {}
    expected: list[Tensor] | None = None
    for name, peer in peers.items():
        row = _before(name, peer, case, memory_limit, config)
        if row.state == "measured" and (config.device == "cuda" or {"time", "flops"} & set(config.measure)):
            say(f"{config.subject} {case.length}: {name}, first call")
            try:
                built, row, result = _first_call(peer, case, row)
            except RuntimeError as error:
                if name == ours and not _out_of_memory(error):
                    raise
                row = replace(row, state="failed", reason=" ".join(str(error).split())[:200])
            else:
                if name == ours:
                    expected = result
                problem = (
                    _difference(result, expected, TOLERANCE[config.dtype])
                    if peer.same and expected is not None
                    else ""
                )
                if problem:
                    row = replace(row, state="wrong", reason=problem)
                else:
                    calls[name] = built.call
        rows[name] = row
    expected = None
    if "time" in config.measure:
        say(f"{config.subject} {case.length}: {config.repeats} rounds of {', '.join(calls) or 'nothing'}")
        for name, timing in time_in_turn(
            calls, repeats=config.repeats, device=config.device, warm_ups=0
        ).items():
            rows[name] = replace(rows[name], seconds=timing.busy, wall_seconds=timing.wall)
    if "memory" in config.measure and not memory_problem(config.device):
        for name, row in rows.items():
            if row.state == "measured":
                say(f"{config.subject} {case.length}: {name}, memory")
                rows[name] = _with_memory(row, config, case, calls.get(name))
    return [_compared(row, rows[ours]) for row in rows.values()]


def _before(name: str, peer: Peer, case: Case, memory_limit: float, config: BenchConfig) -> Row:
    """The row of a peer that has not computed yet, with the reason if it shall not."""
    flops = peer.flops(case)
    row = Row(peer=name, what=peer.what, length=case.length, state="measured", flops=flops)
    problem = peer.why_not(case)
    if problem:
        return replace(row, state="unavailable", reason=problem)
    needed = peer.memory(case)
    if needed > memory_limit:
        return replace(
            row,
            state="skipped",
            reason=f"would need {needed / 1e9:.3g} GB, the limit is {memory_limit / 1e9:.3g} GB",
        )
    if flops > 1e12 * config.tflop_limit:
        return replace(
            row,
            state="skipped",
            reason=f"would take {flops / 1e12:.3g} TFLOP, the limit is {config.tflop_limit:g} TFLOP",
        )
    return row


def _first_call(peer: Peer, case: Case, row: Row) -> tuple[Built, Row, list[Tensor]]:
    """Make the inputs, compute once, count the operations."""
    built = peer.build(case)
    results: list[object] = []
    counted = counted_flops(lambda: results.append(built.call()))
    tensors = list(_tensors(results)) if peer.same or row.peer == "alignmamba" else []
    return built, replace(row, flops_counted=counted, num_parameters=built.num_parameters), tensors


def _tensors(found: object) -> Iterator[Tensor]:
    if isinstance(found, Tensor):
        yield found.detach()
    elif isinstance(found, list | tuple):
        for each in found:
            yield from _tensors(each)


def _difference(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> str:
    """Difference of a result from ours beyond rounding; empty if there is none."""
    for number, (a, b) in enumerate(zip(found, expected, strict=True)):
        if a.shape != b.shape:
            return f"result {number} has shape {tuple(a.shape)}, ours {tuple(b.shape)}"
        error = float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-30))
        if not error <= tolerance:
            return (
                f"result {number} differs from ours by {error:.1e} of its largest entry, at most"
                f" {tolerance:g} is allowed"
            )
    return ""


def _with_memory(row: Row, config: BenchConfig, case: Case, call: Call | None) -> Row:
    """The row with its peak memory, on a CPU measured in a new process."""
    if config.device == "cuda" and call is not None:
        return replace(row, peak_bytes=peak_bytes(call, "cuda"))
    argument = {
        "subject": config.subject,
        "peer": row.peer,
        "threads": config.threads,
        "case": case.model_dump(),
    }
    try:
        return replace(row, peak_bytes=in_fresh_process(f"{__name__}:peak_of", argument))
    except ChildError as error:
        return replace(row, reason=f"memory not measured: {error}")


def peak_of(argument: Mapping[str, Any]) -> int:
    """Peak memory of one peer above its weights and inputs; to be called in a fresh process."""
    torch.set_num_threads(argument["threads"])
    peer, case = SUBJECTS[argument["subject"]][argument["peer"]], Case.model_validate(argument["case"])
    problem = peer.why_not(case)
    if problem:
        raise ConfigError(problem)
    peer.build(case.model_copy(update={"length": min(case.length, _FIRST_TOKENS)})).call()
    return peak_bytes(peer.build(case).call)


def _compared(row: Row, ours: Row) -> Row:
    """The row with its ratios to ours."""
    time = memory = None
    if row.seconds and ours.seconds and ours.seconds.median > 0:
        time = row.seconds.median / ours.seconds.median
    if row.peak_bytes is not None and ours.peak_bytes:
        memory = row.peak_bytes / ours.peak_bytes
    return replace(row, time_ratio=time, memory_ratio=memory)


def _slopes(rows: Sequence[Row]) -> Iterator[Slope]:
    """Growth of every peer that was measured at two lengths or more."""
    for name in dict.fromkeys(row.peer for row in rows):
        of_peer = [row for row in rows if row.peer == name]
        time = _slope([(row.length, row.seconds.median) for row in of_peer if row.seconds])
        memory = _slope(
            [(row.length, float(row.peak_bytes)) for row in of_peer if row.peak_bytes is not None]
        )
        if time is not None or memory is not None:
            lengths = tuple(row.length for row in of_peer if row.state == "measured")
            yield Slope(peer=name, lengths=lengths, time=time, memory=memory)


def _slope(points: Sequence[tuple[int, float]]) -> float | None:
    """Exponent through these points; none where they do not determine one."""
    positive = [(length, value) for length, value in points if value > 0]
    return log_slope(*zip(*positive, strict=True)) if len(positive) > 1 else None
