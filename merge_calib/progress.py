"""How long work says how far it is."""

from collections.abc import Callable
from typing import Protocol

Advance = Callable[[int], None]  # called with how much more is done


class Watch(Protocol):
    """Told what begins, how much of it there is, and in what unit, where its speed is worth knowing."""

    def __call__(self, what: str, total: int, unit: str = "", /) -> Advance: ...


def unwatched(_what: str, _total: int, _unit: str = "") -> Advance:
    """A watcher that shows nothing."""
    return ignored


def ignored(_done: int) -> None:
    """Progress that nobody hears."""
