"""merge-calib tasks"""

from pathlib import Path

import click

from merge_calib.cli.options import FOLDER
from merge_calib.tasks import Library, known_tasks


@click.command()
@click.option("--data-dir", type=FOLDER, help="Say which of them this folder holds.")
@click.option("--task-dir", type=FOLDER, help="List the task files of this folder as well.")
def tasks(data_dir: Path | None, task_dir: Path | None) -> None:
    """List what can be asked, and from which files."""
    for task in known_tasks(Library(data_dir, task_dir)):
        click.echo(f"{task.name}{'  (there)' if task.held else ''}\n    {task.description}")
        if task.files:
            click.echo(f"    in DATA_DIR: {task.files}")
        if task.hub:
            click.echo(f"    on the hub: {task.hub}")
