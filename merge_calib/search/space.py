"""What a study searches: lambdas, methods and their options, as the parameters of its trials."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from merge_calib.errors import InputError
from merge_calib.merging.methods import default_options, make_method, methods_with
from merge_calib.merging.point import MergePoint

DECIMALS = 4  # of everything that is searched, so that names and measured values agree

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Space:
    """The points that a study may propose.

    methods: one of them is chosen for each point; options: fixed values, for those methods that have them
    ranges: lowest and highest value of each option that is searched; low, high: the same of all lambdas
    groups: the selectors that have a lambda of their own, none for one lambda

    Parameters of a trial: `lambda`, or `lambda GROUP` for each group; `method` where there are several; each option
    with a range by its name. Every trial has all of them, also the options that its method does not have: samplers
    model the parameters that all trials share, and would draw any other without regard to what was measured. What a
    method does not have is ignored. Numbers that are not whole are continuous to samplers and rounded to four decimals
    afterwards: with steps, a Gaussian process takes 20 times as long over 8 lambdas.

    Raises InputError naming the flag for a range that is empty or goes beyond what a method allows, and for an option
    that none of the methods has or that is both fixed and searched.
    """

    methods: tuple[str, ...]
    options: Mapping[str, float] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    low: float = 0.0
    high: float = 1.5
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.methods
        for method in self.methods:
            make_method(method, {})
        if len(set(self.methods)) < len(self.methods):
            raise InputError(f"--method names one method twice: {', '.join(self.methods)}")
        _require_range("--lambdas", self.low, self.high)
        for option in (*self.options, *self.ranges):
            self._require_owned(option)
        for option, (low, high) in self.ranges.items():
            self._require_searchable(option, low, high)
        for method in self.methods:
            self._require_allowed(method)

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """What each parameter of a trial may be, by its name."""
        found: dict[str, BaseDistribution] = {name: _floats(self.low, self.high) for name in self._lambdas}
        if len(self.methods) > 1:
            found["method"] = CategoricalDistribution(self.methods)
        for option, (low, high) in self.ranges.items():
            whole = isinstance(self._default(self.methods[0], option), int)
            found[option] = IntDistribution(int(low), int(high)) if whole else _floats(low, high)
        return found

    def point(self, params: Params) -> MergePoint:
        """The point that a trial's parameters describe."""
        method = params.get("method", self.methods[0])
        searched = {option: params[option] for option in self.ranges}
        owned = self._owned(method, {**self.options, **searched})
        options = tuple((option, _rounded(value)) for option, value in owned.items())
        if not self.groups:
            return MergePoint(method, _rounded(params["lambda"]), options)
        lambdas = tuple((group, _rounded(params[name])) for group, name in zip(self.groups, self._lambdas, strict=True))
        return MergePoint(method, None, options, lambdas)

    def rounded(self, params: Params) -> dict[str, Any]:
        """Parameters as a trial keeps them."""
        return {name: _rounded(value) if isinstance(value, float) else value for name, value in params.items()}

    def params(self, point: MergePoint) -> dict[str, Any] | None:
        """The parameters that describe a point, or None where the point is not in the space.

        A point of one lambda is on the diagonal: all groups have it. A parent has the parameters of the first method
        that gives it. What the point's method does not have is at its default.
        """
        for method in self.methods:
            params = self._params(method, point)
            if self._contains(params) and self.point(params) == point:
                return params
        return None

    def diagonal(self, count: int) -> list[MergePoint]:
        """At most `count` points of one lambda, shared out evenly among the methods; parents are left out.

        A method's lambdas lie evenly inside [low, high]; an option that is searched is at its default, or at the end
        of its range that is next to it.
        """
        found = []
        for i, method in enumerate(self.methods):
            share = (count + len(self.methods) - 1 - i) // len(self.methods)
            for lam in self._inside(share):
                point = self.point(self._params(method, MergePoint("linear", lam)))
                if not point.is_base and not point.is_aligned:
                    found.append(point)
        return found

    @property
    def _lambdas(self) -> list[str]:
        return [f"lambda {group}" for group in self.groups] or ["lambda"]

    def _inside(self, count: int) -> Iterator[float]:
        for i in range(1, count + 1):
            yield _rounded(self.low + (self.high - self.low) * i / (count + 1))

    def _params(self, method: str, point: MergePoint) -> dict[str, Any]:
        """Those of a point as if `method` had made it, in the space or not."""
        own = dict(point.groups)
        lambdas = [point.lam] * len(self._lambdas) if point.lam is not None else [own.get(g) for g in self.groups]
        params: dict[str, Any] = dict(zip(self._lambdas, lambdas or [None], strict=True))
        if len(self.methods) > 1:
            params["method"] = method
        given = dict(point.options)
        for option, (low, high) in self.ranges.items():
            params[option] = given.get(option, _between(self._default(method, option), low, high))
        return params

    def _contains(self, params: Params) -> bool:
        return all(
            params[name] is not None and distribution._contains(distribution.to_internal_repr(params[name]))
            for name, distribution in self.distributions.items()
        )

    def _owned(self, method: str, options: Mapping[str, float]) -> dict[str, float]:
        """Those of `options` that the method has."""
        return {option: value for option, value in options.items() if option in default_options(method)}

    def _default(self, method: str, option: str) -> float:
        """The default of the method, or of the first one that has the option."""
        owner = next(m for m in (method, *self.methods) if option in default_options(m))
        return default_options(owner)[option]

    def _require_owned(self, option: str) -> None:
        if not set(methods_with(option)) & set(self.methods):
            others = methods_with(option)
            known = f"{', '.join(others)} {'have' if len(others) > 1 else 'has'} it" if others else "no method has it"
            raise InputError(f"{_flag(option)} is no option of --method {','.join(self.methods)}; {known}")
        if option in self.options and option in self.ranges:
            raise InputError(f"{_flag(option)} is given both one value and a range; give one of the two")

    def _require_searchable(self, option: str, low: float, high: float) -> None:
        _require_range(_flag(option), low, high)
        whole = isinstance(self._default(self.methods[0], option), int)
        if whole and not (float(low).is_integer() and float(high).is_integer()):
            raise InputError(f"{_flag(option)} {low:g}:{high:g}: the ends must be whole numbers")

    def _require_allowed(self, method: str) -> None:
        """Raise InputError unless the method takes its options at all corners of their ranges.

        What methods allow has no dents, so that corners speak for what lies between them.
        """
        fixed = self._owned(method, self.options)
        owned = [option for option in self.ranges if option in default_options(method)]
        for corner in itertools.product(*(self.ranges[option] for option in owned)):
            try:
                make_method(method, {**fixed, **dict(zip(owned, corner, strict=True))})
            except InputError as error:
                if not owned:
                    raise
                given = ", ".join(f"{_flag(o)} {self.ranges[o][0]:g}:{self.ranges[o][1]:g}" for o in owned)
                raise InputError(f"{given}: {method} does not allow all of it: {error}") from error


def _floats(low: float, high: float) -> FloatDistribution:
    return FloatDistribution(_rounded(low), _rounded(high))


def _rounded(value: float) -> float:
    """To four decimals; a whole number stays an int."""
    return value if isinstance(value, int) else round(value, DECIMALS) + 0.0  # + 0.0 turns -0.0 into 0.0


def _between(value: float, low: float, high: float) -> float:
    kind = type(value)
    return kind(min(max(value, low), high))


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _require_range(flag: str, low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"{flag} {low:g}:{high:g}: both ends must be finite numbers")
    if not round(low, DECIMALS) < round(high, DECIMALS):
        raise InputError(f"{flag} {low:g}:{high:g} is empty: LOW must be below HIGH, to {DECIMALS} decimals")
