"""Batches of a split: bucketed by length, the same for every number of processes, resumable at any batch."""

import math
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from typing import Annotated, Any, ClassVar, Final, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from alignmamba.contracts import Batch, Config, ModalitySpec, Role, Sample, Sequences, Split, Task
from alignmamba.data.balanced_order import balanced_rows, strata
from alignmamba.data.further_targets import further_targets
from alignmamba.data.labelled_splits import is_labelled
from alignmamba.data.missing_protocols import MissingConfig, WithheldSplit, withheld
from alignmamba.data.randomness import generator
from alignmamba.data.sample_weights import sample_weights
from alignmamba.errors import AlignMambaError, ConfigError, DataError, TrainingError

# Sorting within windows of this many batches removes most of the padding and leaves each batch's company
# random.
WINDOW_BATCHES = 16


LARGEST_BATCH: Final = 32
"""Samples per batch where nobody has said how many, at most."""
_LEAST_BATCH, _BATCHES = 4, 25


def batch_size_for(samples: int) -> int:
    """Samples per batch for a train split of that size: a power of two from 4 to 32, with which an epoch has
    25 batches or more if it can.
    """
    fitting = 1 << (max(1, samples // _BATCHES).bit_length() - 1)
    return min(LARGEST_BATCH, max(_LEAST_BATCH, fitting))


class LoaderConfig(Config):
    """Options of batches."""

    SILENT: ClassVar[Mapping[str, Any]] = {"keep_groups": False, "weights": "", "balance": ""}
    """Later options and the values under which they change nothing."""

    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Samples per batch at most, over all processes together; the samples of an epoch are spread evenly over
    its batches. Empty takes 32, and in a run fewer where train has fewer than 800 samples, so that an epoch
    still has 25 steps: at least 4."""
    bucket_by_length: bool = True
    """Put samples of similar total length into one batch when shuffling, which saves padding; the order stays
    random."""
    keep_groups: bool = False
    """Put all samples of a group, such as a conversation, into one batch and in their order; a batch then has
    about `batch_size`."""
    weights: str = ""
    """Label of the corpus that holds the weight of a train sample in the loss, a number from 0 on; empty
    weighs all alike."""
    balance: str = ""
    """Label of the corpus whose values come equally often in training, or ``target`` for classes of the task;
    samples of rare ones come again. Of more than 10 numbers, 10 bins count. Empty takes each sample once."""
    num_workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read ahead, started once for each split; 0 reads in the training process."""


class Loader:
    """Batches of one split.

    The global batches are a function of the seed and the epoch alone. Process ``rank`` of ``world_size``
    takes the rows ``rank::world_size`` of each, so that any number of processes sees the same samples at the
    same step. An epoch has ``ceil(samples / batch_size)`` batches whose sizes differ by one at most: no small
    last batch, neither to weigh on the gradient nor to be shared by more processes than it has samples.
    Without shuffling the samples come in the order of the split. Balanced, with shuffling alone, an epoch has
    more samples than the split, see `balanced_rows`.

    Args:
        split: Where the samples come from.
        modalities: What to load of each sample, in the order of the batch's mapping.
        config: Batch size and bucketing.
        task: Decides the dtype of the targets.
        shuffle: A new order each epoch; off for validation and test.
        seed: Seed of that order, and of what is withheld.
        rank: Which process this is.
        world_size: How many processes share each global batch.
        missing: What is withheld of the samples: with shuffling drawn again each epoch, without always the
            same.
        keep_withheld: Give what is withheld as `Batch.withheld`, to learn from; of a train split alone.

    Raises:
        DataError: If the split is empty, lacks a modality, or is too small for what is to be withheld.
        ConfigError: If a global batch has fewer samples than there are processes.
    """

    def __init__(
        self,
        split: Split,
        modalities: Sequence[ModalitySpec],
        *,
        config: LoaderConfig,
        task: Task,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        missing: MissingConfig = MissingConfig(),  # noqa: B008 # immutable
        keep_withheld: bool = False,
    ) -> None:
        if keep_withheld and split.role != "train":
            raise ConfigError(f"keep_withheld: expected split 'train', found split {split.role!r}")
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank: expected 0 to {world_size - 1}, found {rank}")
        if len(split) == 0:
            raise DataError(f"split {split.role!r} has no samples")
        self.split, self.shuffle = split, shuffle
        if config.balance and config.keep_groups:
            raise ConfigError("loader.balance: found keep_groups beside it, expected one of both")
        self._strata = strata(split, config.balance, task) if config.balance and shuffle else None
        self._size = config.batch_size or LARGEST_BATCH
        samples = len(self._rows(generator(seed, "batches", 0)))
        batches = math.ceil(samples / self._size)
        if samples // batches < world_size and not config.keep_groups:
            raise ConfigError(
                f"batch_size: {self._size} leaves {samples // batches} of {samples} samples"
                f" of split {split.role!r} for the smallest batch, expected at least {world_size}"
            )
        absent = [spec.name for spec in modalities if spec.name not in split.lengths]
        if absent:
            raise DataError(
                f"split {split.role!r} has no modality {absent[0]!r}, only {sorted(split.lengths)}"
            )
        self.modalities = tuple(modalities)
        self.config = config
        self.task = task
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.missing = missing
        keep_withheld = keep_withheld and missing.protocol != "none"
        weights = config.weights if split.role == "train" else ""
        self._reading = _Reading(
            split, self.modalities, task, weights, missing, seed, shuffle, keep_withheld, is_labelled(split)
        )
        self._order: list[_Key] = []
        self._groups = _group_numbers(split) if config.keep_groups else np.arange(len(split))
        self._workers: DataLoader[Batch | AlignMambaError] | None = None
        self._turn = 0
        self.set_epoch(0)

    @property
    def role(self) -> Role:
        """The role of the split."""
        return self.split.role

    @property
    def ids(self) -> tuple[str, ...]:
        """Every id of the split, in its order."""
        return self.split.ids

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Samples in each global batch of this epoch, over all processes together."""
        return tuple(len(batch) for batch in self._batches)

    def set_epoch(self, epoch: int) -> None:
        """Fix the order of that epoch, and what is withheld in it; without shuffling all epochs are alike."""
        self.epoch = epoch
        self._reading.shown(epoch)  # what cannot be withheld is refused now
        self._batches = self._global_batches()

    def __len__(self) -> int:
        """Batches per epoch, the same on every process."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return self.iter_from(0)

    def iter_from(self, batch_index: int) -> Iterator[Batch]:
        """The batches of this epoch from `batch_index` on, exactly as a full pass would give them.

        Processes that read ahead live as long as this loader and serve one pass at a time.

        Raises:
            DataError: If the epoch has fewer batches than that, or, from a pass of such processes, if another
                was begun meanwhile.
        """
        if not 0 <= batch_index <= len(self):
            raise DataError(f"batch_index: expected 0 to {len(self)}, found {batch_index}")
        keys = [_Key(self.epoch, tuple(self._share(batch).tolist())) for batch in self._batches[batch_index:]]
        if not self.config.num_workers:
            return map(_sound, map(self._reading.__getitem__, keys))
        self._order[:] = keys
        if self._workers is None:
            self._workers = DataLoader(
                self._reading,
                batch_size=None,
                sampler=self._order,
                num_workers=self.config.num_workers,
                persistent_workers=True,
                # Without one of its own, it would draw from the global generator at each start and a resumed
                # run would differ.
                generator=torch.Generator(),
            )
        self._turn += 1
        return self._read_ahead(iter(self._workers), self._turn)

    def _read_ahead(self, source: Iterator[Batch | AlignMambaError], turn: int) -> Iterator[Batch]:
        while True:
            if turn != self._turn:
                raise DataError(
                    f"split {self.role!r}: found a second pass before the end of the first; workers serve one"
                    " pass at a time"
                )
            try:
                found = next(source)
            except StopIteration:
                return
            except (ConnectionError, EOFError) as error:
                # A worker's connection is lost a moment before its end is seen: what PyTorch says of that is
                # awaited here.
                workers = {worker.sentinel: worker for worker in multiprocessing.active_children()}
                for sentinel in wait(list(workers), timeout=2):
                    workers[sentinel].join()  # type: ignore[index]
                raise _lost_worker("and its connection with it") from error
            yield _sound(found)

    def of_rank(self, rank: int) -> Self:
        """This loader from now on with the share of that process, before its first pass.

        Raises:
            ConfigError: If there is no such process.
        """
        if not 0 <= rank < self.world_size:
            raise ConfigError(f"rank: expected 0 to {self.world_size - 1}, found {rank}")
        self.rank = rank
        return self

    def _share(self, batch: np.ndarray) -> np.ndarray:
        """The rows of a global batch that this process takes: of one group all or none."""
        numbers = (
            np.unique(self._groups[batch], return_inverse=True)[1]
            if self.config.keep_groups
            else np.arange(len(batch))
        )
        mine: np.ndarray = batch[numbers % self.world_size == self.rank]
        return mine

    def _batches_of_groups(self, random: np.random.Generator) -> list[np.ndarray]:
        """The rows of each global batch, groups whole and in order; the group that fills it is its last."""
        members = np.split(np.argsort(self._groups, kind="stable"), np.cumsum(np.bincount(self._groups))[:-1])
        order = random.permutation(len(members)) if self.shuffle else np.arange(len(members))
        batches: list[list[np.ndarray]] = [[]]
        for number in order:
            if sum(map(len, batches[-1])) >= self._size:
                batches.append([])
            batches[-1].append(members[number])
        if len(batches) > 1 and len(batches[-1]) < self.world_size:
            batches[-2] += batches.pop()
        fewest = min(map(len, batches))
        if fewest < self.world_size:
            raise ConfigError(
                f"keep_groups: a batch of split {self.role!r} has {fewest} groups, too few for"
                f" {self.world_size} processes"
            )
        return [np.concatenate(batch) for batch in batches]

    def _rows(self, random: np.random.Generator) -> np.ndarray:
        """Rows of an epoch in their order."""
        if self._strata is not None:
            return balanced_rows(self._strata, random)
        order = np.arange(len(self.split))
        if self.shuffle:
            random.shuffle(order)
        return order

    def _global_batches(self) -> list[np.ndarray]:
        """The rows of each global batch of this epoch."""
        random = generator(self.seed, "batches", self.epoch)
        if self.config.keep_groups:
            return self._batches_of_groups(random)
        order = self._rows(random)
        batches = np.array_split(order, math.ceil(len(order) / self._size))
        if not (self.shuffle and self.config.bucket_by_length):
            return batches
        total_lengths = np.sum(
            [self._reading.shown(self.epoch).lengths[spec.name] for spec in self.modalities], axis=0
        )
        sorted_batches: list[np.ndarray] = []
        for first in range(0, len(batches), WINDOW_BATCHES):
            window = batches[first : first + WINDOW_BATCHES]
            rows = np.concatenate(window)
            rows = rows[np.argsort(total_lengths[rows], kind="stable")]
            sorted_batches += np.split(rows, np.cumsum([len(batch) for batch in window])[:-1])
        return [sorted_batches[at] for at in random.permutation(len(sorted_batches))]


def _group_numbers(split: Split) -> np.ndarray:
    """(samples,) number of each sample's group, as groups appear; one without is a group of its own."""
    known: dict[tuple[str, str], int] = {}
    names = [("sample", sample.id) if sample.group is None else ("group", sample.group) for sample in split]
    return np.array([known.setdefault(name, len(known)) for name in names])


class _Key(NamedTuple):
    """A batch, as a process that reads ahead is asked for it."""

    epoch: int
    rows: tuple[int, ...]


@dataclass(eq=False)
class _Reading(Dataset["Batch | AlignMambaError"]):
    """Batches of a split as the model sees it in an epoch; each process that reads ahead has a copy."""

    split: Split
    modalities: tuple[ModalitySpec, ...]
    task: Task
    weights: str
    missing: MissingConfig
    seed: int
    by_epoch: bool
    keep_withheld: bool
    labelled: bool
    _shown: tuple[int | None, Split] | None = None

    def shown(self, epoch: int) -> Split:
        """The split without what is withheld in that epoch."""
        if self.missing.protocol == "none":
            return self.split
        drawn_in = epoch if self.by_epoch else None
        if self._shown is None or self._shown[0] != drawn_in:
            names = [spec.name for spec in self.modalities]
            drawn = withheld(self.split, self.missing, seed=self.seed, epoch=drawn_in, modalities=names)
            self._shown = (drawn_in, drawn)
        return self._shown[1]

    def __getitem__(self, key: _Key) -> Batch | AlignMambaError:
        """The batch, or what is wrong with its samples: raised in a worker it would carry a traceback."""
        try:
            split = self.shown(key.epoch)
            samples = [split[row] for row in key.rows]
            batch = collate(samples, self.modalities, self.task, weights=self.weights, labelled=self.labelled)
            if self.keep_withheld and isinstance(split, WithheldSplit):
                return self._with_withheld(batch, samples, split.rows[list(key.rows)])
            return batch
        except AlignMambaError as error:
            return error

    def _with_withheld(self, batch: Batch, shown: Sequence[Sample], rows: np.ndarray) -> Batch:
        """The batch with the modalities of the whole samples of which nothing is shown."""
        whole = [self.split[row] for row in rows.tolist()]
        hidden = [
            replace(
                sample,
                features={
                    name: array
                    for name, array in sample.features.items()
                    if not len(part.features.get(name, ()))
                },
            )
            for sample, part in zip(whole, shown, strict=True)
        ]
        return replace(batch, withheld={spec.name: _pad(hidden, spec) for spec in self.modalities})


def _sound(found: Batch | AlignMambaError) -> Batch:
    if isinstance(found, AlignMambaError):
        raise found
    return found


@contextmanager
def lost_workers_told() -> Iterator[None]:
    """Report in one line that a process that reads ahead was ended from outside, which PyTorch raises
    wherever the main thread then is.

    Raises:
        TrainingError: In place of PyTorch's error.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, AlignMambaError) or not str(error).startswith("DataLoader worker"):
            raise
        raise _lost_worker(
            str(error).split(". ")[0].rstrip(".").removeprefix("DataLoader worker ")
        ) from error


def _lost_worker(said: str) -> TrainingError:
    advice = "perhaps memory ran out; lower loader.num_workers"
    return TrainingError(f"a process that reads ahead ended, {said}: {advice}")


def collate(
    samples: Sequence[Sample],
    modalities: Sequence[ModalitySpec],
    task: Task,
    *,
    weights: str = "",
    labelled: bool = False,
) -> Batch:
    """One right-padded batch from samples.

    Every modality has at least one position; a sample that lacks the modality has no valid one. Times appear
    where any sample has them, NaN throughout the others; display tokens where every sample that has the
    modality has them. Targets appear where any sample has one, or where other batches have them, `labelled`.

    Raises:
        DataError: If a sample's width differs from its modality's.
    """
    targets = None
    if labelled or any(sample.target is not None for sample in samples):
        # A number keeps every digit: where labels lie far from 0, what tells them apart would be lost to
        # float32.
        targets = torch.tensor(
            [task.unknown if sample.target is None else sample.target for sample in samples],
            dtype=torch.int64 if task.has_one_class else torch.float64,
        )
    return Batch(
        modalities={spec.name: _pad(samples, spec) for spec in modalities},
        ids=tuple(sample.id for sample in samples),
        targets=targets,
        further={name: torch.from_numpy(values) for name, values in further_targets(samples, task).items()},
        weights=sample_weights(samples, weights) if weights else None,
        groups=_groups(samples),
    )


def _groups(samples: Sequence[Sample]) -> tuple[str, ...] | None:
    """Groups of the samples, one without standing for itself; ``None`` where there are none."""
    if all(sample.group is None for sample in samples):
        return None
    return tuple(f"sample {sample.id}" if sample.group is None else sample.group for sample in samples)


def _pad(samples: Sequence[Sample], spec: ModalitySpec) -> Sequences:
    name = spec.name
    rows = {
        row: sample.features[name] for row, sample in enumerate(samples) if len(sample.features.get(name, ()))
    }
    lengths = torch.zeros(len(samples), dtype=torch.int64)
    for row, values in rows.items():
        if values.ndim != 2 or values.shape[1] != spec.width:
            raise DataError(
                f"sample {samples[row].id!r}, modality {name!r}: expected shape (time, {spec.width}), found"
                f" {tuple(values.shape)}"
            )
        lengths[row] = len(values)
    longest = max(1, int(lengths.max()))

    features = np.zeros(
        (len(samples), longest, spec.width), dtype=np.int64 if spec.kind == "tokens" else np.float32
    )
    for row, values in rows.items():
        features[row, : len(values)] = values

    times: Tensor | None = None
    timed = [row for row in rows if name in samples[row].times]
    if timed:
        # Each sample keeps what is known of it, whatever its neighbours in the batch bring.
        # float64, as stored: a clock may have started in 1970
        seconds = np.full((len(samples), longest), np.nan)
        for row in timed:
            seconds[row, : lengths[row]] = samples[row].times[name]
        times = torch.from_numpy(seconds)

    tokens = None
    if rows and all(name in samples[row].tokens for row in rows):
        tokens = tuple(sample.tokens.get(name, ()) for sample in samples)
    return Sequences(
        features=torch.from_numpy(features),
        mask=torch.arange(longest)[None, :] < lengths[:, None],
        times=times,
        tokens=tokens,
    )
