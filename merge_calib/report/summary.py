"""What a run found, in a few lines for the terminal."""

from collections.abc import Iterator, Sequence

from merge_calib.answers import MEAN
from merge_calib.findings import Findings
from merge_calib.inference.estimate import Estimate
from merge_calib.inference.splits import FEWEST
from merge_calib.merging.point import MergePoint
from merge_calib.report.alignment_section import alignment_change
from merge_calib.report.asked import is_imported
from merge_calib.report.cells import difference_text, estimate_text, floored_text, share_text
from merge_calib.report.certainty_section import certainty_of
from merge_calib.report.headline import Headline, headline_of
from merge_calib.report.headline_table import against_tempered
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.measures import ACCURACY, ECE, MEAN_CONFIDENCE, NLL, SCE, SCE2, Measure, applying
from merge_calib.report.model_tables import model_name
from merge_calib.report.next_steps import more_points
from merge_calib.report.place import method_texts
from merge_calib.report.questions_text import too_few, total_sizes
from merge_calib.report.recorded import truncated_prompts
from merge_calib.report.recovery_section import recovery_text
from merge_calib.report.search_section import search_text
from merge_calib.report.style import label_text
from merge_calib.report.text import count_text, lambda_text, named_text
from merge_calib.results import Result, Results

MOST_MODELS = 12
_MOST_CLAIMS = 2  # in full, of one line


def summary(results: Results) -> str:
    """Ten lines on what a sweep found, or a line for each model, and where everything lies."""
    if not results.is_sweep:
        return "\n".join([*_models(results), *_warnings(results), _report(results)])
    landmarks = Landmarks.of(results)
    return "\n".join([*_sweep(results, landmarks), *_warnings(results), _report(results)])


def _models(results: Results) -> list[str]:
    """The models, a line each, by the first confidence method; of many the first and the last ones."""
    confidence = results.confidences[0]
    rows = results.line(MEAN, confidence)
    if not rows:
        return [f"no model has all tasks by {confidence} yet"]
    measures = applying((ACCURACY, ECE, SCE, NLL, MEAN_CONFIDENCE), confidence)
    texts = [[label_text(model_name(row.point)), *(_cell(row, measure) for measure in measures)] for row in rows]
    header = ["", *(measure.label for measure in measures)]
    widths = [max(map(len, column)) for column in zip(header, *texts, strict=True)]
    lines = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in [header, *texts]]
    if len(lines) > MOST_MODELS + 1:
        half = MOST_MODELS // 2
        lines[half + 1 : -half] = [f"... {count_text(len(rows) - 2 * half, 'more model')}"]
    return [_title(results, confidence, rows[0].measurement.n), *lines]


def _cell(row: Result, measure: Measure) -> str:
    """A value, with its noise floor where it has one."""
    return floored_text(measure, measure.of(row.measurement), row.floors.get(measure.column))


def _title(results: Results, confidence: str, n: int) -> str:
    return f"{confidence}, {count_text(len(results.tasks_of(confidence)), 'task')}, {count_text(n, 'question')}"


def _sweep(results: Results, landmarks: Landmarks) -> Iterator[str]:
    """What alignment cost, what was selected, what is shown, how it compares with temperature scaling, how sure."""
    yield _questions(results)
    yield from _alignment(results, landmarks)
    headline = headline_of(results, results.confidences[0])
    if landmarks.selected is None:
        yield "nothing could be selected: the aligned model lacks some tasks"
    elif headline is None or headline.selected is None:
        yield "the rule selects the aligned model itself; nothing was recovered"
    else:
        yield from _selected(landmarks.selected, headline)
        yield from _found(headline)
        folder = results.run.path / "checkpoints" / landmarks.selected.name
        if folder.is_dir():
            yield _line("checkpoint", str(folder))
        if not is_imported(results.run.plan) and results.run.search is None:
            yield _line("next", f"the same command with {more_points(results, landmarks).replace('`', '')}")
    if found := search_text(results):
        yield _line("search", found)


def _line(what: str, said: str) -> str:
    return f"{what:<12}{said}"


def _questions(results: Results) -> str:
    """`choice, 1 task: chosen on 2,000 questions, measured on the other 2,000`."""
    confidence = results.confidences[0]
    chosen, judged = total_sizes(results, confidence)
    tasks = f"{confidence}, {count_text(len(results.tasks_of(confidence)), 'task')}"
    if results.judged == "report":
        return f"{tasks}: chosen on {count_text(chosen, 'question')}, measured on the other {judged:,}"
    return f"{tasks}: {count_text(judged, 'question')}, cross-fitted in {results.analysis.cross_fit} folds"


