"""Figures of a page as SVG in the colours of its style sheet, so that they fit a light and a dark screen."""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from alignmamba.evaluation.calibration import Reliability
from alignmamba.evaluation.tables import Entry, ResultTable
from alignmamba.recipes.report.findings import Found

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUM_COLOURS: Final = 8
"""Colours ``--series-0`` ... of the style sheet; further series take them again with another mark."""
MARKS: Final = ("o", "s", "^", "D", "v", "P")
GLYPHS: Final = ("●", "■", "▲", "◆", "▼", "✚")
"""The marks as characters, for legends."""
MOST_RUNS: Final = 10
"""Runs drawn into one figure of training."""
MOST_POINTS: Final = 800
"""Samples drawn into a scatter plot; of more, every second, third ... is."""
MOST_EPOCHS: Final = 120
"""Epochs drawn of a run; of longer ones every second, third ... is."""
_LARGEST: Final = 1e30
"""Values beyond are not drawn: an axis cannot divide what lies between them."""

# What matplotlib draws with, and the style sheet's name for it.
_INK, _GRID, _PAPER = "#010203", "#010204", "#010205"
_SERIES = tuple(f"#0102{16 + number:02x}" for number in range(NUM_COLOURS))
_NAMES = {
    _INK: "var(--faint-ink)",
    _GRID: "var(--rule)",
    _PAPER: "var(--paper)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(_SERIES)},
}
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "alignmamba",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "axes.grid": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "lines.markersize": 6,
    "lines.markeredgewidth": 0.7,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure with its words."""

    title: str
    text: str
    """Description of the picture, for those who cannot see it."""
    svg: str


def missing_rate_drawing(
    table: ResultTable, rates: Mapping[int, float], series: Sequence[str], identifier: str
) -> Drawing | None:
    """Means with intervals over the missing rate; ``None`` without two columns of rates."""
    if len(rates) < 2:
        return None
    curves: dict[str, list[tuple[float, float]]] = {}
    bands: dict[str, list[tuple[float, ...]]] = {}
    for name, row in zip(table.rows, table.entries, strict=True):
        at = [(x, entry) for place, x in rates.items() if (entry := row[place]) is not None]
        curves[name] = [(x, entry.mean) for x, entry in at if _known(entry.mean)]
        bands[name] = [(x, *reach) for x, entry in at if (reach := _reach(entry))]

    def draw(axes: "Axes") -> None:
        for name in table.rows:
            look = _look(series.index(name))
            x, y = _columns(curves[name], 2)
            axes.plot(x, y, **look, markeredgecolor=_PAPER, clip_on=False)
            x, low, high = _columns(bands[name], 3)
            axes.fill_between(x, low, high, color=look["color"], alpha=0.13, linewidth=0)
        axes.set_xticks(sorted(rates.values()), [f"{100 * tick:g} %" for tick in sorted(rates.values())])
        axes.set(xlabel="missing rate")

    ends = [
        f"{name} from {curve[0][1]:.{table.digits}f} to {curve[-1][1]:.{table.digits}f}"
        for name, curve in curves.items()
        if curve
    ]
    span = f"{min(rates.values()):.0%} to {max(rates.values()):.0%}"
    text = f"Line chart: {table.title}, over missing rates of {span}. {'; '.join(ends)}."
    svg = _svg(draw, identifier, size=(5.0, 3.1))
    return Drawing(title=table.title, text=f"{text} The table has every number.", svg=svg)


def _look(number: int) -> dict[str, Any]:
    """Colour and mark of the series of that number."""
    return {"color": _SERIES[number % NUM_COLOURS], "marker": MARKS[number % len(MARKS)]}


def _columns(points: Sequence[tuple[float, ...]], number: int) -> list[list[float]]:
    return [[point[place] for point in points] for place in range(number)]


_Line = tuple[str, tuple[list[float], list[float]], Mapping[str, Any]]
"""Name, empty for a mark beside a line; epochs and values; how matplotlib draws it."""
_TRAIN: Final = {"color": _SERIES[1], "linewidth": 1.1, "linestyle": (0, (4, 2)), "alpha": 0.8}
_VALID: Final = {"color": _SERIES[0], "linewidth": 1.3, "alpha": 0.8}
_KEPT: Final = {"color": _SERIES[0], "marker": "o", "linestyle": "None", "markeredgecolor": _PAPER}


def loss_drawing(row: str, runs: Sequence[Found], identifier: str) -> Drawing | None:
    """Losses of training and validation per epoch of all runs of a row; ``None`` without epochs."""
    lines: list[_Line] = [
        (f"{run.cell.draw} {part}", line, stroke)
        for run in runs
        for part, stroke in (("train", _TRAIN), ("valid", _VALID))
        if (line := _line(run, f"{part}/loss/total"))
    ]
    return _over_epochs("loss", f"loss of {row} per epoch", lines, identifier)


def metric_drawing(
    row: str, runs: Sequence[Found], metric: str, limits: tuple[float, float], identifier: str
) -> Drawing | None:
    """The metric on valid per epoch with a dot at the one kept; ``None`` where no run has it."""
    lines: list[_Line] = []
    for run in runs:
        if line := _line(run, f"valid/{metric}"):
            lines.append((run.cell.draw, line, _VALID))
            for epoch, value in zip(run.log["epoch"], run.log[f"valid/{metric}"], strict=True):
                if epoch == run.best_epoch and _known(epoch) and _known(value):
                    lines.append(("", ([epoch], [value]), _KEPT))
    return _over_epochs(metric, f"{metric} of {row} on valid per epoch", lines, identifier, limits=limits)


def overlaid_drawing(runs: Sequence[Found], column: str, title: str, identifier: str) -> Drawing | None:
    """A column of the log per epoch, each run in its own colour; ``None`` where no run has it."""
    lines: list[_Line] = [
        (run.cell.row, line, {**_look(number), "markersize": 3.6, "markeredgewidth": 0})
        for number, run in enumerate(runs)
        if (line := _line(run, column))
    ]
    about = f"{title} per epoch, runs over each other"
    return _over_epochs(title, about, lines, identifier, separator="; ", size=(4.6, 2.8))


def _over_epochs(
    title: str,
    about: str,
    lines: Sequence[_Line],
    identifier: str,
    *,
    limits: tuple[float, float] | None = None,
    separator: str = ", ",
    size: tuple[float, float] = (3.5, 2.2),
) -> Drawing | None:
    """Lines over epochs, and in words where each of them ends."""
    if not lines:
        return None

    def draw(axes: "Axes") -> None:
        from matplotlib.ticker import MaxNLocator

        for _, (epochs, values), stroke in lines:
            axes.plot(epochs, values, **stroke)
        if limits:
            axes.set_ylim(*limits)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.set(xlabel="epoch")

    ends = separator.join(f"{name} {values[-1]:.3g}" for name, (_, values), _ in lines if name)
    text = f"Line chart: {about}. At the end: {ends}."
    return Drawing(title=title, text=text, svg=_svg(draw, identifier, size=size))


def reliability_drawing(found: Reliability, samples: int, identifier: str) -> Drawing:
    """Accuracy over confidence: a dot per bin, larger where more samples are."""

    def draw(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=_GRID, linewidth=1.2)
        for each in found.bins:
            x, y = each.confidence, each.accuracy
            axes.plot([x, x], [x, y], color=_SERIES[1], linewidth=1.4)
            size = 3 + 9 * math.sqrt(each.samples / samples)
            axes.plot([x], [y], "o", color=_SERIES[0], markersize=size, clip_on=False)
        axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), aspect="equal")

    told = "; ".join(
        f"{each.samples} samples at {each.confidence:.2f}: {each.accuracy:.2f}" for each in found.bins
    )
    return Drawing(
        title=f"Reliability, ECE {found.error:.3f}",
        text=f"Accuracy over confidence in bins. {told}.",
        svg=_svg(draw, identifier, size=(3.2, 3.0)),
    )


def scatter_drawing(targets: Sequence[float], predictions: Sequence[float], identifier: str) -> Drawing:
    """Prediction over truth; of very many samples, evenly spaced ones."""
    step = math.ceil(len(targets) / MOST_POINTS) or 1
    x, y = list(targets[::step]), list(predictions[::step])
    low, high = min((*x, *y)), max((*x, *y))
    margin = 0.04 * (high - low) or 0.5

    def draw(axes: "Axes") -> None:
        ends = (low - margin, high + margin)
        axes.plot(ends, ends, color=_GRID, linewidth=1.2)
        axes.plot(x, y, "o", color=_SERIES[0], markersize=3.2, markeredgewidth=0, alpha=0.55)
        axes.set(xlabel="true", ylabel="predicted", xlim=ends, ylim=ends, aspect="equal")

    shown = f"{len(x):,} of {len(targets):,} samples" if step > 1 else f"{len(x):,} samples"
    truth, said = (f"from {min(side):.3g} to {max(side):.3g}" for side in (x, y))
    return Drawing(
        title=f"Predicted against true, {shown}",
        text=f"Scatter plot of {shown}: truth {truth}, predictions {said}.",
        svg=_svg(draw, identifier, size=(3.2, 3.0)),
    )


def forest_drawing(table: ResultTable, column: int, identifier: str) -> Drawing | None:
    """A column: a dot per row with its interval; ``None`` where fewer than two rows have a number."""
    named = [(name, row[column]) for name, row in zip(table.rows, table.entries, strict=True)]
    points = [(name, entry) for name, entry in named if entry is not None and _known(entry.mean)]
    if len(points) < 2:
        return None
    label = table.columns[column].replace("_", " ")

    def draw(axes: "Axes") -> None:
        for place, (_, entry) in enumerate(points):
            colour = {"best": _SERIES[0], "level": _SERIES[2], "": _SERIES[7]}[entry.mark]
            if reach := _reach(entry):
                axes.plot(reach, [place, place], color=colour, linewidth=2)
            axes.plot(
                [entry.mean or 0.0],
                [place],
                "D" if entry.mark == "best" else "o",
                color=colour,
                markeredgecolor=_PAPER,
            )
        axes.set_yticks(range(len(points)), [_cut(name) for name, _ in points])
        axes.set_ylim(len(points) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set(xlabel=label)

    def words(entry: Entry) -> str:
        reach = " to ".join(f"{end:.{table.digits}f}" for end in _reach(entry))
        return f"{entry.mean:.{table.digits}f}{f' ({reach})' if reach else ''}"

    ends = "; ".join(f"{name} {words(entry)}" for name, entry in points)
    return Drawing(
        title=f"{table.title}: {label}",
        text=f"Forest plot, {label} with its interval. {ends}.",
        svg=_svg(draw, identifier, size=(4.6, 0.7 + 0.27 * len(points))),
    )


def _reach(entry: Entry) -> tuple[float, ...]:
    """Both ends of an interval; empty where it has none that an axis can hold."""
    return (entry.low, entry.high) if _known(entry.low) and _known(entry.high) else ()


def _cut(name: str, most: int = 26) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def metric_limits(runs: Sequence[Found], metric: str) -> tuple[float, float] | None:
    """One range of the metric for the figures of all rows, so that they can be compared."""
    values = [value for run in runs for value in run.log.get(f"valid/{metric}", ()) if _known(value)]
    if not values:
        return None
    margin = 0.05 * (max(values) - min(values)) or 0.05
    return min(values) - margin, max(values) + margin


def _line(run: Found, column: str) -> tuple[list[float], list[float]] | None:
    """Epochs and values, thinned where there are very many."""
    points = [
        (epoch, value)
        for epoch, value in zip(run.log.get("epoch", ()), run.log.get(column, ()), strict=False)
        if _known(epoch) and _known(value)
    ]
    step = math.ceil(len(points) / MOST_EPOCHS) or 1
    points = [*points[:-1:step], *points[-1:]]
    return ([epoch for epoch, _ in points], [value for _, value in points]) if points else None


def _known(value: float | None) -> TypeGuard[float]:
    """Answer to whether an axis can hold a value."""
    return value is not None and abs(value) <= _LARGEST  # NaN is not


def _svg(draw: Callable[["Axes"], None], identifier: str, *, size: tuple[float, float]) -> str:
    """Picture for a page: no width or height, ids of its own, the page's colours and font."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    head, _, body = svg.partition(">")
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    body = re.sub(r'<g id="[^"]*">', "<g>", body)
    body = re.sub(r'\bid="', f'id="{identifier}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{identifier}-", body)
    body = re.sub(
        r"font(-family|: [\d.]+px) [^;\"]*'[^;\"]*",
        lambda found: "font-family: inherit" if found[1] == "-family" else f"font{found[1]} sans-serif",
        body,
    )
    # Coordinates need two digits; the words between tags stay as they are.
    body = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\d+\.\d\d)\d+", r"\1", tag[0]), body)
    for colour, name in _NAMES.items():
        body = body.replace(colour, name)
    return re.sub(r"\s*\n\s*", "\n", f'{head} aria-hidden="true">{body}').strip()
