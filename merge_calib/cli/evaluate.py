"""merge-calib evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from merge_calib.cli.options import FOLDER, adapter_base, asking, asking_options, questions
from merge_calib.cli.shared import split_list
from merge_calib.cli.watch import watching
from merge_calib.errors import InputError

if TYPE_CHECKING:
    from merge_calib.progress import Watch
    from merge_calib.results import Results


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@questions
@click.option("--out", type=FOLDER, default=Path("runs/evaluate"), show_default=True, help="Run directory.")
@click.option(
    "--labels", metavar="LIST", help="What the models are called, by comma.  [default: the end of their names]"
)
@click.option(
    "--axis", metavar="TEXT", help="What the axis is, as 'training steps'.  [default: as the run has it, or 'model']"
)
@click.option("--positions", metavar="LIST", help="Where the models stand on the axis: numbers, by comma.")
@click.option(
    "--from-lm-eval",
    "samples",
    multiple=True,
    metavar="PATH",
    help="Read lm-eval's samples_*.jsonl (a file, a folder, a pattern) instead of asking models; a folder is a model.",
)
@click.option("--write-lm-eval-samples", "writes_samples", is_flag=True, help="Write what was said as lm-eval logs it.")
@adapter_base
@asking
def evaluate(
    models: tuple[str, ...],
    out: Path,
    labels: str | None,
    axis: str | None,
    positions: str | None,
    samples: tuple[str, ...],
    writes_samples: bool,
    **options: Any,
) -> None:
    """Measure any models along an axis.

    Scales, training steps, epochs, revisions: nothing is merged.

    MODEL is a folder, ORG/NAME[@REVISION], or a PEFT adapter. Every model is asked in the words of its own tokenizer.

    Run again with the same --out, it measures only what is missing.
    """
    if bool(models) == bool(samples):
        raise InputError(
            "evaluate reads lm-eval's samples and asks no MODEL, or the other way round: give one of the two"
            if models
            else "nothing to evaluate: give at least one MODEL, or --from-lm-eval with samples that lm-eval logged"
        )
    where = {
        "out": out,
        "labels": split_list("--labels", labels) if labels is not None else (),
        "axis": axis,
        "positions": _numbers("--positions", positions) if positions is not None else None,
    }
    with watching() as watch:
        if samples:
            results = _from_samples(samples, where, writes_samples, options, watch)
        else:
            results = _from_models(models, where, writes_samples, options, watch)
    _report(results)


def _from_models(
    models: tuple[str, ...], where: dict[str, Any], writes_samples: bool, options: dict[str, Any], watch: Watch
) -> Results:
    from merge_calib.evaluation import evaluate as run_evaluation
    from merge_calib.exchange import write_lm_eval_samples
    from merge_calib.plan import EvaluationPlan

    plan = EvaluationPlan(models=models, **where, **asking_options(options), **options)
    results = run_evaluation(plan, watch)
    if writes_samples:
        with results.run.locked():
            write_lm_eval_samples(plan, results.run)
    return results


def _from_samples(
    files: tuple[str, ...], where: dict[str, Any], writes_samples: bool, options: dict[str, Any], watch: Watch
) -> Results:
    from merge_calib.exchange import ImportPlan, import_samples

    if writes_samples:
        raise InputError("--write-lm-eval-samples writes what a MODEL said; --from-lm-eval has that already")
    context = click.get_current_context()
    for name in options:
        if name != "bins" and context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE:
            flag = next(p.opts[0] for p in context.command.params if p.name == name)
            raise InputError(f"{flag} is for asking models; --from-lm-eval reads what was asked before")
    return import_samples(ImportPlan(files=files, bins=options["bins"], **where), watch)


def _numbers(flag: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in split_list(flag, text))
    except ValueError:
        raise InputError(f"{flag} {text!r} is no list of numbers, as 512,1000,2000") from None


def _report(results: Results) -> None:
    """Write the report and say in a few lines what was found."""
    from merge_calib.report import write_report
    from merge_calib.report.summary import summary

    with results.run.locked():
        write_report(results)
    click.echo(summary(results))
