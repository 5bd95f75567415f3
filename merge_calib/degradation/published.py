"""A CSV of published absolute values, and the changes, rates and ranks that its rounding allows.

Columns: pair, task, confidence, measure, base, aligned and, where the file lost last zeros, decimals. Numbers are
written as they were printed: `0.613` or `61.3%`. An empty base or aligned was not published.
"""

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from merge_calib.degradation.change import Change
from merge_calib.degradation.ranks import ranks
from merge_calib.degradation.rounding import (
    UNIT,
    Interval,
    Printed,
    differences,
    log_ratios,
    rank_ranges,
    rates,
    read_printed,
)
from merge_calib.errors import InputError
from merge_calib.scores import Floats

_KEY = ("pair", "task", "confidence", "measure")
_COLUMNS = (*_KEY, "base", "aligned")
_SHARES = {"accuracy", "ece", "sce", "sce_agreement", "mean_confidence", "auroc"}


@dataclass(frozen=True)
class Published:
    """One published measure of a pair on a task; None where nothing was published."""

    pair: str
    task: str
    confidence: str
    measure: str
    base: Printed | None
    aligned: Printed | None

    @property
    def change(self) -> Change:
        """The change between the numbers as they were printed."""
        return Change(self.base.value if self.base else None, self.aligned.value if self.aligned else None)

    @property
    def difference(self) -> Interval | None:
        """What aligned - base may be."""
        return self._allowed(differences)

    @property
    def rate(self) -> Interval | None:
        """What the change rate in % may be; None where the base may be 0."""
        return self._allowed(rates)

    @property
    def log_ratio(self) -> Interval | None:
        """What ln(aligned / base) may be; None where either may be 0."""
        return self._allowed(log_ratios)

    def _allowed(self, formula: Callable[[Interval, Interval], Interval | None]) -> Interval | None:
        return formula(self.base.interval, self.aligned.interval) if self.base and self.aligned else None


@dataclass(frozen=True)
class PublishedRank:
    """The rank of a printed rate, and the best and the worst that its rounding allows; None where undefined."""

    published: Published
    value: float | None
    best: int | None
    worst: int | None


def read_published(path: Path) -> list[Published]:
    """Read the CSV; raises InputError as FILE:LINE where a line cannot be used."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _read(path, csv.DictReader(file, restkey="", strict=True))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV: {error}") from error


def ranked(rows: Sequence[Published]) -> list[PublishedRank]:
    """Rank the pairs of one task, confidence method and measure by their change rates, the largest first."""
    places = ranks(np.array([_rate(row) for row in rows]))
    allowed = rank_ranges([row.rate for row in rows])
    return [
        PublishedRank(row, None, None, None) if range is None else PublishedRank(row, float(place), *range)
        for row, place, range in zip(rows, places, allowed, strict=True)
    ]


def rate_table(rows: Iterable[Published], tasks: Sequence[str], pairs: Sequence[str]) -> Floats:
    """Printed change rates (tasks, pairs) of one confidence method and measure, NaN where undefined or not there."""
    found = {(row.task, row.pair): _rate(row) for row in rows}
    return np.array([[found.get((task, pair), math.nan) for pair in pairs] for task in tasks])


def _rate(row: Published) -> float:
    """The rate between the printed numbers; NaN where the rounding leaves it undefined."""
    rate = row.change.rate
    return math.nan if rate is None or row.rate is None else rate


def _read(path: Path, reader: "csv.DictReader[str]") -> list[Published]:
    missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise InputError(f"{path}:1 lacks {', '.join(missing)}; the columns are {', '.join(_COLUMNS)} and decimals")
    found: dict[tuple[str, str, str, str], Published] = {}
    for row in reader:
        place = f"{path}:{reader.line_num}"
        key = _key(row)
        if "" in key or "" in row:
            raise InputError(f"{place} has {'an empty ' + _KEY[key.index('')] if '' in key else 'too many fields'}")
        if key in found:
            raise InputError(f"{place} gives {' '.join(key)} a second time")
        base, aligned = (_value(place, row, column, key[-1]) for column in ("base", "aligned"))
        found[key] = Published(*key, base, aligned)
    if not found:
        raise InputError(f"{path} holds no values")
    return list(found.values())


def _key(row: Mapping[str, str | None]) -> tuple[str, str, str, str]:
    pair, task, confidence, measure = ((row[column] or "").strip() for column in _KEY)
    return pair, task, confidence, measure


def _value(place: str, row: Mapping[str, str | None], column: str, measure: str) -> Printed | None:
    text = (row[column] or "").strip()
    if not text:
        return None
    try:
        found = read_printed(text, _decimals(row.get("decimals")))
    except InputError as error:
        raise InputError(f"{place}: {column}: {error}") from error
    if measure not in _SHARES:
        return found
    share = found.interval.within(UNIT)
    if share is None:
        raise InputError(f"{place}: {column}: {measure} lies between 0 and 1 (61.3% or .613), not {text}")
    return Printed(found.value, share)


def _decimals(text: str | None) -> int | None:
    if not (text or "").strip():
        return None
    if not str(text).strip().isdecimal():
        raise InputError(f"decimals is {text!r}, not a whole number")
    return int(str(text))
