"""What a run found, in a few lines for the terminal."""

from collections.abc import Sequence

from merge_calib.merging.point import MergePoint
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.measures import ACCURACY, ECE, MEAN_CONFIDENCE, NLL, SCE, applying
from merge_calib.report.model_tables import model_name
from merge_calib.report.place import method_texts
from merge_calib.report.recorded import truncated_prompts
from merge_calib.report.style import label_text
from merge_calib.report.text import count_text, lambda_text, named_text
from merge_calib.results import MEAN, Results

MOST_MODELS = 12


def summary(results: Results) -> str:
    """A few lines: base, selected point and aligned model side by side, or the models, and where everything lies."""
    if not results.is_sweep:
        return "\n".join([*_models(results), *_warnings(results), _report(results)])
    landmarks = Landmarks.of(results)
    lines = [*_numbers(results, landmarks), *_selected(results, landmarks), *_warnings(results), _report(results)]
    return "\n".join(lines)


def _models(results: Results) -> list[str]:
    """The models, a line each, by the first confidence method; of many the first and the last ones."""
    confidence = results.confidences[0]
    rows = results.line(MEAN, confidence)
    if not rows:
        return [f"no model has all tasks by {confidence} yet"]
    measures = applying((ACCURACY, ECE, SCE, NLL, MEAN_CONFIDENCE), confidence)
    texts = [
        [label_text(model_name(row.point)), *(measure.text(measure.of(row.measurement)) for measure in measures)]
        for row in rows
    ]
    header = ["", *(measure.label for measure in measures)]
    widths = [max(map(len, column)) for column in zip(header, *texts, strict=True)]
    lines = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in [header, *texts]]
    if len(lines) > MOST_MODELS + 1:
        half = MOST_MODELS // 2
        lines[half + 1 : -half] = [f"... {count_text(len(rows) - 2 * half, 'more model')}"]
    return [_title(results, confidence, rows[0].measurement.n), *lines]


def _title(results: Results, confidence: str, n: int) -> str:
    return f"{confidence}, {count_text(len(results.tasks_of(confidence)), 'task')}, {count_text(n, 'question')}"


def _numbers(results: Results, landmarks: Landmarks) -> list[str]:
    confidence = results.confidences[0]
    roles = {"base": landmarks.base}
    if landmarks.recovers and landmarks.selected is not None:
        roles[f"selected ({_which(landmarks.selected)})"] = landmarks.selected
    roles["aligned"] = landmarks.aligned
    means = {role: results.get(p, MEAN, confidence) for role, p in roles.items() if p is not None}
    known = {role: mean for role, mean in means.items() if mean is not None}
    if not known:
        return [f"no point has all tasks by {confidence} yet"]
    title = _title(results, confidence, next(iter(known.values())).n)
    lines = [title, " " * 10 + "".join(f"  {role:>9}" for role in known)]
    for measure in (ACCURACY, SCE, ECE, NLL):
        cells = "".join(f"  {measure.text(measure.of(mean)):>{max(9, len(role))}}" for role, mean in known.items())
        lines.append(f"{measure.label:<10}{cells}")
    return lines


def _which(point: MergePoint) -> str:
    """`lambda 0.4`, with the method and its options where it is not linear."""
    return ", ".join([*method_texts(point), "by groups" if point.lam is None else f"lambda {lambda_text(point.lam)}"])


def _selected(results: Results, landmarks: Landmarks) -> list[str]:
    if landmarks.selected is None:
        return ["nothing could be selected: the aligned model lacks some tasks"]
    if not landmarks.recovers:
        return ["the rule selects the aligned model itself; nothing was recovered"]
    lines = ["chosen and measured on the same questions: an estimate, not a claim"]
    lines += [f"lambdas     {named_text(landmarks.selected.groups)}"] if landmarks.selected.groups else []
    folder = results.run.path / "checkpoints" / landmarks.selected.name
    return [*lines, f"checkpoint  {folder}"] if folder.is_dir() else lines


def _warnings(results: Results) -> list[str]:
    """What is missing or was cut."""
    lines = []
    noun = "point" if results.is_sweep else "model"
    if results.unmeasured:
        lines.append(f"{count_text(results.unmeasured, noun)} not measured yet: run the same command again")
    if results.failed:
        names = ", ".join(results.failed)
        lines.append(f"{count_text(len(results.failed), noun)} failed: {names}; report.md says why")
    if results.incomplete:
        lacking = count_text(len(results.incomplete), noun)
        lines.append(
            f"{lacking} cannot be selected, for lack of some tasks" if results.is_sweep else f"{lacking} lack tasks"
        )
    cut = list(truncated_prompts(results).values())
    if any(cut):
        lines.append(f"{_cut_text(cut)} lost text at the front: longer than the model's context")
    return lines


def _cut_text(cut: Sequence[int]) -> str:
    """How many prompts were cut, `cut` holding a number for each model."""
    if len(cut) == 1:
        return count_text(cut[0], "prompt")
    if len(set(cut)) == 1:
        return f"{count_text(cut[0], 'prompt')} x {len(cut)} models"
    return f"{count_text(sum(cut), 'prompt')} in all models together"


def _report(results: Results) -> str:
    return f"report      {results.run.path / 'report.md'}"
