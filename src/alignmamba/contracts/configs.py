"""Configurations: immutable, keyword-only, with every mistake reported in one line."""

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from alignmamba.errors import ConfigError, explain

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)  # it has no public name


class _OneLine(ModelMetaclass):
    """Turns what pydantic says of a constructor's arguments into a `ConfigError`.

    It stands around the call of the class alone: validation inside another model, of JSON and of pickles is
    pydantic's own.
    """

    if not TYPE_CHECKING:  # a type checker reads the fields

        def __call__(cls, *args: Any, **values: Any) -> Any:  # noqa: N805 # of a metaclass
            if args:
                first = next(iter(cls.model_fields))
                raise ConfigError(
                    f"{cls.__name__}: takes its fields by name, for example {cls.__name__}({first}=...)"
                )
            try:
                return super().__call__(**cls.completed(values))
            except ValidationError as error:
                raise ConfigError(explain(error, keys=cls.known_keys(values))) from None


class Config(BaseModel, metaclass=_OneLine):
    """Root of every configuration: immutable, keyword-only, unknown keys refused.

    Raises:
        ConfigError: If a key is unknown, a value is missing or out of range; one line names all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Keep for a field that is stated again what its first statement says of it."""
        for name, info in cls.model_fields.items():
            if not info.description:
                before = (base.model_fields.get(name) for base in cls.__mro__ if issubclass(base, Config))
                info.description = next(
                    (each.description for each in before if each and each.description), None
                )

    @classmethod
    def completed(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Arguments of a constructor, with what follows from them; nothing here."""
        return values

    @classmethod
    def known_keys(cls, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Every dotted key that may be meant by one that is unknown, beside these values."""
        del values  # only a configuration whose keys depend on its values looks at them
        return tuple(dotted_keys(cls.model_fields))


def dotted_keys(fields: Mapping[str, FieldInfo], prefix: str = "") -> Iterator[str]:
    """Every key of these fields and, after a dot, of the configurations among them."""
    for name, info in fields.items():
        yield f"{prefix}{name}"
        inner = [
            key for each in configurations(info) for key in dotted_keys(each.model_fields, f"{prefix}{name}.")
        ]
        yield from dict.fromkeys(inner)


def configurations(info: FieldInfo) -> tuple[type[BaseModel], ...]:
    """The configurations that a field may hold, one for each kind; none where it holds a plain value."""
    kind = info.annotation
    either = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    found = [get_args(each)[0] if get_origin(each) is Annotated else each for each in either]
    configs = tuple(each for each in found if isinstance(each, type) and issubclass(each, BaseModel))
    return configs if len(configs) == len(found) else ()
