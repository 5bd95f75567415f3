"""Field templates of task files: `{name}` stands for a field of a record, `{outer.inner}` for one inside another.

A name is looked up as a key and nothing else: no attribute, index or format of Python is ever evaluated. A name after a
list is taken of each of its items. `{{` and `}}` are braces.
"""

from dataclasses import dataclass
from typing import Any

from merge_calib.errors import InputError
from merge_calib.questions import parse_template
from merge_calib.tasks.lines import Values, kind


@dataclass(frozen=True)
class Template:
    """A text with fields in it; raises InputError, without a place, for one that cannot be read."""

    template: str

    def __post_init__(self) -> None:
        parse_template(self.template)

    def fill(self, values: Values) -> str:
        """The text with the fields of one record, which must be texts or numbers."""
        parts = parse_template(self.template)
        return "".join(text + ("" if name is None else _as_text(name, look_up(values, name))) for text, name in parts)

    def only_field(self) -> str | None:
        """The name of the field that the template consists of, None where there is more or less."""
        parts = parse_template(self.template)
        return parts[0][1] if len(parts) == 1 and not parts[0][0] else None


@dataclass(frozen=True)
class ListTemplate:
    """A list of texts: a template for each, or the name of a field that is a list."""

    templates: tuple[Template, ...] = ()
    field: str = ""

    def fill(self, values: Values) -> list[str]:
        """The texts of one record."""
        if not self.field:
            return [template.fill(values) for template in self.templates]
        items = look_up(values, self.field)
        if not isinstance(items, list):
            raise InputError(f"the field {self.field!r} must be a list, not {kind(items)}")
        return [_as_text(self.field, item) for item in items]


def look_up(values: Values, name: str) -> Any:
    """The value of a field; raises InputError where a part of its name is no key."""
    here: Any = values
    for part in name.split("."):
        here = [_get(item, part, name) for item in here] if isinstance(here, list) else _get(here, part, name)
    return here


def _get(value: Any, part: str, name: str) -> Any:
    if not isinstance(value, dict):
        raise InputError(f"the field {name!r} cannot be found: {part!r} would be inside {kind(value)}")
    if part not in value:
        raise InputError(f"there is no field {name!r}; here are: {', '.join(map(repr, value)) or 'no fields'}")
    return value[part]


def _as_text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise InputError(f"the field {name!r} must be a text or a number, not {kind(value)}")
