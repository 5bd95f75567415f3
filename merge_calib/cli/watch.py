"""Progress bars on stderr, silent where nobody is looking."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from merge_calib.progress import Advance, Watch


@contextmanager
def watching() -> Iterator[Watch]:
    """Give a watcher that draws a bar for all that is under way; a finished bar leaves."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:

        def watch(what: str, total: int) -> Advance:
            bar = progress.add_task(what, total=total)

            def advance(done: int) -> None:
                progress.advance(bar, done)
                if any(task.id == bar and task.finished for task in progress.tasks):
                    progress.remove_task(bar)

            return advance

        yield watch
