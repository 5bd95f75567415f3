"""Prompts that a model shall answer in its own words: read from a file, and written as the model is given them."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from merge_calib.errors import InputError
from merge_calib.scores import Integers
from merge_calib.scoring.encoder import Encoder
from merge_calib.tasks.lines import located, read_lines, read_objects, text

SHIPPED = Path(__file__).parents[1] / "prompts.jsonl"
_DATE = "26 Jul 2024"  # templates that tell the date take it from here: the day must not change what is answered


@dataclass(frozen=True)
class Prompts:
    """Prompts in the order of their file, no two alike; is_given: whether the user named the file."""

    texts: tuple[str, ...]
    source: str
    is_given: bool

    @property
    def sha256(self) -> str:
        """Hash of the texts."""
        return hashlib.sha256(json.dumps(self.texts, ensure_ascii=False).encode()).hexdigest()


def read_prompts(path: Path | None) -> Prompts:
    """The prompts of a .jsonl file of {"prompt": "..."}, or of a .txt file with a prompt a line; None: those shipped.

    Raises InputError as FILE:LINE for a line that holds no prompt, or one that stands in the file already.
    """
    if path is None:
        return Prompts(_read(SHIPPED), "shipped with merge-calib", False)
    if path.suffix not in (".jsonl", ".txt"):
        raise InputError(f'--prompts {path}: a file of {{"prompt": "..."}} ends in .jsonl, one of plain lines in .txt')
    with located("--prompts"):
        return Prompts(_read(path), str(path), True)


def encode_prompts(tokenizer: Any, prompts: Sequence[str], longest: int) -> tuple[list[Integers], bool]:
    """The ids of each prompt as the model is given it, and whether that is through the tokenizer's chat template.

    A tokenizer without a template, or with one that takes no message of a user alone, gives the plain text after its
    own BOS.
    """
    before = Encoder(tokenizer, longest).bos
    texts, is_chat = list(prompts), False
    if getattr(tokenizer, "chat_template", None):
        try:
            texts = [_through_template(tokenizer, prompt) for prompt in prompts]
            before, is_chat = [], True
        except Exception:  # the template is code that comes with the model
            pass
    ids = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    return [np.array([*before, *each], dtype=np.int64) for each in ids], is_chat


def end_tokens(tokenizer: Any, folder: Path, config: Mapping[str, Any]) -> frozenset[int]:
    """The tokens that end a response: what tokenizer, config and the generation config in `folder` say, all of them."""
    try:
        generation = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        generation = {}
    found = [getattr(tokenizer, "eos_token_id", None)]
    for value in (config.get("eos_token_id"), generation.get("eos_token_id")):
        found += value if isinstance(value, list) else [value]
    return frozenset(id for id in found if isinstance(id, int))


def _read(path: Path) -> tuple[str, ...]:
    places: dict[str, str] = {}
    for place, prompt in _jsonl(path) if path.suffix == ".jsonl" else _txt(path):
        with located(place):
            if not prompt.strip():
                raise InputError("the prompt is empty")
            if prompt in places:
                raise InputError(f"the prompt stands already at {places[prompt]}")
        places[prompt] = place
    return tuple(places)


def _jsonl(path: Path) -> Iterator[tuple[str, str]]:
    for place, values in read_objects(path):
        with located(place):
            prompt = text(values, "prompt")
        yield place, prompt


def _txt(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(read_lines(path), 1):
        yield f"{path}:{number}", line.strip()


def _through_template(tokenizer: Any, prompt: str) -> str:
    message = {"role": "user", "content": prompt}
    options = {"tokenize": False, "add_generation_prompt": True, "date_string": _DATE}
    return str(tokenizer.apply_chat_template([message], **options))
