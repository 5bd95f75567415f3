"""merge-calib worker"""

from pathlib import Path

import click

from merge_calib.cli.options import FOLDER
from merge_calib.cli.watch import watching


@click.command()
@click.argument("run_dir", type=FOLDER)
@click.option("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, ...  [default: cuda if there is one, else cpu]")
@click.option(
    "--storage",
    metavar="PATH|URL",
    envvar="MERGE_CALIB_STORAGE",
    help="Where the study is, if the run cannot tell: a URL with its password; or in the environment as "
    "MERGE_CALIB_STORAGE.",
)
def worker(run_dir: Path, device: str | None, storage: str | None) -> None:
    """Help to measure RUN_DIR, on this host or on another.

    Takes points that nobody measures until none is left. The sweep that began the run writes what is found.
    """
    from merge_calib.crew import end_with_coordinator
    from merge_calib.plan import parse_device
    from merge_calib.plan_record import plan_of
    from merge_calib.run_directory import RunDirectory
    from merge_calib.sweep import help_out

    end_with_coordinator()
    run = RunDirectory.open(run_dir)
    plan = plan_of(run.plan, run_dir, parse_device(device), storage)
    with watching() as watch:
        help_out(plan, watch)
    click.echo(f"nothing is left to measure in {run_dir}; the sweep, or merge-calib report, writes what was found")
