"""The checkpoint of a point: the selected one of a run, or any that is asked for."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import merge_calib
from merge_calib.checkpoints.card import Card, Measured
from merge_calib.checkpoints.fingerprint import fingerprints_beside, is_finite
from merge_calib.checkpoints.licences import Licence, joint_licence, link_in, named_files
from merge_calib.checkpoints.opening import Parents
from merge_calib.checkpoints.order import in_model_order
from merge_calib.checkpoints.pair import ModelPair
from merge_calib.checkpoints.provenance import SIDES, card_parent, licences_of, parent_record
from merge_calib.checkpoints.shards import SHARD_BYTES, Stored, main_dtype
from merge_calib.checkpoints.slots import Side
from merge_calib.checkpoints.writer import has_tokenizer, write_checkpoint
from merge_calib.errors import CheckpointError
from merge_calib.files import write_text
from merge_calib.merging.merger import Merger
from merge_calib.merging.point import MergePoint
from merge_calib.progress import Watch, unwatched

if TYPE_CHECKING:  # importing them takes seconds, and whoever merely merges needs neither
    from merge_calib.preparation import Preparation
    from merge_calib.results import Result, Results

Hashes = Callable[[], Sequence[str | None]]


def recover(prepared: "Preparation", results: "Results", watch: Watch = unwatched) -> None:
    """Write the selected point's checkpoint, unless the rule selected the aligned model itself.

    Of one that is there already the weights stay, and what it says of itself is brought up to date.
    """
    if not results.can_select or not results.selection.recovers:
        return
    folder = results.run.path / "checkpoints" / results.selection.point
    point = results.point(results.selection.point)
    about: dict[str, Any] = parents_record(prepared.plan.parents)
    for side in SIDES:
        about[side] |= prepared.record["identity"][side]
    about["rule"] = results.selection.rule
    pair, out_dtype, measured = prepared.pair, prepared.plan.out_dtype, _measured(results, point)
    if folder.exists():
        merge = _Merge(
            pair,
            point,
            folder.name,
            _stored(Merger(pair, out_dtype), pair, point),
            about,
            licences_of(pair),
            measured,
            results.run.merge_facts(point),
        )
        for name, text in merge.texts([about[side]["sha256"] for side in SIDES]).items():
            write_text(folder / name, text)
    else:
        write_point(pair, point, folder, out_dtype, about, watch=watch, measured=measured)


def parents_record(parents: Parents) -> dict[str, Any]:
    """What a checkpoint's provenance says of parents by the names that the user gave them."""
    aligned: dict[str, Any] = {"model": parents.aligned_text}
    if len(parents.aligned) > 1:
        aligned["models"] = list(parents.aligned)
    more = {"adapter_base": parents.adapter_base, "vocab": parents.vocab}
    return {"base": {"model": parents.base}, "aligned": aligned, **{k: v for k, v in more.items() if v is not None}}


def write_point(
    pair: ModelPair,
    point: MergePoint,
    folder: Path,
    out_dtype: torch.dtype | None,
    provenance: Mapping[str, Any],
    shard_bytes: int = SHARD_BYTES,
    watch: Watch = unwatched,
    measured: Measured | None = None,
    *,
    hashes_parents: bool = True,
) -> None:
    """Write the checkpoint of any point into `folder`; at lambda 0 and 1 the weights are the parent's own.

    provenance: more for merge_calib.json; under `base` and `aligned` the `model` as it was given and, where it is
        known, its `sha256`: what is not known is hashed while the weights are merged
    measured: for the model card; hashes_parents: whether parents whose hash is not known are hashed
    Raises CheckpointError naming a tensor of the merge or of a parent that is not finite, and OutputError where the
    disk is full; nothing is left behind then.
    """
    merger = Merger(pair, out_dtype)
    tensors = _stored(merger, pair, point)
    merge = _Merge(pair, point, folder.name, tensors, provenance, licences_of(pair), measured, merger.facts(point))
    size = sum(stored.bytes for stored in tensors.values())
    with _hashes(pair, provenance, watch if hashes_parents else None) as hashes:
        write_checkpoint(
            folder,
            pair,
            tensors,
            lambda name: _finite(merger, point, name, hashes),
            lambda: merge.texts(hashes()),
            copies=named_files(merge.licences),
            shard_bytes=shard_bytes,
            progress=watch(f"writing {folder.name}", size, "bytes"),
            workers=None if pair.base.is_stored and pair.aligned.is_stored else 1,  # an adapter merges one at a time
        )


