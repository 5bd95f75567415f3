"""merge-calib tasks"""

from pathlib import Path

import click

from merge_calib.cli.options import FOLDER
from merge_calib.tasks import BENCHMARKS, available_tasks


@click.command()
@click.option("--data-dir", type=FOLDER, help="Say which of them this folder holds.")
def tasks(data_dir: Path | None) -> None:
    """List what can be asked, and from which files."""
    held = available_tasks(data_dir) if data_dir else []
    for name, benchmark in BENCHMARKS.items():
        mark = "  (there)" if name in held else ""
        click.echo(f"{name}{mark}\n    {benchmark.description}\n    in DATA_DIR: {benchmark.expected}")
    click.echo(
        "own FILE.jsonl\n    a question a line: "
        '{"id": "...", "question": "...", "choices": ["...", "..."], "answer": 0}\n'
        "    answer is a 0-based index or a letter; optional: context, subject"
    )
