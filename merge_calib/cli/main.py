"""The command group, and what happens to errors."""

import sys

import click

import merge_calib
from merge_calib.cli.check import check
from merge_calib.cli.degradation import degradation
from merge_calib.cli.demo import demo
from merge_calib.cli.evaluate import evaluate
from merge_calib.cli.letters import letters
from merge_calib.cli.merge import merge
from merge_calib.cli.report import report
from merge_calib.cli.sweep import sweep
from merge_calib.cli.tasks import tasks
from merge_calib.cli.worker import worker
from merge_calib.errors import MergeCalibError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(merge_calib.__version__, prog_name="merge-calib")
def main() -> None:
    """Recover the calibration that alignment took from a language model, by merging it with its base."""


for command in (sweep, demo, evaluate, merge, letters, check, report, degradation, tasks, worker):
    main.add_command(command)


def run() -> None:
    """Run the command line: 0 done, 1 the user's fault (one message), 2 usage, 130 interrupted."""
    try:
        main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo(
            "Interrupted. A sweep or an evaluation goes on when the same command is given again.",
            err=True,
        )
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except MergeCalibError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        click.echo(f"Error: {error.filename or 'a file'}: {error.strerror or error}", err=True)
        sys.exit(1)
