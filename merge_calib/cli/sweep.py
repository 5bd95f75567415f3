"""merge-calib sweep"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from merge_calib.cli.options import FOLDER, asking, make_plan, merging, parents, parents_of, questions, sweeping
from merge_calib.cli.recipe import read_recipe
from merge_calib.cli.watch import watching

if TYPE_CHECKING:
    from merge_calib.plan import SweepPlan


@click.command()
@click.option(
    "--recipe",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.toml",
    is_eager=True,
    expose_value=False,
    callback=read_recipe,
    help="Options from a file; flags override it.",
)
@parents
@questions
@click.option("--out", type=FOLDER, help="Run directory.  [default: runs/BASE--ALIGNED]")
@asking
@sweeping
@merging
def sweep(out: Path | None, **options: Any) -> None:
    """Measure between two models, recover a checkpoint.

    Every merge between base and aligned model is asked the same questions.

    Run again with the same --out, it measures only what is missing.
    """
    execute(make_plan(parents_of(options), out, options))


def execute(plan: SweepPlan) -> None:
    """Run `plan`, write the report and say in a few lines what was found."""
    from merge_calib.report import write_report
    from merge_calib.report.summary import summary
    from merge_calib.sweep import sweep as run_sweep
    from merge_calib.working import PointLeftOutWarning

    with watching() as watch, warnings.catch_warnings(record=True, category=PointLeftOutWarning) as left_out:
        warnings.simplefilter("always", PointLeftOutWarning)
        results = run_sweep(plan, watch)
    with results.run.locked():
        write_report(results)
    click.echo(summary(results))
    for warning in left_out:
        click.echo(f"Warning: {warning.message}", err=True)
