"""A pair, opened: headers and configs, and the defaults that a config leaves out."""

from merge_calib.checkpoints.average import Average
from merge_calib.checkpoints.opening import Parents
from merge_calib.checkpoints.pair import ModelPair
from merge_calib.checkpoints.settings import omit


def open_pair(parents: Parents, *, allow_pickle: bool = False, trust_remote_code: bool = False) -> ModelPair:
    """Find both parents and prove that they fit.

    transformers, which takes seconds to import, is asked only where one config leaves out what the other says.
    """
    pair = parents.open(allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    members = pair.aligned.parents if isinstance(pair.aligned, Average) else (pair.aligned,)
    if omit([pair.base.config, *(member.config for member in members)]):
        from merge_calib.scoring.loading import require_same_defaults

        require_same_defaults(pair.base, members, trust_remote_code=trust_remote_code)
    return pair
