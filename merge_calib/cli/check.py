"""merge-calib check"""

import click

from merge_calib.cli.options import parents, reading


@click.command()
@parents
@reading
def check(base: str, aligned: str, allow_pickle: bool, trust_remote_code: bool) -> None:
    """Say from headers whether two models fit."""
    from merge_calib.preparation import open_pair

    pair = open_pair(base, aligned, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    kinds = sorted({str(pair.stored_dtype(name)).removeprefix("torch.") for name in pair.names})
    click.echo(f"These two can be merged: {pair.aligned.config.get('model_type')}, {pair.parameters:,} parameters in")
    click.echo(
        f"{len(pair.names)} tensors, stored as {', '.join(kinds)}; {pair.aligned.bytes / 1e9:.2f} GB a checkpoint."
    )
