"""merge-calib report"""

from pathlib import Path
from typing import Any

import click

from merge_calib.cli.options import FOLDER, analysing, analysis_options
from merge_calib.errors import InputError


@click.command()
@click.argument("run_dir", type=FOLDER)
@analysing
def report(run_dir: Path, **options: Any) -> None:
    """Redraw all of RUN_DIR from its stored scores.

    With other flags than the run was made with, its scores are judged anew by them, and the run remembers them.
    """
    from merge_calib.analysis import Analysis
    from merge_calib.findings import findings_of
    from merge_calib.frontier_record import write_frontier
    from merge_calib.report import write_report
    from merge_calib.report.summary import summary
    from merge_calib.results import Results
    from merge_calib.run_directory import RunDirectory

    run = RunDirectory.open(run_dir)
    for name in ("select_fraction", "select_by", "accuracy_margin", "select_weight", "cross_fit"):
        if run.kind == "evaluation" and options[name] is not None:
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag} is for sweeps: {run_dir} is an evaluation and chooses nothing")
    with run.locked():
        analysis = analysis_options(options, Analysis.of(run.plan).record())
        results = Results.of(run, analysis)
        run.judge_by(analysis.record())
        results.write()
        if results.is_sweep:
            write_frontier(findings_of(results))
        write_report(results)
    click.echo(summary(results))
