"""Content of a foreign file, ready for the archive: lazy samples, a task, and the faults that were met."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

from pydantic import BeforeValidator, Field

from alignmamba.contracts import Config, DistinctNames, Role, Task
from alignmamba.data.inspection import repeats
from alignmamba.data.user_arrays import SplitArrays
from alignmamba.errors import DataError

FaultKind = Literal[
    "not finite",
    "does not fit float32",
    "zero length",
    "duplicate id",
    "label out of range",
    "declared length too long",
    "declared length too short",
    "content shorter than declared",
    "content outside the attention mask",
    "padding that is not zero",
    "zero rows within content",
    "not a number label",
    "sample without anything",
    "text that is not UTF-8",
    "last line without an end",
]


class NeedsOptionError(DataError):
    """Files that cannot be read as they are, but with an option of reading."""

    def __init__(self, message: str, *, option: str) -> None:
        super().__init__(message)
        self.option = option
        """Option of `alignmamba convert` that resolves it."""


class UnknownLabelError(DataError):
    """Files that have no label of a name that is asked for."""


FaultRow = tuple[str, str, str, int]
"""Kind, where, what was done, how many."""


class Faults:
    """Counts of what was wrong with a file and of what was done about it."""

    def __init__(self) -> None:
        self._counts: dict[tuple[FaultKind, str, str], int] = {}

    def add(self, kind: FaultKind, *, where: str, done: str, count: int = 1) -> None:
        """Count faults that were met: in a modality, split or field, what was done about them, such as
        ``set to 0``, and how many there are. Nothing is recorded for 0.
        """
        if count:
            key = (kind, where, done)
            self._counts[key] = self._counts.get(key, 0) + count

    def rows(self) -> list[FaultRow]:
        """Kind, where, what was done and how many, in the order in which they were first met."""
        return [(*key, count) for key, count in self._counts.items()]


def faults_in_words(faults: Iterable[FaultRow]) -> str:
    """All faults in one line; empty if there are none."""
    return "; ".join(f"{kind} in {where}, {done}: {count}" for kind, where, done, count in faults)


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """The content of a foreign file."""

    format: str
    name: str
    """Name of the corpus, unless the user gives another."""
    task: Task
    splits: Mapping[Role, SplitArrays]
    """Lazy sequences where the format allows it; each sample is asked for once, in order."""
    source: str
    """Source of the data, for the corpus's manifest."""
    faults: Faults
    """Filled while samples are read."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Meaning of one feature vector, by modality, for people."""
    vocabulary_sizes: Mapping[str, int] = field(default_factory=dict)
    """Number of distinct token ids, by modality of token ids."""
    notes: tuple[str, ...] = ()
    """Plain sentences: what was kept, what was dropped."""

    def without(self, names: Collection[str]) -> "Foreign":
        """The same without some modalities."""

        def kept(given: Mapping[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in given.items() if name not in names}

        splits = {
            role: replace(
                split, features=kept(split.features), times=kept(split.times), tokens=kept(split.tokens)
            )
            for role, split in self.splits.items()
        }
        sizes = kept(self.vocabulary_sizes)
        return replace(self, splits=splits, units=kept(self.units), vocabulary_sizes=sizes)


class ReadOptions(Config):
    """Options to read a file of any format. The options of a reader are a subclass of it.

    An option is a flag of `alignmamba convert` and `inspect`: its docstring is the help text, and its title
    stands for its value there.
    """

    dims: Annotated[Mapping[str, int], Field(title="MODALITY=N[,MODALITY=N]")] = {}
    """Expected widths of modalities, for example audio=5,vision=20; any other is refused."""
    nonfinite: Literal["zero", "mean", "error", "keep"] = "zero"
    """Action on values that float32 cannot hold: read 0 or the train mean, refuse, or keep them."""
    tokenizer: Annotated[Path | None, Field(title="FOLDER")] = None
    """Folder of a language model whose tokenizer turns the text of each sample into token ids."""
    clip_labels: bool = False
    """Move a label that is out of range to the nearer end instead of refusing the file."""


def _several(given: Any) -> Any:
    """One name as a list of names, none for an empty one."""
    return tuple(filter(None, [given])) if isinstance(given, str) else given


class LabelOptions(ReadOptions):
    """Options to read a file that may have several labels."""

    label: Annotated[DistinctNames, BeforeValidator(_several), Field(title="NAME [NAME ...]")] = ()
    """Label to read, by default the format's first; several become one target, or a target and further ones.
    """

    @property
    def first_label(self) -> str:
        """The label that leads; empty for the format's first."""
        return self.label[0] if self.label else ""


def refuse_shared_features(ids: Mapping[Role, Sequence[str]], where: str) -> None:
    """Refuse ids that stand for several samples, where features are looked up by the id."""
    repeated: dict[str, tuple[Role, Role]] = {}
    for identity, one, other in repeats(ids):
        repeated.setdefault(identity, (one, other))
    if not repeated:
        return
    across = next((identity for identity, (one, other) in repeated.items() if one != other), "")
    first = across or next(iter(repeated))
    one, other = repeated[first]
    stands = (
        f"stands in {one} and again in {other}, a leak" if across else f"stands for several samples of {one}"
    )
    raise DataError(
        f"{where}: id {first!r} {stands}: all of them would have the same features"
        f" ({len(repeated)} such ids); give each sample an id of its own, or keep it in one split"
    )


Own = TypeVar("Own", bound=ReadOptions)


class Reader(Protocol[Own]):
    """The face of a module that reads one format.

    Where a file refers to others, or a folder has more in it than is read or links to more, the module also
    has ``files(path) -> Sequence[Path]``: all files that would be read, the path itself included.
    """

    FORMAT: str
    """Name of the format."""
    SUMMARY: str
    """One line about it, for people."""

    @property
    def Options(self) -> type[Own]: ...  # noqa: N802 # a class of the module

    def recognises(self, path: Path) -> bool:
        """Return whether the path looks like this format: a bounded head is read, and nothing raised."""
        ...

    def read(self, sources: Sequence[Path], options: Own) -> Foreign:
        """Open the files.

        Raises:
            DataError: If anything is wrong, in one line that names the file (and field, split and row).
        """
        ...
