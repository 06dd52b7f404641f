"""Sentences below tables: how marks and intervals came about, and what a test can distinguish."""

import math
from collections.abc import Iterator, Mapping, Sequence

from alignmamba.errors import counted
from alignmamba.evaluation.seed_variance import FEWEST_GROUPS, at_least
from alignmamba.evaluation.statistics import FEWEST_SEEDS, Standing, fold_inflation, refuse_outside


def power_note(name: str, samples: int, accuracy: float) -> str:
    """One sentence: what a test split of this size can distinguish, in points of accuracy.

    The standard error is √(p (1 - p) / n). Two runs that disagree on a share d of the samples differ at 5 %
    from 1.96 √(d / n) on; d is 2 p (1 - p) where their errors are independent.
    """
    at_least("samples", samples, 1)
    refuse_outside("accuracy", accuracy)
    variance = accuracy * (1 - accuracy)
    error, close, apart = (100 * math.sqrt(each / samples) for each in (variance, 0.1, 2 * variance))
    least, most = sorted((1.96 * close, 1.96 * apart))
    about = ("if they disagree on a tenth of the samples", "if their errors are independent")
    small, large = about if close <= apart else about[::-1]
    return (
        f"{name}: with {samples} test samples and an accuracy of {100 * accuracy:.1f} %, one standard error"
        f" is {error:.1f} points; two single runs on the same samples need a difference of {least:.1f} points"
        f" {small}, and {most:.1f} {large}, to differ at the 5 % level."
    )


def marks_note(*, seeds: int, level: float = 0.05, exact: bool = True) -> str:
    """One sentence: how `compare_to_best` decided the marks of a table, with exact tests or without."""
    tests = (
        "a paired test over seeds and samples (Obuchowski and Rockette, covariance by bootstrap over samples)"
        if seeds != 1
        else f"{_tests_of_one_seed(exact=exact)}, on the one seed that ran"
    )
    return (
        f"A method is level with the best of its column unless it is worse at {100 * level:g} % by {tests},"
        " with Holm's correction."
    )


def differences_note(*, seeds: int, exact: bool = True) -> str:
    """Sentences: how `compare_to` made the intervals and p values of differences, of one seed or more."""
    at_least("seeds", seeds, 1)
    if seeds > 1:
        return (
            "Intervals and p values are those of a paired test over seeds and samples; what differences vary"
            " by over seeds is pooled over all rows."
        )
    return (
        "Intervals are those of a paired bootstrap over samples, on the one seed that ran. P values are of"
        f" {_tests_of_one_seed(exact=exact)}, with Holm's correction."
    )


def _tests_of_one_seed(*, exact: bool) -> str:
    bootstrap = "a paired bootstrap over samples"
    return f"McNemar's exact test for accuracies and {bootstrap} otherwise" if exact else bootstrap


def reach_note(
    name: str,
    standings: Mapping[str, Standing],
    *,
    seeds: int,
    samples: int,
    widest: float = math.inf,
    digits: int = 3,
) -> str:
    """One sentence: the difference that the test of a column can see, within the range of a metric; empty
    where nothing is compared.
    """
    told = sorted(min(each.told_from, widest) for each in standings.values() if each.told_from)
    if not told:
        return ""
    test = f"{name}: with {counted(seeds, 'seed')} and {samples} test samples the test distinguishes"
    if told[0] >= widest:
        return f"{test} no method from the best, however far apart they are."
    least, most = (f"{value:.{digits}f}" for value in (told[0], told[-1]))
    most = most if math.isfinite(told[-1]) else "whatever is measured"
    span = least if least == most else f"{least} to {most}, depending on the method,"
    return (
        f"{test} a method from the best if they differ by about {span} or more; what differs by less is"
        " level."
    )


def interval_note(*, fewest: int) -> str:
    """Sentences on what intervals are over, where methods have `fewest` seeds or more."""
    scale = (
        "95 % interval of the mean, on the logit scale (log for errors), which keeps it within the metric's"
        " range"
    )
    if fewest >= FEWEST_SEEDS:
        return f"[low, high]: {scale}; over seeds and test samples."
    return (
        f"[low, high]: {scale}; over seeds and test samples from {FEWEST_SEEDS} seeds on. With"
        " fewer it is over the test samples alone: two seeds do not show how much training varies."
    )


def tokens_note(samples: int, tokens: int) -> str:
    """Sentences on what a sample is where tokens have targets."""
    return (
        f"Tokens of a sample are not independent: intervals and tests are over the {samples} samples, not"
        f" over their {tokens} tokens with a target. The score of a sample is the mean over its tokens."
        " Metrics that are no means are computed on all tokens of samples that are drawn whole."
    )


def folds_note(folds: int) -> str:
    """Sentences on how intervals and tests know that folds share training samples."""
    return (
        f"Each seed is {folds} runs, whose test predictions together cover every sample once. Folds share"
        f" training samples: in intervals and tests the variance by samples is {fold_inflation(folds):.2f}"
        f" times what it would be otherwise, 1 + K n_test / n_train of folds of one size (Nadeau & Bengio,"
        " 2003). Metrics that compare samples with one another, such as correlations, are means over the"
        " folds."
    )


def groups_note(ids: Sequence[str], groups: Mapping[str, str], role: str = "test") -> Iterator[str]:
    """Sentences on what intervals and tests draw where these samples of a split share groups, which
    `groups_by_id` has; none where no two of them do.
    """
    number = len({groups.get(identity, identity) for identity in ids})
    if number == len(ids):
        return
    come = f"{role.capitalize()} samples come in {counted(number, 'group')}, such as speakers or videos:"
    if number >= FEWEST_GROUPS:
        yield f"{come} intervals and tests draw whole groups."
    else:
        yield (
            f"{come} too few to draw whole ones. Intervals and tests draw single samples, so they hold for"
            " these groups; for others they are too narrow."
        )
