"""merge-calib demo"""

from pathlib import Path
from typing import Any

import click

import merge_calib
from merge_calib.cli.options import FOLDER, asking, make_plan, merging, sweeping
from merge_calib.cli.sweep import execute

PAIR = Path(merge_calib.__file__).parent / "demo_pair"


@click.command()
@click.option("--out", type=FOLDER, default=Path("runs/demo"), show_default=True, help="Run directory.")
@asking
@sweeping
@merging
def demo(out: Path, **options: Any) -> None:
    """Sweep the small pair that ships with the package."""
    options["tasks"] = str(PAIR / "questions.jsonl")
    if options["retained"] and options["prompts"] is None:
        options["prompts"] = PAIR / "prompts.jsonl"
    from merge_calib.checkpoints.opening import Parents

    parents = Parents(base=str(PAIR / "base"), aligned=(str(PAIR / "aligned"),))
    execute(make_plan(parents, out, options))
