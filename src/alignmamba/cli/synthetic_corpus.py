"""``alignmamba synthetic``: a corpus that asks which tokens belong together, with dials."""

from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from alignmamba.cli.config_flags import flag
from alignmamba.cli.terminal_tables import rows_table
from alignmamba.cli.verb import Verb, console, write
from alignmamba.errors import ConfigError

if TYPE_CHECKING:
    from alignmamba.contracts import Corpus
    from alignmamba.data.synthetic_family import Dials


@dataclass(frozen=True, kw_only=True)
class Synthetic(Verb):
    """Write a corpus in which tokens of two modalities belong together, with dials that make it hard.

    The corpus holds the exact best score of each way of pairing: by keys, by position, by the clock, and
    without pairing. With all dials at rest, proportional time pairs every token
    rightly. Every verb reads the corpus. See docs/synthetic.md.
    """

    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(required)")] = None
    """Corpus directory to write."""
    samples: Annotated[tuple[int, int, int], arg(metavar="TRAIN VALID TEST")] = (2000, 500, 2000)
    """Samples of each split."""
    seed: int = 0
    """Seed of everything that is drawn."""
    overwrite: bool = False
    """Replace the corpus at DIR once the new one is complete."""

    @classmethod
    def completed(cls) -> type[Verb]:
        """The verb with an option for each dial."""
        from alignmamba.data.synthetic_family import Dials

        own: list[Any] = [flag(name, info) for name, info in Dials.model_fields.items()]
        namespace = {"__doc__": cls.__doc__, "__module__": cls.__module__}
        return make_dataclass(cls.__name__, own, bases=(cls,), namespace=namespace, frozen=True, kw_only=True)

    def run(self) -> int:
        """Draw and write."""
        from alignmamba.contracts import ROLES
        from alignmamba.data.synthetic_family import Dials, write_synthetic_family

        if self.out is None:
            raise ConfigError("out: expected --out DIR, the corpus directory to write")
        dials = Dials(**{name: getattr(self, name) for name in Dials.model_fields})
        corpus = write_synthetic_family(
            self.out,
            dials,
            seed=self.seed,
            sizes=dict(zip(ROLES, self.samples, strict=True)),
            source=_command(dials, self.samples, self.seed),
            overwrite=self.overwrite,
        )
        if self.json:
            self.emit(
                {
                    "corpus": str(self.out),
                    "dials": dials.model_dump(mode="json"),
                    "samples": {role: len(split) for role, split in corpus.splits.items()},
                    "references": dict(corpus.references),
                    "checksum": corpus.checksum,
                }
            )
        else:
            _show(self.out, corpus)
        return 0


def _command(dials: "Dials", samples: tuple[int, ...], seed: int) -> str:
    """The command that makes the same corpus, with every dial spelled out."""
    words = ["alignmamba synthetic"]
    for name, value in {**dials.model_dump(), "samples": samples, "seed": seed}.items():
        words += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
    return " ".join(words)


def _show(out: Path, corpus: "Corpus") -> None:
    scores = [
        (name.removesuffix("_accuracy").replace("_", " "), f"{score:.3f}")
        for name, score in corpus.references.items()
    ]
    console().print(rows_table("known accuracies", ("rule", "accuracy"), scores))
    write(f"corpus: {out}; next: alignmamba train --data {out}")
