"""A finished run in Python: scores, epochs, predictions, embeddings, and plans to plot."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from alignmamba.contracts import ROLES, Corpus, Role, Task
from alignmamba.data.loader import Loader
from alignmamba.data.missing_protocols import MissingConfig
from alignmamba.data.user_arrays import CheckedSplits
from alignmamba.errors import ConfigError, DataError
from alignmamba.extras import require
from alignmamba.models.network import Network
from alignmamba.recipes.assembly import Nonfinite
from alignmamba.recipes.finished_run import LoadedRun, OpenedRun, evaluate, load_run, predicted
from alignmamba.recipes.run_records import read_log
from alignmamba.recipes.transport_plans import shown_plans
from alignmamba.training.logs import LOG

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

Data = str | Path | Corpus | Mapping[str, Any]
"""A directory or file, a corpus, or by modality a list with one array per sample."""

_WORDS_SHOWN = 40


def open_run(run: str | Path) -> "Run":
    """Open the directory of a finished run; a `CheckpointError` if there is none, or a file is damaged."""
    return Run.open(run)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Run(OpenedRun):
    """A finished run; its corpus is loaded when it is first needed, and may be missing until then."""

    def __repr__(self) -> str:
        return f"Run({self.config.model}, {self.directory})"

    @property
    def directory(self) -> Path:
        """Directory of the run."""
        return self.stored.path

    @property
    def metrics(self) -> Mapping[Role, Mapping[str, float | None]]:
        """Scores of valid and test at the end of training; ``None`` where a metric is not defined."""
        scores: Mapping[Role, Mapping[str, float | None]] = self.stored.metrics()["metrics"]
        return scores

    @property
    def history(self) -> "pandas.DataFrame":
        """One row per epoch: losses and scores, learning rate, seconds; a `ConfigError` without pandas."""
        columns = read_log(self.directory / LOG)
        gaps = {name: [np.nan if each is None else each for each in of] for name, of in columns.items()}
        frame = _frame(gaps, "history")
        return frame.astype({name: int for name in ("epoch", "step") if name in frame})

    def predict(
        self,
        data: Data | None = None,
        *,
        split: Role | None = None,
        ids: Sequence[str] | None = None,
        nonfinite: Nonfinite | None = None,
        rename: Mapping[str, str] = {},
        ignore: Sequence[str] = (),
    ) -> "pandas.DataFrame":
        """Predict every sample of some data, labelled or not.

        Args:
            data: Directory or file of a corpus, a corpus, or by modality a list with one array per sample,
                (time, width) or (time,) token ids, ``None`` where it is missing. By default the corpus of the
                run.
            split: Only that split; by default all.
            ids: Identities of the samples, where arrays are given.
            nonfinite: What to do with features that are not finite; by default as in training.
            rename: Name of a modality in the data to the one that it had in training.
            ignore: Modalities of the data to drop. Any other that the run does not know is refused.

        Returns:
            One row per sample: id, split (not of arrays), target where known, prediction, and of a
            classification the probability of each class.

        Raises:
            AlignMambaError: If the data cannot be used, or pandas is not installed.
        """
        require("predict", "notebook", "pandas")
        loaded = self._loaded(data, ids=ids, nonfinite=nonfinite, rename=rename, ignore=ignore)
        table = predicted(loaded, split)[0][""]
        if isinstance(data, Mapping):
            del table["split"]
        return _frame(table, "predict")

    def predict_tokens(
        self,
        data: Data | None = None,
        *,
        modality: str | None = None,
        split: Role | None = None,
        ids: Sequence[str] | None = None,
        nonfinite: Nonfinite | None = None,
        rename: Mapping[str, str] = {},
        ignore: Sequence[str] = (),
    ) -> "pandas.DataFrame":
        """Predict every token of a modality, in some data that `predict` takes.

        Args:
            data: As for `predict`.
            modality: Modality whose tokens have targets; may be left out where there is one.
            split: As for `predict`.
            ids: As for `predict`.
            nonfinite: As for `predict`.
            rename: As for `predict`.
            ignore: As for `predict`.

        Returns:
            One row per token: id of the sample, split (not of arrays), token from 0, time in seconds where
            known, and for each target its ``target``, ``prediction`` and probabilities, after its name and a
            dot.

        Raises:
            ConfigError: If no target of the run is one of tokens, or not of those of this modality.
            AlignMambaError: As for `predict`.
        """
        require("predict_tokens", "notebook", "pandas")
        known = self.model.config.task.labelled_tokens
        if (modality is None and len(known) != 1) or modality not in (None, *known):
            found = "none" if modality is None else repr(modality)
            raise ConfigError(
                f"modality: found {found}, expected"
                f" {' or '.join(map(repr, known)) or 'a run with targets of tokens'}"
            )
        loaded = self._loaded(data, ids=ids, nonfinite=nonfinite, rename=rename, ignore=ignore)
        table = predicted(loaded, split)[0][modality or known[0]]
        if isinstance(data, Mapping):
            del table["split"]
        return _frame(table, "predict_tokens")

    def embed(
        self,
        data: Data | None = None,
        *,
        split: Role | None = None,
        ids: Sequence[str] | None = None,
        nonfinite: Nonfinite | None = None,
        rename: Mapping[str, str] = {},
        ignore: Sequence[str] = (),
    ) -> tuple[tuple[str, ...], NDArray[np.float32]]:
        """Compute what the model's head reads of every sample: its pooled representation.

        Takes what `predict` takes; returns the ids, and (samples, channel) in their order.

        Raises:
            AlignMambaError: If the data cannot be used.
        """
        loaded = self._loaded(data, ids=ids, nonfinite=nonfinite, rename=rename, ignore=ignore)
        model, fabric, task = loaded.model.to(loaded.fabric.device), loaded.fabric, loaded.model.config.task
        roles = [role for role in ROLES if role in loaded.corpus.splits] if split is None else [split]
        names: list[str] = []
        parts = []
        for role in roles:
            rows, settings = loaded.corpus.split(role), self.config
            source = Loader(
                rows, loaded.modalities, config=settings.loader, task=task, shuffle=False, seed=settings.seed
            )
            for batch in source:
                with torch.no_grad(), fabric.autocast():
                    parts.append(model(batch.to(fabric.device)).embedding.float().cpu().numpy())
                names += batch.ids
        return tuple(names), np.concatenate(parts)

    def plan(
        self, sample: str, data: Data | None = None, *, ids: Sequence[str] | None = None
    ) -> "SamplePlan":
        """Find out which tokens of the sample of an id the model matches, in data as for `predict`; a
        `ConfigError` if no sample has that id, or the model makes no plans.
        """
        loaded = self._loaded(data, ids=ids)
        for split in loaded.corpus.splits.values():
            if sample in split.ids:
                model = loaded.model.to("cpu")
                place = split.ids.index(sample)
                (found,) = shown_plans(self.config, loaded.corpus, model, split, {place: "asked for"})
                if not found.sources:
                    raise ConfigError(
                        f"sample {sample!r}: the model {self.config.model!r} makes no plan of it with these"
                        " settings, or the sample has one modality"
                    )
                return SamplePlan(
                    id=found.id,
                    target=found.target,
                    prediction=found.prediction,
                    anchor=asdict(found.anchor),
                    sources=[asdict(source) for source in found.sources],
                )
        raise ConfigError(f"sample {sample!r:.80}: corpus {loaded.corpus.name!r} has no such id")

    def evaluate(
        self,
        data: str | Path | Corpus | None = None,
        *,
        split: Role = "test",
        drop: Sequence[str] = (),
        missing: MissingConfig | None = None,
        nonfinite: Nonfinite | None = None,
        rename: Mapping[str, str] = {},
        ignore: Sequence[str] = (),
        out: str | Path | None = None,
    ) -> dict[str, Any]:
        """Score the run on a split; `alignmamba.evaluate` describes arguments and result."""
        return evaluate(
            self,
            data=data,
            split=split,
            drop=drop,
            missing=missing,
            nonfinite=nonfinite,
            rename=rename,
            ignore=ignore,
            out=out,
        )

    def _loaded(self, data: Data | None, *, ids: Sequence[str] | None = None, **options: Any) -> LoadedRun:
        if isinstance(data, Mapping):
            data = _corpus_of(data, self.model, ids)
        elif ids is not None:
            raise ConfigError("ids: expected them with arrays only; a corpus has ids of its own")
        return load_run(self, data=data, **options)


@dataclass(frozen=True, kw_only=True)
class SamplePlan:
    """Tokens that a model matches in one sample."""

    id: str
    target: float | str | None
    prediction: float | str
    anchor: Mapping[str, Any]
    """``modality``, ``length``, ``tokens`` and ``times`` of the modality that all others are aligned to."""
    sources: Sequence[Mapping[str, Any]]
    """The same of each other modality, and by token the ``index`` of what it is matched to, -1 for nothing,
    and the ``similarity``. With ``marginal`` source these are tokens of the modality and positions in the
    anchor, with anchor the other way round."""

    def __repr__(self) -> str:
        return (
            f"SamplePlan({self.id!r:.80}: {', '.join(each['modality'] for each in self.sources)} onto"
            f" {self.anchor['modality']})"
        )

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw every matched pair as a dot, darker where more similar: its place in the anchor to the right,
        that in its own modality upwards. In seconds where all times are known, else in tokens. Needs
        matplotlib.
        """
        require("plot", "notebook", "matplotlib")
        from matplotlib import pyplot

        if ax is None:
            _, ax = pyplot.subplots()
        timed = all(each["times"] is not None for each in (self.anchor, *self.sources))
        for number, source in enumerate(self.sources):
            places, matched = np.arange(len(source["index"])), np.asarray(source["index"])
            similarity = np.clip(np.asarray(source["similarity"])[matched >= 0], 0, 1)
            own, anchor = places[matched >= 0], matched[matched >= 0]
            if source["marginal"] == "anchor":
                own, anchor = anchor, own
            across = np.asarray(self.anchor["times"])[anchor] if timed else anchor
            upwards = np.asarray(source["times"])[own] if timed else own
            colour = f"C{number}"
            ax.scatter(
                across, upwards, s=14, color=colour, alpha=0.25 + 0.75 * similarity, label=source["modality"]
            )
        unit = "s" if timed else "tokens"
        ax.set_xlabel(f"{self.anchor['modality']} ({unit})")
        ax.set_ylabel(unit)
        ax.set_title(self.id, parse_math=False)
        ax.legend()
        words = self.anchor["tokens"]
        if words and len(words) <= _WORDS_SHOWN:
            ax.set_xticks(
                self.anchor["times"] if timed else range(len(words)), words, rotation=90, parse_math=False
            )
        return ax


def _corpus_of(arrays: Mapping[str, Any], model: Network[Any], ids: Sequence[str] | None) -> Corpus:
    """Unlabelled samples of arrays, checked as those of a corpus are."""
    task: Task = model.config.task
    kinds = {spec.name: spec for spec in model.config.modalities}
    given = {name: values for name, values in arrays.items() if not _is_empty(values)}
    if not given:
        raise DataError("data: expected by modality a list with one array per sample, found nothing")
    size = len(next(iter(given.values())))
    named = [f"sample-{number:06d}" for number in range(1, size + 1)] if ids is None else list(ids)
    sizes = {name: spec.dim for name, spec in kinds.items() if spec.kind == "tokens" and name in given}
    checked = CheckedSplits({"test": {"features": given, "ids": named}}, task=task, vocabulary_sizes=sizes)
    split = checked.split("test")
    return Corpus(name="arrays", task=task, modalities=split.modalities, splits={"test": split}, checksum="")


def _is_empty(values: Any) -> bool:
    return isinstance(values, list | tuple) and all(each is None for each in values)


def _frame(table: Mapping[str, Sequence[Any]], what: str) -> "pandas.DataFrame":
    require(what, "notebook", "pandas")
    import pandas

    return pandas.DataFrame(dict(table))
