"""What a point keeps of the alignment, as the cells of a table and in a sentence."""

from collections.abc import Sequence

from merge_calib.merging.point import MergePoint
from merge_calib.points import Point
from merge_calib.report.text import MISSING, count_text, decimals, percent
from merge_calib.results import Results
from merge_calib.retention import Retained, retained

HEADINGS = ("KL to aligned", "same token")
COLUMNS = (
    *("retained_kl", "retained_kl_low", "retained_kl_high"),
    *("retained_agreement", "retained_agreement_low", "retained_agreement_high"),
)
ABOUT = (
    "KL to aligned: nats a token by which a point's distribution differs from the aligned model's where that answers "
    "prompts in its own words; same token: share of these tokens that the point finds most probable too."
)
NOT_MEASURED = (
    "What is retained of the alignment beyond multiple choice was not measured: nothing here says whether the point "
    "still follows instructions."
)


def retained_of(results: Results, point: Point | None) -> Retained | None:
    """What was measured of a merge; None where nothing was."""
    return retained(results.run, point) if isinstance(point, MergePoint) else None


def has_retained(results: Results) -> bool:
    """Whether it was measured of any point."""
    return any(retained_of(results, point) is not None for point in results.points)


def retained_cells(found: Retained | None) -> list[str]:
    """The two cells of `HEADINGS`."""
    return [MISSING, MISSING] if found is None else [_kl(found), _agreement(found)]


def retained_values(found: Retained | None) -> Sequence[float | None]:
    """The values of `COLUMNS`."""
    if found is None:
        return (None,) * len(COLUMNS)
    return found.kl, found.kl_low, found.kl_high, found.agreement, found.agreement_low, found.agreement_high


def retained_sentence(results: Results, point: Point) -> str:
    """How near a point stays to the aligned model, or that this was not measured."""
    found = retained_of(results, point)
    if found is None:
        return NOT_MEASURED
    on = f"{count_text(found.tokens, 'token')} of {count_text(found.prompts, 'response')}"
    return (
        f"Retained alignment, on {on} that the aligned model wrote: KL to it {_kl(found)} nats a token; the most "
        f"probable token is the same at {_agreement(found)}."
    )


def _kl(found: Retained) -> str:
    return decimals(found.kl, 4) + _interval(found.kl_low, found.kl_high, 1)


def _agreement(found: Retained) -> str:
    return f"{percent(found.agreement, 2)}%" + _interval(found.agreement_low, found.agreement_high, 100)


def _interval(low: float | None, high: float | None, scale: int) -> str:
    if low is None or high is None:
        return ""
    places = 4 if scale == 1 else 2
    return f" [{decimals(scale * low, places)}, {decimals(scale * high, places)}]"
