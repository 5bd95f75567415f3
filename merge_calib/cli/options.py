"""The options that several commands share, and the plan that they make.

The modules of this folder import torch and the like only when a command runs, so that --help answers at once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from merge_calib.errors import InputError

if TYPE_CHECKING:
    from merge_calib.plan import SweepPlan

F = TypeVar("F", bound=Callable[..., Any])
FOLDER = click.Path(path_type=Path, file_okay=False)


def parents(command: F) -> F:
    """--base and --aligned, and what they may need."""
    options = [
        click.option(
            "--base", required=True, metavar="MODEL", help="Model before alignment: a folder, or ORG/NAME[@REVISION]."
        ),
        click.option("--aligned", required=True, metavar="MODEL", help="The same model after alignment."),
        click.option("--allow-pickle", is_flag=True, help="Read .bin weights where there are no safetensors."),
    ]
    options.append(click.option("--trust-remote-code", is_flag=True, help="Run the code that comes with the models."))
    return _apply(options, command)


def measuring(command: F) -> F:
    """What to ask, where to look, how to compute."""
    options = [
        click.option(
            "--confidence",
            default="choice",
            show_default=True,
            metavar="LIST",
            help="choice, continuation-sum, continuation-min; the first one selects the point.",
        ),
        click.option(
            "--lambdas",
            default="0:1.5:0.1",
            show_default=True,
            metavar="GRID",
            help="start:stop:step or a comma list; 0 (base) and 1 (aligned) are always measured.",
        ),
        click.option(
            "--search",
            default="grid",
            show_default=True,
            type=click.Choice(["grid", "optuna"]),
            help="Measure the grid, or let a two-objective Optuna study choose lambdas in its range.",
        ),
        click.option(
            "--trials", default=30, show_default=True, help="Points that --search optuna proposes, besides the parents."
        ),
        click.option(
            "--accuracy-margin",
            default=0.005,
            show_default=True,
            help="Accuracy that the selected point may lose against the aligned model.",
        ),
        click.option("--bins", default=10, show_default=True, help="M, the number of bins of ECE and SCE."),
        click.option("--limit", "-L", type=int, metavar="N", help="Ask the first N questions of each task only."),
        click.option("--seed", default=0, show_default=True, help="Seed of the search."),
        click.option(
            "--device", metavar="DEVICE", help="cpu, cuda, cuda:1, ...  [default: cuda if there is one, else cpu]"
        ),
        click.option(
            "--dtype",
            metavar="DTYPE",
            help="Computes: bfloat16, float16, float32.  [default: bfloat16 on cuda, else float32]",
        ),
        click.option(
            "--out-dtype",
            metavar="DTYPE",
            help="Merged weights are rounded to it once.  [default: as the aligned model stores them]",
        ),
        click.option(
            "--batch-tokens",
            type=int,
            metavar="N",
            help="Padded tokens in a batch.  [default: 65536 on cuda, else 4096]",
        ),
    ]
    return _apply(options, command)


def make_plan(base: str, aligned: str, out: Path | None, tasks: str | None, options: dict[str, Any]) -> SweepPlan:
    """Turn flags into a plan; raises InputError naming the flag that is wrong."""
    from merge_calib.plan import SweepPlan, parse_confidences, parse_device, parse_dtype, parse_lambdas

    device = parse_device(options.pop("device"))
    on_gpu = device.type == "cuda"
    dtype = options.pop("dtype") or ("bfloat16" if on_gpu else "float32")
    out_dtype = options.pop("out_dtype")
    return SweepPlan(
        base=base,
        aligned=aligned,
        out=out or default_out(base, aligned),
        tasks=split_list("--tasks", tasks) if tasks is not None else (),
        confidence=parse_confidences(options.pop("confidence")),
        lambdas=parse_lambdas(options.pop("lambdas")),
        device=device,
        dtype=parse_dtype("--dtype", dtype),
        out_dtype=parse_dtype("--out-dtype", out_dtype) if out_dtype else None,
        batch_tokens=_or_default(options.pop("batch_tokens"), 65536 if on_gpu else 4096),
        **options,
    )


def split_list(flag: str, text: str) -> tuple[str, ...]:
    """The names in a comma list; raises InputError for an empty one."""
    names = tuple(name.strip() for name in text.split(","))
    if "" in names:
        raise InputError(f"{flag} {text!r} has an empty name")
    return names


def default_out(base: str, aligned: str) -> Path:
    """`runs/BASE--ALIGNED`, with the last part of each name, shortened."""
    names = [Path(model.partition("@")[0]).resolve().name[:40] for model in (base, aligned)]
    return Path("runs") / "--".join(names)


def _or_default(value: int | None, default: int) -> int:
    return default if value is None else value


def _apply(options: list[Callable[[Any], Any]], command: F) -> F:
    for option in reversed(options):
        command = option(command)
    return command
