"""Which fusion models pair tokens rightly on the synthetic family, dial by dial.

Usage: ``python benchmarks/synthetic_family.py --out FOLDER [--seeds N] [--settings NAME ...]
[--rows NAME ...] [--epochs N] [--write]``

Each setting is one corpus, each row one training on it with settings that all rows share. Finished runs are
not trained again. With ``--write`` nothing is trained: the table, its CSV and the picture of
docs/results/synthetic-family.md are made of the runs that are finished.
"""

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, Final

import written_table
from alignmamba import RunConfig, train
from alignmamba.data.synthetic_family import Dials, family_scores, write_synthetic_family
from alignmamba.methods import METHODS
from alignmamba.models.network import merged
from alignmamba.recipes.run_directory import RunDirectory

PAGE: Final = written_table.DOCS / "results" / "synthetic-family.md"
PICTURE: Final = written_table.DOCS / "images" / "synthetic-family.svg"
BEGIN: Final = "<!-- the table is written by benchmarks/synthetic_family.py -->"
SIZES: Final[Mapping[Any, int]] = {"train": 4000, "valid": 400, "test": 1000}

SETTINGS: Final = {
    "at rest": Dials(),
    "lag 0 to 2": Dials(lag=(0, 2)),
    "warp .3, all clocks agree": Dials(warp=0.3),
    "warp .3, half the clocks agree": Dials(warp=0.3, disagree=0.5),
    "warp .3, no clock agrees": Dials(warp=0.3, disagree=1.0),
    "warp .15, half the clocks agree": Dials(warp=0.15, disagree=0.5),
    "12 distractors, warp .3, half the clocks agree": Dials(warp=0.3, disagree=0.5, distractors=12),
    "rate 4 to 6, warp .3, half the clocks agree": Dials(warp=0.3, disagree=0.5, rate=(4, 6)),
}

PANELS: Final = {
    "warp, half the clocks agree": {
        "0": "at rest",
        ".15": "warp .15, half the clocks agree",
        ".3": "warp .3, half the clocks agree",
    },
    "clocks that agree, warp .3": {
        "all": "warp .3, all clocks agree",
        "half": "warp .3, half the clocks agree",
        "none": "warp .3, no clock agrees",
    },
    "lag": {"0": "at rest", "0 to 2": "lag 0 to 2"},
    "distractors, warp .3": {
        "4": "warp .3, half the clocks agree",
        "12": "12 distractors, warp .3, half the clocks agree",
    },
    "rate, warp .3": {
        "2 to 3": "warp .3, half the clocks agree",
        "4 to 6": "rate 4 to 6, warp .3, half the clocks agree",
    },
}
DRAWN: Final = (
    "AlignMamba, taught by the contrast",
    "AlignMamba, soft plans",
    "AlignMamba",
    "multi-stream Mamba",
    "cross-modal Transformer",
    "single-stream Transformer",
)

DEFAULTS: Final = "AlignMamba, all defaults"
"""The row that shares the epochs alone."""
SHARED: Final = {"d_model": 32, "depth": 1, "encoder": {"kind": "linear"}}
FIT: Final = {"learning_rate": 6e-3, "patience": 0}
CONTRAST: Final = {"contrast": {"weight": 0.3, "reach": 0}}
CONTENT: Final = {"time_weight": 0.0, "marginal": "anchor"}

# Row -> method and its options beside the shared ones.
ROWS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "AlignMamba, soft plans": ("alignmamba", {"local": {**CONTENT, "method": "soft"}}),
    "AlignMamba, soft plans and a wide prior": (
        "alignmamba",
        {"local": {**CONTENT, "method": "soft", "time_weight": 10.0}},
    ),
    "AlignMamba, taught by the contrast": ("alignmamba", {**CONTRAST, "local": CONTENT}),
    "AlignMamba, content unlearned": ("alignmamba", {"local": CONTENT}),
    "AlignMamba": ("alignmamba", {}),
    DEFAULTS: ("alignmamba", {}),
    "AlignMamba, proportional": ("alignmamba", {"local": {"method": "proportional"}}),
    "multi-stream Mamba": ("multi-stream-mamba", {}),
    "cross-modal Transformer": ("crossmodal-transformer", {}),
    "single-stream Transformer": ("single-stream-transformer", {}),
    "single-stream Mamba": ("single-stream-mamba", {}),
    "late fusion": ("late-fusion", {}),
    "AlignMamba, merged by time": ("alignmamba", {"local": {"method": "none"}}),
    "pooled-linear": ("pooled-linear", {}),
    "best-constant": ("best-constant", {}),
}
BOUNDS: Final = {
    "known: best reachable": "best_reachable_accuracy",
    "known: by clock": "clock_accuracy",
    "known: best by position": "best_by_position_accuracy",
    "known: proportional": "proportional_accuracy",
    "known: best unpaired": "best_unpaired_accuracy",
}


