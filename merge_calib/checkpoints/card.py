"""The model card of a merge: README.md, with front matter that the hub reads."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from merge_calib.checkpoints.licences import Standing

MISSING = "–"
_MEASURES = ("accuracy", "ece", "sce", "nll")
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")  # what JSON leaves as it is and YAML refuses

Row = Mapping[str, Any]


@dataclass(frozen=True)
class CardParent:
    """A parent as the card names it.

    model: how it is called; ids: the hub ids of the models it is made of; revision: of each that has one
    sha256: its fingerprint, None where it was not made
    """

    side: str
    model: str
    ids: tuple[str, ...]
    revision: str | None
    sha256: str | None


@dataclass(frozen=True)
class Measured:
    """What was measured of a merge and its parents.

    rows: with `model`, `split`, `task`, `n`, `accuracy`, `ece`, `sce`, `nll`, and `accuracy_low`, `accuracy_high` and
        so on where an interval is known; None for what is not defined
    how: a sentence on how confidence was read
    rule: by which the point was selected on these very questions, None where it was not
    """

    rows: Sequence[Row]
    how: str = ""
    rule: str | None = None


@dataclass(frozen=True)
class Card:
    """All that a model card says.

    point: as `MergePoint.record` gives it; version: of merge-calib; facts: as `Merger.facts` gives them
    """

    name: str
    point: Mapping[str, Any]
    dtype: str
    parents: tuple[CardParent, ...]
    standing: Standing
    licence_link: str | None
    licence_files: tuple[str, ...]
    version: str
    measured: Measured | None = None
    facts: Mapping[str, int] = field(default_factory=dict)
    has_tokenizer: bool = True

    def text(self) -> str:
        """The card, Markdown below YAML."""
        parts = [self._about(), self._parents(), self._merging(), self._measured(), self._licence(), self._use()]
        return _front_matter(self._metadata()) + "\n" + "\n".join(part for part in parts if part)

    def _metadata(self) -> dict[str, str | list[str]]:
        licence = self.standing.licence
        known = {"license": licence.id, "license_name": licence.name, "license_link": self.licence_link}
        ids = list(dict.fromkeys(id for parent in self.parents for id in parent.ids))
        parents: dict[str, str | list[str]] = {"base_model": ids} if ids else {}
        return {
            **parents,
            "base_model_relation": "merge",
            "library_name": "transformers",
            "tags": ["merge", "merge-calib"],
            **{key: value for key, value in known.items() if value is not None and licence.id is not None},
        }

    def _about(self) -> str:
        models = " and ".join(_code(parent.model) for parent in self.parents)
        return (
            f"# {_plain(self.name)}\n\n"
            f"A merge of a base language model and its aligned version, {models}: {self._place()}. Lambda 0 is the "
            "base, lambda 1 the aligned model, and more than 1 amplifies the alignment. It was made with merge-calib "
            f"{self.version}, without any training.\n"
        )

    def _place(self) -> str:
        method = f"by the method {_code(self.point['method'])}"
        if self.point.get("groups"):
            return f"{method}, at a lambda of its own for each group of tensors"
        return f"{method} at lambda {self.point['lambda']:.10g}"

    def _parents(self) -> str:
        rows = [
            [parent.side, _code(parent.model), _code(parent.revision), _code(parent.sha256)] for parent in self.parents
        ]
        note = "\nA fingerprint is the SHA-256 of all names, dtypes, shapes and values, however they lie in files.\n"
        return "## Parents\n\n" + _table(["", "model", "revision", "fingerprint"], rows) + note

    def _merging(self) -> str:
        lines = [f"- method: {_code(self.point['method'])}"]
        lines += [f"- {_code(name)}: {value:.10g}" for name, value in self.point.get("options", {}).items()]
        if self.point.get("groups"):
            lines += [f"- lambda of {_code(group)}: {lam:.10g}" for group, lam in self.point["groups"].items()]
        else:
            lines.append(f"- lambda: {self.point['lambda']:.10g}")
        if self.facts:
            share = f"{self.facts['slerped_tensors']} of {self.facts['tensors']} tensors"
            lines.append(f"- truly turned: {share}; the others have all but one direction and were merged linearly")
        lines.append(f"- merged in float32, rounded once to {_code(self.dtype)}")
        return "## How it was made\n\n" + "".join(f"{line}\n" for line in lines)

    def _measured(self) -> str:
        if self.measured is None or not self.measured.rows:
            return ""
        head = ["model", "split", "task", "questions", "accuracy", "ECE", "SCE", "NLL"]
        rows = [
            [*(_plain(str(row[key])) for key in ("model", "split", "task")), _count(row.get("n"))]
            + [_value(row, measure) for measure in _MEASURES]
            for row in self.measured.rows
        ]
        said = [self.measured.how] if self.measured.how else []
        if self.measured.rule is not None:
            said.append(f"The rule that chose this merge: {_plain(self.measured.rule)}.")
        text = "".join(f"\n{sentence}\n" for sentence in said)
        return f"## Accuracy and calibration\n\n{_table(head, rows, words=3)}{text}"

    def _licence(self) -> str:
        files = ", ".join(map(_code, self.licence_files))
        copied = f"\nWhat the parents say is in {files}.\n" if files else ""
        return f"## Licence\n\n{_plain(self.standing.why)}\n{copied}"

    def _use(self) -> str:
        """How to load it; without a tokenizer, the model alone."""
        names = "AutoModelForCausalLM, AutoTokenizer" if self.has_tokenizer else "AutoModelForCausalLM"
        tokenizer = 'tokenizer = AutoTokenizer.from_pretrained("PATH")\n' if self.has_tokenizer else ""
        return (
            f"## How to load it\n\n```python\nfrom transformers import {names}\n\n"
            'model = AutoModelForCausalLM.from_pretrained("PATH")  # of this folder, or its id on the hub\n'
            f"{tokenizer}```\n"
        )


def _front_matter(metadata: Mapping[str, str | Sequence[str]]) -> str:
    lines = []
    for key, value in metadata.items():
        if isinstance(value, str):
            lines.append(f"{key}: {_quoted(value)}\n")
        else:
            lines += [f"{key}:\n", *(f"- {_quoted(item)}\n" for item in value)]
    return f"---\n{''.join(lines)}---\n"


def _quoted(text: str) -> str:
    """A string as YAML takes it; a JSON string is one, once it holds nothing that YAML cannot print."""
    valid = text.encode("utf-8", "replace").decode()
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found.group()):04x}", json.dumps(valid, ensure_ascii=False))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 4) -> str:
    rule = [":--" if i < words else "--:" for i in range(len(head))]
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rule, *rows))


def _code(text: str | None) -> str:
    """Markdown code that may stand in a table."""
    return f"`{_line(text).replace('`', chr(39)).replace('|', chr(92) + '|')}`" if text else MISSING


def _plain(text: str) -> str:
    """Words with no meaning in Markdown or HTML."""
    return re.sub(r"([\\`*_|<>\[\]#])", r"\\\1", _line(text))


def _line(text: str) -> str:
    return " ".join(text.encode("utf-8", "replace").decode().split())


def _count(n: int | None) -> str:
    return MISSING if n is None else f"{n:,}"


def _value(row: Row, measure: str) -> str:
    value, low, high = (row.get(f"{measure}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return MISSING
    return f"{value:.4f}" + ("" if low is None or high is None else f" ({low:.4f} to {high:.4f})")
