"""merge-calib merge"""

from pathlib import Path
from typing import Any

import click

from merge_calib.cli.options import FOLDER, merging, method_options, parents, parents_of, reading
from merge_calib.cli.watch import watching
from merge_calib.errors import InputError, OutputError
from merge_calib.files import write_text


@click.command()
@parents
@reading
@click.option(
    "--lambda",
    "lam",
    required=True,
    metavar="NUMBER",
    help="0 is the base, 1 the aligned model; or GROUP=NUMBER;GROUP=NUMBER for groups as sweep's --groups names them.",
)
@merging
@click.option("--out", type=FOLDER, help="Folder to write; must not exist.")
@click.option("--shard-size", default="50GB", show_default=True, metavar="SIZE", help="Of a weight file at most.")
@click.option("--no-hash", is_flag=True, help="Do not record a hash of both parents, which takes half of the time.")
@click.option(
    "--export-mergekit",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.yaml",
    help="Write the mergekit configuration that makes the same merge; not for random drops, adapters and averages.",
)
def merge(
    lam: str,
    out: Path | None,
    shard_size: str,
    no_hash: bool,
    export_mergekit: Path | None,
    allow_pickle: bool,
    trust_remote_code: bool,
    **options: Any,
) -> None:
    """Write the checkpoint at one lambda."""
    from merge_calib.checkpoints.writer import has_tokenizer
    from merge_calib.merging.groups import require_groups
    from merge_calib.merging.mergekit import mergekit_config
    from merge_calib.merging.point import MergePoint
    from merge_calib.opening import open_pair
    from merge_calib.plan import parse_lambda, parse_shard_size
    from merge_calib.recovery import parents_record, write_point

    _require_room(out, export_mergekit)
    shard_bytes = parse_shard_size(shard_size)
    chosen = method_options(options)
    for name, (low, high) in chosen["ranges"].items():
        raise InputError(
            f"--{name.replace('_', '-')} {low:g}:{high:g} is a range, for sweep --search optuna; give one number"
        )
    one, groups = parse_lambda(lam)
    point = MergePoint(chosen["method"], one, tuple(chosen["options"].items()), groups)
    named = parents_of(options)
    pair = open_pair(named, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    if groups:
        require_groups([group for group, _ in groups], pair.merged, pair.layers, "--lambda")
    text = ""
    if export_mergekit is not None:
        text = mergekit_config(pair, point, named.base, named.aligned[0], chosen["out_dtype"])
    if out is not None:
        with watching() as watch:
            write_point(
                pair,
                point,
                out,
                chosen["out_dtype"],
                parents_record(named),
                shard_bytes,
                watch,
                hashes_parents=not no_hash,
            )
        click.echo(f"{out} holds {point.name}" + _groups_text(point.groups))
        if not has_tokenizer(pair.host):
            click.echo(f"Note: {pair.host.folder} has no tokenizer, and so the merge has none")
    if export_mergekit is not None:
        write_text(export_mergekit, text)
        click.echo(f"{export_mergekit} holds the mergekit configuration of {point.name}")
    for note in pair.fit.notes:
        click.echo(f"Note: {note}")


def _groups_text(groups: tuple[tuple[str, float], ...]) -> str:
    return ": lambda of " + ", ".join(f"{group} {lam:g}" for group, lam in groups) if groups else ""


def _require_room(out: Path | None, export_mergekit: Path | None) -> None:
    if out is not None and export_mergekit is not None and out.absolute() == export_mergekit.absolute():
        raise InputError(f"--out and --export-mergekit are both {out}")
    if out is None and export_mergekit is None:
        raise InputError("nothing to write: give --out DIR, --export-mergekit FILE.yaml, or both")
    for flag, path in (("--out", out), ("--export-mergekit", export_mergekit)):
        if path is not None and path.exists():
            raise OutputError(f"{flag} {path} exists; nothing was written")