def place_of(out: Path, *names: str) -> Path:
    """Folder of a corpus or a run."""
    return out / "-".join("".join(c if c.isalnum() else "-" for c in name) for name in names)


def configuration(row: str, data: Path, seed: int, epochs: int) -> RunConfig:
    """Settings of one run."""
    model, options = ROWS[row]
    if row == DEFAULTS:
        return RunConfig(data=str(data), model=model, fit={"epochs": epochs}, seed=seed)
    solved = model in ("pooled-linear", "best-constant")
    if "unimodal_weight" in METHODS[model].network.config_class.model_fields:
        # no modality alone says anything here
        options = {**options, "unimodal_weight": 0.0, "modality_weights": "equal"}
    if model == "alignmamba":
        options = {**options, "unimodal_branches": False}
    return RunConfig(
        data=str(data),
        model=model,
        options=merged({} if solved else SHARED, options),
        fit={} if solved else {**FIT, "epochs": epochs},
        loader={"batch_size": 32},
        seed=seed,
    )


def trained(out: Path, seed: int, setting: str, rows: Sequence[str], epochs: int) -> None:
    """Train these rows on one setting."""
    data = place_of(out, "corpus", setting)
    if not data.exists():
        write_synthetic_family(data, SETTINGS[setting], sizes=SIZES)
    for row in rows:
        run = place_of(out, setting, row, str(seed))
        done = train(resume=run) if run.exists() else train(configuration(row, data, seed, epochs), out=run)
        print(f"{setting}, {row}, seed {seed}: {done.metrics['test']['accuracy']:.3f}", flush=True)


def accuracies(out: Path) -> dict[str, dict[str, list[float]]]:
    """Setting to row to the test accuracies of its finished seeds."""
    found: dict[str, dict[str, list[float]]] = {}
    for setting in SETTINGS:
        for row in ROWS:
            for run in sorted(out.glob(f"{place_of(out, setting, row).name}-[0-9]*")):
                if (run / "metrics.json").exists():
                    score = RunDirectory.open(run).metrics()["metrics"]["test"]["accuracy"]
                    found.setdefault(setting, {}).setdefault(row, []).append(float(score))
    return found


def table(found: Mapping[str, Mapping[str, Sequence[float]]]) -> list[list[str]]:
    """Rows by settings, the known scores first: means over the seeds that are finished."""
    known = {setting: family_scores(SETTINGS[setting]) for setting in found}
    lines = [["model", *found]]
    for row, name in BOUNDS.items():
        lines.append([row, *(f"{known[setting][name]:.3f}" for setting in found)])
    for row in ROWS:
        cells = [f"{mean(rows[row]):.3f}" if row in rows else "" for rows in found.values()]
        if any(cells):
            lines.append([row, *cells])
    return lines


def in_markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table with numbers to the right."""
    head, *body = lines
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(each)} |" for each in (head, rule, *body))


def draw(found: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """A panel for each dial: models as lines with marks, known scores as grey lines."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update({"svg.hashsalt": "alignmamba", "font.size": 9, "svg.fonttype": "none"})
    panels = {
        dial: {label: setting for label, setting in settings.items() if setting in found}
        for dial, settings in PANELS.items()
    }
    panels = {dial: ticks for dial, ticks in panels.items() if len(ticks) > 1}
    figure = Figure(figsize=(12, 4), layout="constrained")
    drawn = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (dial, ticks) in zip(drawn, panels.items(), strict=True):
        places = range(len(ticks))
        for name in ("best_by_position_accuracy", "best_unpaired_accuracy"):
            bound = [family_scores(SETTINGS[setting])[name] for setting in ticks.values()]
            axes.plot(places, bound, color="grey", linestyle="--" if "position" in name else ":")
        for number, row in enumerate(DRAWN):
            at = [(x, mean(found[s][row])) for x, s in enumerate(ticks.values()) if row in found[s]]
            x, y = zip(*at, strict=True) if at else ((), ())
            axes.plot(x, y, marker="os^DvP"[number], label=row)
        axes.set(title=dial, ylim=(0.2, 1.03))
        axes.set_xticks(list(places), list(ticks))
        axes.margins(x=0.15)
    figure.axes[0].set_ylabel("test accuracy")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(PICTURE, metadata={"Date": None})


def write(out: Path) -> None:
    """Write the page's table, its CSV and its picture of the runs that are finished."""
    found = accuracies(out)
    lines = table(found)
    with PAGE.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(written_table.renewed(page, BEGIN, in_markdown(lines)), encoding="utf-8")
    draw(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fusion models on the synthetic family.")
    parser.add_argument("--out", type=Path, required=True, help="folder of corpora and runs")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), metavar="NAME")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME")
    parser.add_argument("--write", action="store_true", help="write the page of what is finished")
    given = parser.parse_args()
    if given.write:
        write(given.out)
        sys.exit()
    for seed in range(given.seeds):
        for setting in given.settings:
            trained(given.out, seed, setting, given.rows, given.epochs)
