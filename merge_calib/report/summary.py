"""What a run found, in a few lines for the terminal."""

from merge_calib.report.landmarks import Landmarks
from merge_calib.report.measures import ACCURACY, ECE, NLL, SCE
from merge_calib.report.text import count_text, lambda_text
from merge_calib.results import MEAN, Results


def summary(results: Results) -> str:
    """At most ten lines: base, selected point and aligned model side by side, and where everything lies."""
    landmarks = Landmarks.of(results)
    return "\n".join([*_numbers(results, landmarks), *_places(results, landmarks)])


def _numbers(results: Results, landmarks: Landmarks) -> list[str]:
    confidence = results.confidences[0]
    roles = {"base": landmarks.base}
    if landmarks.recovers and landmarks.selected is not None:
        roles[f"selected (lambda {lambda_text(landmarks.selected.lam)})"] = landmarks.selected
    roles["aligned"] = landmarks.aligned
    means = {role: results.get(p, MEAN, confidence) for role, p in roles.items() if p is not None}
    known = {role: mean for role, mean in means.items() if mean is not None}
    if not known:
        return [f"no point has all tasks by {confidence} yet"]
    n = next(iter(known.values())).n
    title = f"{confidence}, {count_text(len(results.tasks), 'task')}, {count_text(n, 'question')}"
    lines = [title, " " * 10 + "".join(f"  {role:>9}" for role in known)]
    for measure in (ACCURACY, SCE, ECE, NLL):
        cells = "".join(f"  {measure.text(measure.of(mean)):>{max(9, len(role))}}" for role, mean in known.items())
        lines.append(f"{measure.label:<10}{cells}")
    return lines


def _places(results: Results, landmarks: Landmarks) -> list[str]:
    lines = []
    if landmarks.selected is None:
        lines.append("nothing could be selected: the aligned model lacks some tasks")
    elif not landmarks.recovers:
        lines.append("the rule selects the aligned model itself; nothing was recovered")
    else:
        lines.append("chosen and measured on the same questions: an estimate, not a claim")
        folder = results.run.path / "checkpoints" / landmarks.selected.name
        if folder.is_dir():
            lines.append(f"checkpoint  {folder}")
    if results.unmeasured:
        lines.append(f"{count_text(results.unmeasured, 'point')} not measured yet: run the same command again")
    if results.incomplete:
        lines.append(f"{count_text(len(results.incomplete), 'point')} cannot be selected, for lack of some tasks")
    cut = sum(max(task["truncated"].values(), default=0) for task in results.run.plan["tasks"].values())
    if cut:
        lines.append(f"{count_text(cut, 'prompt')} lost text at the front: longer than the model's context")
    return [*lines, f"report      {results.run.path / 'report.md'}"]
