"""What may be said of the selected point, each claim with its test, and what these questions could not have shown."""

from collections.abc import Iterator, Sequence

from merge_calib.answers import MEAN
from merge_calib.files import csv_text
from merge_calib.findings import Findings
from merge_calib.frontier_record import FAMILY
from merge_calib.inference.claims import KINDS, Claim, Part
from merge_calib.inference.power import detectable
from merge_calib.report.cells import difference_text, p_text
from merge_calib.report.measures import ACCURACY, BY_COLUMN
from merge_calib.report.place import point_markdown
from merge_calib.report.questions_text import too_few
from merge_calib.report.text import MISSING, code, count_text, markdown_table
from merge_calib.rivals import SELECTED

# What a claim is about, in words that say nothing of how it went.
SUBJECTS = {
    "better_calibrated": "sce2 against the aligned model",
    "recovers": "sce2 against the aligned model, accuracy within the margin",
    "dominates_aligned": "accuracy and sce2 against the aligned model",
    "dominates_base": "accuracy and sce2 against the base",
    "tops_parents": "accuracy against both parents",
    "non_dominated": "accuracy or sce2 against every point not chosen",
}
_ABOUT_SCE2 = (
    "Calibration is tested as sce2, the debiased squared class-wise error, because differences of SCE itself are "
    "biased."
)
_MOST_SAID = 12  # claims that hold, in sentences


def claims_section(findings: Findings) -> str:
    """The section of report.md: sentences for what holds, a table of all kinds, each test written out once."""
    reason = nothing_claimed(findings)
    if reason:
        return f"## Claims\n\n{reason}\n"
    task = findings.tasks[-1]
    held = [claim for claim in reversed(findings.claims) if claim.holds]
    said = [f"- {_sentence(findings, claim)}" for claim in held[:_MOST_SAID]]
    if len(held) > _MOST_SAID:
        said.append(f"- {len(held) - _MOST_SAID} more hold; all are in [tables/claims.md](tables/claims.md).")
    parts = [
        "## Claims\n",
        f"{_about(findings)}\n",
        *(f"- {line}" for line in too_few(findings.results)),
        *(said or ["None of the claims holds on these questions; what follows are differences, not findings."]),
        "",
        _table(findings, [c for c in findings.claims if c.task == task], counts=len(findings.tasks) > 1),
        "The smallest difference: what these questions would have shown in 80 % of samples (two-sided, 5 %). "
        "Every claim on every task: [tables/claims.md](tables/claims.md), [numbers](tables/claims.csv).\n",
        tests_text(findings),
    ]
    return "\n".join(parts)


def nothing_claimed(findings: Findings) -> str:
    """Why there are no claims; empty where there are."""
    if findings.claims:
        return ""
    if findings.rivals(findings.confidence) is None:
        return "Nothing is claimed: no point could be selected, because a parent lacks some tasks."
    return "Nothing is claimed: the rule selects the aligned model itself, and nothing is compared with itself."


def claims_csv(findings: Findings) -> str:
    """A row for each comparison of each claim, and one for each claim that was not tested."""
    header = ("claim", "task", "n", "verdict", "p", "p_holm", "not_tested_because")
    of_part = ("measure", "against", "difference", "difference_low", "difference_high", "p_of_part", "detectable")
    rows: list[tuple[object, ...]] = []
    for claim in findings.claims:
        first = claim.kind.name, claim.task, claim.n, verdict(claim), claim.p_value, claim.p_holm, claim.why_not
        for part in claim.parts:
            d = part.difference
            numbers = d.value, d.low, d.high, part.p_value, _detectable(findings, claim.task, part)
            rows.append((*first, part.measure, part.against, *numbers))
        if not claim.parts:
            rows.append((*first, *[None] * len(of_part)))
    return csv_text((*header, *of_part), rows)


def claims_markdown(findings: Findings) -> str:
    """Every kind of claim, a table for each task."""
    parts = ["# Claims\n", f"{_about(findings)}\n", tests_text(findings)]
    for task in reversed(findings.tasks):
        of_task = [c for c in findings.claims if c.task == task]
        title = "Mean over tasks" if task == MEAN else code(task)
        n = count_text(of_task[0].n, "judging question")
        parts += [f"## {title}, {n}\n", _table(findings, of_task, counts=False)]
    return "\n".join(parts)


