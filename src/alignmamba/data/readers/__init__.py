"""Readers of other people's files, one module per format, each imported when it is needed."""

from collections.abc import Callable

from alignmamba.data.readers.foreign import Reader


def _mmsa() -> Reader:
    from alignmamba.data.readers import mmsa

    return mmsa


def _mult() -> Reader:
    from alignmamba.data.readers import mult

    return mult


def _mag_bert() -> Reader:
    from alignmamba.data.readers import mag_bert

    return mag_bert


def _csd() -> Reader:
    from alignmamba.data.readers import csd

    return csd


def _gcnet() -> Reader:
    from alignmamba.data.readers import gcnet

    return gcnet


def _arrays() -> Reader:
    from alignmamba.data.readers import arrays

    return arrays


FORMATS: dict[str, Callable[[], Reader]] = {
    "mmsa": _mmsa,
    "mult": _mult,
    "mag-bert": _mag_bert,
    "csd": _csd,
    "gcnet": _gcnet,
    "arrays": _arrays,
}
"""Name of a format to what imports its reader, in the order in which they are tried."""
