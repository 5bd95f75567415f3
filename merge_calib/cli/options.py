"""The options that several commands share, and the plan that they make.

The modules of this folder import torch and the like only when a command runs, so that --help answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from merge_calib.cli.search_options import search_options, searching
from merge_calib.cli.shared import F, apply, split_list

if TYPE_CHECKING:
    from merge_calib.analysis import Analysis
    from merge_calib.checkpoints.opening import Parents
    from merge_calib.plan import SweepPlan

ANALYSIS = (*("select_fraction", "select_by", "accuracy_margin", "select_weight", "cross_fit", "draws", "cluster"),)
FOLDER = click.Path(path_type=Path, file_okay=False)


class NumberOrRange(click.ParamType):  # type: ignore[type-arg]
    """A number, or LOW:HIGH as a pair of numbers."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            numbers = [float(part) for part in value.split(":")]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 2):
            self.fail(f"{value!r} is neither a number nor LOW:HIGH", param, ctx)
        return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


NUMBER = NumberOrRange()


def parents(command: F) -> F:
    """The two parents; `parents_of` takes them."""
    options = [
        click.option(
            "--base",
            required=True,
            metavar="MODEL",
            help="Model before alignment: a folder, ORG/NAME[@REVISION], or a PEFT adapter.",
        ),
        click.option(
            "--aligned",
            required=True,
            multiple=True,
            metavar="MODEL",
            help="The same model after alignment; given several times, the average of all.",
        ),
        click.option(
            "--aligned-weights", metavar="LIST", help="Weights of that average, by comma.  [default: all equal]"
        ),
        adapter_base,
        click.option(
            "--vocab",
            default="aligned",
            show_default=True,
            type=click.Choice(["error", "aligned", "base"]),
            help="Whose vocabulary the merge has where the two differ in size; error refuses that.",
        ),
    ]
    return apply(options, command)


def adapter_base(command: F) -> F:
    """Where the model of an adapter is."""
    text = "Model that PEFT adapters are applied to.  [default: the one that the adapter names]"
    return click.option("--adapter-base", metavar="MODEL", help=text)(command)


def merging(command: F) -> F:
    """The method with its options; `method_options` takes them."""
    options = [
        click.option(
            "--method",
            default="linear",
            show_default=True,
            metavar="NAME",
            help="linear, slerp, task_arithmetic, ties, dare_linear, dare_ties, della_linear, breadcrumbs, lines; for "
            "optuna several by comma, and options as LOW:HIGH.",
        ),
        click.option(
            "--density",
            type=NUMBER,
            help="Share of delta that is kept.  [default: ties .2, dare, della .5, breadcrumbs .9]",
        ),
        click.option("--epsilon", type=NUMBER, help="By how much della's share varies with rank.  [default: .1]"),
        click.option(
            "--gamma", type=NUMBER, help="Share of the largest changes that breadcrumbs drop.  [default: .01]"
        ),
        click.option("--alpha", type=NUMBER, help="Scale of the first layer's delta in lines.  [default: .5]"),
        click.option("--beta", type=NUMBER, help="How much more lines scale the last layer's delta.  [default: .5]"),
        click.option("--drop-seed", type=NUMBER, help="Seed of what dare and della drop.  [default: 0]"),
        click.option(
            "--out-dtype",
            metavar="DTYPE",
            help="Merged weights are rounded to it once.  [default: as the aligned model stores them]",
        ),
    ]
    return apply(options, command)


def reading(command: F) -> F:
    """What reading a model may need, for the commands that ask it nothing."""
    options = [
        click.option("--allow-pickle", is_flag=True, help="Read .bin weights where there are no safetensors."),
        click.option("--trust-remote-code", is_flag=True, help="Run the code that comes with the models."),
    ]
    return apply(options, command)


def questions(command: F) -> F:
    """What is asked and from where; `merge-calib demo` has its own."""
    options = [
        click.option(
            "--tasks",
            metavar="LIST",
            help="Benchmarks, task files and own FILE.jsonl, by comma; `merge-calib tasks` lists them.  "
            "[default: the benchmarks that --data-dir holds]",
        ),
        click.option("--data-dir", type=FOLDER, help="Where the benchmarks' files are.  [default: the hub]"),
        click.option("--task-dir", type=FOLDER, help="Folder of task files NAME.toml."),
        click.option("--four-options", is_flag=True, help="Of ARC, ask only the questions that have four options."),
        click.option(
            "--num-fewshot",
            "-f",
            default=0,
            show_default=True,
            metavar="N",
            help="Show the task's first N worked examples (MMLU: of the subject's dev file) before each question.",
        ),
    ]
    return apply(options, command)


