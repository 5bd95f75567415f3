"""Progress bars on stderr, silent where nobody is looking."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from merge_calib.progress import Advance, Watch


class SpeedColumn(ProgressColumn):
    """`12,345 tokens/s`, for bars that have a unit."""

    def render(self, task: Task) -> Text:
        speed, unit = task.speed, task.fields["unit"]
        return Text(f"{speed:,.0f} {unit}/s" if unit and speed else "")


@contextmanager
def watching() -> Iterator[Watch]:
    """Give a watcher that draws a bar for all that is under way; a finished bar leaves."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        SpeedColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:

        def watch(what: str, total: int, unit: str = "") -> Advance:
            bar = progress.add_task(what, total=total, unit=unit)

            def advance(done: int) -> None:
                progress.advance(bar, done)
                if any(task.id == bar and task.finished for task in progress.tasks):
                    progress.remove_task(bar)

            return advance

        yield watch
