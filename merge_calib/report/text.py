"""Numbers and tables as text."""

from collections.abc import Iterable, Sequence
from decimal import ROUND_HALF_UP, Decimal

MISSING = "–"


def decimals(value: float, places: int, sign: str = "") -> str:
    """The number as it is written by hand: rounded half up from its shortest decimal form."""
    exact = Decimal(repr(float(value)))
    if not exact.is_finite():
        return f"{value:{sign}.{places}f}"
    return f"{exact.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP):{sign}f}"


def percent(value: float, places: int, sign: str = "") -> str:
    """A share in hundredths, without the unit."""
    return decimals(float(Decimal(repr(float(value))) * 100), places, sign)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], names: int = 1) -> str:
    """A Markdown table whose first `names` columns are words (left) and whose others are numbers (right)."""
    rule = [":--" if i < names else "--:" for i in range(len(header))]
    lines = [header, rule, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def code(name: str) -> str:
    """`name` as Markdown code, so that underscores and stars stay what they are."""
    return f"`{name.replace('`', chr(39))}`"


def lambda_text(lam: float) -> str:
    """0.4, 1 or 0.4375: all the decimals that the lambda has."""
    return f"{lam:.10f}".rstrip("0").rstrip(".")


def named_text(named: Iterable[tuple[str, float]]) -> str:
    """`density 0.2, drop_seed 0`: numbers by their names."""
    return ", ".join(f"{name} {value:.10g}" for name, value in named)


def number_text(value: float) -> str:
    """A position on an axis: 512, 143,000 or 0.07."""
    return f"{value:,.10g}"


def short_text(value: float) -> str:
    """A position in as few letters as under a figure: 512, 143k, 1.4B."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def rate_text(rate: float | None) -> str:
    """A change rate in %, with its sign."""
    return MISSING if rate is None else f"{decimals(rate, 1, '+')}%"


def count_text(count: int, noun: str) -> str:
    """`1 task`, `2,376 questions`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
