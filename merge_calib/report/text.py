"""Numbers and tables as text."""

import csv
import io
from collections.abc import Iterable, Sequence

MISSING = "–"


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The text of a CSV file; floats are written so that they read back exactly, None as an empty field."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return file.getvalue()


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


def rate_text(rate: float | None) -> str:
    """A change rate in %, with its sign."""
    return MISSING if rate is None else f"{rate:+.1f}%"


def count_text(count: int, noun: str) -> str:
    """`1 task`, `2,376 questions`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
