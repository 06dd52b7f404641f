"""Best settings of a search for a comparison of methods, refused where means were not equal."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from alignmamba.contracts import Corpus
from alignmamba.data.further_targets import FurtherConfig
from alignmamba.errors import ConfigError
from alignmamba.extras import require
from alignmamba.methods import METHODS
from alignmamba.recipes.configuration import RunConfig, dotted, with_settings
from alignmamba.recipes.experiments.experiment_kind import of_model
from alignmamba.recipes.run_directory import corpus_identity
from alignmamba.recipes.tuning.tuning_directory import TuningDirectory, TuningRecord
from alignmamba.recipes.tuning.tuning_results import MethodOutcome, outcomes

LAID_OVER: Final = ("fit.", "loader.", "options.", "preset")
"""Beginnings of settings that a search holds and a comparison takes over; the others decide the corpus, and
must be the same."""


@dataclass(frozen=True, kw_only=True)
class BestSettings:
    """Settings that a search has found, and those that it held fixed."""

    held: Mapping[str, Any]
    settings: Mapping[str, Mapping[str, Any]]
    """Method to settings by dotted key."""

    def over(self, base: RunConfig, name: str) -> RunConfig:
        """A run of a method under its best settings; under those that were held if it was not tuned."""
        return with_settings(of_model(with_settings(base, self.held), name), self.settings.get(name, {}))


def best_settings(
    path: Path, base: RunConfig, corpus: Corpus, methods: Sequence[str], *, readers: Sequence[str] = ()
) -> BestSettings:
    """Best settings of these methods, and of `readers` of single modalities. Refuses, by a `ConfigError`,
    another corpus or other settings of it, a method or a reader without a score, and methods with different
    numbers of trials.
    """
    require("tuned", "tune", "optuna")
    directory = TuningDirectory.open(path)
    record = directory.record()
    identity = corpus_identity(corpus)
    if asdict(record.corpus) != identity:
        raise ConfigError(
            f"tuned {path}: found settings for corpus {record.corpus.name!r} {record.corpus.checksum[:12]},"
            f" expected {identity['name']!r} {identity['checksum'][:12]}"
        )
    _refuse_other_data(path, record, base)
    found = {each.method: each for each in outcomes(directory)}
    for name in readers:
        if name not in found or found[name].score is None:
            raise ConfigError(
                f"tuned {path}: single modalities are read by {name}, which has no finished trial; tune it"
                " too, or take --without-alone"
            )
    _refuse_unequal(path, found, [*methods, *readers])
    return BestSettings(
        held={key: value for key, value in record.held.items() if key.startswith(LAID_OVER)},
        settings={name: {**_later(name, record), **each.settings} for name, each in found.items()},
    )


def _refuse_other_data(path: Path, record: TuningRecord, base: RunConfig) -> None:
    """Refuse settings that decide what is learned from where a search had others."""
    aside = (*LAID_OVER, "seed", "model", "data", "engine.")
    mine = dict(dotted(base.model_dump(mode="json")))
    silent = _silent({key.split(".")[1] for key in record.held if key.startswith("targets.")})
    for key in dict.fromkeys((*record.held, *mine)):
        tuned = record.held.get(key, silent.get(key))
        if not key.startswith(aside) and mine.get(key) != tuned:
            raise ConfigError(
                f"tuned {path}: tuned with {key}={tuned}, found {mine.get(key)}; set it here too"
            )


def _silent(targets: Collection[str]) -> dict[str, Any]:
    """Settings of a search that nobody set, those of further targets among them."""
    further = {name: FurtherConfig().model_dump(mode="json") for name in targets}
    return dict(dotted({**RunConfig().model_dump(mode="json"), "targets": further}))


def _later(name: str, record: TuningRecord) -> dict[str, Any]:
    """Settings that are searched today and came after a search, as they were then."""
    # the unit of time is no later option, but earlier searches had the relative one
    silent = {**METHODS[name].network.config_class.SILENT, "local.time_unit": "relative"}
    options = {key: key.removeprefix("options.") for key in METHODS[name].search}
    known = {*record.spaces.get(name, ()), *record.held}
    return {key: silent[option] for key, option in options.items() if option in silent and key not in known}


def _refuse_unequal(path: Path, found: Mapping[str, MethodOutcome], methods: Sequence[str]) -> None:
    scored = [name for name, each in found.items() if each.score is not None]
    for name in methods:
        if name not in scored:
            raise ConfigError(
                f"tuned {path}: {name} has no finished trial, expected some of {', '.join(scored) or 'none'}"
            )
    trials = {name: found[name].trials for name in methods}
    if len(set(trials.values())) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in trials.items())
        raise ConfigError(
            f"tuned {path}: found different numbers of trials: {counts}; repeat alignmamba tune to finish"
        )


def refuse_unlike(paths: Sequence[Path], methods: Sequence[str]) -> None:
    """Refuse, by a `ConfigError`, searches for one comparison that are the same, or had other means."""
    records = [TuningDirectory.open(path).record() for path in paths]
    first, seeds, of_first = records[0], dict[int, Path](), dict[str, int]()
    for path, record in zip(paths, records, strict=True):
        for name in ("metric", "folds", "repeats"):
            _refuse_difference(path, paths[0], name, getattr(record, name), getattr(first, name))
        for key in dict.fromkeys((*record.held, *first.held)):
            if key != "seed":
                _refuse_difference(path, paths[0], key, record.held.get(key), first.held.get(key))
        if record.seed in seeds:
            raise ConfigError(
                f"tuned {path}: has the seed {record.seed} of {seeds[record.seed]}, so it is the same search;"
                " repeat alignmamba tune with --set seed=N"
            )
        seeds[record.seed] = path
        counts = {each.method: each.trials for each in outcomes(TuningDirectory(path))}
        of_first = of_first or counts
        for method in methods:
            _refuse_difference(
                path, paths[0], f"space of {method}", record.spaces[method], first.spaces[method]
            )
            if counts[method] != of_first[method]:
                raise ConfigError(
                    f"tuned {path}: found {counts[method]} trials of {method}, expected {of_first[method]} as"
                    f" in {paths[0]}"
                )


def _refuse_difference(path: Path, first: Path, name: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise ConfigError(f"tuned {path}: found {name} {found}, expected {expected} as in {first}")


def search_facts(paths: Sequence[Path]) -> dict[str, Any]:
    """Record of searches in ``experiment.json``: metric, trainings and trials of each, and what each method
    cost in all of them.
    """
    record = TuningDirectory.open(paths[0]).record()
    methods: dict[str, dict[str, Any]] = {}
    for path in paths:
        for each in outcomes(TuningDirectory.open(path)):
            known = methods.setdefault(each.method, {"trials": each.trials, "seconds": 0.0})
            known["seconds"] = round(known["seconds"] + each.seconds, 3)
    facts = {"metric": record.metric, "repeats": record.repeats, "folds": record.folds}
    return {**facts, "searches": len(paths), "methods": methods}
