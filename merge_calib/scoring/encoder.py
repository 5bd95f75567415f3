"""From texts to rows: everything a tokenizer decides, once for each task and way of asking."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from merge_calib.errors import ScoringError
from merge_calib.questions import LETTERS, Passage, PassageSet, Task, TaskSet
from merge_calib.scores import Integers
from merge_calib.scoring.prompts import choice_body, choice_header, continuation, continuation_context, finish_prompt
from merge_calib.scoring.rows import EncodedTask, Row

Way = Literal["choice", "continuation", "next-token"]
_DATE = "26 Jul 2024"  # what Llama 3 templates say where nobody gives a date
_AT_ONCE = 512  # questions given to the tokenizer: what it keeps of a text besides ids takes much more memory
_PROBE = "Question: Which one? Answer:"


@dataclass(frozen=True)
class Dress:
    """What stands around a question.

    shots: worked examples before it; is_chat: through the chat template, with `system` as its instruction
    finishes: next-token tasks begin with the prompt of Zhu et al.'s alignment stage
    """

    shots: int = 0
    is_chat: bool = False
    system: str | None = None
    finishes: bool = False


class Encoder:
    """Turns text into ids, with the tokenizer's own default BOS and nothing after the text.

    `max_length` is the most tokens that a row may have; longer ones lose tokens from the left, as lm-eval does it.
    In a chat the template alone says what stands before the text, and choices have no leading space, as in lm-eval.
    """

    def __init__(self, tokenizer: Any, max_length: int, dress: Dress | None = None) -> None:
        self._tokenizer = tokenizer
        self.max_length = max_length
        self.dress = dress or Dress()
        if self.dress.is_chat and not getattr(tokenizer, "chat_template", None):
            name = getattr(tokenizer, "name_or_path", "")
            raise ScoringError(f"--apply-chat-template: the tokenizer {name} has no chat template")
        bare, dressed = self._ids([_PROBE])[0], tokenizer(_PROBE, add_special_tokens=True)["input_ids"]
        starts = [i for i in range(len(dressed) - len(bare) + 1) if dressed[i : i + len(bare)] == bare]
        if not bare or not starts:
            raise ScoringError(f"the tokenizer does not say what it puts before a text: {_PROBE!r} gives {dressed}")
        self.bos: list[int] = [] if self.dress.is_chat else list(dressed[: starts[0]])

    @property
    def fingerprint(self) -> str | None:
        """Hash of all that turns text into ids; None for a tokenizer that cannot be written down."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None:
            return None
        chat = [self._tokenizer.chat_template, self._tokenizer.special_tokens_map] if self.dress.is_chat else None
        splits = getattr(self._tokenizer, "split_special_tokens", None)
        parts = [backend.to_str(), splits, self.bos, self.max_length, vars(self.dress), chat]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False, default=str).encode()).hexdigest()

    def encode(self, task: Task, way: Way) -> EncodedTask:
        """The rows of `task`, asked in one way."""
        if isinstance(task, PassageSet):
            assert way == "next-token"
            return self.next_tokens(task)
        return self.choice(task) if way == "choice" else self.continuations(task)

    def choice(self, task: TaskSet) -> EncodedTask:
        """One row a question; at its last position every letter is a candidate."""
        prompts = self._choice_prompts(task)
        form, letters = self._letters(task, prompts[0])
        rows, truncated = [], 0
        for index, ids in enumerate(self._each(prompts)):
            tokens, cut = self._cut(self.bos + ids)
            truncated += cut
            candidates = letters[: len(task.questions[index].choices)]
            rows.append(Row(_array(tokens), len(tokens) - 1, _array([candidates]), index, -1))
        return EncodedTask(tuple(rows), 0, truncated, form)

    def continuations(self, task: TaskSet) -> EncodedTask:
        """One row a choice; at each of its last positions the next token of the choice is the only candidate.

        Context and choice are encoded together and cut at the context's length; where the joint ids do not begin with
        the context's, the two are encoded apart and counted. A choice that is longer than the model takes is scored
        in windows.
        """
        pairs = self.continuation_texts(task)
        rows: list[Row] = []
        apart, truncated = 0, 0
        for first in range(0, len(pairs), _AT_ONCE):
            part = pairs[first : first + _AT_ONCE]
            context_ids = self._ids([choices[0][0] for choices in part])
            joint_ids = iter(self._ids([context + text for choices in part for context, text in choices]))
            for i, (choices, context) in enumerate(zip(part, context_ids, strict=True), first):
                for k, (_, text) in enumerate(choices):
                    joint = next(joint_ids)
                    if joint[: len(context)] != context:
                        joint = context + self._ids([text])[0]
                        apart += 1
                    where = f"task {task.name}, question {task.questions[i].id!r}, choice {k}"
                    rows += self._continuation_rows(where, (i, k), context, joint)
                    truncated += len(self.bos) + len(joint) - 1 > self.max_length
        return EncodedTask(tuple(rows), apart, truncated)

    def continuation_texts(self, task: TaskSet) -> list[list[tuple[str, str]]]:
        """For each question the pairs of context and continuation, a pair a choice."""
        strip = 1 if self.dress.is_chat else 0
        contexts = [self._dressed(continuation_context(q, task.shots(q, self.dress.shots))) for q in task.questions]
        return [
            [(context, continuation(choice)[strip:]) for choice in q.choices]
            for context, q in zip(contexts, task.questions, strict=True)
        ]

    def choice_texts(self, task: TaskSet, form: str) -> list[list[tuple[str, str]]]:
        """For each question the pairs of prompt and letter; `form` is how the first letter is written."""
        space = form.removesuffix("A")
        prompts = self._choice_prompts(task)
        return [
            [(prompt, space + letter) for letter in LETTERS[: len(q.choices)]]
            for prompt, q in zip(prompts, task.questions, strict=True)
        ]

    def next_tokens(self, task: PassageSet) -> EncodedTask:
        """One row a passage, whose last position predicts one token: that at its place, or the answer's first.

        The prompt of the alignment stage is encoded by itself, so that it does not change which token is asked for.
        """
        texts = self._each([passage.text for passage in task.passages])
        rows, apart, truncated = [], 0, 0
        for index, (passage, ids) in enumerate(zip(task.passages, texts, strict=True)):
            before, target, joined = self._next_token(task, passage, ids)
            apart += not joined
            start = self._ids([finish_prompt(passage)])[0] if self.dress.finishes else []
            if not self.bos and not start and not before:
                raise ScoringError(f"task {task.name}, {passage.id!r}: nothing stands before the token that is asked")
            tokens, cut = self._cut(self.bos + start + before)
            truncated += cut
            rows.append(Row(_array(tokens), len(tokens) - 1, _array([[target]]), index, -1))
        return EncodedTask(tuple(rows), apart, truncated)

    def _next_token(self, task: PassageSet, passage: Passage, ids: list[int]) -> tuple[list[int], int, bool]:
        if passage.answer is None:
            if len(ids) < 2:
                raise ScoringError(f"task {task.name}, {passage.id!r}: a text of {len(ids)} token(s) has none to ask")
            assert passage.at is not None
            place = 1 + int(passage.at * (len(ids) - 1))
            return ids[:place], ids[place], True
        answer = continuation(passage.answer)
        joint = self._ids([passage.text + answer])[0]
        if joint[: len(ids)] == ids and len(joint) > len(ids):
            return ids, joint[len(ids)], True
        return ids, self._ids([answer])[0][0], False

    def _continuation_rows(
        self, where: str, place: tuple[int, int], context: list[int], joint: list[int]
    ) -> Iterator[Row]:
        """One row; for a choice longer than the model takes, several windows that score each of its tokens once."""
        if not self.bos and not context:
            raise ScoringError(f"{where}: the context is empty and the tokenizer has no BOS token to begin with")
        if len(joint) == len(context):
            raise ScoringError(f"{where}: the choice has no tokens to score")
        ids, start = self.bos + joint, len(self.bos) + len(context)
        step = self.max_length if len(ids) - start <= self.max_length else max(1, self.max_length // 2)
        for begin in range(start, len(ids), step):
            end = min(begin + step, len(ids))
            tokens, _ = self._cut(ids[: end - 1])
            targets = ids[begin:end]
            yield Row(_array(tokens), len(tokens) - len(targets), _array(targets)[:, None], *place)

    def _letters(self, task: TaskSet, prompt: str) -> tuple[str, list[int]]:
        count = max(len(q.choices) for q in task.questions)
        start = self._ids([prompt])[0]
        for space in ("", " ") if self.dress.is_chat else (" ", ""):
            joint = self._ids([prompt + space + letter for letter in LETTERS[:count]])
            unknown = getattr(self._tokenizer, "unk_token_id", None)
            single = [len(ids) == len(start) + 1 and ids[:-1] == start and ids[-1] != unknown for ids in joint]
            if all(single) and len({ids[-1] for ids in joint}) == count:
                return f"{space}A", [ids[-1] for ids in joint]
        lost = LETTERS[single.index(False)] if False in single else "A"
        raise ScoringError(
            f"task {task.name}: the tokenizer has no single token of its own for the letter {lost!r} after the prompt"
        )

    def _choice_prompts(self, task: TaskSet) -> list[str]:
        return [
            self._dressed(choice_body(task, q, task.shots(q, self.dress.shots)), choice_header(task, q))
            for q in task.questions
        ]

    def _dressed(self, text: str, header: str = "") -> str:
        """Header and text as they are, or as the messages of a chat up to where the model's answer begins.

        In a chat the header belongs to the system message, as in lm-eval; where the template knows none, and the user
        has not asked for one, it stands before the text.
        """
        if not self.dress.is_chat:
            return header + text
        system = f"{self.dress.system}\n\n{header}" if self.dress.system and header else self.dress.system or header
        try:
            return self._chat(system, text)
        except Exception as error:  # the template is code that comes with the model
            if not header or self.dress.system:
                raise ScoringError(f"--apply-chat-template: {str(error).splitlines()[0]}") from error
        return self._dressed(header + text)

    def _chat(self, system: str | None, text: str) -> str:
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": text})
        # Templates that tell the date take it from here: the day of the run must not change what is asked.
        options = {"tokenize": False, "add_generation_prompt": True, "date_string": _DATE}
        return str(self._tokenizer.apply_chat_template(messages, **options))

    def _cut(self, tokens: list[int]) -> tuple[list[int], bool]:
        return tokens[-self.max_length :], len(tokens) > self.max_length

    def _each(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """The ids of one text after the other."""
        for first in range(0, len(texts), _AT_ONCE):
            yield from self._ids(texts[first : first + _AT_ONCE])

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
        ids: list[list[int]] = self._tokenizer(list(texts), **options)["input_ids"]
        return ids


def _array(values: Any) -> Integers:
    return np.asarray(values, dtype=np.int64)
