"""Parts of a run: corpus, model, batches, engine."""

import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric

from alignmamba import __version__
from alignmamba.capacity import refuse_beyond_memory
from alignmamba.contracts import Corpus, ModalitySpec, Predictions, Role, Split, Task
from alignmamba.data.archive import load_corpus
from alignmamba.data.leading_target import LeadingConfig, led_by
from alignmamba.data.loader import Loader, lost_workers_told
from alignmamba.data.missing_protocols import only
from alignmamba.data.storage import MANIFEST
from alignmamba.data.synthetic import synthetic_corpus
from alignmamba.errors import CheckpointError, ConfigError, DataError
from alignmamba.formats import FORMATS
from alignmamba.formats.conversion_cache import cached_corpus
from alignmamba.formats.foreign import NeedsOptionError
from alignmamba.formats.known_formats import any_options, check_source, recognised
from alignmamba.formats.tables.draft import refuse_undescribed
from alignmamba.methods import METHODS
from alignmamba.models.encoded import FusionConfig
from alignmamba.models.network import Network
from alignmamba.models.pretrained import CONFIG_FILE, WEIGHTS_FILE
from alignmamba.nn.language import Language, LanguageConfig, refuse_longer
from alignmamba.recipes.configuration import SYNTHETIC, EngineConfig, RunConfig, model_config, resolve
from alignmamba.recipes.display import samples_display
from alignmamba.recipes.run_directory import MODEL, RunDirectory
from alignmamba.training import inference
from alignmamba.training.footprint import refuse_untrainable

Nonfinite = Literal["error", "zero", "mean"]
_KERNELS, _OTHERS = ("torch", "numpy", "numba", "triton"), ("safetensors", "pydantic", "transformers")


def located(data: str, nonfinite: Nonfinite, *, labels: Sequence[str] = ()) -> str:
    """Place of the corpus that lies there: the same, or where a file of a foreign format is converted to,
    once, into a cache, with these labels. Values of such a file that are not finite become 0 unless
    something else is asked for. Raises a `DataError` if there is neither a corpus nor a file that can be
    converted.
    """
    if data == SYNTHETIC:
        return data
    path = Path(data)
    check_source(path)
    if not path.exists() or (path / MANIFEST).exists():
        return data
    if not recognised([path]):
        if path.is_dir():
            return data
        refuse_undescribed(path)
        raise DataError(f"{path}: expected a corpus directory or a file of the formats {', '.join(FORMATS)}")
    chosen = {"label": tuple(labels)} if labels else {}
    options = any_options()(nonfinite="zero" if nonfinite == "error" else "keep", **chosen)
    try:
        with samples_display("converted") as told:
            return str(cached_corpus(path, options, told=told))
    except NeedsOptionError as error:
        command = f"alignmamba convert auto {shlex.quote(str(path))} CORPUS {error.option}"
        raise DataError(f"{error}; here: `{command}`, and then CORPUS as the data") from error


def corpus_at(
    data: str | Path | Corpus,
    nonfinite: Nonfinite,
    *,
    labels: Sequence[str] = (),
    means: Mapping[str, np.ndarray] | None = None,
) -> Corpus:
    """The corpus in that directory or made from that file, read with `labels`, or the synthetic one; a corpus
    as it is.
    """
    if isinstance(data, Corpus):
        return data
    return corpus_in(located(str(data), nonfinite, labels=labels), nonfinite, means=means)


def corpus_in(
    place: str,
    nonfinite: Nonfinite,
    *,
    leading: LeadingConfig = LeadingConfig(),  # noqa: B008 # immutable
    means: Mapping[str, np.ndarray] | None = None,
) -> Corpus:
    """The corpus in a place that `located` gave, led as a run asks. By modality, `means` stand in for values
    that are not finite; by default those of its own train split.
    """
    loaded = (
        synthetic_corpus() if place == SYNTHETIC else load_corpus(place, nonfinite=nonfinite, means=means)
    )
    return led_by(loaded, leading)


def own_data(config: RunConfig) -> str:
    """Place of the corpus that a run was trained on; a `DataError` names the option for a new one."""
    if config.data != SYNTHETIC and not Path(config.data).exists():
        raise DataError(
            f"{config.data}: expected the corpus of the run, found nothing; --data (data=) names its"
            " new place"
        )
    return config.data


