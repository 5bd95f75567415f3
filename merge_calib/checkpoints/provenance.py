"""Where the parents of a merge come from: models, revisions and licences, as far as folders and names tell."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from merge_calib.checkpoints.adapter import Adapted
from merge_calib.checkpoints.average import Average
from merge_calib.checkpoints.card import CardParent
from merge_calib.checkpoints.licences import Licence, read_licence
from merge_calib.checkpoints.locate import hub_id, snapshot_of
from merge_calib.checkpoints.pair import ModelPair
from merge_calib.checkpoints.parent import Parent
from merge_calib.checkpoints.slots import Side

SIDES: tuple[Side, Side] = ("base", "aligned")
_CALLED = {"base": "base", "aligned": "aligned model"}


def parent_record(parent: Parent, given: Mapping[str, Any], sha256: str | None) -> dict[str, Any]:
    """What merge_calib.json says of a parent; `given` is what the caller knows: `model`, and `models` where there are
    several."""
    model = given.get("model", parent.folder.name)
    more: dict[str, Any] = {}
    if isinstance(parent, Adapted):
        more["adapter_on"] = _name(parent.shape.folder)
    if isinstance(parent, Average):
        more["weights"] = list(parent.weights)
    return {**given, "model": model, **more, "revision": _revision(model, _folders(parent)), "sha256": sha256}


def card_parent(side: Side, record: Mapping[str, Any]) -> CardParent:
    """What the card says of a parent that `record` describes."""
    models = [str(model) for model in record.get("models") or [record["model"]]]
    named = [_id(model) or _name(Path(model).absolute()) for model in models]
    if "weights" in record:
        said = "average of " + ", ".join(f"{w:.4g} {name}" for w, name in zip(record["weights"], named, strict=True))
    else:
        said = named[0] + (f", an adapter on {record['adapter_on']}" if "adapter_on" in record else "")
    ids = tuple(id for id in map(_id, models) if id is not None)
    return CardParent(side, said, ids, record["revision"], record["sha256"])


def licences_of(pair: ModelPair) -> list[tuple[str, Licence]]:
    """The licence of every model that has a part in the merge, with what to call that model."""
    found: dict[Path, tuple[str, Licence]] = {}
    for side in SIDES:
        folders = _folders(pair.parent(side))
        for folder in folders:
            who = _CALLED[side] + (f" {_name(folder)}" if len(folders) > 1 else "")
            found.setdefault(folder.resolve(), (who, read_licence(folder)))
    return list(found.values())


def _folders(parent: Parent) -> list[Path]:
    """Of all checkpoints and adapters that a parent is made of."""
    return list(dict.fromkeys(file.parent for part in parent.parts for file in part.files))


def _revision(model: str, folders: Iterable[Path]) -> str | None:
    """The commit of a download, with the revision that was asked for; of several models, each with its name."""
    asked = (hub_id(model) or (model, None))[1]
    commits = [found for found in map(snapshot_of, folders) if found is not None]
    if len(commits) > 1:
        return ", ".join(f"{id} {commit}" for id, commit in commits)
    commit = commits[0][1] if commits else None
    return f"{asked} ({commit})" if asked and commit and asked != commit else commit or asked


def _name(folder: Path) -> str:
    return (snapshot_of(folder) or (folder.name, ""))[0]


def _id(model: str) -> str | None:
    """The hub id of a model, also of one in the folder of a download; None for any other folder."""
    known = hub_id(model) or snapshot_of(Path(model).absolute())
    return known[0] if known else None
