"""The checkpoint of a point: the selected one of a run, or any that is asked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import merge_calib
from merge_calib.checkpoints.pair import ModelPair
from merge_calib.checkpoints.writer import write_checkpoint
from merge_calib.errors import CheckpointError
from merge_calib.merging.merger import Merger
from merge_calib.merging.point import MergePoint
from merge_calib.preparation import Preparation
from merge_calib.results import Results


def recover(prepared: Preparation, results: Results) -> None:
    """Write the selected point's checkpoint, unless it is there or the rule selected the aligned model itself."""
    if not results.can_select or not results.selection.recovers:
        return
    folder = results.run.path / "checkpoints" / results.selection.point
    if folder.exists():
        return
    point = results.point(results.selection.point)
    parents = {
        side: prepared.record["identity"][side] | {"model": prepared.record[side]} for side in ("base", "aligned")
    }
    write_point(prepared.pair, point, folder, prepared.plan.out_dtype, parents | {"rule": results.selection.rule})


def write_point(
    pair: ModelPair, point: MergePoint, folder: Path, out_dtype: torch.dtype | None, provenance: Mapping[str, Any]
) -> None:
    """Write the checkpoint of any point into `folder`; at lambda 0 and 1 the weights are the parent's own."""
    merger = Merger(pair, out_dtype)
    about = {"method": point.method, "lambda": point.lam, "merge_calib": merge_calib.__version__, **provenance}
    dtypes = {name: merger.dtype(point, name) for name in pair.names}
    write_checkpoint(folder, pair.aligned, dtypes, lambda name: _finite(merger.tensor(point, name), name), about)


def _finite(tensor: torch.Tensor, name: str) -> torch.Tensor:
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise CheckpointError(f"tensor {name} is not finite at this lambda and dtype; nothing was written")
    return tensor
