"""merge-calib merge"""

from pathlib import Path

import click

from merge_calib.cli.options import FOLDER, parents, reading
from merge_calib.errors import InputError, OutputError


@click.command()
@parents
@reading
@click.option("--lambda", "lam", type=float, required=True, help="0 is the base, 1 the aligned model.")
@click.option("--out", type=FOLDER, required=True, help="Folder to write; must not exist.")
@click.option(
    "--out-dtype",
    metavar="DTYPE",
    help="Merged weights are rounded to it once.  [default: as the aligned model stores them]",
)
def merge(
    base: str, aligned: str, lam: float, out: Path, out_dtype: str | None, allow_pickle: bool, trust_remote_code: bool
) -> None:
    """Write the checkpoint at one lambda."""
    from merge_calib.checkpoints.fingerprint import fingerprint
    from merge_calib.merging.point import MergePoint
    from merge_calib.plan import MOST, parse_dtype
    from merge_calib.preparation import open_pair
    from merge_calib.recovery import write_point

    if out.exists():
        raise OutputError(f"--out {out} exists; nothing was written")
    if not abs(lam) <= MOST:
        raise InputError(f"--lambda must lie between -{MOST} and {MOST}, not {lam}")
    pair = open_pair(base, aligned, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    dtype = parse_dtype("--out-dtype", out_dtype) if out_dtype else None
    hashed = {
        "base": {"sha256": fingerprint(pair.base), "model": base},
        "aligned": {"sha256": fingerprint(pair.aligned), "model": aligned},
    }
    write_point(pair, MergePoint("linear", lam), out, dtype, hashed)
    click.echo(f"{out} holds lambda {lam:g}")
