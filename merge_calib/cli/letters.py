"""merge-calib letters"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from merge_calib.cli.options import FOLDER, analysing, analysis_options
from merge_calib.cli.shared import split_list

PATH = click.Path(path_type=Path)


@click.command()
@click.option("--base", required=True, type=PATH, help="Logits before alignment: a CSV file, or a folder of them.")
@click.option("--aligned", required=True, type=PATH, help="Logits after alignment, of the same questions.")
@click.option("--out", required=True, type=FOLDER, help="Run directory.")
@click.option(
    "--tasks",
    default="mmlu",
    show_default=True,
    metavar="LIST",
    help="mmlu, its groups or subjects by comma (mmlu_stem,mmlu_other), or a name for other questions.",
)
@click.option("--base-name", default="", metavar="TEXT", help="What the base is called.  [default: its path]")
@click.option("--aligned-name", default="", metavar="TEXT", help="What the aligned model is called.")
@click.option("--question-column", default="0", show_default=True, metavar="NAME", help="Column of the question.")
@click.option("--choice-columns", default="1,2,3,4", show_default=True, metavar="LIST", help="Columns of the options.")
@click.option("--answer-column", default="5", show_default=True, metavar="NAME", help="Column of the right letter.")
@click.option(
    "--logit-columns",
    default="Logit_A,Logit_B,Logit_C,Logit_D",
    show_default=True,
    metavar="LIST",
    help="Columns of the letters' logits, in the order of the options.",
)
@click.option(
    "--subject-column",
    default="",
    metavar="NAME",
    help="Column of the subject.  [default: SUBJECT_test_logits.csv or SUBJECT.csv tells it]",
)
@click.option("--bins", default=10, show_default=True, help="M, the number of bins of ECE and SCE.")
@analysing
def letters(tasks: str, **options: Any) -> None:
    """Make a run from CSV files of letter logits.

    Base and aligned model become the two points of a run; no model is read.
    """
    from merge_calib.letter_logits.importing import import_letters, notes
    from merge_calib.letter_logits.letters_plan import Layout, LettersPlan
    from merge_calib.report import write_report
    from merge_calib.report.summary import summary

    layout = Layout(
        question=options.pop("question_column"),
        choices=split_list("--choice-columns", options.pop("choice_columns")),
        answer=options.pop("answer_column"),
        logits=split_list("--logit-columns", options.pop("logit_columns")),
        subject=options.pop("subject_column"),
    )
    named = split_list("--tasks", tasks)
    results = import_letters(LettersPlan(tasks=named, layout=layout, analysis=analysis_options(options), **options))
    with results.run.locked():
        write_report(results)
    click.echo(summary(results))
    for line in notes(results.run.plan):
        click.echo(line, err=True)
