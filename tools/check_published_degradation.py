"""The tables of Oh & Hwang 2024 checked against themselves: absolute values that give each change and rate, and ranks.

    python tools/check_published_degradation.py choice.csv > tools/results/degradation_published.md
    python tools/check_published_degradation.py choice.csv --csv > derived.csv

The second form prints values that give the printed changes and rates, for `merge-calib degradation --published`; they
are examples from within the rounding, not what the authors measured.

The file has a block of seven pairs for each of ten tasks; in a line change, rate and rank of ECE, SCE and accuracy.
"""

import argparse
import csv
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from merge_calib.degradation.change import Change
from merge_calib.degradation.ranks import kendalls_w, ranks
from merge_calib.degradation.rounding import Absolutes, Derived, Impossible, Printed, Unbounded, derive, rank_ranges
from merge_calib.degradation.rounding import read_printed as read
from merge_calib.errors import InputError

# Their SCE counts a class as right where prediction and answer agree on it, so it has that variant's name here.
MEASURES = ("ece", "sce_agreement", "accuracy")
# Questions with the number of options the paper asked, solved from its accuracies; sciq has 1,000 in its test split.
SIZES = {
    "arc_challenge": 1165,
    "arc_easy": 2365,
    "hellaswag": 10042,
    "medmcqa": 4183,
    "mmlu_humanities": 4705,
    "mmlu_other": 3107,
    "mmlu_social_sciences": 3077,
    "mmlu_stem": 3153,
    "piqa": 1838,
    "sciq": 1000,
}
OTHER_SIZES = {"arc_challenge": 1172, "arc_easy": 2376}  # a negative control: all questions, whatever their options


class Cell(NamedTuple):
    """What the paper's file says of one measure of one pair on one task; the rate is a ratio here, not in %."""

    task: str
    pair: str
    measure: str
    change: Printed
    ratio: Printed
    rank: int

    @property
    def derived(self) -> Derived:
        return derive(self.change.interval, self.ratio.interval)


class Check(NamedTuple):
    """How many of the things that were looked at are as they should be, and the names of the others."""

    what: str
    right: int
    of: int
    wrong: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--csv", action="store_true")
    options = parser.parse_args()
    cells = read_cells(options.file)
    print(absolute_csv(cells) if options.csv else page(cells), end="")


def read_cells(path: Path) -> list[Cell]:
    """Every measure of every line, in the file's order."""
    cells, task = [], ""
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.reader(file), 1):
            if len(row) > 1 and row[1] == "choice":
                task = row[0]
            elif row and row[0]:
                if not task or len(row) < 10:
                    raise InputError(f"{path}:{number} is no line of a task's block")
                groups = (row[1 + 3 * i : 4 + 3 * i] for i in range(3))
                for measure, (change, ratio, rank) in zip(MEASURES, groups, strict=True):
                    cells.append(Cell(task, row[0], measure, read(change), read(ratio), int(rank)))
    return cells


def checks(cells: Sequence[Cell]) -> list[Check]:
    """What the file must fulfil; a cell that tells no absolute value takes part in ranks by its printed rate."""
    known = [cell for cell in cells if isinstance(cell.derived, Absolutes)]
    counts = [cell for cell in cells if cell.measure == "accuracy" and cell.task in SIZES]
    return [
        _check("change from the derived values rounds to the printed one", known, _gives_change),
        _check("change rate from the derived values rounds to the printed one", known, _gives_rate),
        _check("rank of that rate, as printed", cells, lambda cell: _rank_of_derived(cell, cells) == cell.rank),
        _check("rank within what the rounding of the rates allows", cells, lambda cell: _rank_is_allowed(cell, cells)),
        _check("accuracies that whole numbers of right answers give", counts, _has_counts),
    ]


def concordances(cells: Sequence[Cell]) -> dict[str, tuple[float, float, float | None]]:
    """Kendall's W over tasks by measure, its chi-square p and its permutation p, from the printed rates."""
    pairs, tasks = (list(dict.fromkeys(getattr(cell, name) for cell in cells)) for name in ("pair", "task"))
    found = {}
    for measure in MEASURES:
        rates = {(cell.task, cell.pair): cell.ratio.value for cell in cells if cell.measure == measure}
        w = kendalls_w(np.array([[rates.get((task, pair), math.nan) for pair in pairs] for task in tasks]))
        if w is not None:
            found[measure] = (w.w, w.p_value, w.permutation_p)
    return found


def absolute_csv(cells: Sequence[Cell]) -> str:
    """A file for `merge-calib degradation --published`: an example of the derived values, to ten decimals."""
    lines = ["pair,task,confidence,measure,base,aligned"]
    for cell in cells:
        derived = cell.derived
        if isinstance(derived, Absolutes):
            base, aligned = derived.example
            lines.append(f"{cell.pair},{cell.task},choice,{cell.measure},{base:.10f},{aligned:.10f}")
    return "\n".join(lines) + "\n"


def fitting_counts(cell: Cell, n: int) -> int:
    """How many pairs of numbers of right answers among n give the printed change and rate of an accuracy."""
    derived, found = cell.derived, 0
    if not isinstance(derived, Absolutes):
        return 0
    change, ratio = cell.change.interval, cell.ratio.interval
    for base in range(max(1, math.floor(derived.base.low * n)), math.ceil(derived.base.high * n) + 1):
        lowest, highest = math.floor(base + change.low * n), math.ceil(base + change.high * n)
        for aligned in range(max(0, lowest), min(n, highest) + 1):
            found += change.contains((aligned - base) / n) and ratio.contains((aligned - base) / base)
    return found


