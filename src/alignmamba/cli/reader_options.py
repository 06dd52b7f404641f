"""The options of how other people's files are read, which several verbs take: those of the readers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from tyro.conf import arg

from alignmamba.cli.config_flags import flag
from alignmamba.cli.verb import Verb, option_name
from alignmamba.errors import ConfigError

if TYPE_CHECKING:
    from alignmamba.formats.foreign import ReadOptions


@dataclass(frozen=True, kw_only=True)
class ReadingVerb(Verb):
    """A verb that reads a file of another format. An option that the format does not read is refused.

    Each verb declares its own `format`, a word or an option.
    """

    @classmethod
    def completed(cls) -> type[Verb]:
        """The verb with an option for each one that some reader takes."""
        from alignmamba.formats import FORMATS
        from alignmamba.formats.foreign import ReadOptions
        from alignmamba.formats.known_formats import any_options, takers

        (format,) = (each for each in fields(cls) if each.name == "format")
        help = f"{', '.join(FORMATS)}, or auto to detect the format."
        kind: Any = Annotated[get_type_hints(cls, include_extras=True)["format"], arg(help=help)]
        own: list[Any] = [("format", kind, field(default=format.default))]
        for name, info in any_options().model_fields.items():
            own.append(flag(name, info, () if name in ReadOptions.model_fields else takers(name)))
        namespace = {"__doc__": cls.__doc__, "__module__": cls.__module__}
        return make_dataclass(cls.__name__, own, bases=(cls,), namespace=namespace, frozen=True, kw_only=True)

    def read_options(self) -> "ReadOptions":
        """The options as the readers take them."""
        from alignmamba.formats.known_formats import any_options

        return any_options()(**dict(self._given()))

    def given_options(self) -> list[str]:
        """Those of the options of reading that are not at their default, as they are written."""
        return [f"--{option_name(name)}" for name, _ in self._given()]

    def _given(self) -> Iterator[tuple[str, Any]]:
        from alignmamba.formats.known_formats import any_options

        for name, info in any_options().model_fields.items():
            value = getattr(self, name)
            if isinstance(info.default, Mapping):
                value = _widths(f"--{option_name(name)}", value)
            if value != info.default:
                yield name, value


def _widths(flag: str, given: tuple[str, ...]) -> dict[str, int]:
    """Numbers by name, from words such as ``audio=5,vision=20``."""
    widths: dict[str, int] = {}
    for each in (each for group in given for each in group.split(",")):
        name, _, width = each.partition("=")
        if not name or not width.isascii() or not width.isdigit() or not 0 < int(width[:12]) < 1 << 31:
            raise ConfigError(
                f"{flag}: expected MODALITY=N with a width from 1, several with commas between them,"
                f" found {each!r}"
            )
        if widths.setdefault(name, int(width)) != int(width):
            raise ConfigError(f"{flag}: {name} has the widths {widths[name]} and {width}, expected one")
    return widths
