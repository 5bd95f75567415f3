"""merge-calib check"""

from typing import Any

import click

from merge_calib.cli.options import parents, parents_of, reading


@click.command()
@parents
@reading
@click.option("--sample", "samples", is_flag=True, help="Read a part of the weights: how far alignment moved them.")
def check(allow_pickle: bool, trust_remote_code: bool, samples: bool, **named: Any) -> None:
    """Say whether two models fit, and what a sweep needs.

    Reads configs and headers only, and with --sample a part of the weights.
    """
    from merge_calib.inspection import describe
    from merge_calib.opening import open_pair

    pair = open_pair(parents_of(named), allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    sampled = ""
    if samples:
        from merge_calib.cli.watch import watching
        from merge_calib.sampling import describe_sample, require_finite, sample

        with watching() as watch:
            found = sample(pair, watch)
        require_finite(found)
        sampled = "\n\n" + describe_sample(found)
    click.echo(describe(pair) + sampled)
