"""Readers of other people's files, one module per format, each imported when it is needed."""

from collections.abc import Callable

from alignmamba.data.readers.foreign import Reader

FORMATS: dict[str, Callable[[], Reader]] = {}
"""Name of a format to what imports its reader, in the order in which they are tried."""
