"""Several labels of a clip in one field: the emotions of IEMOCAP and CMU-MOSEI in MulT's layout."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from alignmamba.contracts import Role, Task
from alignmamba.errors import DataError
from alignmamba.formats.label_names import EMOTIONS, column_of
from alignmamba.formats.pickles.pickled_splits import ParallelFields
from alignmamba.formats.pickles.pickled_values import score_task
from alignmamba.formats.pickles.stored_arrays import StoredArray

_NAMES: Final[Mapping[tuple[int, bool], tuple[str, ...]]] = {
    (4, True): ("neutral", "happy", "sad", "angry"),
    (6, False): EMOTIONS,
    (7, False): ("sentiment", *EMOTIONS),
}
"""Names of so many columns, of pairs or of numbers: `eval_iemocap` of MulT's code, and CMU-MOSEI's SDK."""
_ABSENT_PRESENT: Final = ("no", "yes")


@dataclass(frozen=True, kw_only=True)
class LabelColumns:
    """One of several labels of each clip is the target, the others stand beside it."""

    task: Task
    targets: Mapping[Role, list[float] | list[int]]
    others: Mapping[Role, dict[str, list[float | int | str | None]]]
    note: str


def label_columns(content: ParallelFields, field: str, asked: str) -> LabelColumns | None:
    """Labels of a field that has several for each clip; ``None`` where it has one.

    An array of (clips, labels, 2) has a pair for each label, of which the larger says whether it is there: a
    class. One of (clips, labels), with axes of length 1 between, has numbers.

    Args:
        content: The file.
        field: Its field of labels.
        asked: Name or number of the target's column; empty for the first.

    Raises:
        DataError: If the splits have other columns, a value is not finite, or there is no such column.
    """
    found = {role: _columns(part.fields[field]) for role, part in content.labelled.items()}
    given = {role: values for role, values in found.items() if values is not None}
    if not given:
        return None
    shapes = {values.shape[1:] for values in given.values()}
    if len(given) < len(found) or len(shapes) > 1:
        raise DataError(f"{content.path}: {field}: expected as many labels for each clip in every split")
    (shape,) = shapes
    for role, values in given.items():
        if not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0][0])
            raise DataError(
                f"{content.path}: split {role!r}: {field}: row {row}: expected finite labels, found"
                f" {values[row].tolist()}"
            )
    paired = len(shape) == 2
    names = _NAMES.get((shape[0], paired)) or tuple(f"label_{number}" for number in range(shape[0]))
    column = column_of(asked, names, f"{content.path}: {field}")
    tables = {role: values.argmax(axis=2) if paired else values for role, values in given.items()}
    task = _task(names[column], paired, [table[:, column] for table in tables.values()])
    others = {
        role: {name: table[:, number].tolist() for number, name in enumerate(names) if number != column}
        for role, table in tables.items()
    }
    return LabelColumns(
        task=task.model_copy(update={"labels": (names[column],)}),
        targets={role: table[:, column].tolist() for role, table in tables.items()},
        others=others,
        note=f"several labels: {names[column]} is the target, {_listed(names, column)} stand beside it",
    )


def _task(name: str, paired: bool, values: Sequence[np.ndarray]) -> Task:
    if paired:
        return Task(kind="classification", classes=_ABSENT_PRESENT)
    return score_task(values) if name == "sentiment" else Task(kind="regression")


def _listed(names: tuple[str, ...], column: int) -> str:
    return ", ".join(name for number, name in enumerate(names) if number != column)


def _columns(given: object) -> np.ndarray | None:
    """(clips, labels) or (clips, labels, 2) float64 of an array with several labels for each clip."""
    if not isinstance(given, StoredArray) or given.dtype.kind not in "fiub" or len(given.shape) < 2:
        return None
    paired = len(given.shape) == 3 and given.shape[1] > 1 and given.shape[2] == 2
    inner = given.shape[1:2] if paired else tuple(size for size in given.shape[1:] if size != 1)
    if len(inner) != 1 or (inner[0] < 2 and not paired):
        return None
    return given.read().astype(np.float64).reshape(len(given), *inner, *((2,) if paired else ()))
