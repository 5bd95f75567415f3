"""frontier.json: the frontier, the selected point, and what may be said of it, with every test written out."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import merge_calib.inference.claims as claims
from merge_calib.answers import MEAN
from merge_calib.files import write_json
from merge_calib.findings import QUANTILES, Certainty, Findings
from merge_calib.frontier import REFERENCE, non_dominated
from merge_calib.inference.estimate import Estimate
from merge_calib.inference.joint import LEVEL
from merge_calib.inference.power import detectable_accuracy
from merge_calib.inference.splits import FEWEST
from merge_calib.results import Results
from merge_calib.rivals import SELECTED

FAMILY = (
    "all kinds of claims about the one point that was chosen on other questions, times all declared tasks and their "
    "mean, corrected together by Holm 1979; a claim holds where p_holm is at most .05. Other points have intervals and "
    "no claims."
)
SPLITS = {
    "report": "the point, every temperature and every weight were chosen on the questions of the split select; all "
    "that is claimed was measured on those of the split report",
    "all": "cross-fitting: what is claimed is the procedure (choose by the rule on other questions, then measure), "
    "since folds may choose different points; every question judges once",
}


def write_frontier(findings: Findings) -> None:
    """Write frontier.json into the run directory."""
    write_json(findings.results.run.path / "frontier.json", frontier_record(findings))


def frontier_record(findings: Findings) -> dict[str, Any]:
    """The content of frontier.json."""
    results = findings.results
    return {
        "format": 1,
        "accuracy": "mean over tasks, higher is better",
        "sce": f"Nixon et al. 2019, M = {results.run.plan['bins']} bins, mean over tasks, lower is better",
        "sce2": "debiased squared class-wise calibration error, with the same bins: what tests are about; may be < 0",
        "split": results.judged,
        "chosen_on": results.chosen_on,
        "splits": SPLITS[results.judged],
        "analysis": results.analysis.record(),
        "selected_by": results.confidences[0],
        "selected": asdict(results.selection) if results.can_select else None,
        "selected_without_task": results.left_out if results.can_select else {},
        **_found(findings),
        "frontier": {confidence: _front(results, confidence) for confidence in results.choice_methods},
        "points": {confidence: _points(findings, confidence) for confidence in results.choice_methods},
        "search": results.run.search,
        "stopped": [{"point": name, **reason} for name, reason in results.stopped.items()],
        "incomplete": list(results.incomplete),
        "unmeasured": results.unmeasured,
        "failed": [{"point": name, "reason": reason} for name, reason in results.failed.items()],
    }


def _found(findings: Findings) -> dict[str, Any]:
    """Claims and what belongs to them, where a point could be selected."""
    rivals = findings.rivals(findings.confidence)
    if rivals is None:
        return {"claims": [], "family": FAMILY}
    found: dict[str, Any] = {
        "family": FAMILY,
        "claims": [_claim(claim) for claim in findings.claims],
        "chosen_by_fold": [fit.chosen.name for fit in rivals.fits],
        "mixture_weights": [dict(fit.weights) for fit in rivals.fits],
    }
    certainty = findings.certainty(findings.confidence)
    if certainty is not None:
        found["certainty"] = _certainty(certainty)
    if findings.recovers:
        found["recovery"] = list(_recoveries(findings))
        found["detectable"] = list(_detectable(findings))
    return found


def _claim(claim: claims.Claim) -> dict[str, Any]:
    return {
        "claim": claim.kind.name,
        "task": claim.task,
        "words": claim.kind.words,
        "holds": claim.holds,
        "null_hypothesis": claim.kind.null,
        "test": claim.kind.test,
        "n": claim.n,
        "p": claim.p_value,
        "p_holm": claim.p_holm,
        "not_tested_because": claim.why_not or None,
        "parts": [
            {"measure": p.measure, "against": p.against, "difference": _estimate(p.difference), "p": p.p_value}
            for p in claim.parts
        ],
    }


def _estimate(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def _recoveries(findings: Findings) -> Iterator[dict[str, Any]]:
    """Of every measure on every task, beside the raw differences."""
    rivals = findings.rivals(findings.confidence)
    assert rivals is not None
    for task in findings.tasks:
        joint = findings.joint(task, findings.confidence)
        for found in findings.recoveries(task, findings.confidence):
            parents = rivals.base.name, rivals.aligned.name
            selected = joint.difference(found.measure, SELECTED, rivals.aligned.name)
            yield {
                "task": task,
                **asdict(found),
                "aligned_minus_base": _estimate(joint.difference(found.measure, *reversed(parents))),
                "selected_minus_aligned": _estimate(selected),
            }


def _detectable(findings: Findings) -> Iterator[dict[str, Any]]:
    """The smallest differences to the aligned model that these questions show in 80 % of samples, two-sided."""
    for task in findings.tasks:
        n = findings.joint(task, findings.confidence).n
        discordance = None if task == MEAN else findings.discordance(task)
        by_formula = None if discordance is None else detectable_accuracy(n, discordance)
        yield {
            "task": task,
            "n": n,
            "accuracy": findings.detectable(task, "accuracy"),
            "sce2": findings.detectable(task, claims.ERROR),
            "discordance": discordance,
            "accuracy_by_discordance": by_formula,
            "enough_questions": n >= FEWEST,
        }


def _certainty(certainty: Certainty) -> dict[str, Any]:
    return {
        "about": f"shares of paired draws of accuracy and {claims.ERROR}, recentred at the estimates",
        "non_dominated": dict(certainty.non_dominated),
        "dominates_aligned": dict(certainty.dominates_aligned),
        "hypervolume": {"reference": dict(zip(("accuracy", claims.ERROR), REFERENCE, strict=True))}
        | _estimate(certainty.area),
        "attainment": {
            claims.ERROR: certainty.levels.tolist(),
            **{
                f"accuracy_{q:g}": [None if math.isinf(v) else v for v in line.tolist()]
                for q, line in zip(QUANTILES, certainty.attained, strict=True)
            },
        },
        "level": 1 - LEVEL,
    }


def _front(results: Results, confidence: str) -> list[str]:
    candidates = results.candidates(confidence)
    return [c.name for c, kept in zip(candidates, non_dominated(candidates), strict=True) if kept]


def _points(findings: Findings, confidence: str) -> list[dict[str, Any]]:
    results = findings.results
    found = []
    for row in results.line(MEAN, confidence):
        if row.measurement.sce is None:
            continue
        intervals = {m: results.estimate(row, m) for m in ("accuracy", claims.ERROR)}
        found.append(
            {
                "point": row.point.name,
                **results.point(row.point.name).record(),
                "accuracy": row.measurement.accuracy,
                "sce": row.measurement.sce,
                **{f"{m}_interval": [e.low, e.high] for m, e in intervals.items() if e is not None},
                "sce_floor": row.floors["sce"].mean,
            }
        )
    return found