def _stored(merger: Merger, pair: ModelPair, point: MergePoint) -> dict[str, Stored]:
    """The tensors of a point's checkpoint, in the order in which they are written."""
    return {name: Stored(pair.slots[name].shape, merger.dtype(point, name)) for name in in_model_order(pair.names)}


@dataclass(frozen=True)
class _Merge:
    """What merge_calib.json and the model card tell."""

    pair: ModelPair
    point: MergePoint
    name: str
    tensors: Mapping[str, Stored]
    provenance: Mapping[str, Any]
    licences: Sequence[tuple[str, Licence]]
    measured: Measured | None
    facts: Mapping[str, int]

    def texts(self, hashes: Sequence[str | None]) -> dict[str, str]:
        """Both files by name; hashes: of the base and of the aligned model."""
        parents = {
            side: parent_record(self.pair.parent(side), self.provenance.get(side, {}), sha256)
            for side, sha256 in zip(SIDES, hashes, strict=True)
        }
        made = {"dtype": self._dtype, "merge_calib": merge_calib.__version__}
        about = self.point.record() | made | dict(self.provenance) | parents
        if self.facts:
            about["merge"] = self.facts
        record = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
        return {"merge_calib.json": record, "README.md": self._card(parents).text()}

    def _card(self, parents: Mapping[Side, Mapping[str, Any]]) -> Card:
        standing, files = joint_licence(self.licences), named_files(self.licences)
        return Card(
            name=self.name,
            point=self.point.record(),
            facts=self.facts,
            has_tokenizer=has_tokenizer(self.pair.host),
            dtype=self._dtype,
            parents=tuple(card_parent(side, record) for side, record in parents.items()),
            standing=standing,
            licence_link=link_in(standing.licence, files),
            licence_files=tuple(files),
            version=merge_calib.__version__,
            measured=self.measured,
        )

    @property
    def _dtype(self) -> str:
        return str(main_dtype(self.tensors)).removeprefix("torch.")


def _hashes(pair: ModelPair, provenance: Mapping[str, Any], watch: Watch | None) -> AbstractContextManager[Hashes]:
    """The fingerprints of both parents, as far as they are not known already; None where they are not wanted."""
    known = [provenance.get(side, {}).get("sha256") for side in SIDES]
    if all(known) or watch is None:
        return nullcontext(lambda: known)
    parents = [pair.parent(side) for side in SIDES]
    return fingerprints_beside(parents, watch("hashing both parents", sum(p.bytes for q in parents for p in q.parts)))


def _finite(merger: Merger, point: MergePoint, name: str, hashes: Hashes) -> Iterator[torch.Tensor]:
    """The pieces of a tensor; a parent that is not finite itself is the reason to give for one that is not."""
    for _, piece in merger.pieces(point, name):
        if not is_finite(piece):
            hashes()
            raise CheckpointError(f"tensor {name} is not finite at this lambda and dtype; nothing was written")
        yield piece


def _measured(results: "Results", point: MergePoint) -> Measured:
    """What the run found of the base, `point` and the aligned model by the method that selected it."""
    from merge_calib.answers import MEAN

    confidence = results.confidences[0]
    models = {"base": MergePoint("linear", 0.0), "this merge": point, "aligned": MergePoint("linear", 1.0)}
    tasks = results.tasks_of(confidence)
    rows = [
        {"model": model, "split": results.judged, "task": task, **_numbers(results, found)}
        for task in (*tasks, *([MEAN] if len(tasks) > 1 else []))
        for model, place in models.items()
        if (found := results.row(place, task, confidence)) is not None
    ]
    chosen = (
        "The point was chosen on other questions than these"
        if results.judged == "report"
        else "The point was chosen on these very questions; frontier.json of the run judges the procedure"
    )
    how = (
        f"Confidence was read by the method `{confidence}`; ECE and SCE have {results.run.plan['bins']} bins. "
        f"{chosen}. In brackets 95 % intervals; ECE and SCE of a perfectly calibrated model are not 0 either."
    )
    return Measured(rows, how, results.selection.rule)


def _numbers(results: "Results", row: "Result") -> dict[str, Any]:
    """The measures of a row, with an interval where they have one."""
    found: dict[str, Any] = {"n": row.measurement.n}
    for measure in ("accuracy", "ece", "sce", "nll"):
        found[measure] = getattr(row.measurement, measure)
        estimate = results.estimate(row, measure)
        if estimate is not None:
            found |= {f"{measure}_low": estimate.low, f"{measure}_high": estimate.high}
    return found
