"""What the rounding of printed numbers leaves open, and which absolute values give a printed change and ratio."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from merge_calib.errors import InputError

_SLACK = 1e-12  # for products and quotients of floats at the very edge of a rounding interval


@dataclass(frozen=True)
class Interval:
    """All numbers from low to high, both included."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2

    def contains(self, value: float) -> bool:
        """Whether `value` lies within, up to the error of a float's last digits."""
        slack = _SLACK * max(1.0, abs(value))
        return self.low - slack <= value <= self.high + slack

    def within(self, other: "Interval") -> "Interval | None":
        """What both share; None where that is nothing."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        return Interval(low, high) if low <= high else None


UNIT = Interval(0.0, 1.0)


@dataclass(frozen=True)
class Printed:
    """A number as it was printed, and what it may have been before it was rounded."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Absolutes:
    """Both parents' values as far as the rounding tells them, and one pair of values that gives what was printed."""

    base: Interval
    aligned: Interval
    example: tuple[float, float]


@dataclass(frozen=True)
class Impossible:
    """Numbers that no absolute value gives, and why."""

    reason: str


@dataclass(frozen=True)
class Unbounded:
    """Numbers that do not tell an absolute value, and why."""

    reason: str


Derived = Absolutes | Impossible | Unbounded


def read_printed(text: str, decimals: int | None = None) -> Printed:
    """A number and all that round to it: x with d decimals stands for [x - .5e-d, x + .5e-d]; `13.39%` is a share.

    decimals: d where the text lost its last zeros; not fewer than it shows
    Raises InputError where the text is no plain number.
    """
    is_percent = text.endswith("%")
    try:
        number = Decimal(text.removesuffix("%"))
    except InvalidOperation:
        raise InputError(f"{text!r} is no number") from None
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int):
        raise InputError(f"{text!r} is no finite number")
    shown = max(-exponent, 0)
    if decimals is not None and decimals < shown:
        raise InputError(f"{text!r} has more than the {decimals} decimals that were given")
    half = Decimal(5).scaleb(-(shown if decimals is None else decimals) - 1)
    unit = Decimal("0.01") if is_percent else Decimal(1)
    interval = Interval(float((number - half) * unit), float((number + half) * unit))
    return Printed(float(number * unit), interval)


def derive(change: Interval, ratio: Interval, bounds: Interval = UNIT) -> Derived:
    """The absolute values behind a published change (aligned - base) and ratio of change ((aligned - base) / base).

    base = change / ratio over both rounding intervals, where base > 0 and both base and aligned = base + change lie
    within `bounds`. `base` is exact: each value in it goes with some change and ratio of the intervals. `aligned` is
    no wider than either of base + change and base x (1 + ratio) allows.
    """
    if ratio.contains(0):
        return Unbounded("the ratio may be 0")
    told = _corners(lambda d, r: d / r, change, ratio)
    if told.high <= 0:
        return Impossible("change and ratio have opposite signs")
    if ratio.high < -1 and bounds.low >= 0:
        return Impossible("a ratio below -100 %")
    if told.low <= bounds.low and told.high >= bounds.high:
        return Unbounded("all bases that the measure can have give these numbers")
    base: Interval | None = told
    for limit in (bounds, Interval(bounds.low - change.high, bounds.high - change.low), _kept(ratio, bounds)):
        base = base.within(limit) if base else None
    if base is None or base.high <= 0:
        return Impossible("base or aligned outside what the measure can be")
    return Absolutes(base, _aligned(base, change, ratio, bounds), _example(base, change, ratio, bounds))


def differences(base: Interval, aligned: Interval) -> Interval:
    """All changes aligned - base."""
    return Interval(aligned.low - base.high, aligned.high - base.low)


def rates(base: Interval, aligned: Interval) -> Interval | None:
    """All change rates in %, (aligned / base - 1) x 100; None where the base may be 0 or less."""
    if base.low <= 0:
        return None
    ratio = _corners(lambda a, b: a / b, aligned, base)
    return Interval((ratio.low - 1) * 100, (ratio.high - 1) * 100)


def log_ratios(base: Interval, aligned: Interval) -> Interval | None:
    """All ln(aligned / base); None where either may be 0 or less."""
    if base.low <= 0 or aligned.low <= 0:
        return None
    return Interval(math.log(aligned.low / base.high), math.log(aligned.high / base.low))


def rank_ranges(rates: Sequence[Interval | None]) -> list[tuple[int, int] | None]:
    """The best and the worst rank that each pair may have, 1 for the largest rate; None where a rate is undefined.

    A pair is surely ahead of another only where all that its rate may be is larger. Undefined rates are not counted.
    """
    known = [rate for rate in rates if rate is not None]
    found: list[tuple[int, int] | None] = []
    for rate in rates:
        if rate is None:
            found.append(None)
            continue
        ahead = sum(other.low > rate.high for other in known)
        behind = sum(other.high < rate.low for other in known)
        found.append((1 + ahead, len(known) - behind))
    return found


def _corners(formula: Callable[[float, float], float], one: Interval, other: Interval) -> Interval:
    """The range of a formula that is monotone in each of its arguments."""
    values = [formula(a, b) for a in (one.low, one.high) for b in (other.low, other.high)]
    return Interval(min(values), max(values))


def _kept(ratio: Interval, bounds: Interval) -> Interval:
    """Bases whose aligned value base x (1 + ratio) can lie within `bounds`."""
    least, most = 1 + ratio.low, 1 + ratio.high
    low = bounds.low / most if most > 0 and bounds.low > 0 else -math.inf
    return Interval(low, bounds.high / least if least > 0 else math.inf)


def _aligned(base: Interval, change: Interval, ratio: Interval, bounds: Interval) -> Interval:
    low = max(base.low + change.low, base.low * (1 + ratio.low), bounds.low)
    high = min(base.high + change.high, base.high * (1 + ratio.high), bounds.high)
    return Interval(low, high)


def _example(base: Interval, change: Interval, ratio: Interval, bounds: Interval) -> tuple[float, float]:
    """The middle of the bases, and the middle of the aligned values that go with it.

    Three intervals of which each two have a number in common have one in common all together.
    """
    value = base.middle
    low = max(value + change.low, value * (1 + ratio.low), bounds.low)
    high = min(value + change.high, value * (1 + ratio.high), bounds.high)
    return value, (low + high) / 2
