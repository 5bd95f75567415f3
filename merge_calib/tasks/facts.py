"""Facts to complete: the first token of an entity is to be predicted (Zhu et al. 2023 on T-REx).

A folder in the layout of ParaRel (Elazar et al. 2021, arXiv 2102.01017): `trex_lms_vocab/RELATION.jsonl` with a fact a
line, `{"sub_label": "...", "obj_label": "...", "uuid": "..."}`, and `graphs_json/RELATION.jsonl` with a cloze pattern a
line, `{"pattern": "[X] was born in [Y]."}`. Each relation is asked with its first pattern that ends with [Y], a full
stop aside, since only what stands before the entity is read; a relation that has none is left out. The id of a fact is
RELATION-UUID, its subject the relation.
"""

import re
from pathlib import Path

from merge_calib.errors import InputError
from merge_calib.questions import Passage, PassageSet
from merge_calib.tasks.benchmark import check_unicode
from merge_calib.tasks.ids import Ids
from merge_calib.tasks.lines import Values, located, read_objects, text

FACTS, PATTERNS = "trex_lms_vocab", "graphs_json"
ENTITY_LAST = re.compile(r"(?P<before>.*\[X\](?:.*\S)?)\s+\[Y\]\s*\.?\s*")


def load_facts(name: str, folder: Path) -> PassageSet:
    """All facts whose relation has a pattern that ends with the entity."""
    files = sorted((folder / FACTS).glob("*.jsonl"))
    if not files:
        raise InputError(f"{folder}: facts are read from {FACTS}/*.jsonl and {PATTERNS}/*.jsonl, and there are none")
    ids, passages, skipped = Ids(), [], []
    for file in files:
        pattern = find_pattern(folder / PATTERNS / file.name)
        if pattern is None:
            skipped.append(file.stem)
            continue
        for place, values in read_objects(file):
            with located(place):
                passages.append(_passage(ids, place, values, pattern, file.stem))
    return PassageSet(name, tuple(passages), _source(folder, len(files), skipped))


def find_pattern(file: Path) -> str | None:
    """What stands before [Y] in the first pattern that ends with it; None without the file or such a pattern."""
    if not file.is_file():
        return None
    for place, values in read_objects(file):
        with located(place):
            found = ENTITY_LAST.fullmatch(text(values, "pattern"))
        if found and "[Y]" not in found["before"]:
            return found["before"]
    return None


def _passage(ids: Ids, place: str, values: Values, pattern: str, relation: str) -> Passage:
    subject, entity, uuid = (text(values, key) for key in ("sub_label", "obj_label", "uuid"))
    if not subject.strip():
        raise InputError("'sub_label' is empty")
    check_unicode(subject, entity, uuid)
    id = ids.take(f"{relation}-{uuid}", place)
    return Passage(id, pattern.replace("[X]", subject), answer=entity.strip(), subject=relation)


def _source(folder: Path, relations: int, skipped: list[str]) -> str:
    if not skipped:
        return f"{folder}: {relations} relations"
    without = f"{len(skipped)} without a pattern that ends with the entity are left out ({', '.join(skipped)})"
    return f"{folder}: {relations - len(skipped)} relations; {without}"