def restricted(corpus: Corpus, names: Sequence[str]) -> Corpus:
    """The corpus with these modalities and the samples that have any of them; all of it if none is named.
    Raises a `ConfigError` for an unknown name, or if nothing is left of a split.
    """
    offered = [spec.name for spec in corpus.modalities]
    unknown = [name for name in names if name not in offered]
    if unknown:
        raise ConfigError(
            f"modalities: corpus {corpus.name!r} has no {unknown[0]!r}, expected some of {', '.join(offered)}"
        )
    if not names:
        return corpus
    splits = {role: _with_any(split, names) for role, split in corpus.splits.items()}
    emptied = [role for role, split in splits.items() if not len(split)]
    if emptied:
        raise ConfigError(
            f"modalities: no sample of split {emptied[0]!r} of corpus {corpus.name!r} has"
            f" {' or '.join(names)}"
        )
    return replace(
        corpus, modalities=tuple(spec for spec in corpus.modalities if spec.name in names), splits=splits
    )


def _with_any(split: Split, names: Sequence[str]) -> Split:
    """The samples of a split that have any of these modalities."""
    left = only(split, names, modalities=names)
    return split if len(left) == len(split) else left


def check_unchanged(run: RunDirectory, corpus: Corpus, config: RunConfig) -> None:
    """Refuse another corpus than the run was trained on, and an edited configuration."""
    identity = run.identity()
    expected = identity.get("corpus", {}).get("checksum")
    if corpus.checksum != expected:
        raise CheckpointError(
            f"run {run.path}: the corpus changed after training: found checksum"
            f" {corpus.checksum[:12]}, expected {str(expected)[:12]}"
        )
    if config.digest(corpus) != identity.get("digest") or config.seed != identity.get("seed"):
        raise CheckpointError(
            f"run {run.path}: the configuration changed after the start of training; start a new run"
        )


def counted_weights(config: RunConfig, corpus: Corpus) -> int:
    """Number of weights that training changes, counted without making one; refuses what memory does not hold,
    and sequences longer than their encoder reads.
    """
    with torch.device("meta"), torch.random.fork_rng(devices=[]):  # shapes of weights without content
        outline = untrained_network(config, corpus)
    for name, longest in outline.longest.items():
        for split in corpus.splits.values():
            refuse_longer(name, int(split.lengths[name].max(initial=0)), longest)
    sizes = {name: weight.numel() for name, weight in outline.named_parameters()}
    total = sum(sizes.values())
    largest = max(corpus.modalities, key=lambda spec: spec.dim)
    settings = resolve(config, corpus).options
    named = [f"options.{name} ({settings[name]})" for name in ("d_model", "depth") if name in settings]
    cure = f"lower {' or '.join(named) or 'its options'}"
    read_by = tuple(f"{part}encoders.{largest.name}." for part in ("", "branches."))
    if sum(size for name, size in sizes.items() if name.startswith(read_by)) > total / 2:
        kind = "vocabulary" if largest.kind == "tokens" else "width"
        cure = (
            f"the largest part is modality {largest.name!r}, of {kind} {largest.dim}; drop it from"
            f" modalities, or {cure}"
        )
    processes, name = config.engine.devices, f"model {config.model}"
    if _accelerator(config.engine) == "cpu":
        refuse_untrainable(
            outline,
            name,
            cure,
            precision=config.fit.precision,
            device="cpu",
            processes=processes,
            keeps_best=False,
            averages=bool(config.fit.ema_decay),
        )
    else:  # of the GPU's memory training itself asks, once it has been launched
        refuse_beyond_memory(
            4 * total * processes, f"{name}: making {total:,} weights", cure, error=ConfigError
        )
    return num_parameters_of(outline)


def check_pretrained(config: RunConfig, corpus: Corpus) -> None:
    """Open the weights of pretrained encoders, so that a wrong folder is refused before training."""
    made = model_config(config, corpus)
    if not isinstance(made, FusionConfig):
        return
    chosen = {spec.name: made.encoder_of(spec.name) for spec in made.modalities}
    named = {each.path: (name, each) for name, each in chosen.items() if isinstance(each, LanguageConfig)}
    for name, each in named.values():
        try:
            missing = Language(each, f"encoders.{name}").missing
        except ConfigError as error:
            raise ConfigError(f"options.{error}") from error
        if missing:
            raise ConfigError(f"options.{missing}")