def asking(command: F) -> F:
    """How it is asked, how confidence is read, how it is computed."""
    options = [
        click.option(
            "--confidence",
            default="choice",
            show_default=True,
            metavar="LIST",
            help="choice, continuation-sum, -min, -mean, -norm, by comma; in a sweep the first one selects the point.",
        ),
        click.option("--bins", default=10, show_default=True, help="M, the number of bins of ECE and SCE."),
        click.option("--limit", "-L", type=int, metavar="N", help="Ask N questions of each task only: the first ones."),
        click.option("--limit-seed", type=int, metavar="SEED", help="Draw the N questions of --limit at random."),
        click.option(
            "--apply-chat-template",
            "chat",
            is_flag=False,
            flag_value="both",
            default="none",
            show_default=True,
            type=click.Choice(["none", "aligned", "both"]),
            help="Who is asked through the chat template: all models (both, or no word), or in a sweep all but the "
            "base (aligned).",
        ),
        click.option("--system-instruction", metavar="TEXT", help="System message of the chat."),
        click.option(
            "--finish-prompts",
            is_flag=True,
            help="Begin next-token tasks with the prompts that Zhu et al. give to aligned models.",
        ),
        click.option("--seed", default=0, show_default=True, help="Seed of the search and of next-token positions."),
        click.option(
            "--device", metavar="DEVICE", help="cpu, cuda, cuda:1, ...  [default: cuda if there is one, else cpu]"
        ),
        click.option(
            "--dtype",
            metavar="DTYPE",
            help="Computes: bfloat16, float16, float32.  [default: bfloat16 on cuda, else float32]",
        ),
        click.option(
            "--batch-tokens",
            default="auto",
            show_default=True,
            metavar="N",
            help="Tokens read in one pass; auto finds out what memory allows. Halved when memory runs out.",
        ),
        click.option("--strict", is_flag=True, help="Refuse prompts longer than the model's context."),
        click.option("--allow-pickle", is_flag=True, help="Read .bin weights where there are no safetensors."),
        click.option("--trust-remote-code", is_flag=True, help="Run the code that comes with the models."),
    ]
    return apply(options, command)


def sweeping(command: F) -> F:
    """Which points, and which of them is selected."""
    options = [
        click.option(
            "--lambdas",
            default="0:1.5:0.1",
            show_default=True,
            metavar="GRID",
            help="start:stop:step or a comma list; 0 (base) and 1 (aligned) are always measured. With groups also "
            "GROUP=GRID;GROUP=GRID.",
        ),
        click.option(
            "--groups",
            metavar="LIST",
            help="Groups of tensors with a lambda each, all combinations of --lambdas: layers:N (N blocks), attention, "
            "mlp, norms, embeddings, final_norm, head, a name pattern with *, rest.",
        ),
        click.option(
            "--prompts",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="What the aligned model answers, to see how much of the alignment each point keeps: a .jsonl of "
            '{"prompt": "..."}, or a .txt with a prompt a line.  [default: 24 prompts that are shipped]',
        ),
        click.option(
            "--retained/--no-retained",
            default=True,
            show_default=True,
            help="Measure how much of the alignment each point keeps.",
        ),
    ]
    validation = click.option(
        "--select-from-validation",
        is_flag=True,
        help="Choose and tune by the questions of each benchmark's own validation split, asked besides the test.",
    )
    return apply([*options, validation], searching(analysing(command)))


def analysing(command: F) -> F:
    """How what was measured is judged; `analysis_options` takes them. Not given, a run's own choice or the default."""
    options = [
        click.option(
            "--select-fraction",
            type=float,
            metavar="SHARE",
            help="Share of each task's questions that choose the point and tune all else; the others judge.  "
            "[default: .5]",
        ),
        click.option(
            "--select-by",
            metavar="RULE",
            help="calibration (lowest error that keeps the accuracy), accuracy, knee, hypervolume, weighted.  "
            "[default: calibration]",
        ),
        click.option(
            "--accuracy-margin",
            type=float,
            help="Accuracy that the selected point may lose against the aligned model.  [default: .005]",
        ),
        click.option("--select-weight", type=float, help="Weight of the error in `weighted`.  [default: .5]"),
        click.option(
            "--cross-fit",
            is_flag=False,
            flag_value=5,
            type=int,
            metavar="FOLDS",
            help="Let every question choose and judge in turn (5 folds, or 0 for none): what is claimed then is the "
            "procedure.",
        ),
        click.option("--draws", type=int, help="Samples of the bootstrap.  [default: 2000]"),
        click.option(
            "--cluster",
            metavar="BY",
            help="What the bootstrap draws: none (questions within each subject), or whole subject(s).  "
            "[default: none]",
        ),
    ]
    return apply(options, command)


