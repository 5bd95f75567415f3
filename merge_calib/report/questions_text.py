"""Which questions chose and which ones judge, in words."""

from collections.abc import Iterator
from math import ceil

from merge_calib.inference.splits import FEWEST
from merge_calib.report.text import code, count_text
from merge_calib.results import Results

_MOST_LISTED = 12


def sizes(results: Results, task: str, confidence: str) -> tuple[int, int]:
    """How many questions of a task chose and how many judge; with cross-fitting and undivided all do both."""
    answers = results.answers.get((task, confidence))
    if answers is None:
        return 0, 0
    division = answers.division
    return int(division.rows(results.chosen_on).sum()), int(division.rows(results.judged).sum())


def total_sizes(results: Results, confidence: str) -> tuple[int, int]:
    """The same for all tasks of a confidence method."""
    found = [sizes(results, task, confidence) for task in results.tasks_of(confidence)]
    return sum(chosen for chosen, _ in found), sum(judged for _, judged in found)


def split_text(results: Results) -> str:
    """Where the numbers of a sweep come from, in a sentence without its full stop."""
    chosen, judged = total_sizes(results, results.confidences[0])
    if results.judged == "report":
        return (
            f"chosen and tuned on {count_text(chosen, 'question')} (`select`), measured on the other {judged:,} "
            "(`report`)"
        )
    folds = results.analysis.cross_fit
    return (
        f"cross-fitted: {judged:,} questions in {folds} folds, each measured with what the other {folds - 1} folds "
        "chose, so that every question judges once"
    )


def too_few(results: Results) -> list[str]:
    """The tasks on which nothing is claimed, or whose point was chosen by too few, and how many questions it takes."""
    confidence = results.confidences[0]
    if not results.is_sweep or confidence not in results.choice_methods:
        return []
    lines = list(_too_few(results, confidence))
    if len(lines) <= _MOST_LISTED:
        return lines
    return [*lines[:_MOST_LISTED], f"{len(lines) - _MOST_LISTED} more tasks have too few questions."]


def _too_few(results: Results, confidence: str) -> Iterator[str]:
    for task in results.tasks_of(confidence):
        chosen, judged = sizes(results, task, confidence)
        if 0 < judged < FEWEST:
            yield (
                f"{code(task)} has {count_text(judged, 'question')} to judge by, fewer than {FEWEST}: nothing is "
                f"claimed on it. {_needed(results)}"
            )
        elif 0 < chosen < FEWEST:
            yield f"{code(task)} has only {count_text(chosen, 'question')} to choose by. {_needed(results)}"


def _needed(results: Results) -> str:
    """How many questions it takes for enough on each side."""
    if results.judged != "report":
        return f"It takes {FEWEST}."
    fraction = results.analysis.select_fraction
    needed = ceil(round(FEWEST / min(fraction, 1 - fraction), 9))
    return f"It takes {needed:,} for {FEWEST} on either side."
