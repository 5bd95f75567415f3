"""The CSV files of a degradation analysis."""

from collections.abc import Iterable, Iterator, Sequence

from merge_calib.degradation.amplification import Worsening
from merge_calib.degradation.published import Published, ranked, rate_table
from merge_calib.degradation.ranks import Concordance, Rank, kendalls_w
from merge_calib.degradation.rounding import Interval
from merge_calib.degrading.analysis import Degradation, Ranking, Trend
from merge_calib.files import csv_text
from merge_calib.inference.estimate import Estimate
from merge_calib.inference.joint import MEANS, PLUG_IN
from merge_calib.report.measures import BY_COLUMN
from merge_calib.report.text import named_text

FILES = (
    *("changes", "ranks", "agreement", "amplification", "collapse"),
    *("published_changes", "published_ranks", "published_agreement"),
)
_W = ("w", "chi_square", "p_value", "permutation_p", "permutation_is_exact")


def interval_kind(measure: str) -> str:
    """How the intervals of a change were made; `spread` has no coverage, for plug-in errors are biased."""
    if measure in MEANS:
        return "percentile"
    return "spread" if measure in PLUG_IN else "normal"


def changes_csv(found: Degradation) -> str:
    """One row for each pair x task x confidence method x measure."""
    header = [
        *("pair", "task", "confidence", "measure", "bins", "n", "base", "aligned"),
        *_columns("difference", "change_rate_percent", "log_ratio"),
        *("interval", "base_floor_95", "unstable"),
    ]
    rows = [
        [
            *(row.pair, row.task, row.confidence, row.measure, _bins(found, row.measure), row.n),
            *(row.change.base, row.change.aligned),
            *_cells(row.change.difference, row.estimate.difference),
            *_cells(row.change.rate, row.estimate.rate),
            *_cells(row.change.log_ratio, row.estimate.log_ratio),
            *(interval_kind(row.measure), row.change.floor, row.change.unstable),
        ]
        for row in found.changes
    ]
    return csv_text(header, rows)


def ranks_csv(rankings: Iterable[Ranking]) -> str:
    """One row for each pair in a ranking; an undefined rate has no rank."""
    header = ("task", "confidence", "measure", "pair", "change_rate_percent", *_columns("rank"), "unstable")
    rows = [
        [r.task, r.confidence, r.measure, row.pair, row.change.rate, *_rank_cells(rank), row.change.unstable]
        for r in rankings
        for row, rank in zip(r.rows, r.ranks, strict=True)
    ]
    return csv_text(header, rows)


def agreement_csv(found: Degradation) -> str:
    """One row for each confidence method x measure that ranks pairs on tasks."""
    header = ("confidence", "measure", "tasks", "pairs", *_W)
    return csv_text(header, [[a.confidence, a.measure, *_w_cells(a.concordance)] for a in found.agreements])


def amplification_csv(trends: Iterable[Trend]) -> str:
    """Slopes and taus over all lambdas, and over those from the aligned model on."""
    header = (
        *("pair", "method", "options", "task", "confidence", "measure", "lambdas", "lambda_from", "lambda_to"),
        *_columns("slope", "tau"),
        "interval",
    )
    rows = []
    for t in trends:
        beyond = tuple(lam for lam in t.lambdas if lam >= 1)
        for lambdas, slope, tau in ((t.lambdas, t.slope, t.tau), (beyond, t.slope_beyond, t.tau_beyond)):
            place = (len(lambdas), lambdas[0], lambdas[-1])
            kind = "spread" if t.measure in PLUG_IN else "95 %"
            rows.append([*_of(t), *place, *_estimate_cells(slope), *_estimate_cells(tau), kind])
    return csv_text(header, rows)


def collapse_csv(trends: Iterable[Trend]) -> str:
    """Every lambda beyond the aligned model, tested against it."""
    header = (
        *("pair", "method", "options", "task", "confidence", "measure", "lambda"),
        *_columns("difference"),
        *("p_value", "p_holm", "is_first"),
    )
    rows = [[*_of(t), *_worse_cells(w), w.lam == t.collapse.first] for t in trends if t.collapse for w in worse(t)]
    return csv_text(header, rows)


