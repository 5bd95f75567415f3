"""Which point it is, in words."""

from merge_calib.merging.point import MergePoint
from merge_calib.points import Point
from merge_calib.report.families import LINEAR, Family
from merge_calib.report.text import MISSING, code, lambda_text, named_text, number_text
from merge_calib.results import Results


def point_columns(results: Results) -> tuple[str, ...]:
    """What the numbers beside a figure say of a point's place, after its name."""
    return ("method", "options", "lambda", "groups") if results.is_sweep else ("label", "position")


def point_cells(point: Point) -> tuple[object, ...]:
    """The values of `point_columns`."""
    if isinstance(point, MergePoint):
        return point.method, named_text(point.options), point.lam, named_text(point.groups)
    return point.label, point.position


def place_text(point: Point) -> str:
    """The place on the axis as text: a lambda, the lambdas of groups, a position."""
    if isinstance(point, MergePoint):
        return groups_markdown(point) if point.lam is None else lambda_text(point.lam)
    return MISSING if point.position is None else number_text(point.position)


def point_markdown(point: MergePoint) -> str:
    """`lambda = 0.4` for a linear point, with method, options and groups for others, for a sentence in report.md."""
    method = "" if point.method == LINEAR else Family.of(point).markdown
    if point.lam is None:
        return f"{method}{', ' if method else ''}lambda by groups ({groups_markdown(point)})"
    return f"{method}{' at ' if method else ''}lambda = {lambda_text(point.lam)}"


def groups_markdown(point: MergePoint) -> str:
    """The lambda of each group; a selector may hold stars."""
    return ", ".join(f"{code(group)} {lambda_text(lam)}" for group, lam in point.groups)


def figure_text(point: MergePoint) -> str:
    """`λ = 0.4` for a linear point, with the method and its options for others, for a legend."""
    return ", ".join([*method_texts(point), _lambda_label(point)])


def title_lines(role: str, point: MergePoint) -> list[str]:
    """What stands above the panel of a point: its part, its lambda, and below what else it is."""
    return [
        f"{role}, {_lambda_label(point)}",
        *method_texts(point),
        *([named_text(point.groups)] if point.groups else []),
    ]


def method_texts(point: MergePoint) -> list[str]:
    """The method with its options, nothing for a linear point."""
    return [] if point.method == LINEAR else [Family.of(point).label]


def _lambda_label(point: MergePoint) -> str:
    return "λ by groups" if point.lam is None else f"λ = {point.lam:.3g}"
