"""Plain texts to go on with: one token of each, at a seeded place, is to be predicted (Zhu et al. 2023).

A .jsonl file holds a text a line, `{"text": "...", "id": "..."}`, the id being optional; a .txt file holds texts that
are separated by blank lines. In a folder, at any depth, a .jsonl file is read in the same way and each .txt file is one
text; other files and hidden ones are left alone.

The place of a text depends on the seed and its id alone, and the id, where none is given, on its content.
"""

import hashlib
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from merge_calib.errors import InputError
from merge_calib.questions import Passage, PassageSet, content_id
from merge_calib.tasks.benchmark import check_unicode
from merge_calib.tasks.ids import Ids
from merge_calib.tasks.lines import located, read_lines, read_objects, text
from merge_calib.tasks.own import optional_text

Found = tuple[str, str, str | None]  # place, text, id


def load_clm(name: str, path: Path, seed: int) -> PassageSet:
    """The texts of a file or a folder, each with its place."""
    ids, passages = Ids(), []
    for place, content, given in _read(path):
        with located(place):
            check_unicode(content, given or "")
            id = ids.take_made(content_id("clm", content, ()), place) if given is None else ids.take(given, place)
            passages.append(Passage(id, content, at=position(seed, id)))
    return PassageSet(name, tuple(passages), str(path))


def position(seed: int, id: str) -> float:
    """A number in [0, 1), uniform over ids: the first 53 bits of the hash of seed and id, the same everywhere."""
    digest = hashlib.sha256(f"{seed} {id}".encode()).digest()
    return (int.from_bytes(digest[:8]) >> 11) / 2**53


def _read(path: Path) -> Iterator[Found]:
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts):
                yield from _read_file(file, whole=True)
    elif path.suffix in (".jsonl", ".txt"):
        yield from _read_file(path, whole=False)
    else:
        raise InputError(f"{path}: texts are read from a folder, a .jsonl or a .txt file")


def _read_file(file: Path, whole: bool) -> Iterator[Found]:
    if file.suffix == ".jsonl":
        for place, values in read_objects(file):
            with located(place):
                found = place, text(values, "text"), optional_text(values, "id")
            yield found
    elif file.suffix == ".txt":
        lines = [line.removesuffix("\r") for line in read_lines(file)]
        yield from [(str(file), "\n".join(lines).strip("\n"), None)] if whole else _paragraphs(file, lines)


def _paragraphs(file: Path, lines: list[str]) -> Iterator[Found]:
    for blank, group in groupby(enumerate(lines, 1), key=lambda numbered: not numbered[1].strip()):
        if not blank:
            numbers, texts = zip(*group, strict=True)
            yield f"{file}:{numbers[0]}", "\n".join(texts), None
