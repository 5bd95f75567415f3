"""How points are found, and by how many processes."""

from typing import Any

import click

from merge_calib.cli.shared import F, apply, split_list
from merge_calib.errors import InputError

_SEARCHED_BY = {
    **dict.fromkeys(("tolerance", "budget"), "adaptive"),
    **dict.fromkeys(("trials", "sampler", "objectives", "min_accuracy", "early_stopping", "storage"), "optuna"),
}


def searching(command: F) -> F:
    """How points are found, and by how many processes."""
    options = [
        click.option(
            "--search",
            default="grid",
            show_default=True,
            type=click.Choice(["grid", "adaptive", "optuna"]),
            help="Measure the grid; or measure few points and predict what lies between (adaptive); or let an Optuna "
            "study choose in the grid's range.",
        ),
        click.option(
            "--tolerance",
            type=float,
            help="Error of accuracy and SCE that adaptive allows what it predicts, between 0 and 1.  [default: .005]",
        ),
        click.option(
            "--budget",
            type=int,
            metavar="N",
            help="Points from which adaptive predicts at most, 6 or more; beyond, it measures the grid.  [default: 9]",
        ),
        click.option("--trials", type=int, help="Points that optuna proposes, besides the parents.  [default: 30]"),
        click.option("--sampler", metavar="NAME", help="Of optuna: gp, tpe, nsga2, nsga3 or random.  [default: gp]"),
        click.option(
            "--objectives",
            metavar="LIST",
            help="Two or more measures that optuna weighs against each other.  [default: accuracy,sce]",
        ),
        click.option("--min-accuracy", type=float, metavar="SHARE", help="Accuracy that optuna's points should have."),
        click.option(
            "--early-stopping",
            metavar="CONFIDENCE",
            help="Stop asking a point of optuna when another is better with this confidence; off asks all.  "
            "[default: .95]",
        ),
        click.option(
            "--storage",
            metavar="PATH|URL",
            help="Where optuna's study is: a journal file, sqlite:///FILE (one worker), or a postgresql:// or mysql:// "
            "URL.  [default: study.journal in the run directory]",
        ),
        click.option(
            "--workers",
            default=1,
            show_default=True,
            metavar="N",
            help="Processes that measure, one to a GPU; others join by merge-calib worker.",
        ),
    ]
    return apply(options, command)


def search_options(options: dict[str, Any]) -> dict[str, Any]:
    """Take the values of `searching` out of `options`, as a SweepPlan wants them; those not given are left out.

    Raises InputError naming the flag that is wrong, or belongs to another search.
    """
    from merge_calib.plan import parse_early_stopping

    search = options["search"]
    given = {name: value for name in _SEARCHED_BY if (value := options.pop(name)) is not None}
    for name in given:
        if _SEARCHED_BY[name] != search:
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag} is for --search {_SEARCHED_BY[name]}, not for --search {search}")
    if "objectives" in given:
        given["objectives"] = split_list("--objectives", given["objectives"])
    return {**given, "early_stopping": parse_early_stopping(given.get("early_stopping"), search)}
