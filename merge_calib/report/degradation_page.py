"""The page of a degradation analysis, and the folder that it is written into."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from merge_calib.degradation.published import Published, PublishedRank, ranked
from merge_calib.degradation.ranks import Concordance, Rank
from merge_calib.degrading.analysis import ChangeRow, Degradation, Ranking, Trend
from merge_calib.degrading.pairs import Pair
from merge_calib.files import write_text
from merge_calib.inference.estimate import Estimate
from merge_calib.points import AxisPoint
from merge_calib.report import degradation_tables as tables
from merge_calib.report.cells import difference_text, p_text
from merge_calib.report.measures import BY_COLUMN
from merge_calib.report.tables import task_text, which_sce
from merge_calib.report.text import (
    MISSING,
    code,
    count_text,
    decimals,
    lambda_text,
    markdown_table,
    named_text,
    rate_text,
)

PAGE = "degradation.md"
TWO_SCES = (
    "SCE asks whether an option is right as often as its probability says; SCE-agreement asks whether prediction and "
    "answer agree about the option, so that an option which is neither predicted nor right counts as agreed on however "
    "little probability it has. The first falls when calibration gets better, the second grows with confidence itself, "
    "also of a model that is right to be confident. The headline of Oh & Hwang 2024 (the error rises with alignment in "
    "every row) rests on the second; their ECE falls in 20 of the same 70 rows."
)
_INTERVALS = (
    "Brackets come from the same draws of questions for base and aligned model. Those of accuracy, NLL, Brier and mean "
    "confidence (percentiles) and of the differences of ece2 and sce2, the debiased squares of ECE and SCE (value +- "
    "1.96 standard deviations), are 95 % intervals. Those of ECE, SCE and SCE-agreement are not: they show how much "
    "the number moves with the questions. ECE and SCE are biased upward, most where a model is well calibrated, so "
    "that their change and above all their rate tend to come out too small, and the true ones often lie outside of the "
    "brackets. Claims belong to the debiased squares (half the error is a quarter of its square). A rate is undefined "
    "where the base is not above 0, and has no bracket where the base may as well be 0."
)
_UNSTABLE = (
    "`unstable`: the base lies under the 95th percentile of its own noise floor (what a perfectly calibrated model "
    "with its probabilities would measure; of a debiased square, whose mean is then 0, 1.645 standard deviations), so "
    "that rate and log-ratio divide by noise. Accuracy, NLL, Brier and SCE-agreement have no such floor."
)
_RANKS = (
    "Rank 1 is the largest change rate, with the 95 % interval of the rank over the draws; ties share their mean rank, "
    "and a rate that a draw leaves undefined may have any rank in it. By ECE, SCE and SCE-agreement it is the rank of "
    "the number as measured, with its bias. `*` marks an unstable rate. Kendall's W says how far tasks agree on the "
    "order of the pairs (0 not at all, 1 the same order on every task)."
)
_MORE = (
    "Slope per unit of lambda and Kendall's tau (1 where the measure never falls with lambda, -1 where it never "
    "rises), over all lambdas and from the aligned model on (lambda >= 1). The last column is the first lambda > 1 "
    "that is worse than the aligned model: one-sided tests of paired differences, Holm over the lambdas > 1 of one "
    "line of the table, 5 %. Plug-in errors are biased and mean confidence is neither good nor bad: they are not "
    "tested, and the brackets of ECE and SCE show their spread only."
)
_PRINTED = (
    "Change rate between the printed values, and in brackets all that their rounding allows; then the rank among the "
    "pairs with the best and the worst that it allows. A base that is empty, or that its rounding lets be 0, has no "
    "rate. Published pairs are not ranked among those of runs, for nobody can check that they share their questions. A "
    "measure is called as the file calls it; what Oh & Hwang 2024 print as SCE is SCE-agreement here."
)


def write_degradation(out: Path, found: Degradation | None, published: Sequence[Published] = ()) -> Path:
    """Write degradation.md and its CSV files into `out`; those of an earlier analysis go. The page is returned."""
    texts = {}
    if found is not None:
        texts["changes"] = tables.changes_csv(found)
        if found.rankings:
            texts |= {"ranks": tables.ranks_csv(found.rankings), "agreement": tables.agreement_csv(found)}
        if found.trends:
            texts |= {
                "amplification": tables.amplification_csv(found.trends),
                "collapse": tables.collapse_csv(found.trends),
            }
    if published:
        texts["published_changes"] = tables.published_changes_csv(published)
        texts["published_ranks"] = tables.published_ranks_csv(published)
        texts["published_agreement"] = tables.published_agreement_csv(published)
    for name in tables.FILES:
        if name in texts:
            write_text(out / f"{name}.csv", texts[name])
        else:
            (out / f"{name}.csv").unlink(missing_ok=True)
    write_text(out / PAGE, degradation_page(found, published))
    return out / PAGE


def degradation_page(found: Degradation | None, published: Sequence[Published] = ()) -> str:
    """The Markdown of an analysis of runs, of published values, or of both."""
    parts = ["# What alignment changed, on all questions\n"]
    if found is not None:
        parts += [*_about(found), *_both_sces(found), *_changes(found), *_ranks(found), *_amplification(found)]
    if published:
        parts += _published(published)
    return "\n".join(parts)


def _about(found: Degradation) -> Iterator[str]:
    yield markdown_table(
        ("pair", "run", "base", "aligned"),
        [(code(p.name), code(str(p.run.path)), *map(code, _models(p))) for p in found.pairs],
        names=4,
    )
    draws = f"{found.analysis.draws:,} draws (seed {found.analysis.seed}), the same for all pairs and points"
    yield f"{_taking_part(found.size)}; {draws}.\n"
    for pair, task, confidence in found.unanswered:
        yield f"- Not in it: {code(pair)} on {code(task)} by {code(confidence)}, which base or aligned model lacks.\n"
    yield f"Change rate = (aligned - base) / base x 100; log-ratio = ln(aligned / base). {which_sce(found.bins)}\n"
    yield f"{_INTERVALS}\n\n{_UNSTABLE}\n"


def _taking_part(size: int | None) -> str:
    if size is None:
        return "All questions take part, for nothing is chosen by them"
    return (
        f"{size:,} questions of every task take part, as many as the smallest has, by the hash of their ids, so that "
        "the bias of plug-in errors is alike on all tasks"
    )


def _models(pair: Pair) -> tuple[str, str]:
    if isinstance(pair.base, AxisPoint) and isinstance(pair.aligned, AxisPoint):
        return pair.base.label, pair.aligned.label
    return str(pair.run.plan["base"]), str(pair.run.plan["aligned"])


def _both_sces(found: Degradation) -> Iterator[str]:
    """Both errors of every pair and task in one line."""
    by_key = {(row.pair, row.task, row.confidence, row.measure): row for row in found.changes}
    lines = []
    for pair, task, confidence, measure in by_key:
        if measure == "sce":
            both = [by_key[pair, task, confidence, name] for name in ("sce", "sce_agreement")]
            values = [cell for row in both for cell in _short(row)]
            lines.append((code(pair), code(confidence), task_text(task), *values))
    if lines:
        columns = [(f"{name} base", "aligned", "change rate") for name in ("SCE", "SCE-agreement")]
        header = ("pair", "confidence", "task", *columns[0], *columns[1])
        yield f"## Both static calibration errors\n\n{TWO_SCES}\n"
        yield markdown_table(header, lines, names=3)


def _short(row: ChangeRow) -> tuple[str, str, str]:
    text = BY_COLUMN[row.measure].text
    return text(row.change.base), text(row.change.aligned), rate_text(row.change.rate)


def _changes(found: Degradation) -> Iterator[str]:
    header = ("measure", "task", "base", "aligned", "difference", "change rate", "log-ratio", "")
    for pair in found.pairs:
        for confidence in found.confidences:
            rows = [row for row in found.changes if (row.pair, row.confidence) == (pair.name, confidence)]
            if rows:
                yield f"## {code(pair.name)} by confidence method {code(confidence)}\n"
                yield markdown_table(header, map(_change_cells, rows), names=2)


def _change_cells(row: ChangeRow) -> tuple[str, ...]:
    measure, change, estimate = BY_COLUMN[row.measure], row.change, row.estimate
    return (
        measure.label,
        task_text(row.task),
        measure.text(change.base),
        measure.text(change.aligned),
        difference_text(measure, estimate.difference),
        rate_text(change.rate) + _bracket(estimate.rate, 1),
        (MISSING if change.log_ratio is None else decimals(change.log_ratio, 3, "+")) + _bracket(estimate.log_ratio, 3),
        "unstable" if change.unstable else "",
    )


def _bracket(estimate: Estimate | None, places: int) -> str:
    if estimate is None:
        return ""
    return f" [{decimals(estimate.low, places, '+')}, {decimals(estimate.high, places, '+')}]"


def _ranks(found: Degradation) -> Iterator[str]:
    if not found.rankings:
        return
    yield f"## Which pair changed most\n\n{_RANKS}\n"
    groups: dict[tuple[str, str], list[Ranking]] = {}
    for ranking in found.rankings:
        groups.setdefault((ranking.confidence, ranking.measure), []).append(ranking)
    agreements = {(a.confidence, a.measure): a.concordance for a in found.agreements}
    for (confidence, measure), rankings in groups.items():
        yield f"### {BY_COLUMN[measure].heading(found.bins)} by {code(confidence)}\n"
        yield markdown_table(("pair", *(task_text(r.task) for r in rankings)), _rank_lines(rankings))
        yield f"{_w_text(agreements.get((confidence, measure)))}\n"


def _rank_lines(rankings: Sequence[Ranking]) -> Iterator[tuple[str, ...]]:
    for i, row in enumerate(rankings[0].rows):
        yield code(row.pair), *(_rank_cell(ranking.rows[i], ranking.ranks[i]) for ranking in rankings)


def _rank_cell(row: ChangeRow, rank: Rank | None) -> str:
    if rank is None:
        return MISSING
    return f"{rank.value:g} [{rank.low:g}, {rank.high:g}] {rate_text(row.change.rate)}{'*' * bool(row.change.unstable)}"


def _w_text(found: Concordance | None) -> str:
    if found is None:
        return "Kendall's W is undefined: it takes two tasks on which all pairs have a rate, and some order among them."
    text = (
        f"Kendall's W = {decimals(found.w, 3)} over {count_text(found.tasks, 'task')} and "
        f"{count_text(found.pairs, 'pair')}; chi-square p {_is(found.p_value)}"
    )
    if found.permutation_p is None:
        return f"{text}."
    return f"{text}, permutation p {_is(found.permutation_p)} ({'all' if found.is_exact else 'sampled'} arrangements)."


def _is(p: float) -> str:
    """`= 0.0249` or `< 0.0001`."""
    text = p_text(p)
    return f"< {text[1:]}" if text.startswith("<") else f"= {text}"


def _amplification(found: Degradation) -> Iterator[str]:
    if not found.trends:
        return
    yield f"## More of the alignment\n\n{_MORE}\n"
    header = ("measure", "task", "slope", "tau", "slope beyond 1", "tau beyond 1", "first worse")
    for title, trends in _by_line(found.trends).items():
        yield f"### {title}\n"
        yield markdown_table(header, map(_trend_cells, trends), names=2)


def _by_line(trends: Sequence[Trend]) -> dict[str, list[Trend]]:
    groups: dict[str, list[Trend]] = {}
    for trend in trends:
        options = f" with {named_text(trend.along.options)}" if trend.along.options else ""
        title = f"{code(trend.pair)}, {code(trend.along.method)}{options}, by {code(trend.confidence)}"
        groups.setdefault(title, []).append(trend)
    return groups


def _trend_cells(trend: Trend) -> tuple[str, ...]:
    numbers = (trend.slope, 4), (trend.tau, 2), (trend.slope_beyond, 4), (trend.tau_beyond, 2)
    return (
        BY_COLUMN[trend.measure].label,
        task_text(trend.task),
        *(MISSING if e is None else decimals(e.value, places, "+") + _bracket(e, places) for e, places in numbers),
        _collapse_text(trend),
    )


def _collapse_text(trend: Trend) -> str:
    if trend.collapse is None:
        return MISSING
    first = trend.collapse.first
    if first is None:
        return f"none to {lambda_text(trend.lambdas[-1])}"
    tested = next(w for w in trend.collapse.worsenings if w.lam == first)
    return f"{lambda_text(first)} (p {_is(tested.adjusted)})"


def _published(rows: Sequence[Published]) -> Iterator[str]:
    yield f"## Published values\n\n{_PRINTED}\n"
    ranks = [each for group in tables.published_groups(rows).values() for each in ranked(group)]
    places = {each.published: each for each in ranks}
    for (confidence, measure), found in tables.published_agreements(rows).items():
        lines = [
            (task_text(row.task), code(row.pair), *_printed_cells(row), _place(places.get(row)))
            for row in rows
            if (row.confidence, row.measure) == (confidence, measure)
        ]
        yield f"### {code(measure)} by {code(confidence)}\n"
        yield markdown_table(("task", "pair", "base", "aligned", "change rate", "rank"), lines, names=2)
        yield f"{_w_text(found)}\n"


def _place(rank: PublishedRank | None) -> str:
    return MISSING if rank is None or rank.value is None else f"{rank.value:g} [{rank.best}, {rank.worst}]"


def _printed_cells(row: Published) -> tuple[str, str, str]:
    values = [MISSING if value is None else f"{value:.10g}" for value in (row.change.base, row.change.aligned)]
    rate = row.rate
    if rate is None:
        return values[0], values[1], MISSING
    low, high = (decimals(end, 1, "+") for end in (rate.low, rate.high))
    return values[0], values[1], f"{rate_text(row.change.rate)} [{low}, {high}]"


def summary_lines(found: Degradation) -> list[str]:
    """What the terminal says: accuracy and both static calibration errors of each pair by each confidence method."""
    lines = []
    for pair in found.pairs:
        for confidence in found.confidences:
            rows = [row for row in found.changes if (row.pair, row.confidence) == (pair.name, confidence)]
            last = rows[-1].task if rows else ""  # the mean, or the only task
            said = [_said(row) for row in rows if row.task == last and row.measure in ("accuracy", "ece", "sce")]
            if said:
                lines.append(f"{pair.name}, {last} by {confidence}: {'; '.join(said)}")
    return lines


def _said(row: ChangeRow) -> str:
    base, aligned, rate = _short(row)
    return f"{BY_COLUMN[row.measure].label} {base} to {aligned} ({rate}{', unstable' if row.change.unstable else ''})"
