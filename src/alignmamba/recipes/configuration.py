"""Configuration of a run: read from a file and the command line, checked, and given a digest."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Any, Final, Literal, Self, cast

import yaml
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo

from alignmamba.contracts import Config, Corpus, Name, configurations, dotted_keys
from alignmamba.data.clocks import clocks_of
from alignmamba.data.cross_validation import FoldsConfig
from alignmamba.data.further_targets import FurtherConfig
from alignmamba.data.leading_target import LeadingConfig
from alignmamba.data.loader import LARGEST_BATCH, LoaderConfig, batch_size_for
from alignmamba.data.missing_protocols import MissingConfig
from alignmamba.data.training_subset import SubsetConfig
from alignmamba.errors import ConfigError, explain, likely, nearest, shown_with_type, suggestion
from alignmamba.files import read_bounded
from alignmamba.methods import FORMER, METHODS
from alignmamba.methods.hidden_tokens import PretrainConfig
from alignmamba.models.network import NetworkConfig, merged
from alignmamba.nn.alignment import ContrastConfig
from alignmamba.nn.encoders import EncoderConfig
from alignmamba.training.fit_config import FitConfig
from alignmamba.training.selection import VALIDATION_LOSS

_MOST_BYTES = 1 << 20
"""A larger file of settings is not read."""

SYNTHETIC = "synthetic"
"""Name of the corpus that needs no file."""

PRESET_OF_0_1: Final = "0.1"
"""Preset that was the default in version 0.1."""

# What a model takes from the corpus, so that a user cannot set it.
_FROM_CORPUS = frozenset({"modalities", "task"})


class EngineConfig(Config):
    """Engine of a run; handed to Lightning Fabric."""

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto``: a GPU if PyTorch sees one, otherwise the CPU."""
    devices: Annotated[int, Field(ge=1)] = 1
    """Processes per machine, each with a GPU of its own, or with a share of the cores."""
    num_nodes: Annotated[int, Field(ge=1)] = 1
    """Machines that the run is spread over."""
    strategy: Literal["auto", "ddp"] = "auto"
    """``ddp``: every process holds the whole model and a share of each batch; ``auto``: that, where there is
    more than one process."""


class StartConfig(Config):
    """Finished run that training starts from."""

    run: str = ""
    """Directory of a finished run, whose weights are taken where names and shapes fit; empty for none."""
    sha256: str = ""
    """SHA-256 of its weights, filled in when a run is planned; others are refused."""


def _place_of(data: Any) -> Any:
    """Place of a corpus or a path; anything else as it is."""
    if isinstance(data, Corpus):
        if not data.location:
            raise ValueError(
                f"corpus {data.name!r:.80} is only in memory, expected one from write_corpus or load_corpus"
            )
        return data.location
    return str(data) if isinstance(data, PurePath) else data


def _preset_name(given: Any) -> Any:
    """Name of a preset, which a file may hold as the number of a version."""
    return str(given) if isinstance(given, float) else given


