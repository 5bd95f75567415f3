"""Options from a TOML file."""

import tomllib
from pathlib import Path
from typing import Any

import click

from merge_calib.errors import InputError


def read_recipe(context: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    """Make the keys of the recipe (flag names without dashes in front) the defaults of the command.

    Lists become comma lists, or the values of a flag that may be given several times.
    Raises InputError naming the file for what cannot be read and for unknown keys.
    """
    if path is None:
        return
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--recipe {path} cannot be read: {error}") from error
    flags = {p.opts[0].lstrip("-"): p for p in context.command.params if p.name and p.name != "recipe"}
    unknown = sorted(set(content) - set(flags))
    if unknown:
        raise InputError(f"--recipe {path}: unknown key {unknown[0]!r}; allowed: {', '.join(sorted(flags))}")
    context.default_map = {
        str(flags[key].name): _given(path, key, value, is_multiple=getattr(flags[key], "multiple", False))
        for key, value in content.items()
    }


def _given(path: Path, key: str, value: Any, *, is_multiple: bool) -> str | list[str]:
    """The value as it would stand on the command line, where it is then checked."""
    items = value if isinstance(value, list) else [value]
    if any(not isinstance(item, str | int | float) for item in items):
        raise InputError(f"--recipe {path}: {key} must be a text, a number, true or false, or a list of them")
    texts = [str(item).lower() if isinstance(item, bool) else str(item) for item in items]
    return texts if is_multiple else ",".join(texts)
