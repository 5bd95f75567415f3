"""The exact texts that a model is shown."""

from merge_calib.questions import LETTERS, Question, TaskSet

PROMPTS = 1  # raised whenever a text below changes, so that no run mixes two wordings


def choice_prompt(task: TaskSet, q: Question) -> str:
    """The text after which the `choice` method reads the letters ` A`, ` B`, ...

    Sources: MMLU, Hendrycks et al. 2021; ARC, HellaSwag and PIQA, the prompt of Yang et al. 2024 as Oh & Hwang 2024
    use it. MMLU's questions lose blanks at their ends, as in lm-eval; no other text is changed.
    """
    options = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, q.choices, strict=False)]
    lines = "\n".join(options)
    if task.style == "mmlu":
        header = f"The following are multiple choice questions (with answers) about {q.subject}."
        return f"{header}\n\n{q.question.strip()}\n{lines}\nAnswer:"
    if task.style == "medmcqa":
        return f"Question: {q.question}\nChoices:\n{lines}\nAnswer:"
    if task.style == "select":
        asked = f"Select one of the choices that answers the following question: {q.question}"
        return f"{asked} Choices: {' '.join(options)} Answer:"
    return f"{q.question}\n{lines}\nAnswer:"


def continuation_context(q: Question) -> str:
    """The text before each choice; a question's own context is taken verbatim."""
    return f"Question: {q.question}\nAnswer:" if q.context is None else q.context


def continuation(choice: str) -> str:
    """The text that a continuation method scores: one leading space, then the choice."""
    return f" {choice}"