def _alignment(results: Results, landmarks: Landmarks) -> Iterator[str]:
    confidence = results.confidences[0]
    base, aligned = (
        None if p is None else results.row(p, MEAN, confidence) for p in (landmarks.base, landmarks.aligned)
    )
    if base is None and aligned is None:
        yield f"no point has all tasks by {confidence} yet"
        return
    accuracy = alignment_change(results, landmarks, confidence, ACCURACY)
    moved = f"accuracy {difference_text(ACCURACY, accuracy)}, " if accuracy else ""
    sides = (r for r in (base, aligned) if r is not None)
    errors = (floored_text(SCE, SCE.of(r.measurement), r.floors.get("sce")) for r in sides)
    yield _line("alignment", f"{moved}SCE {' to '.join(errors)}")


def _selected(selected: MergePoint, headline: Headline) -> Iterator[str]:
    """Which point, and its numbers; where folds chose, those of the procedure."""
    name, joint = str(headline.selected), headline.joint()
    accuracy = estimate_text(ACCURACY, joint.estimate("accuracy", name))
    error = floored_text(SCE, joint.value("sce", name), headline.floors(name)["sce"])
    of = "" if headline.rivals.folds == 1 else "procedure "
    yield _line("selected", f"{_which(selected)}: {of}accuracy {accuracy}, SCE {error}")


def _found(headline: Headline) -> Iterator[str]:
    findings = headline.findings
    yield _line("claims", _claims(findings))
    recovered = [r for r in findings.recoveries(MEAN, headline.confidence) if r.measure in ("sce2", "nll")]
    each = ", ".join(
        f"{recovery_text(r)} of {r.measure.upper() if r.measure == 'nll' else r.measure}" for r in recovered
    )
    claim = findings.claim("recovers", findings.tasks[-1])
    shown = "with accuracy kept: shown" if claim is not None and claim.holds else "not shown with accuracy kept"
    yield _line("recovery", f"{each} ({shown})")
    if headline.joint().fewest >= FEWEST:  # fewer could not tell one from the other
        differences = [(m, against_tempered(headline, str(headline.selected), m)) for m in (NLL, SCE2)]
        compared = ", ".join(f"{m.label} {difference_text(m, d)}" for m, d in differences if d is not None)
        standing = _standing([d for _, d in differences if d is not None])
        yield _line("vs aligned+T", f" {compared} ({standing})")
    certainty = certainty_of(findings, headline.confidence)
    if certainty is not None and headline.rivals.folds == 1:
        name = headline.rivals.fits[0].chosen.name
        shares = certainty.non_dominated[name], certainty.dominates_aligned[name]
        yield _line("sure", "P(non-dominated) {}, P(dominates aligned) {}".format(*map(share_text, shares)))


def _claims(findings: Findings) -> str:
    """How many hold over all tasks, with their words; else what these questions could have shown."""
    task = findings.tasks[-1]
    claims = [claim for claim in findings.claims if claim.task == task]
    held = [claim for claim in claims if claim.holds]
    if held:
        words = "; ".join(claim.kind.words for claim in held[:_MOST_CLAIMS])
        more = f"; and {len(held) - _MOST_CLAIMS} more" if len(held) > _MOST_CLAIMS else ""
        return f"{len(held)} of {len(claims)} shown: {words}{more}"
    if all(claim.p_value is None for claim in claims):
        return f"not tested: {claims[0].why_not}"
    size = ACCURACY.size_text(findings.detectable(task, "accuracy") or 0.0)
    return f"none of {len(claims)} shown; accuracy would have to differ by {size} or more"


def _standing(differences: Sequence[Estimate]) -> str:
    """How the selected merge stands to the aligned model with a temperature, lower being better."""
    if all(d.high < 0 for d in differences):
        return "ahead of temperature scaling"
    if all(d.low > 0 for d in differences):
        return "behind temperature scaling"
    return "not told apart in both"


def _which(point: MergePoint) -> str:
    """`lambda 0.4`, with the method, its options and the lambdas of groups where there are any."""
    lam = named_text(point.groups) if point.lam is None else f"lambda {lambda_text(point.lam)}"
    return ", ".join([*method_texts(point), lam])


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
    few = too_few(results)
    if few:
        lines.append(f"{count_text(len(few), 'task')} with fewer than {FEWEST} questions to choose or to judge by")
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
    return _line("report", f"{results.run.path / 'report.md'}")
