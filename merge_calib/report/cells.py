"""Numbers with what tells how sure they are: an interval, or the noise floor of a calibration error."""

from collections.abc import Iterator

from merge_calib.calibration.noise_floor import Floor
from merge_calib.inference.estimate import Estimate
from merge_calib.report.measures import Measure
from merge_calib.report.text import MISSING, decimals, percent
from merge_calib.results import WITH_FLOORS, WITH_INTERVALS, Result, Results

INTERVALS = tuple(f"{measure}_{end}" for measure in WITH_INTERVALS for end in ("low", "high"))
FLOORS = tuple(f"{measure}_{part}" for measure in WITH_FLOORS for part in ("floor", "floor_95", "p"))


_ABOUT_SCE2 = (
    " The rule chooses by SCE, on other questions; tests are about sce2, its debiased square (half the error is a "
    "quarter of it), for SCE itself is biased."
)


def about_intervals(results: Results) -> str:
    """What stands in brackets beside the numbers of a run."""
    errors, them = ("ECE and SCE have", "them") if results.choice_methods else ("ECE has", "it")
    return (
        f"In square brackets: 95 % intervals of a paired bootstrap. {errors} none that would cover; beside {them} "
        "stands the noise floor, the mean that a calibrated model with the same probabilities would measure on so many "
        f"questions.{_ABOUT_SCE2 if results.is_sweep and results.choice_methods else ''}"
    )


def interval_text(measure: Measure, estimate: Estimate, sign: str = "") -> str:
    """`[53.90, 58.20]`, shares in %."""
    ends = (estimate.low, estimate.high)
    if measure.is_share:
        return f"[{', '.join(percent(end, 2, sign) for end in ends)}]"
    return f"[{', '.join(decimals(end, measure.places, sign) for end in ends)}]"


def estimate_text(measure: Measure, estimate: Estimate | None) -> str:
    """The value with its interval."""
    return MISSING if estimate is None else f"{measure.text(estimate.value)} {interval_text(measure, estimate)}"


def difference_text(measure: Measure, estimate: Estimate | None) -> str:
    """A difference with its interval, both with their signs."""
    if estimate is None:
        return MISSING
    return f"{measure.difference_text(estimate.value)} {interval_text(measure, estimate, '+')}"


def floored_text(measure: Measure, value: float | None, floor: Floor | None) -> str:
    """`0.0253 (floor 0.019)`."""
    beside = "" if floor is None or value is None else f" (floor {decimals(floor.mean, 3)})"
    return f"{measure.text(value)}{beside}"


def tested_text(measure: Measure, value: float | None, floor: Floor | None) -> str:
    """`0.0253 (floor 0.019, 0.024; p = 0.0249)`: mean and 95th percentile of the floor, and how rare the value is."""
    if floor is None or value is None:
        return measure.text(value)
    least = 1 / (len(floor.redrawn) + 1)
    rare = f"p ≤ {p_text(least)}" if floor.p_value <= least else f"p = {p_text(floor.p_value)}"
    parts = f"floor {decimals(floor.mean, 3)}, {decimals(floor.p95, 3)}; {rare}"
    return f"{measure.text(value)} ({parts})"


def row_text(results: Results, row: Result | None, measure: Measure) -> str:
    """A measure of a row as the row has it: with an interval, with a noise floor, or alone."""
    if row is None:
        return MISSING
    if measure.column in row.floors:
        return floored_text(measure, measure.of(row.measurement), row.floors[measure.column])
    estimate = results.estimate(row, measure.column)
    return measure.text(measure.of(row.measurement)) if estimate is None else estimate_text(measure, estimate)


def interval_values(results: Results, row: Result) -> Iterator[float | None]:
    """The values of `INTERVALS` of a row."""
    for column in WITH_INTERVALS:
        estimate = results.estimate(row, column)
        yield from (short(estimate.low), short(estimate.high)) if estimate else (None, None)


def floor_values(row: Result) -> Iterator[float | None]:
    """The values of `FLOORS` of a row."""
    for column in WITH_FLOORS:
        floor = row.floors.get(column)
        yield from map(short, (floor.mean, floor.p95, floor.p_value)) if floor else (None,) * 3


def short(value: float) -> float:
    """Six digits, as in results.csv: the draws tell no more."""
    return float(f"{value:.6g}")


def p_text(p: float | None) -> str:
    """Four decimals, or that it is below them."""
    if p is None:
        return MISSING
    return "<0.0001" if p < 0.0001 else decimals(p, 4)


def share_text(share: float | None) -> str:
    """A share in whole %."""
    return MISSING if share is None else f"{percent(share, 0)}%"
