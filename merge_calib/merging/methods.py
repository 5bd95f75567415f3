"""All merging methods by name."""

import dataclasses
from collections.abc import Callable, Mapping

from merge_calib.errors import InputError
from merge_calib.merging.breadcrumbs import Breadcrumbs
from merge_calib.merging.dare import DareLinear, DareTies
from merge_calib.merging.della import DellaLinear
from merge_calib.merging.linear import Linear
from merge_calib.merging.lines import Lines
from merge_calib.merging.method import Method
from merge_calib.merging.slerp import Slerp
from merge_calib.merging.task_arithmetic import TaskArithmetic
from merge_calib.merging.ties import Ties

METHODS: dict[str, type[Method]] = {
    "linear": Linear,
    "slerp": Slerp,
    "task_arithmetic": TaskArithmetic,
    "ties": Ties,
    "dare_linear": DareLinear,
    "dare_ties": DareTies,
    "della_linear": DellaLinear,
    "breadcrumbs": Breadcrumbs,
    "lines": Lines,
}


def make_method(name: str, options: Mapping[str, float]) -> Method:
    """The method called `name` with these options, the others at their defaults.

    Raises InputError for a method that is unknown, an option that is not the method's, and a value it cannot have.
    """
    if name not in METHODS:
        raise InputError(f"--method {name} is unknown; allowed: {', '.join(METHODS)}")
    for option in options:
        if option not in default_options(name):
            raise InputError(_not_its_own(name, option))
    make: Callable[..., Method] = METHODS[name]
    return make(**{option: _as(default_options(name)[option], value) for option, value in options.items()})


def options_of(method: Method) -> dict[str, float]:
    """All options of a method with their values, in the order of its fields."""
    return dataclasses.asdict(method)


def default_options(name: str) -> dict[str, float]:
    """All options of the method called `name`, with their defaults."""
    return options_of(METHODS[name]())


def option_names() -> tuple[str, ...]:
    """Every option that some method has."""
    return tuple(dict.fromkeys(option for name in METHODS for option in default_options(name)))


def methods_with(option: str) -> tuple[str, ...]:
    """The names of the methods that have an option."""
    return tuple(name for name in METHODS if option in default_options(name))


def _as(default: float, value: float) -> float:
    """The value as the kind of number that the option is; a seed that is not whole stays what it is, to be refused."""
    if isinstance(default, int):
        return int(value) if float(value).is_integer() else value
    return float(value)


def _not_its_own(name: str, option: str) -> str:
    flag = f"--{option.replace('_', '-')}"
    others = methods_with(option)
    return f"{flag} is no option of --method {name}; " + (
        f"{', '.join(others)} {'have' if len(others) > 1 else 'has'} it" if others else "no method has it"
    )
