"""How long work says how far it is."""

from collections.abc import Callable

Advance = Callable[[int], None]  # called with how much more is done
Watch = Callable[[str, int], Advance]  # told what begins and how much of it there is


def unwatched(_what: str, _total: int) -> Advance:
    """A watcher that shows nothing."""
    return ignored


def ignored(_done: int) -> None:
    """Progress that nobody hears."""
