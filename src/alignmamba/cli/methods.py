"""``alignmamba methods``: which methods there are."""

from dataclasses import dataclass

from alignmamba.cli.terminal_tables import rows_table
from alignmamba.cli.verb import Verb, console, say


@dataclass(frozen=True, kw_only=True)
class Methods(Verb):
    """List every method that `train --model` takes, with its source and its demands on a corpus."""

    def run(self) -> int:
        """List them."""
        from alignmamba.methods import METHODS, SETS

        rows = {
            name: {
                "summary": method.summary,
                "source": method.source,
                "needs": method.needs,
                "differs": method.differs,
                "reconstructed": method.reconstructed,
                "sets": [each for each, names in SETS.items() if name in names],
            }
            for name, method in METHODS.items()
        }
        if self.json:
            self.emit({"methods": rows})
            return 0

        lines = [
            (name, row["summary"], row["source"] or "several", row["needs"] or "any corpus")
            for name, row in rows.items()
        ]
        console().print(rows_table("methods", ("name", "what it is", "source", "needs"), lines))
        say(
            "`alignmamba train --model NAME --settings` prints the options of one; docs/methods.md"
            " lists how each differs from its source"
        )
        return 0
