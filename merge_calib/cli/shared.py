"""What the modules of options share."""

from collections.abc import Callable
from typing import Any, TypeVar

from merge_calib.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])


def apply(options: list[Callable[[Any], Any]], command: F) -> F:
    """The command with these options, in their order."""
    for option in reversed(options):
        command = option(command)
    return command


def split_list(flag: str, text: str) -> tuple[str, ...]:
    """The names in a comma list; raises InputError for an empty one."""
    names = tuple(name.strip() for name in text.split(","))
    if "" in names:
        raise InputError(f"{flag} {text!r} has an empty name")
    return names