def verdict(claim: Claim) -> str:
    """`shown`, `not shown` or `not tested`."""
    if claim.p_value is None:
        return "not tested"
    return "shown" if claim.holds else "not shown"


def tests_text(findings: Findings) -> str:
    """Null hypothesis and test of each kind, and the family, written out once."""
    nulls = markdown_table(("about", "null hypothesis"), [(SUBJECTS[k.name], k.null) for k in KINDS], names=2)
    tests: dict[str, list[str]] = {}
    for kind in KINDS:
        tests.setdefault(kind.test, []).append(SUBJECTS[kind.name])
    said = "".join(f"- Test of {'; '.join(subjects)}: {test}.\n" for test, subjects in tests.items())
    margin = ACCURACY.size_text(findings.results.analysis.rule.margin)
    return f"{nulls}\n{said}- Family: {FAMILY} The margin is {margin} of accuracy. {_ABOUT_SCE2}\n"


def _about(findings: Findings) -> str:
    """Which point the claims are about."""
    rivals = findings.rivals(findings.confidence)
    assert rivals is not None
    chosen = [fit.chosen for fit in rivals.fits]
    if len(chosen) > 1:
        counts = "; ".join(f"{point_markdown(p)} in {chosen.count(p)}" for p in sorted(set(chosen)))
        return (
            f"What is claimed is the procedure (choose by the rule on the other folds, measure on this one), not one "
            f"point: the {len(chosen)} folds chose {counts}."
        )
    return (
        f"About {point_markdown(chosen[0])} alone, which was chosen on other questions than those it is measured on, "
        f"by {code(findings.confidence)}."
    )


def _sentence(findings: Findings, claim: Claim) -> str:
    on = "On the mean over tasks" if claim.task == MEAN else f"On {code(claim.task)}"
    differences = ", ".join(_part_text(findings, part) for part in claim.parts)
    return (
        f"{on} the selected point is **{claim.kind.words}**: {differences}; p = {p_text(claim.p_value)}, "
        f"after Holm {p_text(claim.p_holm)}."
    )


def _part_text(findings: Findings, part: Part) -> str:
    return f"{_difference(part)} against {_other(findings, part.against)}"


def _difference(part: Part) -> str:
    measure = BY_COLUMN[part.measure]
    return f"{measure.label.lower()} {difference_text(measure, part.difference)}"


def _other(findings: Findings, name: str) -> str:
    rivals = findings.rivals(findings.confidence)
    assert rivals is not None
    roles = {rivals.base.name: "the base", rivals.aligned.name: "the aligned model"}
    return roles.get(name) or point_markdown(findings.results.point(name))


def _table(findings: Findings, claims: Sequence[Claim], *, counts: bool) -> str:
    """The claims on one task; `counts` adds on how many tasks a kind holds."""
    rows = []
    for claim in claims:
        differences = _differences(findings, claim) or claim.why_not
        numbers = p_text(claim.p_value), p_text(claim.p_holm), verdict(claim)
        smallest = "; ".join(dict.fromkeys(_smallest(findings, claim))) or MISSING
        on = [_count(findings, claim)] if counts else []
        rows.append((SUBJECTS[claim.kind.name], differences, smallest, *numbers, *on))
    header = ("about", "difference", "smallest difference", "p", "p after Holm", "verdict")
    return markdown_table((*header, *(["tasks shown"] if counts else [])), rows, names=3)


def _differences(findings: Findings, claim: Claim) -> str:
    """The parts; whom they are against only where the table does not say so already."""
    if claim.kind.name in ("tops_parents", "non_dominated"):
        return "; ".join(_part_text(findings, part) for part in claim.parts)
    return "; ".join(_difference(part) for part in claim.parts)


def _count(findings: Findings, claim: Claim) -> str:
    """On how many single tasks the same kind holds."""
    alike = [c for c in findings.claims if c.kind is claim.kind and c.task != MEAN]
    return f"{sum(c.holds for c in alike)} of {len(alike)}"


def _smallest(findings: Findings, claim: Claim) -> Iterator[str]:
    for part in claim.parts:
        size = _detectable(findings, claim.task, part)
        if size > 0:
            measure = BY_COLUMN[part.measure]
            yield f"{measure.label.lower()} {measure.size_text(size)}"


def _detectable(findings: Findings, task: str, part: Part) -> float:
    return detectable(findings.joint(task, findings.confidence), part.measure, SELECTED, part.against)