def page(cells: Sequence[Cell]) -> str:
    """The Markdown that is kept."""
    tasks, pairs = ({getattr(cell, name) for cell in cells} for name in ("task", "pair"))
    lines = [
        "# The published tables of Oh & Hwang 2024, checked against themselves\n",
        "Made by `tools/check_published_degradation.py` from the ten `choice` tables of the paper's published data "
        f"({len(tasks)} tasks, {len(pairs)} pairs, {len(cells)} cells). Absolute values are change / ratio over both "
        "rounding intervals, base and aligned within [0, 1]. `sce_agreement` is what the paper calls SCE.\n",
        *_derived_table(cells),
        *_reasons(cells),
        *_check_table(cells),
        *_concordance_table(cells),
        *_rising(cells),
    ]
    return "\n".join(lines)


def _derived_table(cells: Sequence[Cell]) -> list[str]:
    kinds = Counter((cell.measure, type(cell.derived)) for cell in cells)
    lines = [
        "| measure | cells | derived | tells no value | impossible | median width of the base | widest |",
        "| :-- | --: | --: | --: | --: | --: | --: |",
    ]
    for measure in MEASURES:
        of = [cell.derived for cell in cells if cell.measure == measure]
        widths = [d.base.high - d.base.low for d in of if isinstance(d, Absolutes)] or [math.nan]
        numbers = (len(of), *(kinds[measure, kind] for kind in (Absolutes, Unbounded, Impossible)))
        texts = [*map(str, numbers), f"{np.median(widths):.4f}", f"{max(widths):.4f}"]
        lines.append(f"| {measure} | {' | '.join(texts)} |")
    return [*lines, ""]


def _check_table(cells: Sequence[Cell]) -> list[str]:
    found = checks(cells)
    others = ", ".join(f"{task} {n:,}" for task, n in OTHER_SIZES.items())
    return [
        "| check | holds | of |\n| :-- | --: | --: |",
        *(f"| {check.what} | {check.right} | {check.of} |" for check in found),
        *(f"\nNot so: {', '.join(check.wrong)} ({check.what})." for check in found if check.wrong),
        f"\nThat the last line can fail: with the questions of the whole test sets ({others}) it holds for "
        f"{_with_other_sizes(cells)}.",
    ]


def _concordance_table(cells: Sequence[Cell]) -> list[str]:
    lines = [
        "\nKendall's W over tasks as judges of the pairs, from the printed rates (10,000 random rearrangements, of "
        "which the smallest possible p is 0.0001):\n",
        "| measure | W | chi-square p | permutation p |\n| :-- | --: | --: | --: |",
    ]
    for measure, (w, p, permuted) in concordances(cells).items():
        lines.append(f"| {measure} | {w:.3f} | {p:.2g} | {'–' if permuted is None else f'{permuted:.2g}'} |")
    return lines


def _rising(cells: Sequence[Cell]) -> list[str]:
    counts = Counter(cell.measure for cell in cells if cell.ratio.value > 0)
    return [
        f"\nBy the printed rates the error rises from base to aligned in {counts['sce_agreement']} of "
        f"{len(cells) // len(MEASURES)} rows by `sce_agreement` and in {counts['ece']} by ECE.\n"
    ]


def _reasons(cells: Sequence[Cell]) -> list[str]:
    """A line for each cell without absolute values."""
    said = [
        f"- {_name(cell)}: change {_text(cell.change)}, ratio {_text(cell.ratio)}: {cell.derived.reason}."
        for cell in cells
        if not isinstance(cell.derived, Absolutes)
    ]
    return ["Cells without absolute values:\n", *said, ""] if said else []


def _check(what: str, cells: Sequence[Cell], holds: Callable[[Cell], bool]) -> Check:
    wrong = tuple(_name(cell) for cell in cells if not holds(cell))
    return Check(what, len(cells) - len(wrong), len(cells), wrong)


def _gives_change(cell: Cell) -> bool:
    difference = _example(cell).difference
    return difference is not None and cell.change.interval.contains(difference)


def _gives_rate(cell: Cell) -> bool:
    rate = _example(cell).rate
    return rate is not None and cell.ratio.interval.contains(rate / 100)


def _rank_of_derived(cell: Cell, cells: Sequence[Cell]) -> float:
    group = _group(cells)[cell.task, cell.measure]
    found = [_example(one).rate if isinstance(one.derived, Absolutes) else one.ratio.value * 100 for one in group]
    return float(ranks(np.array(found, dtype=np.float64))[group.index(cell)])


def _rank_is_allowed(cell: Cell, cells: Sequence[Cell]) -> bool:
    group = _group(cells)[cell.task, cell.measure]
    allowed = rank_ranges([one.ratio.interval for one in group])[group.index(cell)]
    return allowed is not None and allowed[0] <= cell.rank <= allowed[1]


def _has_counts(cell: Cell) -> bool:
    return fitting_counts(cell, SIZES[cell.task]) > 0


def _with_other_sizes(cells: Sequence[Cell]) -> str:
    of = [cell for cell in cells if cell.measure == "accuracy" and cell.task in OTHER_SIZES]
    return f"{sum(fitting_counts(cell, OTHER_SIZES[cell.task]) > 0 for cell in of)} of {len(of)} cells"


def _group(cells: Sequence[Cell]) -> Mapping[tuple[str, str], list[Cell]]:
    groups = defaultdict(list)
    for cell in cells:
        groups[cell.task, cell.measure].append(cell)
    return groups


def _example(cell: Cell) -> Change:
    assert isinstance(cell.derived, Absolutes)
    return Change(*cell.derived.example)


def _name(cell: Cell) -> str:
    return f"{cell.task} {cell.pair} {cell.measure}"


def _text(printed: Printed) -> str:
    return f"{printed.value:g} in [{printed.interval.low:.6g}, {printed.interval.high:.6g}]"


if __name__ == "__main__":
    main()
