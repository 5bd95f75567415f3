"""What the letters of `choice` say besides the answer: how much probability they have, and which of them is liked."""

from collections.abc import Iterator, Sequence

import numpy as np

from merge_calib.answers import MEAN
from merge_calib.files import csv_text
from merge_calib.questions import LETTERS
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.measures import LETTER_BIAS, LETTER_MASS
from merge_calib.report.place import point_cells, point_columns
from merge_calib.report.pooling import judged
from merge_calib.report.shown import Shown, named_points
from merge_calib.report.text import code, markdown_table, percent
from merge_calib.results import Results
from merge_calib.scores import Integers, Predictions

FORMAT_IS_NOT_UNCERTAINTY = (
    "Format preference is not answer uncertainty: `choice` renormalises the probabilities of the letters, so a model "
    "that would rather go on with something else than a letter may look as sure as one that answers. Letter mass is "
    "the total probability of a question's letters under the whole vocabulary before that, the mean over questions; "
    "where it is small, the confidence speaks for a small part of what the model would say. Letter bias is the share "
    "of predictions that would have to move to other letters for each letter to be predicted as often as it is right; "
    "it is 0 for a model without a favourite letter, and above it by chance where there are few questions."
)


def letters_section(results: Results, landmarks: Landmarks) -> str:
    """The section of report.md on letters; nothing where no letters were asked."""
    if "choice" not in results.confidences:
        return ""
    parts = ["## Letters\n", f"{FORMAT_IS_NOT_UNCERTAINTY}\n"]
    if results.is_sweep:
        parts.append(_short_table(results, landmarks))
    files = "[tables/letters.md](tables/letters.md), [numbers](tables/letters.csv)"
    parts.append(f"How often each letter is predicted, and how often it is right: {files}.\n")
    return "\n".join(parts)


def letters_csv(results: Results, landmarks: Landmarks) -> str:
    """One row for each model x task x letter: the share of questions whose answer it is, and whose prediction."""
    rows = []
    for task in results.tasks_of("choice"):
        for shown, p in _answers(results, landmarks, task):
            right, predicted = _shares(p)
            place = (shown.role, shown.point.name, *point_cells(shown.point), task)
            rows += [(*place, LETTERS[k], right[k], predicted[k]) for k in range(len(right))]
    return csv_text(("model", "point", *point_columns(results), "task", "letter", "right", "predicted"), rows)


def letters_markdown(results: Results, landmarks: Landmarks) -> str:
    """A table for each task: the letters of the right answers, then those that each model predicts."""
    parts = ["# Letters\n", f"{FORMAT_IS_NOT_UNCERTAINTY}\n", "Below the letters: the share of questions, in %.\n"]
    for task in results.tasks_of("choice"):
        found = list(_answers(results, landmarks, task))
        if found:
            parts += [f"## {code(task)}\n", _task_table(results, task, found)]
    return "\n".join(parts)


def _task_table(results: Results, task: str, found: Sequence[tuple[Shown, Predictions]]) -> str:
    right, _ = _shares(found[0][1])
    rows = [("right answers", "", "", *(percent(share, 1) for share in right))]
    for shown, p in found:
        m = results.get(shown.point, task, "choice")
        cells = (LETTER_MASS.text(LETTER_MASS.of(m)), LETTER_BIAS.text(LETTER_BIAS.of(m)))
        rows.append((_name(shown), *cells, *(percent(share, 1) for share in _shares(p)[1])))
    header = ("predicted by", "letter mass", "letter bias", *LETTERS[: len(right)])
    return markdown_table(header, rows)


def _short_table(results: Results, landmarks: Landmarks) -> str:
    rows = []
    for shown in named_points(results, landmarks):
        m = results.get(shown.point, MEAN, "choice")
        if m is not None:
            rows.append((shown.role, LETTER_MASS.text(m.letter_mass), LETTER_BIAS.text(m.letter_bias)))
    return markdown_table(("mean over tasks", "letter mass", "letter bias"), rows) if rows else ""


def _name(shown: Shown) -> str:
    return shown.role if shown.role in ("base", "selected", "aligned") else code(shown.role)


def _answers(results: Results, landmarks: Landmarks, task: str) -> Iterator[tuple[Shown, Predictions]]:
    for shown in named_points(results, landmarks):
        p = judged(results, shown.point, task, "choice")
        if isinstance(p, Predictions):
            yield shown, p


def _shares(p: Predictions) -> tuple[list[float], list[float]]:
    """How often each letter is right and how often it is predicted, as shares of the questions."""

    def share(which: Integers) -> list[float]:
        counts = np.bincount(which, minlength=p.mask.shape[1]) / len(which)
        return [float(value) for value in counts]

    return share(p.answers), share(p.predicted)