def untrained_network(config: RunConfig, corpus: Corpus) -> Network[Any]:
    """The untrained network of the method."""
    made: Any = METHODS[config.model].network  # a network's own constructor takes the configuration alone
    network: Network[Any] = made(model_config(config, corpus))
    return network


def trained_model(run: RunDirectory, config: RunConfig) -> Network[Any]:
    """The network of a finished run, with the weights of its best epoch."""
    run.check((f"{MODEL}/{CONFIG_FILE}", f"{MODEL}/{WEIGHTS_FILE}"))
    return METHODS[config.model].network.from_pretrained(run.path / MODEL, local_files_only=True)


def num_parameters_of(model: torch.nn.Module) -> int:
    """Weights that training changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def seed_everything(seed: int, *, rank: int = 0) -> None:
    """Seed global randomness: every process starts from the same weights, then draws its own."""
    if rank == 0:
        torch.manual_seed(seed)
    else:
        torch.manual_seed((seed + 0x9E3779B97F4A7C15 * rank) % 2**63)


def loaders(config: RunConfig, corpus: Corpus) -> dict[Role, Loader]:
    """Batches of each split as the run withholds from it, shuffled for training: the share of one process."""
    # small ones first: what cannot be withheld is most often refused of them
    roles: tuple[Role, ...] = ("valid", "test", "train")
    return {role: _loader(config, corpus, role) for role in roles if role in corpus.splits}


def _loader(config: RunConfig, corpus: Corpus, role: Role) -> Loader:
    return Loader(
        corpus.split(role),
        corpus.modalities,
        config=config.loader,
        task=corpus.task,
        shuffle=role == "train",
        seed=config.seed,
        world_size=config.engine.devices * config.engine.num_nodes,
        missing=config.missing,
        keep_withheld=role == "train" and METHODS[config.model].keeps_withheld,
    )


def predictions_of(
    model: Network[Any],
    split: Split,
    modalities: Sequence[ModalitySpec],
    task: Task,
    config: RunConfig,
    fabric: Fabric,
) -> Predictions:
    """Predict a split from these of its modalities; the others are missing from every sample."""
    source = Loader(
        split,
        modalities,
        config=config.loader,
        task=task,
        shuffle=False,
        seed=config.seed,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )
    with lost_workers_told():
        return inference.predict(
            model, source, task=task, fabric=fabric, regression_loss=config.fit.regression_loss
        )


def launched(engine: EngineConfig, precision: Any) -> Fabric:
    """The engine with all its processes running."""
    accelerator = _accelerator(engine)
    try:
        several = engine.devices * engine.num_nodes > 1
        fabric = Fabric(
            accelerator=accelerator,
            devices=engine.devices,
            num_nodes=engine.num_nodes,
            strategy="ddp" if several else engine.strategy,
            precision=precision,
        )
    except (ValueError, RuntimeError, TypeError) as error:
        raise ConfigError(f"engine: {' '.join(str(error).split())}") from error
    fabric.launch()
    return fabric


def alone(config: RunConfig) -> Fabric:
    """One process on the kind of device that the run was trained on, if there is one here."""
    accelerator = "cuda" if config.engine.accelerator != "cpu" and torch.cuda.is_available() else "cpu"
    return Fabric(accelerator=accelerator, devices=1, precision=config.fit.precision)


def _accelerator(engine: EngineConfig) -> str:
    gpus = torch.cuda.device_count()
    if engine.accelerator == "cpu" or (engine.accelerator == "auto" and not gpus):
        return "cpu"
    if gpus < engine.devices:
        raise ConfigError(f"engine.devices: found {engine.devices}, but PyTorch sees {gpus} GPUs here")
    return "cuda"


def environment() -> dict[str, Any]:
    """Environment of a run besides its configuration: versions, platform, threads, devices."""
    versions = {"alignmamba": __version__, "python": platform.python_version()}
    for package in (*_KERNELS, "lightning-fabric", *_OTHERS):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "versions": versions,
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "cuda": torch.version.cuda,
        "command": sys.argv,
    }
