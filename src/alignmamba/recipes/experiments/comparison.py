"""Table 2: methods beside each other, and every modality alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

from pydantic import Field

from alignmamba.contracts import Corpus
from alignmamba.errors import ConfigError
from alignmamba.evaluation.metrics import score
from alignmamba.evaluation.tables import Entry, ResultTable
from alignmamba.extras import require
from alignmamba.methods import METHODS, REFERENCES
from alignmamba.recipes.configuration import RunConfig, dotted
from alignmamba.recipes.experiments.cells import Analysis, Cell, ExperimentRecord, cell
from alignmamba.recipes.experiments.columns import metrics_table, of_each_target, plain_table
from alignmamba.recipes.experiments.experiment_kind import (
    GridExperiment,
    MethodsOptions,
    drawn,
    of_model,
    with_modalities,
)
from alignmamba.recipes.experiments.grid import Grid
from alignmamba.recipes.experiments.variance_table import variance_tables
from alignmamba.recipes.preparation import seen_by, with_targets

if TYPE_CHECKING:
    from alignmamba.recipes.tuning.best_settings import BestSettings


_OF_A_LABEL: Final = ("accuracy", "accuracy_weighted", "f1_weighted")
"""Scores of single labels that have a column."""


class BesideOptions(MethodsOptions):
    """Options of an experiment that puts single modalities and references beside methods."""

    without_references: bool = False
    """Drop the rows of the best constant and of a linear model on pooled statistics."""
    without_alone: bool = False
    """Drop the rows of single modalities."""


def rows_beside(
    asked: BesideOptions,
    base: RunConfig,
    corpus: Corpus,
    *,
    settled: Callable[[str], RunConfig] | None = None,
    column: str = "",
) -> Iterator[Cell]:
    """Every method with all modalities, each modality alone, then the references, but for those of which
    nothing is to be learned. `settled` makes the run of a method that is trained, by default with the
    settings of `base`.
    """

    def own(name: str) -> RunConfig:
        return of_model(base, name, own_settings=asked.own_settings)

    # References predict the target of the task alone: none where others are learned in its place.
    others = base.fit.task_weight == 0 and bool(base.targets)
    last = () if asked.without_references or others else REFERENCES
    for name in (each for each in asked.models if each not in last):
        yield cell(name, (settled or own)(name), corpus, column=column)
    if len(corpus.modalities) > 1 and not asked.without_alone:
        alone = base if settled is None else settled(base.model)
        for modality in corpus.modalities:
            yield from with_modalities(
                f"{modality.name} alone", alone, corpus, (modality.name,), column=column
            )
    for name in last:
        reference = with_targets((settled or own)(name), {})
        yield cell(name, reference, seen_by(reference, corpus), column=column)


class ComparisonOptions(BesideOptions):
    """Options of the comparison."""

    tuned: Annotated[tuple[str, ...], Field(title="DIR ...")] = ()
    """Train each method with the best settings that `alignmamba tune --out DIR` found for it; of several
    searches, seeds take them in turn."""


class Comparison(GridExperiment[ComparisonOptions, Analysis]):
    """Methods by metrics, then what each of them costs."""

    name: ClassVar[str] = "comparison"
    title: ClassVar[str] = "Comparison of methods"
    summary: ClassVar[str] = "the families or --models, every modality alone, and references"
    options = ComparisonOptions
    analysis = Analysis

    def cells(self, asked: ComparisonOptions, base: RunConfig, corpus: Corpus) -> Iterator[Cell]:
        """Table 2: every model with all modalities, then each modality alone."""
        return self._rows(asked, base, corpus, _searched(asked, base, corpus))

    def seeded_cells(self, asked: ComparisonOptions, base: RunConfig, corpus: Corpus) -> Iterator[Cell]:
        """Cells for all seeds, with the settings that a search had found when this was called."""
        best = _searched(asked, base, corpus)
        for run in drawn(asked, base):
            yield from self._rows(asked, run, corpus, best)

    def _rows(
        self, asked: ComparisonOptions, base: RunConfig, corpus: Corpus, best: "Sequence[BestSettings]"
    ) -> Iterator[Cell]:
        settled = partial(best[base.seed % len(best)].over, base) if best else None
        yield from rows_beside(asked, base, corpus, settled=settled)

    def check(self, asked: ComparisonOptions, corpus: Corpus) -> None:
        """Refuse two kinds of settings at once, and a search that has seen what folds are tested on."""
        del corpus
        if asked.tuned and asked.folds:
            raise ConfigError("tuned: the search has seen samples that folds are tested on; drop --folds")
        if asked.tuned and asked.own_settings:
            raise ConfigError("tuned: found --own-settings beside it, expected one of both")
        if len(asked.tuned) > asked.seeds:
            raise ConfigError(
                f"tuned: found {len(asked.tuned)} searches for {asked.seeds} seeds, expected as many seeds or"
                " more"
            )

    def notes(self, asked: ComparisonOptions, base: RunConfig, cells: Sequence[Cell]) -> Iterator[str]:
        """Settings that were asked for and give way to those of a search."""
        if not asked.tuned:
            return
        from alignmamba.recipes.tuning.best_settings import LAID_OVER

        given = dict(dotted(base.model_dump(mode="json", exclude_unset=True)))
        replaced: dict[str, dict[str, None]] = {}
        for each in (each for each in cells if each.row in METHODS and each.row not in REFERENCES):
            own, searched = _settings(of_model(base, each.row)), _settings(each.config)
            for key in given.keys() & own.keys():
                if key.startswith(LAID_OVER) and searched.get(key, own[key]) != own[key]:
                    replaced.setdefault(key, {})[each.row] = None
        for key in (each for each in given if each in replaced):
            rows = ", ".join(replaced[key])
            yield f"{key}={given[key]} gives way to what the search found or held, for {rows}"

    def facts(self, asked: ComparisonOptions, corpus: Corpus, cells: Sequence[Cell]) -> Mapping[str, Any]:
        """Number of trials and cost of the search whose settings are used."""
        del corpus, cells
        if not asked.tuned:
            return {}
        from alignmamba.recipes.tuning.best_settings import search_facts

        return {"tuned": search_facts([Path(path) for path in asked.tuned])}

    def as_begun(self, asked: ComparisonOptions, begun: ExperimentRecord) -> ComparisonOptions:
        """Options without references, where an earlier version began without them."""
        known = "without_references" in begun.settings
        return asked if known else asked.model_copy(update={"without_references": True})

    def tables(self, grid: Grid) -> Iterator[ResultTable]:
        """Methods by metrics, what each of them costs, and what scores vary by."""
        yield from of_each_target(grid, _scores)
        yield ResultTable(
            name="comparison-cost",
            title=f"What methods cost on {grid.corpus}",
            row_label="method",
            rows=grid.rows,
            columns=("trained weights", "training seconds"),
            entries=tuple(_cost(grid, row) for row in grid.rows),
            digits=0,
            notes=(
                "Seconds are those of the epochs with their validation, of the seed that took least."
                " Whatever else ran on the machine meanwhile is in them.",
            ),
        )
        if not grid.plan.unlearned:
            yield from variance_tables(grid)


def _settings(run: RunConfig) -> dict[str, Any]:
    """Settings of a run by dotted key."""
    return dict(dotted(run.model_dump(mode="json")))


def _scores(grid: Grid) -> Iterator[ResultTable]:
    """Methods by metrics."""
    scores = metrics_table(grid, f"Comparison of methods on {grid.corpus}, test", row_label="method")
    yield scores.model_copy(update={"notes": (*scores.notes, *_notes_on_tuning(grid))})
    if grid.task.kind == "multilabel":
        yield _labels(grid)


def _labels(grid: Grid) -> ResultTable:
    """Methods by the scores of each label alone, those that are published of emotions."""
    names = [f"{name}({label})" for label in grid.task.classes for name in _OF_A_LABEL]
    values: dict[str, dict[str, list[float]]] = {}
    for row in grid.rows:
        found = [score(grid.task, said) for _, said in sorted(grid.predictions(row, "").items())]
        values[row] = {name: [each[name] for each in found] for name in names if found}
    title = f"Scores of each label on {grid.corpus}, test"
    return plain_table("comparison-labels", title, values, row_label="method", bounds=(0.0, 1.0))


def _searched(asked: ComparisonOptions, base: RunConfig, corpus: Corpus) -> "list[BestSettings]":
    """Settings that searches have found for the methods that can be tuned, one for each search."""
    if not asked.tuned:
        return []
    require("tuned", "tune", "optuna")
    from alignmamba.recipes.tuning.best_settings import best_settings, refuse_unlike

    paths = [Path(path) for path in asked.tuned]
    tuned = [name for name in asked.models if name not in REFERENCES]
    alone = len(corpus.modalities) > 1 and not asked.without_alone
    readers = [base.model] if alone and base.model not in (*tuned, *REFERENCES) else []
    found = [best_settings(path, base, corpus, tuned, readers=readers) for path in paths]
    refuse_unlike(paths, [*tuned, *readers])
    return found


def _notes_on_tuning(grid: Grid) -> Iterator[str]:
    """Notes on the search that found the settings of each method, if there was one."""
    if not grid.plan.tuned:
        return
    search = grid.plan.tuned
    methods = {name: facts for name, facts in search["methods"].items() if name in grid.rows}
    trials = max((facts["trials"] for facts in methods.values()), default=0)
    cost = ", ".join(f"{name} {facts['seconds']:.0f}" for name, facts in methods.items())
    repeats = search["repeats"]
    folds = " on folds of train and valid" if search.get("folds") else ""
    of = f", each the mean of {repeats} trainings{folds}" if repeats > 1 else ""
    yield (
        f"Tuning was equal: each method has the best settings of {trials} trials by {search['metric']} on"
        f" valid{of}."
    )
    searches = search.get("searches", 1)
    if searches > 1:
        yield (
            f"Seeds take the settings of {searches} searches in turn, so intervals and tests over seeds are"
            " over tuning too. Seeds that share a search are not independent: with more seeds than searches"
            " both are a little optimistic."
        )
    yield f"Seconds that the search took: {cost}."
    if any(row.endswith(" alone") for row in grid.rows):
        yield (
            "A single modality has the settings of the model that reads it, which were not tuned for it"
            " alone."
        )


def _cost(grid: Grid, row: str) -> tuple[Entry | None, Entry | None]:
    """Trained weights of a method, and seconds of its training under the seed that took least."""
    seeds = [[grid.runs[key] for key in keys] for keys in grid.keys(row, "").values()]
    if not seeds:
        return None, None
    least = min(sum(run.seconds for run in runs) for runs in seeds)
    return Entry(values=(), mean=seeds[0][0].weights), Entry(values=(), mean=least)
