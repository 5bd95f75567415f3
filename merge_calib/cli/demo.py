"""merge-calib demo"""

from pathlib import Path
from typing import Any

import click

import merge_calib
from merge_calib.cli.options import FOLDER, asking, make_plan, sweeping
from merge_calib.cli.sweep import execute

PAIR = Path(merge_calib.__file__).parent / "demo_pair"


@click.command()
@click.option("--out", type=FOLDER, default=Path("runs/demo"), show_default=True, help="Run directory.")
@asking
@sweeping
def demo(out: Path, **options: Any) -> None:
    """Sweep the small pair that ships with the package."""
    options["tasks"] = str(PAIR / "questions.jsonl")
    execute(make_plan(str(PAIR / "base"), str(PAIR / "aligned"), out, options))