def worse(trend: Trend) -> tuple[Worsening, ...]:
    """The tests of a trend; none where its measure is not tested."""
    return trend.collapse.worsenings if trend.collapse else ()


def published_changes_csv(rows: Iterable[Published]) -> str:
    """Every published cell, what its rounding allows beside what is printed; an empty field is undefined."""
    header = (
        *("pair", "task", "confidence", "measure", "base", "aligned"),
        *_columns("difference", "change_rate_percent", "log_ratio"),
    )
    lines = [
        [
            *(row.pair, row.task, row.confidence, row.measure, row.change.base, row.change.aligned),
            *_allowed(row.change.difference, row.difference),
            *_allowed(row.change.rate, row.rate),
            *_allowed(row.change.log_ratio, row.log_ratio),
        ]
        for row in rows
    ]
    return csv_text(header, lines)


def published_ranks_csv(rows: Sequence[Published]) -> str:
    """Every published pair in its ranking, with the best and the worst rank that the rounding allows."""
    header = ("task", "confidence", "measure", "pair", "rank", "rank_best", "rank_worst")
    lines = [
        [task, confidence, measure, each.published.pair, each.value, each.best, each.worst]
        for (confidence, measure, task), group in published_groups(rows).items()
        for each in ranked(group)
    ]
    return csv_text(header, lines)


def published_agreement_csv(rows: Sequence[Published]) -> str:
    """Kendall's W over the published tasks, of those that have all pairs."""
    header = ("confidence", "measure", "tasks", "pairs", *_W)
    return csv_text(header, [[*key, *_w_cells(w)] for key, w in published_agreements(rows).items()])


def published_groups(rows: Iterable[Published]) -> dict[tuple[str, str, str], list[Published]]:
    """The pairs of each confidence method x measure x task that has several."""
    groups: dict[tuple[str, str, str], list[Published]] = {}
    for row in rows:
        groups.setdefault((row.confidence, row.measure, row.task), []).append(row)
    return {key: group for key, group in groups.items() if len(group) > 1}


def published_agreements(rows: Sequence[Published]) -> dict[tuple[str, str], Concordance | None]:
    """Kendall's W over tasks by confidence method and measure."""
    found = {}
    for key in dict.fromkeys((row.confidence, row.measure) for row in rows):
        group = [row for row in rows if (row.confidence, row.measure) == key]
        tasks, pairs = (list(dict.fromkeys(getattr(row, name) for row in group)) for name in ("task", "pair"))
        found[key] = kendalls_w(rate_table(group, tasks, pairs))
    return found


def _bins(found: Degradation, measure: str) -> int | None:
    return found.bins if BY_COLUMN[measure].is_binned else None


def _of(trend: Trend) -> list[object]:
    along = trend.along
    return [trend.pair, along.method, named_text(along.options), trend.task, trend.confidence, trend.measure]


def _columns(*names: str) -> Iterator[str]:
    for name in names:
        yield from (name, f"{name}_low", f"{name}_high")


def _cells(value: float | None, estimate: Estimate | None) -> tuple[float | None, ...]:
    return (value, estimate.low, estimate.high) if estimate else (value, None, None)


def _estimate_cells(estimate: Estimate | None) -> tuple[float | None, ...]:
    return _cells(estimate.value if estimate else None, estimate)


def _rank_cells(rank: Rank | None) -> tuple[float | None, ...]:
    return (rank.value, rank.low, rank.high) if rank else (None, None, None)


def _worse_cells(worse: Worsening) -> list[object]:
    return [worse.lam, *_estimate_cells(worse.difference), worse.p_value, worse.adjusted]


def _allowed(value: float | None, allowed: Interval | None) -> tuple[float | None, ...]:
    return (value, allowed.low, allowed.high) if allowed else (None, None, None)


def _w_cells(found: Concordance | None) -> tuple[object, ...]:
    if found is None:
        return (None,) * 7
    return (
        *(found.tasks, found.pairs, found.w, found.chi_square, found.p_value),
        *(found.permutation_p, found.is_exact if found.permutation_p is not None else None),
    )
