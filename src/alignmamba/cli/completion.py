"""Completion in a shell by tyro's scripts. They complete what a type lists: for them alone, options that take
a name of a model, a preset or a setting get types that list the names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, field, fields, make_dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from docstring_parser import parse_from_object
from tyro.conf import UseAppendAction, arg

from alignmamba.cli.verb import RunsVerb, Verb
from alignmamba.errors import ConfigError

SHELLS = ("bash", "zsh", "fish")
_OPTIONS = ("--tyro-print-completion", "--tyro-write-completion")


def asked_for(given: Sequence[str]) -> bool:
    """Return whether a script of completion is asked for; a `ConfigError` for a shell that has none."""
    words = [part for word in given for part in word.split("=", 1)]
    places = [words.index(option) for option in _OPTIONS if option in words]
    if not places:
        return False
    shell = words[places[0] + 1] if places[0] + 1 < len(words) else None
    if shell not in SHELLS:
        raise ConfigError(
            f"{words[places[0]]}: expected a shell, one of {', '.join(SHELLS)}, found {shell!r}"
        )
    return True


def with_values(verbs: Mapping[str, type[Verb]]) -> dict[str, type[Verb]]:
    """The verbs with the values of their options listed where these are names of the library's own."""
    from alignmamba.methods import METHODS
    from alignmamba.recipes.configuration import settings_of

    models = tuple(METHODS)
    presets = tuple(
        dict.fromkeys(preset for model in METHODS.values() for preset in model.network.config_class.PRESETS)
    )
    keys = tuple(dict.fromkeys(f"{setting.key}=" for model in models for setting in settings_of(model)))
    types: dict[str, Any] = {
        "model": Literal[models],
        "models": tuple[Literal[models], ...],  # type: ignore[valid-type]
        "methods": tuple[Literal[models], ...],  # type: ignore[valid-type]
        "preset": Literal[presets],
        "set": Annotated[tuple[tuple[Literal[keys], ...], ...], UseAppendAction],  # type: ignore[valid-type]
    }
    # Options of these names mean something else where no run is configured.
    return {name: _retyped(verb, types if issubclass(verb, RunsVerb) else {}) for name, verb in verbs.items()}


def _retyped(verb: type[Verb], types: Mapping[str, Any]) -> type[Verb]:
    """A verb of the same name whose options list what they take, and whose help has one line an option.

    Shells take every line of a description for a candidate of its own.
    """
    hints, meanings = get_type_hints(verb, include_extras=True), _meanings(verb)
    own: list[Any] = []
    for each in fields(verb):
        bare, *extras = (
            get_args(hints[each.name]) if get_origin(hints[each.name]) is Annotated else (hints[each.name],)
        )
        if _literal(bare) is not None:
            bare = _literal(bare)
        if each.name in types:
            bare, extras = types[each.name], []
        taken: Any = Annotated[(bare, *extras, arg(help=meanings.get(each.name)))]
        # An option that is not given has the value None, which nobody types.
        default = get_args(bare)[0] if each.default is None and get_origin(bare) is Literal else each.default
        own.append((each.name, taken) if default is MISSING else (each.name, taken, field(default=default)))
    made: type[Verb] = make_dataclass(verb.__name__, own, bases=(verb,), frozen=True, kw_only=True)
    made.__doc__ = verb.__doc__
    return made


def _meanings(verb: type[Verb]) -> dict[str, str]:
    """Text below each option, in one line."""
    found: dict[str, str] = {}
    for each in reversed(verb.__mro__[:-1]):
        found |= {
            part.arg_name: " ".join((part.description or "").split())
            for part in parse_from_object(each).params
        }
    return found


def _literal(declared: Any) -> Any:
    """Values of an optional choice; None for any other type."""
    choices = [part for part in get_args(declared) if get_origin(part) is Literal]
    return choices[0] if len(choices) == 1 and type(None) in get_args(declared) else None
