"""The ids of one task: each is given once, and what has none gets one from its content."""

from collections import Counter

from merge_calib.errors import InputError


class Ids:
    """Remembers the ids that are taken, with the place of each."""

    def __init__(self) -> None:
        self._places: dict[str, str] = {}
        self._made: Counter[str] = Counter()

    def take(self, id: str, place: str) -> str:
        """`id` itself; raises InputError, without a place, where it is taken."""
        if id in self._places:
            raise InputError(f"id {id!r} stands already at {self._places[id]}")
        self._places[id] = place
        return id

    def take_made(self, id: str, place: str) -> str:
        """An id made from content: `id` where it is new, else with -2, -3, ... (MMLU asks 27 questions twice)."""
        self._made[id] += 1
        count = self._made[id]
        return self.take(id if count == 1 else f"{id}-{count}", place)
