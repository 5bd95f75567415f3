"""How the panels of several models are laid out."""

from collections.abc import Sequence
from dataclasses import dataclass

from merge_calib.report.style import SINGLE, WIDE

_COLUMNS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 3, 6: 3, 7: 4, 8: 4, 9: 3}
_LETTER = 0.06  # inches that a letter of a title takes


@dataclass(frozen=True)
class Layout:
    """A grid for a number of panels, a column's width in inches, and how long titles may be."""

    count: int

    @property
    def columns(self) -> int:
        return _COLUMNS.get(self.count, 4)

    @property
    def rows(self) -> int:
        return -(-self.count // self.columns)

    @property
    def width(self) -> float:
        return {1: SINGLE, 2: 4.6}.get(self.columns, WIDE)

    @property
    def title_size(self) -> float:
        """In points."""
        return 7 if self.columns == 4 else 8

    def place(self, i: int) -> tuple[int, int]:
        """Row and column of panel `i`."""
        return divmod(i, self.columns)

    def is_lowest(self, i: int) -> bool:
        """Whether no panel stands below panel `i`."""
        return i + self.columns >= self.count

    def title(self, lines: Sequence[str]) -> str:
        """The lines, each cut in the middle to what fits above a panel."""
        most = int((self.width - 0.5) / self.columns / (_LETTER * self.title_size / 8))
        return "\n".join(
            line if len(line) <= most else f"{line[: most // 2]}…{line[1 - most + most // 2 :]}" for line in lines
        )
