"""The exact texts that a model is shown."""

from collections.abc import Sequence

from merge_calib.questions import LETTERS, Passage, Question, TaskSet

PROMPTS = 1  # raised whenever a text below changes, so that no run mixes two wordings


def choice_prompt(task: TaskSet, q: Question, shots: Sequence[Question] = ()) -> str:
    """The text after which the `choice` method reads the letters ` A`, ` B`, ...

    `shots` are worked examples that stand before the question, each with its right letter.
    Sources: MMLU, Hendrycks et al. 2021; ARC, HellaSwag and PIQA, the prompt of Yang et al. 2024 as Oh & Hwang 2024
    use it. MMLU's questions lose blanks at their ends, as in lm-eval; no other text is changed.
    """
    return choice_header(task, q) + choice_body(task, q, shots)


def choice_header(task: TaskSet, q: Question) -> str:
    """What MMLU says once before all questions; a chat says it as its system message. Nothing for other styles."""
    return f"{_MMLU_HEADER} {q.subject}.\n\n" if task.style == "mmlu" else ""


def choice_body(task: TaskSet, q: Question, shots: Sequence[Question] = ()) -> str:
    """The prompt without its header."""
    examples = [f"{_asked(task, shot)} {LETTERS[shot.answer]}\n\n" for shot in shots]
    return f"{''.join(examples)}{_asked(task, q)}"


def continuation_context(q: Question, shots: Sequence[Question] = ()) -> str:
    """The text before each choice; a question's own context is taken verbatim.

    `shots` are worked examples that stand before the question, each with its right choice.
    """
    examples = [f"{_context(shot)}{continuation(shot.choices[shot.answer])}\n\n" for shot in shots]
    return f"{''.join(examples)}{_context(q)}"


def continuation(choice: str) -> str:
    """The text that a continuation method scores: one leading space, then the choice."""
    return f" {choice}"


def finish_prompt(passage: Passage) -> str:
    """What Zhu et al. 2023 ask an aligned model before a text whose next token they score, on a line of its own."""
    return "Finish this sentence:\n" if passage.answer is None else "Finish this Wikipedia description:\n"


_MMLU_HEADER = "The following are multiple choice questions (with answers) about"


def _asked(task: TaskSet, q: Question) -> str:
    options = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, q.choices, strict=False)]
    lines = "\n".join(options)
    if task.style == "custom":
        return task.prompt.format(question=q.question, options=lines, subject=q.subject)
    if task.style == "mmlu":
        return f"{q.question.strip()}\n{lines}\nAnswer:"
    if task.style == "medmcqa":
        return f"Question: {q.question}\nChoices:\n{lines}\nAnswer:"
    if task.style == "select":
        asked = f"Select one of the choices that answers the following question: {q.question}"
        return f"{asked} Choices: {' '.join(options)} Answer:"
    return f"{q.question}\n{lines}\nAnswer:"


def _context(q: Question) -> str:
    return f"Question: {q.question}\nAnswer:" if q.context is None else q.context
