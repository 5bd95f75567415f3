"""Which tensors of the two parents belong together, what is against merging them, and what a user should know."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from merge_calib.checkpoints.checkpoint import TensorInfo
from merge_calib.checkpoints.names import SENSES, canonical, is_derived, kind_of
from merge_calib.checkpoints.parent import Parent
from merge_calib.checkpoints.settings import text_config

Side = Literal["base", "aligned"]
Vocab = Literal["error", "aligned", "base"]
EMBEDDING = re.compile(r"(^|\.)(embed_tokens|embed_in|wte|word_embeddings|tok_embeddings)\.weight$")
_HEAD = re.compile(r"^(lm_head|embed_out|output|output_layer)\.weight$|\.output_layer\.weight$")
_ROWS = 4096  # read at once to see whether a head is the embedding


@dataclass(frozen=True)
class Slot:
    """One tensor of the merge, and the tensor of each parent that goes there.

    base, aligned: the parents' own names, None where a parent has none; of a tied head, the name of its embedding
    common: how many rows (of the first dimension) are merged; 0 for what is copied from one parent
    rest: the parent that the rows behind `common` come from
    dtype: as the aligned parent stores it, or the base where only that has it
    """

    name: str
    base: str | None
    aligned: str | None
    shape: tuple[int, ...]
    common: int
    rest: Side
    dtype: torch.dtype

    def of(self, side: Side) -> str | None:
        """The name that `side` has for it."""
        return self.base if side == "base" else self.aligned

    @property
    def rows(self) -> int:
        """Length of the first dimension; a scalar is one row."""
        return self.shape[0] if self.shape else 1

    @property
    def row_size(self) -> int:
        """Elements in a row."""
        return math.prod(self.shape[1:])

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """What it takes in its dtype."""
        return self.size * self.dtype.itemsize


@dataclass(frozen=True)
class Fit:
    """How two parents fit.

    host: the parent whose names, vocabulary, config and tokenizer the merge has
    slots: by the name in the merged checkpoint; differences: what is against merging; notes: what a user should know
    new_head: name of a head that the merge stores although its host ties it to the embedding
    """

    host: Side
    slots: dict[str, Slot] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    new_head: str | None = None
    has_two_vocabularies: bool = False


def fit(base: Parent, aligned: Parent, vocab: Vocab) -> Fit:
    """Match the tensors of both parents, from headers and configs alone."""
    return _Matching(base, aligned, vocab).fit()


def is_wrapped(parent: Parent) -> bool:
    """Whether the parent is a multimodal checkpoint, in which a text model is one part."""
    return "text_config" in parent.config


def stores_tied_head(parent: Parent, names: Mapping[str, str]) -> bool:
    """Whether the parent ties its head to its embedding and stores the one tensor twice; names: by their short form."""
    head, embedding = _head(names), _embedding(names)
    ties = text_config(parent.config).get("tie_word_embeddings", parent.config.get("tie_word_embeddings"))
    if head is None or embedding is None or not ties:
        return False
    one, other = names[head], names[embedding]
    if parent.tensors[one].shape != parent.tensors[other].shape:
        return False
    rows = parent.tensors[one].shape[0]
    blocks = ((start, min(start + _ROWS, rows)) for start in range(0, rows, _ROWS))
    return all(torch.equal(parent.read_rows(one, *block), parent.read_rows(other, *block)) for block in blocks)


def _head(names: Iterable[str]) -> str | None:
    return next((short for short in names if kind_of(short) == "head" and _HEAD.search(short)), None)


def _embedding(names: Iterable[str]) -> str | None:
    return next((short for short in names if EMBEDDING.search(short)), None)


def vocabulary(config: Mapping[str, Any]) -> int | None:
    """Number of tokens that a config says its model knows."""
    size = config.get("vocab_size", config.get("text_config", {}).get("vocab_size"))
    return None if size is None else int(size)


class _Matching:
    """The work of `fit`: names by their short form, a side each."""

    def __init__(self, base: Parent, aligned: Parent, vocab: Vocab) -> None:
        self._vocab = vocab
        self._parents: dict[Side, Parent] = {"base": base, "aligned": aligned}
        self._host: Side = "base" if vocab == "base" else "aligned"
        self._other: Side = "aligned" if vocab == "base" else "base"
        self._names: dict[Side, dict[str, str]] = {side: {} for side in self._parents}
        self._notes: list[str] = []
        self._differences: list[str] = []
        self._vocabularies: set[tuple[int, int]] = set()

    def fit(self) -> Fit:
        for side in self._parents:
            self._read_names(side)
        if is_wrapped(self._parents["base"]) != is_wrapped(self._parents["aligned"]):
            self._notes.append("one parent is multimodal, the other its text model: tensors are matched without prefix")
        new_head = self._match_heads()
        self._note_lonely()
        slots = [self._slot(short) for short in sorted(self._names[self._host])]
        self._note_vocabularies()
        fitting = {slot.name: slot for slot in slots if slot is not None}
        return Fit(self._host, fitting, self._differences, self._notes, new_head, bool(self._vocabularies))

    def _read_names(self, side: Side) -> None:
        """The names of one parent, without what its model computes, and without a tied head that is stored as well."""
        names, parent = self._names[side], self._parents[side]
        derived = 0
        for name, info in parent.tensors.items():
            if is_derived(name, info.shape):
                derived += 1
            elif names.setdefault(canonical(name), name) != name:
                self._differences.append(f"{name} and {names[canonical(name)]} of {side} are one tensor by their names")
        if derived:
            self._notes.append(f"{derived} tensor(s) of {side} are what its model computes from its config: left out")
        head = _head(names)
        if head is not None and stores_tied_head(parent, names):
            del names[head]

    def _match_heads(self) -> str | None:
        """Give a parent that ties its head the embedding for a head; returns a head that the host has not stored."""
        new = None
        for side, other in ((self._host, self._other), (self._other, self._host)):
            head, embedding = _head(self._names[other]), _embedding(self._names[side])
            if head is None or head in self._names[side] or embedding is None:
                continue
            self._names[side][head] = self._names[side][embedding]
            self._notes.append(
                f"{side} ties its head to its embedding and {other} does not: the merge has a head of its own, between "
                f"the embedding of {side} and the head of {other}"
            )
            if side == self._host:
                new = head
        return self._spelled(new) if new is not None else None

    def _spelled(self, short: str) -> str:
        """A name that the host has not, as it would spell it."""
        name = self._names[self._other][short]
        if is_wrapped(self._parents["base"]) == is_wrapped(self._parents["aligned"]):
            return name
        inner = any(n.startswith("language_model.") for n in self._parents[self._host].tensors)
        return f"language_model.{short}" if inner else short

    def _note_lonely(self) -> None:
        """Tensors that one parent alone has: those of other senses are kept or left out, others are a difference."""
        for side, other in ((self._host, self._other), (self._other, self._host)):
            lonely = sorted(self._names[side].keys() - self._names[other].keys())
            strange = [self._names[side][short] for short in lonely if kind_of(short) != SENSES]
            if strange:
                self._differences.append(f"{len(strange)} tensor(s) only in {side}: {listed(strange)}")
            senses = len(lonely) - len(strange)
            if senses:
                fate = f"copied from {side}" if side == self._host else "left out"
                self._notes.append(f"{senses} tensor(s) of other senses than text are only in {side}: {fate}")

    def _slot(self, short: str) -> Slot | None:
        """The tensor of the merge called `short`, None where the parents' tensors do not fit."""
        names = {side: self._names[side].get(short) for side in self._names}
        infos = {side: self._info(side, name) for side, name in names.items()}
        host, other, aligned = infos[self._host], infos[self._other], infos["aligned"]
        assert host is not None
        name = names[self._host] or short
        if kind_of(short) == "head" and kind_of(name) != "head":
            name = self._spelled(short)
        dtype = (aligned or host).dtype
        if other is None:
            return Slot(name, names["base"], names["aligned"], host.shape, 0, self._host, dtype)
        assert aligned is not None
        if kind_of(short) == SENSES or not (host.dtype.is_floating_point or other.dtype.is_floating_point):
            return Slot(name, names["base"], names["aligned"], aligned.shape, 0, "aligned", dtype)
        if not self._fits(short, name, host, other):
            return None
        common = min(host.shape[0], other.shape[0]) if host.shape else 1
        return Slot(name, names["base"], names["aligned"], host.shape, common, self._host, dtype)

    def _info(self, side: Side, name: str | None) -> TensorInfo | None:
        return None if name is None else self._parents[side].tensors[name]

    def _fits(self, short: str, name: str, host: TensorInfo, other: TensorInfo) -> bool:
        """Whether two tensors can be merged; what is against it is noted."""
        base, aligned = (host, other) if self._host == "base" else (other, host)
        if host.dtype.is_floating_point != other.dtype.is_floating_point:
            both = f"(base / aligned): {base.dtype} / {aligned.dtype}"
            self._differences.append(f"tensor {name} is floating in one parent only {both}")
            return False
        if host.shape == other.shape:
            return True
        if not self._differ_in_vocabulary(short, base, aligned):
            shapes = f"(base / aligned): {list(base.shape)} / {list(aligned.shape)}"
            self._differences.append(f"tensor {name} differs in shape {shapes}")
            return False
        self._vocabularies.add((base.shape[0], aligned.shape[0]))
        return True

    def _differ_in_vocabulary(self, short: str, base: TensorInfo, aligned: TensorInfo) -> bool:
        """Whether the shapes differ in the number of tokens alone, each being that of its own config."""
        if kind_of(short) not in ("embeddings", "head") or base.shape[1:] != aligned.shape[1:]:
            return False
        sizes: tuple[tuple[Side, TensorInfo], ...] = (("base", base), ("aligned", aligned))
        return all(vocabulary(self._parents[side].config) in (None, info.shape[0]) for side, info in sizes)

    def _note_vocabularies(self) -> None:
        for base, aligned in sorted(self._vocabularies):
            sizes = f"the vocabularies have {base:,} (base) and {aligned:,} (aligned) rows"
            if self._vocab == "error":
                self._differences.append(
                    f"{sizes}: --vocab aligned gives the merge the aligned model's rows, --vocab base the base's; rows "
                    "that one parent alone has come from that parent"
                )
                continue
            own, other = (base, aligned) if self._host == "base" else (aligned, base)
            fate = (
                f"{own - other:,} rows that only {self._host} has are copied from it"
                if own > other
                else f"{other - own:,} rows that only {self._other} has are left out"
            )
            self._notes.append(f"{sizes}: the merge has {own:,}, {fate}")


def listed(items: Iterable[str], most: int = 8) -> str:
    """The first few items by comma, and how many more there are."""
    every = list(items)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
