"""Tables on the terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

# Blank characters between two columns.
_GAP = 2


def metrics_table(title: str, columns: Mapping[str, Mapping[str, float | None]]) -> "Table":
    """Metrics in rows, for example splits in columns; without those of single labels."""
    table = _table(title, "metric")
    for name in columns:
        table.add_column(name, justify="right")
    for metric in dict.fromkeys(metric for scores in columns.values() for metric in scores):
        if not metric.endswith(")"):
            table.add_row(metric, *(number(scores.get(metric)) for scores in columns.values()))
    return table


def labels_table(title: str, scores: Mapping[str, float | None]) -> "Table | None":
    """Labels in rows and their metrics, such as ``emotions.accuracy(sad)``, in columns; None without any."""
    rows: dict[str, dict[str, float | None]] = {}
    for name, value in scores.items():
        metric, bracket, label = name.removesuffix(")").partition("(")
        target, _, metric = metric.rpartition(".")
        if bracket:
            rows.setdefault(f"{target}: {label}" if target else label, {})[metric] = value
    if not rows:
        return None
    metrics = list(dict.fromkeys(metric for own in rows.values() for metric in own))
    table = _table(title, "label")
    for metric in metrics:
        table.add_column(metric, justify="right")
    for label, own in rows.items():
        table.add_row(label, *(number(own.get(metric)) for metric in metrics))
    return table


def reference_table(
    references: Mapping[str, float], distance_covered: Mapping[str, float], *, split: str = "test"
) -> "Table":
    """Known scores of the corpus, and the share of the way to the best that those of the split went."""
    table = _table("to compare with", "known of this corpus")
    table.add_column("", justify="right")
    for name, value in references.items():
        table.add_row(name.replace("_", " "), number(value))
    for metric, share in distance_covered.items():
        table.add_section()
        table.add_row(f"{split} {metric}: share of the way from single modality to best", f"{share:.1%}")
    return table


def missing_line(facts: Mapping[str, Any], effective_rates: Mapping[str, float]) -> str:
    """Line about withheld modalities: the protocol, its rate, and the share it took from each split."""
    rates = facts["rate"] if isinstance(facts["rate"], list | tuple) else [facts["rate"]]
    nominal = f"nominal rate{'s' * (len(rates) > 1)} {', '.join(f'{rate:g}' for rate in rates)}, "
    effective = ", ".join(f"{rate:.4f} on {split}" for split, rate in effective_rates.items())
    return (
        f"withheld by {facts['protocol']}: {'' if facts['protocol'] == 'fixed' else nominal}effective rate"
        f" {effective}"
    )


def thresholds_line(thresholds: Mapping[str, float]) -> str:
    """Line about the probabilities from which labels are called."""
    said = ", ".join(f"{name} {value:.3f}" for name, value in thresholds.items())
    return f"labels are called, for accuracies and F1, from these probabilities on: {said}"


def modality_weights_line(weights: Mapping[str, float]) -> str:
    """Line about the factors on the vectors of modalities."""
    said = ", ".join(f"{name} {value:.3f}" for name, value in weights.items())
    return f"weights of modalities, chosen on valid: {said}"


def patterns_table(patterns: Sequence[Mapping[str, Any]]) -> "Table":
    """One row per set of modalities that was kept, metrics in columns."""
    metrics = list(patterns[0]["metrics"])
    rows = [
        (
            " and ".join(each["kept"]),
            each["samples"],
            number(each["effective_rate"]),
            *(number(each["metrics"][name]) for name in metrics),
        )
        for each in patterns
    ]
    return rows_table("kept of each sample", ("kept", "samples", "effective rate", *metrics), rows)


def facts_table(title: str, facts: Mapping[str, Any]) -> "Table":
    """Two columns: what, and its value."""
    table = _table(title, "")
    table.show_header = False
    table.add_column("", overflow="fold")
    for name, value in facts.items():
        table.add_row(name, str(value))
    return table


def rows_table(title: str, header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> "Table":
    """Any table; the first column names the row."""
    table = _table(title, header[0])
    for name in header[1:]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row))
    return table


def blocks(
    shown: tuple[Sequence[str], Sequence[Sequence[str]]], width: int
) -> list[tuple[tuple[str, ...], list[tuple[Any, ...]]]]:
    """A wide table as several, header and rows of each, that fit a width in characters, each with the first
    column.
    """
    header, rows = shown
    widths = [max(map(len, column)) + _GAP for column in zip(header, *rows, strict=True)]
    parts: list[list[int]] = [[]]
    for place, wide in enumerate(widths[1:], start=1):
        if parts[-1] and widths[0] + sum(widths[each] for each in parts[-1]) + wide > width:
            parts.append([])
        parts[-1].append(place)
    return [
        (tuple(header[at] for at in (0, *part)), [tuple(row[at] for at in (0, *part)) for row in rows])
        for part in parts
    ]


def faults_table(title: str, faults: Sequence[tuple[str, str, str, int]]) -> "Table | str":
    """Table of the faults of a file and their repairs, or a line that there are none."""
    if not faults:
        return f"{title}: nothing"
    return rows_table(title, ("what", "where", "done", "how many"), list(faults))


def number(value: float | None) -> str:
    """Four decimals; a dash for what is not defined."""
    return "-" if value is None or value != value else f"{value:.4f}"


def _table(title: str, first: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first)
    return table