class RunConfig(Config):
    """Everything that decides the outcome of a training run."""

    data: Annotated[str, BeforeValidator(_place_of)] = SYNTHETIC
    """Directory of a corpus, ``synthetic``, or a file or folder of a format that `alignmamba convert` reads.
    In Python also a path, or a corpus that was written or loaded: what counts is where it lies."""
    model: str = "alignmamba"
    """Name of the fusion model."""
    preset: Annotated[str, BeforeValidator(_preset_name)] = "default"
    """Named set of the model's options to start from."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the model that differ from the preset, for example ``{"d_model": 64}``."""
    modalities: tuple[Name, ...] = ()
    """Those of the corpus's modalities that the model gets; empty means all."""
    targets: dict[Name, FurtherConfig] = Field(default_factory=dict)
    """Labels of the corpus that are predicted besides its target, by name, for example ``{"label_T":
    {"modality": "text"}}``."""
    split_valid: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of train that is taken for validation where the corpus has no valid split, drawn from the seed:
    by whole groups where samples have groups, else in the share of each class."""
    folds: FoldsConfig = FoldsConfig()
    """Cross-validation in place of the corpus's own splits."""
    subset: SubsetConfig = SubsetConfig()
    """Part of train that the run learns from."""
    loader: LoaderConfig = LoaderConfig()
    """Options of batches."""
    missing: MissingConfig = MissingConfig()
    """Protocol that withholds modalities from the samples of every split, in training, validation and test.
    """
    fit: FitConfig = FitConfig()
    """Options of training."""
    leading: LeadingConfig = LeadingConfig()
    """Labels that the run is about, in place of the target of the corpus."""
    engine: EngineConfig = EngineConfig()
    """Options of the engine."""
    start: StartConfig = StartConfig()
    """Run that training starts from."""
    objective: Literal["task", "pretrain"] = "task"
    """Thing to learn: the task, or ``pretrain``, from samples alone, for a run that others start from."""
    pretrain: PretrainConfig = PretrainConfig()
    """Options of objective ``pretrain``."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Decides the first weights, dropout, the order of samples and what is withheld of them; the synthetic
    corpus is always the same."""
    nonfinite: Literal["error", "zero", "mean"] = "error"
    """Action on features that are not finite: refuse the corpus, or read zero or the channel's training mean
    instead.
    """

    @classmethod
    def completed(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The settings that the method was published with, and over them what is given."""
        model = values.get("model")
        method = METHODS.get(model) if isinstance(model, str) else None
        if method is None or not (method.settings or method.required):
            return values
        given = {
            name: value.model_dump(exclude_unset=True) if isinstance(value, Config) else value
            for name, value in values.items()
        }
        return merged(merged(method.settings, method.required), given)

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        signs, reason = FORMER.get(self.model, (frozenset(), ""))
        if signs & set(self.options):
            raise ValueError(f"model: found {self.model!r} with options of an earlier version: {reason}")
        if self.model not in METHODS:
            raise ValueError(
                f"model: found {self.model!r}, expected one of"
                f" {', '.join(METHODS)}{nearest(self.model, METHODS)}"
            )
        problems = [*_option_problems(self), *_pretraining_problems(self)]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @classmethod
    def known_keys(cls, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Every dotted key of a run, the options of its model and of these further targets among them."""
        targets = values.get("targets")
        names = targets if isinstance(targets, Mapping) else ()
        further = [f"targets.{name}.{key}" for name in names for key in FurtherConfig.model_fields]
        return (*_known_keys(values.get("model")), *further)

    def digest(self, corpus: Corpus) -> str:
        """SHA-256 of the settings and of the corpus's content, without the seed and what changes from machine
        to machine. Settings that withhold nothing, take all modalities, all of train or the valid split as it
        is do not count, nor do later options that change nothing.
        """
        settings = {
            **self.model_dump(mode="json", exclude={"seed", "data", "engine"}),
            "corpus": corpus.checksum,
        }
        del settings["fit"]["loggers"]  # where epochs are logged decides nothing
        _drop_silent(settings["fit"], FitConfig.SILENT)
        _drop_silent(settings["loader"], LoaderConfig.SILENT)
        if self.start.run:
            del settings["start"]["run"]  # the checksum says what lay there
        else:
            del settings["start"]
        if self.objective == "task":
            del settings["objective"], settings["pretrain"]
        if not self.modalities:
            del settings["modalities"]
        if not self.targets:
            del settings["targets"]
        if self.leading == LeadingConfig():
            del settings["leading"]
        if self.missing.protocol == "none":
            del settings["missing"]
        if self.split_valid is None:
            del settings["split_valid"]
        if not self.folds.number:
            del settings["folds"]
        if not self.subset.size:
            del settings["subset"]
        if self.preset == PRESET_OF_0_1:
            settings["preset"] = "default"  # its name in 0.1
            if self.fit.ties == "first":
                del settings["fit"]["ties"]
        for encoder in _encoders(settings["options"]):
            if encoder.get("sha256"):
                del encoder["path"]  # the checksum says what lay there
            _drop_silent(encoder, EncoderConfig.SILENT)
        contrast = settings["options"].get("contrast")
        if isinstance(contrast, dict):  # of some methods it is a weight
            _drop_silent(contrast, ContrastConfig.SILENT)
        _drop_silent(settings["options"], METHODS[self.model].network.config_class.SILENT)
        return hashlib.sha256(
            json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()

    def to_yaml(self) -> str:
        """The configuration as a file that ``--config`` reads."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def refuse_pretraining(config: RunConfig, where: str) -> None:
    """Refuse, by a `ConfigError`, learning without labels where runs are scored by the task."""
    if config.objective == "pretrain":
        raise ConfigError(f"objective: found 'pretrain' in {where}, which scores the task, expected 'task'")


def recorded(config: RunConfig) -> RunConfig:
    """The run that a record of it means: options that its version did not know yet have values under which
    they change nothing, whatever today's preset says.
    """
    options = deepcopy(merged(METHODS[config.model].network.config_class.SILENT, config.options))
    for encoder in _encoders(options):
        if encoder.get("kind") != "pretrained":
            encoder.update(merged(EncoderConfig.SILENT, encoder))
    return config.model_copy(update={"options": options})


def _encoders(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Mappings that describe encoders among the options of a model."""
    found = (options.get("encoder"), *(options.get("encoders") or {}).values())
    return [encoder for encoder in found if isinstance(encoder, dict)]


def _drop_silent(options: dict[str, Any], silent: Mapping[str, Any]) -> None:
    """Drop the options that have the values under which they change nothing."""
    for name, value in silent.items():
        if name in options and merged(options, {name: value}) == options:
            del options[name]


def model_config(config: RunConfig, corpus: Corpus) -> NetworkConfig:
    """The model's own configuration: preset, then options, for the corpus; a `ConfigError` if they do not
    fit.
    """
    made = METHODS[config.model].network.config_class
    try:
        return cast(
            NetworkConfig,
            made.preset(config.preset, modalities=corpus.modalities, task=corpus.task, **config.options),
        )
    except ConfigError as error:
        text = str(error)
        is_option = re.split(r"[.:]", text)[0] in _options(config.model)
        raise ConfigError(f"options.{text}" if is_option else text) from error


def resolve(config: RunConfig, corpus: Corpus) -> RunConfig:
    """The same run with every option of its model, which a later preset may change, and a path for any
    directory.
    """
    config = with_clock(config, corpus)
    made = model_config(config, corpus)
    try:
        pinned = made.pinned()
    except ConfigError as error:
        raise ConfigError(f"options.{error}") from error
    options = pinned.model_dump(mode="json", exclude=set(_FROM_CORPUS))
    data = config.data if config.data == SYNTHETIC else str(Path(config.data).resolve())
    samples = len(corpus.split("train"))
    config = with_habits(config, min(samples, config.subset.size or samples))
    return config.model_copy(update={"options": options, "data": data})


def with_clock(config: RunConfig, corpus: Corpus) -> RunConfig:
    """The same run with a unit of the times by which tokens are matched. Where it has none, a corpus that was
    read from media files gets the spans of tokens, and another whose modalities begin apart gets seconds.
    Presets other than the default do not ask the corpus.
    """
    if config.preset != "default" or "local" not in _options(config.model):
        return config
    local = config.options.get("local", {})
    if "time_unit" in local or local.get("method", "match") not in ("match", "soft"):
        return config
    clocks = clocks_of(corpus, timeless=config.options.get("timeless", ()))
    unit = "seconds" if clocks.begin_apart else "relative"
    if clocks.samples and corpus.recipe:
        unit = "spans"
    options = merged(config.options, {"local": {"time_unit": unit}})
    return config.model_copy(update={"options": options})


def with_habits(config: RunConfig, samples: int) -> RunConfig:
    """The same run with a batch size; where it has none, that for a train split of so many samples. Version
    0.1 did not ask how many, and kept the first of epochs with equal scores: so does its preset.
    """
    former, fit, loader = config.preset == PRESET_OF_0_1, config.fit, config.loader
    if loader.batch_size is None:
        size = LARGEST_BATCH if former else batch_size_for(samples)
        loader = loader.model_copy(update={"batch_size": size})
    if former and fit.ties is None:
        fit = fit.model_copy(update={"ties": "first"})
    return config.model_copy(update={"fit": fit, "loader": loader})


def read_config(
    file: Path | None = None, *, assignments: Sequence[str] = (), overrides: Mapping[str, Any] | None = None
) -> RunConfig:
    """Merge the layers of a configuration, later over earlier: defaults, those of the published method, a
    YAML file, assignments ``KEY=VALUE``, and overrides by dotted key. A `ConfigError` names every mistake.
    """
    layers: dict[str, Any] = {} if file is None else _read_file(file)
    layers = merged(layers, assigned(assignments))
    for key, value in (overrides or {}).items():
        layers = merged(layers, _nested(key, value))
    return check_config(layers)


def assigned(assignments: Sequence[str], *, option: str = "--set") -> dict[str, Any]:
    """``KEY=VALUE`` with dotted keys and YAML values, given to that option, as nested values, later over
    earlier.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not re.fullmatch(r"\w[\w-]*(\.\w[\w-]*)*", key):
            raise ConfigError(
                f"{option} {assignment!r}: expected KEY=VALUE with a dotted key, for example fit.epochs=5"
            )
        values = merged(values, _nested(key, _parse_yaml(text, f"{option} {key}")))
    return values


def check_config(values: Mapping[str, Any]) -> RunConfig:
    """A configuration from plain values, strict in their types; a `ConfigError` names every mistake."""
    if isinstance(values.get("model"), Mapping):
        keys = _known_keys(None)
        lost = [f"model.{key}: unknown key{suggestion(f'options.{key}', keys)}" for key in values["model"]]
        raise ConfigError("; ".join([*lost, "model takes a name; its settings belong to options"]))
    try:
        # JSON is the strict mode in which a list may stand for a tuple, but "3" not for 3.
        return RunConfig.model_validate_json(
            json.dumps(RunConfig.completed(values), default=str), strict=True
        )
    except ValidationError as error:
        raise ConfigError(explain(error, keys=RunConfig.known_keys(values))) from error


def with_settings(config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """The same run with other settings by dotted key; a `ConfigError` names every mistake."""
    values: dict[str, Any] = config.model_dump(mode="json")
    for key, value in settings.items():
        values = merged(values, _nested(key, value))
    return check_config(values)


def dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value within nested ones, with its dotted key."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def check_missing(protocol: str | None, rates: Sequence[float] = ()) -> MissingConfig:
    """Protocol of missing modalities from the words of a command line."""
    given: dict[str, Any] = {"protocol": protocol, "rate": tuple(rates) or None}
    try:
        return MissingConfig.model_validate(
            {name: value for name, value in given.items() if value is not None}
        )
    except ValidationError as error:
        raise ConfigError(explain(error, prefix="missing")) from None


# Options of the model


def _options(model: str) -> dict[str, FieldInfo]:
    fields = cast(Mapping[str, FieldInfo], METHODS[model].network.config_class.model_fields)
    return {name: info for name, info in fields.items() if name not in _FROM_CORPUS}


def _option_problems(config: RunConfig) -> Iterator[str]:
    """Unknown options and wrong values, as far as the corpus has no say in them."""
    fields = _options(config.model)
    keys = _known_keys(config.model)
    for name, value in config.options.items():
        if name in _FROM_CORPUS:
            yield f"options.{name}: comes from the corpus, so it cannot be set"
        elif name not in fields:
            others = [model for model in METHODS if name in _options(model)]
            unknown = f"unknown key{suggestion(f'options.{name}', keys)}"
            elsewhere = f"model {config.model} has no such option; it belongs to {', '.join(others)}"
            yield f"options.{name}: {elsewhere if others else unknown}"
        else:
            info = fields[name]
            annotated: Any = Annotated[(info.annotation, *info.metadata, info.discriminator)]
            kind: TypeAdapter[Any] = TypeAdapter(annotated)
            try:
                kind.validate_json(json.dumps(value, default=str), strict=True)
            except ValidationError as error:
                yield explain(error, prefix=f"options.{name}", keys=keys)


def _pretraining_problems(config: RunConfig) -> Iterator[str]:
    """Settings that do not go with learning without labels, or with the task."""
    if config.objective == "task":
        if config.pretrain != PretrainConfig():
            yield "pretrain: found settings of it with objective 'task', expected --pretrain beside them"
        return
    if not (config.pretrain.reconstruction or config.pretrain.matching):
        yield "pretrain: found weights 0 of reconstruction and matching, expected one above 0"
    needs_labels = {
        "targets": config.targets,
        "subset.size": config.subset.size,
        "folds.number": config.folds.number,
        "loader.weights": config.loader.weights,
        "loader.balance": config.loader.balance,
        "fit.class_weights": config.fit.class_weights,
    }
    for name, value in needs_labels.items():
        if value:
            yield f"{name}: found with objective 'pretrain', which learns from no label; drop it"
    if config.fit.select not in ("auto", VALIDATION_LOSS):
        yield f"fit.select: found {config.fit.select!r} with objective 'pretrain', expected loss"
    if config.fit.compile:
        yield "fit.compile: found true with objective 'pretrain', expected false"


def _known_keys(named: object) -> tuple[str, ...]:
    """Every dotted key of a run with that model."""
    name = (
        named
        if isinstance(named, str) and named in METHODS
        else cast(str, RunConfig.model_fields["model"].default)
    )
    return (*dotted_keys(RunConfig.model_fields), *dotted_keys(_options(name), "options."))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One key of a run, for people."""

    key: str
    """Dotted, as ``--set`` takes it."""
    default: str
    """Place as YAML; empty where it comes from elsewhere."""
    meaning: str


def settings_of(model: str, preset: str = "default") -> Iterator[Setting]:
    """Every single setting of a run with that model and preset, in the order of its configuration."""
    if model not in METHODS:
        raise ConfigError(
            f"model: found {model!r}, expected one of {', '.join(METHODS)}{nearest(model, METHODS)}"
        )
    own = {name: info.default for name, info in _options(model).items() if isinstance(info.default, Config)}
    options = merged(
        {name: default.model_dump(mode="json") for name, default in own.items()},
        METHODS[model].network.config_class.laid(preset, {}),
    )
    laid = {"options": options, "model": model, "preset": preset}
    published = dict(dotted(merged(merged(laid, METHODS[model].settings), METHODS[model].required)))
    for key, info in (*_leaves(RunConfig.model_fields), *_leaves(_options(model), "options.")):
        if key != "options":
            default = _shown_default(published[key]) if key in published else _default(info)
            yield Setting(key=key, default=default, meaning=" ".join((info.description or "").split()))


def _leaves(fields: Mapping[str, FieldInfo], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, info in fields.items():
        inner = [
            leaf
            for each in reversed(configurations(info))
            for leaf in _leaves(each.model_fields, f"{prefix}{name}.")
        ]
        yield from dict(inner).items() if inner else [(f"{prefix}{name}", info)]


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return ""
    return _shown_default(info.get_default(call_default_factory=True, validated_data={}))


def _shown_default(value: Any) -> str:
    return (
        json.dumps(value, default=str)
        if isinstance(value, list | tuple | dict)
        else "null"
        if value is None
        else str(value)
    )


def suggested_key(name: str) -> str | None:
    """The setting that a word alone most likely means, such as ``epochs`` or ``lr``, of the default model."""
    return likely(name, _known_keys(None))


# YAML


class _Yaml(yaml.SafeLoader):
    """The safe loader with YAML 1.2's core schema, where ``1e-3`` is a number and ``no`` a word, without
    repeated keys, and without aliases, which can refer in a circle or multiply.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 # replaces the class attribute of the parent

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, f"alias *{event.anchor}, expected its value", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        repeated = next((key for key in keys if keys.count(key) > 1), None)
        if repeated is not None:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {repeated!r} appears twice", node.start_mark
            )
        return cast(dict[Any, Any], super().construct_mapping(node, deep))


_DIGITS = "-+0123456789"
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", _DIGITS),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?", f"{_DIGITS}."),
    ("float", r"[-+]?[0-9]+[eE][-+]?[0-9]+", _DIGITS),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
):
    # The empty string is the first character of an empty value.
    _Yaml.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), [*_first, ""])


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Yaml)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
        raise ConfigError(f"{where}: not YAML: {error.problem or error.context}{place}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from error


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = read_bounded(path, limit_bytes=_MOST_BYTES, error=ConfigError).decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"config {path}: not a text file in UTF-8") from error
    values = _parse_yaml(text, f"config {path}")
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(
            f"config {path}: found {shown_with_type(values)}, expected a mapping of keys to values"
        )
    return values


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return cast(dict[str, Any], value)
