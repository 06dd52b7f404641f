"""What the command line consists of, and how its arguments become a verb."""

from collections.abc import Sequence
from typing import Annotated

import tyro

from alignmamba.cli.bench import Bench
from alignmamba.cli.convert import Convert
from alignmamba.cli.doctor import Doctor
from alignmamba.cli.evaluate import Evaluate
from alignmamba.cli.experiment import Experiment
from alignmamba.cli.export import Export
from alignmamba.cli.init import Init
from alignmamba.cli.inspect import Inspect
from alignmamba.cli.predict import Predict
from alignmamba.cli.report import Report
from alignmamba.cli.train import Train
from alignmamba.cli.verb import Verb

DESCRIPTION = """Fuse text, audio, video or any other token sequences into one prediction with AlignMamba.

Start with `alignmamba train`; each verb explains itself with `alignmamba VERB --help`. `alignmamba --version` prints the version.

Shell completion: `alignmamba --tyro-print-completion SHELL` prints a script for bash, zsh or tcsh.

Exit codes: 0 done, 1 a fault of alignmamba, 2 an input it cannot use, 130 interrupted.
"""

AnyVerb = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Convert, tyro.conf.subcommand("convert")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Init, tyro.conf.subcommand("init")]
    | Annotated[Inspect, tyro.conf.subcommand("inspect")]
    | Annotated[Experiment, tyro.conf.subcommand("experiment")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)


def parsed(arguments: Sequence[str]) -> Verb:
    """The verb that arguments ask for.

    Raises:
        SystemExit: After printing help, or code 2 where the arguments cannot be parsed.
    """
    verb: Verb = tyro.cli(
        AnyVerb,
        prog="alignmamba",
        description=DESCRIPTION,
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    return verb