def parents_of(options: dict[str, Any]) -> Parents:
    """Take the values of `parents` out of `options`; raises InputError naming the flag that is wrong."""
    from merge_calib.checkpoints.opening import Parents, parse_weights

    weights = options.pop("aligned_weights")
    return Parents(
        base=options.pop("base"),
        aligned=tuple(options.pop("aligned")),
        aligned_weights=parse_weights(weights) if weights is not None else None,
        adapter_base=options.pop("adapter_base"),
        vocab=options.pop("vocab"),
    )


def method_options(options: dict[str, Any]) -> dict[str, Any]:
    """Take the values of `merging` out of `options`: method, its options, those given as ranges, out_dtype.

    Raises InputError naming the flag that is wrong.
    """
    from merge_calib.merging.methods import option_names
    from merge_calib.plan import parse_dtype

    method, out_dtype = options.pop("method"), options.pop("out_dtype")
    given = {name: options.pop(name) for name in option_names()}
    return {
        "method": method,
        "options": {name: value for name, value in given.items() if isinstance(value, float | int)},
        "ranges": {name: value for name, value in given.items() if isinstance(value, tuple)},
        "out_dtype": parse_dtype("--out-dtype", out_dtype) if out_dtype else None,
    }


def analysis_options(options: dict[str, Any], held: Mapping[str, Any] | None = None) -> Analysis:
    """Take the values of `analysing` out of `options`; those not given are as a run's analysis `held` has them.

    Raises InputError naming the flag that is wrong.
    """
    from merge_calib.analysis import Analysis

    given = {name: options.pop(name) for name in ANALYSIS}
    said = dict(held or {}) | {name: value for name, value in given.items() if value is not None}
    return Analysis.of({"analysis": said})


def asking_options(options: dict[str, Any]) -> dict[str, Any]:
    """Take the values of `questions` and `asking` out of `options`, as an Asking wants them.

    Raises InputError naming the flag that is wrong.
    """
    from merge_calib.plan import Asking, parse_batch_tokens, parse_confidences, parse_device, parse_dtype

    taken = {f.name: options.pop(f.name) for f in fields(Asking) if f.name in options}
    tasks = taken.pop("tasks", None)
    device = parse_device(taken.pop("device"))
    dtype = taken.pop("dtype") or ("bfloat16" if device.type == "cuda" else "float32")
    return taken | {
        "tasks": split_list("--tasks", tasks) if tasks is not None else (),
        "confidence": parse_confidences(taken["confidence"]),
        "device": device,
        "dtype": parse_dtype("--dtype", dtype),
        "batch_tokens": parse_batch_tokens(taken["batch_tokens"]),
    }


def make_plan(parents: Parents, out: Path | None, options: dict[str, Any]) -> SweepPlan:
    """Turn flags into a plan; raises InputError naming the flag that is wrong."""
    from merge_calib.plan import SweepPlan, parse_group_lambdas, parse_lambdas

    out = out or default_out(parents.base, *parents.aligned)
    lambdas = options.pop("lambdas")
    analysis = analysis_options(options, _held_analysis(out) or {"seed": options["seed"]})
    by_group = parse_group_lambdas(lambdas)
    return SweepPlan(
        parents=parents,
        out=out,
        lambdas=parse_lambdas(lambdas) if not by_group else (),
        group_lambdas=by_group,
        analysis=analysis,
        **search_options(options),
        **asking_options(options),
        **method_options(options),
        **options,
    )


def _held_analysis(out: Path) -> dict[str, Any]:
    """How the run in `out` is judged so far; empty where there is none."""
    from merge_calib.analysis import Analysis
    from merge_calib.run_directory import RunDirectory

    run = RunDirectory(out)
    return Analysis.of(run.plan).record() if run.exists else {}


def default_out(*models: str) -> Path:
    """`runs/BASE--ALIGNED`, with the last part of each name, shortened."""
    names = [Path(model.partition("@")[0]).resolve().name[:40] for model in models]
    return Path("runs") / "--".join(names)
