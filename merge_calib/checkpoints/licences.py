"""Under which licence a merge may stand: what the parents' folders say, and the stricter of two."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# How much a licence asks of those who pass a model on, by the names that the hub has for licences. Whatever is not
# listed (share-alike, copyleft, non-commercial, a company's own) restricts use or derivatives and has the last rank.
RANKS = {
    "nothing": ("cc0-1.0", "unlicense", "wtfpl", "0bsd", "mit-0", "pddl"),
    "its notice": (
        "mit",
        "bsd",
        "bsd-2-clause",
        "bsd-3-clause",
        "bsd-3-clause-clear",
        "isc",
        "zlib",
        "bsl-1.0",
        "ncsa",
    ),
    "its notice and a note of changes": ("apache-2.0", "afl-3.0", "ecl-2.0"),
    "attribution": ("cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "odc-by", "cdla-permissive-2.0"),
}
RESTRICTED = len(RANKS)
_RANK_OF = {name: rank for rank, names in enumerate(RANKS.values()) for name in names}
_FILES = re.compile(r"(LICEN[SC]E|COPYING|NOTICE|USE_POLICY)([-._].*)?", re.IGNORECASE)
_SAYS_NOTHING = ("unknown", "")


@dataclass(frozen=True)
class Licence:
    """What a folder says of its licence.

    id: the hub's name for it, `other` for one that only `name` and `link` describe, None where nothing says which
    files: of its text, not read
    """

    id: str | None = None
    name: str | None = None
    link: str | None = None
    files: tuple[Path, ...] = ()

    @property
    def title(self) -> str | None:
        """How it is called; None where nothing says so."""
        return self.name or (None if self.id in (None, "other") else self.id)

    @property
    def rank(self) -> int:
        return _RANK_OF.get(self.id or "", RESTRICTED)

    def is_same(self, other: "Licence") -> bool:
        """Whether both name one licence; two without a name or a link may be two."""
        same = (self.id, self.name, self.link) == (other.id, other.name, other.link)
        return same and (self.title or self.link) is not None


@dataclass(frozen=True)
class Standing:
    """What is claimed for a merge, and a sentence that says why; nothing is claimed where `licence` says nothing."""

    licence: Licence
    why: str


def read_licence(folder: Path) -> Licence:
    """What README.md of a model's folder says in its front matter, and the files that hold a licence's text."""
    files = tuple(sorted(path for path in folder.iterdir() if path.is_file() and is_licence(path.name)))
    said = _front_matter(folder / "README.md")
    id, name, link = (_text(said.get(key)) for key in ("license", "license_name", "license_link"))
    if id is None or id.lower() in _SAYS_NOTHING:
        return Licence(files=files)
    return Licence(id.lower(), name, link, files)


def is_licence(name: str) -> bool:
    """Whether a file is the text of a licence, or belongs to one."""
    return _FILES.fullmatch(name) is not None


def joint_licence(parents: Sequence[tuple[str, Licence]]) -> Standing:
    """The licence of what is made from all `parents`, each given with what to call it.

    | parents say                                         | the merge                                               |
    |-----------------------------------------------------|---------------------------------------------------------|
    | all the same                                        | that                                                    |
    | different ones, all but one of a lower rank         | the one of the highest rank                             |
    | different ones, several of the highest rank         | `other`, which names these; none if one has no name     |
    | one says nothing, or only by a file                 | none                                                    |
    """
    said = " ".join(_said(who, licence) for who, licence in parents)
    if any(licence.id is None for _, licence in parents):
        return Standing(Licence(), f"{said} So no licence is claimed for the merge.")
    top = max(licence.rank for _, licence in parents)
    strict: list[Licence] = []
    for licence in (licence for _, licence in parents if licence.rank == top):
        if not any(licence.is_same(other) for other in strict):
            strict.append(licence)
    if len(strict) == 1:
        alike = all(licence.is_same(strict[0]) for _, licence in parents)
        return Standing(strict[0], said if alike else f"{said} The stricter one is named for the merge.")
    titles = [licence.title for licence in strict]
    if None in titles:
        return Standing(Licence(), f"{said} Not all of these have a name, so no licence is claimed for the merge.")
    both = Licence("other", "-and-".join(str(title) for title in titles))
    return Standing(both, f"{said} None of these is the stricter one, so the merge is under each of them.")


def link_in(licence: Licence, named: Mapping[str, Path]) -> str | None:
    """The link to the licence's text, one to a file beside the card as that is called among `named_files`."""
    if licence.link is None or "://" in licence.link:
        return licence.link
    linked = [new for new, path in named.items() if path.name == licence.link.removeprefix("./")]
    return next((new for new in linked if named[new] in licence.files), linked[0] if linked else None)


def named_files(parents: Iterable[tuple[str, Licence]]) -> dict[str, Path]:
    """All files of licences by the names that they can have in one folder: `LICENSE`, or `LICENSE-base` where several
    parents have different ones."""
    held: dict[str, dict[bytes, tuple[str, Path]]] = {}
    for who, licence in parents:
        for path in licence.files:
            held.setdefault(path.name, {}).setdefault(path.read_bytes(), (who, path))
    named: dict[str, Path] = {}
    for name, contents in held.items():
        for who, path in contents.values():
            new = name if len(contents) == 1 else _free(f"{path.stem}-{_plain(who)}", path.suffix, named)
            named[new] = path
    return named


def _free(stem: str, suffix: str, taken: Iterable[str]) -> str:
    names = [f"{stem}{suffix}", *(f"{stem}-{i}{suffix}" for i in range(2, 100))]
    return next(name for name in names if name not in set(taken))


def _plain(who: str) -> str:
    return re.sub(r"[^\w.]+", "-", who).strip("-")


def _said(who: str, licence: Licence) -> str:
    if licence.id is not None:
        return f"The {who} is under {licence.title or 'a licence of its own that has no name'}."
    if licence.files:
        return f"The {who} says its licence only in {', '.join(path.name for path in licence.files)}, copied here."
    return f"The {who} does not say its licence."


def _front_matter(path: Path) -> dict[str, Any]:
    """The YAML at the top of a model card; nothing where there is none or it cannot be read."""
    from yaml import YAMLError, safe_load  # late: most commands need no YAML

    try:
        text = path.read_text(encoding="utf-8").lstrip("\ufeff")
        found = re.match(r"---[ \t]*\n(.*?)\n---[ \t]*(\n|$)", text.replace("\r\n", "\n"), re.DOTALL)
        said = safe_load(found.group(1)) if found else None
    except (OSError, UnicodeError, YAMLError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _text(value: Any) -> str | None:
    """A string, or the only one of a list."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value.strip() if isinstance(value, str) else None
