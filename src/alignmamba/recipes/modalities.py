"""Modalities of a corpus matched with those that a trained model knows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignmamba.contracts import Corpus, ModalitySpec, Split
from alignmamba.data.views import named
from alignmamba.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class Matched:
    """A corpus as a trained model takes it."""

    corpus: Corpus
    """Corpus with the modalities that the model knows, under the model's names."""
    modalities: tuple[ModalitySpec, ...]
    """Those of the model that the corpus has, as the model describes them."""
    absent: tuple[str, ...]
    """Those of the model that the corpus lacks."""
    renamed: Mapping[str, str]
    """Name in the corpus to the model's."""
    ignored: tuple[str, ...]
    """Modalities of the corpus that were dropped on request."""

    def facts(self, splits: Iterable[Split]) -> dict[str, Any]:
        """Modalities that splits are predicted from, for a report: ``used``, ``not_in_corpus`` and
        ``in_no_sample``, which are those of the model, ``renamed`` and ``ignored``.
        """
        rows = list(splits)
        empty = [
            spec.name for spec in self.modalities if not any(split.lengths[spec.name].any() for split in rows)
        ]
        return {
            "used": [spec.name for spec in self.modalities if spec.name not in empty],
            "not_in_corpus": list(self.absent),
            "in_no_sample": empty,
            "renamed": dict(self.renamed),
            "ignored": list(self.ignored),
        }


def matched(
    known: Sequence[ModalitySpec],
    corpus: Corpus,
    *,
    rename: Mapping[str, str],
    ignore: Sequence[str],
    trained_on: bool,
) -> Matched:
    """Match the modalities of a corpus under the names of those that a trained model knows, after those to
    rename and to ignore. In a corpus that the run was `trained_on`, what was dropped then is dropped again.
    Raises a `ConfigError` for names that are not there, a `DataError` for modalities that do not fit the
    model.
    """
    names = [spec.name for spec in known]
    wrong = [f"{old}={new}" for old, new in rename.items() if new not in names]
    if wrong:
        raise ConfigError(f"rename {wrong[0]}: expected a modality of the run, some of {', '.join(names)}")
    try:
        given = named(corpus, rename=rename, ignore=ignore)
    except DataError as error:
        raise ConfigError(str(error)) from error
    if trained_on:
        given = named(given, ignore=[spec.name for spec in given.modalities if spec.name not in names])
    offered = {spec.name: spec for spec in given.modalities}
    _refuse_unknown(known, given)
    shared = tuple(spec for spec in known if spec.name in offered)
    if not shared:
        left = ", ".join(name for name in _names(corpus.modalities) if name not in ignore)
        found = left or f"none beside the ignored {', '.join(ignore)}"
        raise DataError(f"corpus {corpus.name!r}: found {found}, expected some of {', '.join(names)}")
    for spec in shared:
        if not _fits(offered[spec.name], spec):
            raise DataError(
                f"corpus {corpus.name!r}, modality {spec.name!r}: found {_described(offered[spec.name])}, "
                f"expected {_described(spec)} as in training"
            )
    return Matched(
        corpus=given,
        modalities=shared,
        absent=tuple(name for name in names if name not in offered),
        renamed=dict(rename),
        ignored=tuple(dict.fromkeys(ignore)),
    )


def _refuse_unknown(known: Sequence[ModalitySpec], corpus: Corpus) -> None:
    """Refuse modalities that the model does not know, with the ways out."""
    names = _names(known)
    unknown = [spec for spec in corpus.modalities if spec.name not in names]
    if not unknown:
        return
    free = [spec for spec in known if spec.name not in _names(corpus.modalities)]
    nothing_else = len(unknown) == len(corpus.modalities)
    ways = []
    for spec in unknown:
        like = next((each for each in free if _fits(spec, each)), None)
        if like is not None:
            free.remove(like)
        said = [
            *([f"--rename {spec.name}={like.name}"] if like else []),
            *([] if nothing_else else [f"--ignore {spec.name}"]),
        ]
        ways.append(" or ".join(said))
    found, expected = ", ".join(_names(corpus.modalities)), ", ".join(names)
    if not any(ways):
        raise DataError(
            f"corpus {corpus.name!r}: found modalities {found}, expected some of {expected}, the"
            " modalities of the run"
        )
    raise DataError(
        f"corpus {corpus.name!r}: found modalities {found}, expected {expected}: use"
        f" {', and '.join(filter(None, ways))}"
    )


def _names(specs: Iterable[ModalitySpec]) -> list[str]:
    return [spec.name for spec in specs]


def _fits(offered: ModalitySpec, known: ModalitySpec) -> bool:
    """Answer to whether a modality is of the kind, width and numbering that the model knows."""
    # Without being told, a corpus takes its largest token id for its vocabulary, so that may be smaller than
    # in training.
    wide = offered.dim <= known.dim if known.kind == "tokens" else offered.dim == known.dim
    # One number stands for other words in another numbering; where either side states none, nothing can be
    # compared.
    alike = known.kind != "tokens" or not offered.units or not known.units or offered.units == known.units
    return offered.kind == known.kind and wide and alike


def _described(spec: ModalitySpec) -> str:
    if spec.kind == "features":
        return f"features of width {spec.dim}"
    return f"token ids of a vocabulary of {spec.dim}{f' ({spec.units})' if spec.units else ''}"
