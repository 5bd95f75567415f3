"""merge-calib degradation"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from merge_calib.cli.options import FOLDER
from merge_calib.cli.watch import watching
from merge_calib.errors import InputError

if TYPE_CHECKING:
    from merge_calib.degrading.analysis import Degradation


@click.command()
@click.argument("run_dirs", nargs=-1, type=FOLDER, metavar="[RUN_DIR]...")
@click.option("--base", metavar="LABEL", help="Which model of an evaluation is the base.")
@click.option("--aligned", metavar="LABEL", help="Which model of an evaluation is the aligned one.")
@click.option(
    "--match-sizes",
    is_flag=True,
    help="Cut every task to the size of the smallest, so that the bias of ECE and SCE is alike.",
)
@click.option(
    "--published",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.csv",
    help="Published values, beside runs or alone: pair,task,confidence,measure,base,aligned and, if zeros were lost, "
    "decimals.",
)
@click.option(
    "--out", type=FOLDER, help="Folder to write.  [default: RUN_DIR/degradation, ./degradation for several or none]"
)
def degradation(
    run_dirs: tuple[Path, ...],
    base: str | None,
    aligned: str | None,
    match_sizes: bool,
    published: Path | None,
    out: Path | None,
) -> None:
    """What alignment changed, from base to aligned.

    Change, change rate and log-ratio of every measure with intervals; with several runs which pair changed most; with
    points beyond lambda = 1 what more of the alignment does. Reads stored scores, no model.
    """
    from merge_calib.degradation.published import read_published
    from merge_calib.degrading.analysis import degradation_of
    from merge_calib.degrading.pairs import open_pairs
    from merge_calib.report.degradation_page import write_degradation

    if not run_dirs and published is None:
        raise InputError("nothing to look at: give at least one RUN_DIR, or --published FILE.csv")
    if not run_dirs and (base or aligned or match_sizes):
        raise InputError("--base, --aligned and --match-sizes are for runs: give a RUN_DIR")
    rows = read_published(published) if published else []
    found = None
    if run_dirs:
        pairs = open_pairs(run_dirs, base, aligned)
        with watching() as watch:
            found = degradation_of(pairs, match_sizes=match_sizes, watch=watch)
    inside = found.pairs[0].run if found and len(found.pairs) == 1 and out is None else None
    with inside.locked() if inside else nullcontext():
        page = write_degradation(out or (inside.path / "degradation" if inside else Path("degradation")), found, rows)
    for line in _summary(found, len(rows)):
        click.echo(line)
    click.echo(f"{page} holds the tables")


def _summary(found: Degradation | None, published: int) -> list[str]:
    """A line for each pair and confidence method, and how many published values were read."""
    from merge_calib.report.degradation_page import summary_lines

    lines = summary_lines(found) if found else []
    return [*lines, *([f"{published:,} published values read"] if published else [])]
