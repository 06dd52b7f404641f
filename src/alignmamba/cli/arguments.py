"""Verbs of the command line, and the parser that makes a verb of its arguments."""

import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO
from typing import Annotated, Any, Union

import tyro

from alignmamba.cli import completion
from alignmamba.cli.bench import Bench
from alignmamba.cli.convert import Convert
from alignmamba.cli.demo import Demo
from alignmamba.cli.doctor import Doctor
from alignmamba.cli.evaluate import Evaluate
from alignmamba.cli.experiment import Experiment
from alignmamba.cli.export import Export
from alignmamba.cli.extract import Extract
from alignmamba.cli.hints import in_one_line, refuse_empty, refuse_unknown
from alignmamba.cli.init import Init
from alignmamba.cli.inspect import Inspect
from alignmamba.cli.methods import Methods
from alignmamba.cli.predict import Predict
from alignmamba.cli.report import Report
from alignmamba.cli.serve import Serve
from alignmamba.cli.synthetic_corpus import Synthetic
from alignmamba.cli.train import Train
from alignmamba.cli.tune import Tune
from alignmamba.cli.verb import Verb
from alignmamba.errors import ConfigError

DESCRIPTION = """Fuse text, audio, video or any other token sequences into one prediction with AlignMamba.

Start with `alignmamba train`. Show the options of a verb with `alignmamba VERB --help`. \
Show the version with `alignmamba --version`.

Print a completion script for bash, zsh or fish with `alignmamba --tyro-print-completion SHELL`.

Exit codes: 0 done, 1 fault of alignmamba, 2 input that it cannot use, 130 interrupted.
"""

VERBS: dict[str, type[Verb]] = {
    "train": Train,
    "evaluate": Evaluate,
    "predict": Predict,
    "demo": Demo,
    "serve": Serve,
    "convert": Convert,
    "export": Export,
    "extract": Extract,
    "init": Init,
    "inspect": Inspect,
    "synthetic": Synthetic,
    "methods": Methods,
    "tune": Tune,
    "experiment": Experiment,
    "bench": Bench,
    "report": Report,
    "doctor": Doctor,
}


def parsed(arguments: Sequence[str]) -> Verb:
    """The verb that arguments ask for; a `ConfigError` names the nearest that can be parsed, and a
    `SystemExit` follows help.
    """
    completing = completion.asked_for(arguments)
    names = tuple(VERBS) if completing else arguments[:1]
    verbs = {name: verb.completed() if name in names else verb for name, verb in VERBS.items()}
    if completing:
        verbs = completion.with_values(verbs)
    else:
        refuse_unknown(arguments, verbs)
        if arguments[0] in verbs:  # else help for all
            refuse_empty(arguments, verbs[arguments[0]])
    # The list of all verbs has a line for each; what a verb does stands in its own help.
    listing = not arguments or arguments[0] in ("-h", "--help")
    named = tuple(
        Annotated[verb, tyro.conf.subcommand(name, description=_first_line(verb) if listing else None)]
        for name, verb in verbs.items()
    )
    any_verb: Any = Union[named]  # noqa: UP007 # of as many as there are
    said = StringIO()
    try:
        with redirect_stderr(sys.stderr if completing else said):
            verb: Verb = tyro.cli(
                any_verb,
                prog="alignmamba",
                description=DESCRIPTION,
                args=arguments,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if stop.code and not completing:
            raise ConfigError(in_one_line(said.getvalue(), arguments, verbs[arguments[0]])) from None
        raise
    return verb


def _first_line(verb: type[Verb]) -> str:
    return (verb.__doc__ or "").partition("\n")[0]
