"""merge-calib report"""

from pathlib import Path

import click

from merge_calib.cli.options import FOLDER


@click.command()
@click.argument("run_dir", type=FOLDER)
def report(run_dir: Path) -> None:
    """Redraw all of RUN_DIR from its stored scores."""
    from merge_calib.report import write_report
    from merge_calib.report.summary import summary
    from merge_calib.results import Results
    from merge_calib.run_directory import RunDirectory

    run = RunDirectory.open(run_dir)
    with run.locked():
        results = Results.of(run)
        results.write()
        write_report(results)
    click.echo(summary(results))
