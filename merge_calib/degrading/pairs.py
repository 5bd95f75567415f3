"""The pairs that runs are about: which of their points is the base, which is the aligned model, what lies beyond."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from merge_calib.errors import InputError
from merge_calib.merging.point import MergePoint, Named
from merge_calib.points import AxisPoint, Point
from merge_calib.run_directory import RunDirectory


@dataclass(frozen=True)
class Amplified:
    """The points of one merging method from the base to beyond the aligned model, in ascending order of lambda.

    At lambda = 1 stands the aligned model itself, which not every method gives there.
    """

    method: str
    options: Named
    points: tuple[MergePoint, ...]


@dataclass(frozen=True, eq=False)
class Pair:
    """The base and the aligned model of a run.

    amplified: the methods that were measured beyond lambda = 1
    """

    name: str
    run: RunDirectory
    base: Point
    aligned: Point
    amplified: tuple[Amplified, ...] = ()

    @property
    def points(self) -> tuple[Point, ...]:
        """Everything that the analysis looks at, each point once."""
        beyond = [point for line in self.amplified for point in line.points]
        return tuple(dict.fromkeys([self.base, self.aligned, *beyond]))


def open_pairs(paths: Sequence[Path], base: str | None = None, aligned: str | None = None) -> tuple[Pair, ...]:
    """The parents of sweeps, or the models of evaluations that have the labels `base` and `aligned`.

    A pair is called as the folder of its run, or by its path where two folders have the same name.
    Raises InputError where an evaluation comes without labels, labels come without one, a parent was not measured, or
    a run is given twice.
    """
    runs = [RunDirectory.open(path) for path in paths]
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError("a RUN_DIR is given twice; several runs are there to compare different pairs")
    if (base or aligned) and all(run.kind == "sweep" for run in runs):
        raise InputError("--base and --aligned name models of an evaluation; a sweep knows its own")
    names = [path.resolve().name for path in paths]
    called = [str(path) if names.count(name) > 1 else name for path, name in zip(paths, names, strict=True)]
    return tuple(_open(run, name, base, aligned) for run, name in zip(runs, called, strict=True))


def require_same_questions(pairs: Sequence[Pair]) -> None:
    """Raise InputError, naming runs and task, where pairs have other bins or questions, or no task in common."""
    _require_different(pairs)
    asked: dict[str, RunDirectory] = {}
    for run in (pair.run for pair in pairs):
        first = pairs[0].run
        if run.plan["bins"] != first.plan["bins"]:
            raise InputError(
                f"{run.path} has {run.plan['bins']} bins and {first.path} {first.plan['bins']}: calibration errors of "
                "different bins cannot be ranked"
            )
        for task in run.plan["tasks"]:
            _require_same_task(run, asked.setdefault(task, run), task)
    if not set.intersection(*(set(pair.run.plan["tasks"]) for pair in pairs)):
        raise InputError(f"{', '.join(str(pair.run.path) for pair in pairs)} have no task in common: nothing to rank")


def _require_different(pairs: Sequence[Pair]) -> None:
    """Raise InputError where two sweeps are about the same two models: one pair would be ranked twice."""
    seen: dict[str, RunDirectory] = {}
    for run in (pair.run for pair in pairs if pair.run.kind == "sweep"):
        identity = run.plan["identity"]
        if "base" not in identity or "aligned" not in identity:
            continue
        other = seen.setdefault(f"{identity['base']} {identity['aligned']} {identity.get('dtype')}", run)
        if other is not run:
            raise InputError(f"{other.path} and {run.path} hold the same two models: a pair can be ranked once only")


def _open(run: RunDirectory, name: str, base: str | None, aligned: str | None) -> Pair:
    points = run.points()
    if run.kind == "evaluation":
        models = [point for point in points if isinstance(point, AxisPoint)]
        one, other = (_labelled(run, models, *given) for given in (("--base", base), ("--aligned", aligned)))
        if one == other:
            raise InputError(f"--base and --aligned are both {base!r}")
        return Pair(name, run, one, other)
    merges = [point for point in points if isinstance(point, MergePoint)]
    parents = [point for point in merges if point.is_base], [point for point in merges if point.is_aligned]
    for role, found in zip(("base", "aligned model"), parents, strict=True):
        if not found:
            raise InputError(f"{run.path} has not measured its {role}; the same command again measures what is missing")
    (first, *_), (last, *_) = parents
    return Pair(name, run, first, last, tuple(_amplified(merges, first, last)))


def _labelled(run: RunDirectory, models: Sequence[AxisPoint], flag: str, label: str | None) -> AxisPoint:
    labels = ", ".join(model.label for model in models)
    if label is None:
        raise InputError(
            f"{run.path} is an evaluation, which has no base and aligned model: name two of its models with --base "
            f"LABEL and --aligned LABEL; it has {labels}"
        )
    found = next((model for model in models if model.label == label), None)
    if found is None:
        raise InputError(f"{flag} {label!r} is no measured model of {run.path}; it has {labels}")
    return found


def _amplified(points: Sequence[MergePoint], base: MergePoint, aligned: MergePoint) -> Iterator[Amplified]:
    groups: dict[tuple[str, Named], list[MergePoint]] = {}
    for point in points:
        if point.lam not in (None, 0.0, 1.0):
            groups.setdefault((point.method, point.options), []).append(point)
    for (method, options), found in groups.items():
        line = sorted([base, aligned, *found], key=lambda point: point.lam or 0.0)
        if line[-1] is not aligned:
            yield Amplified(method, options, tuple(line))


def _require_same_task(run: RunDirectory, other: RunDirectory, task: str) -> None:
    ours, theirs = (each.plan["tasks"][task] for each in (run, other))
    if ours["sha256"] != theirs["sha256"]:
        raise InputError(
            f"{run.path} does not share the questions of task {task} with {other.path}: {ours['n']:,} (sha256 "
            f"{ours['sha256'][:8]}) and {theirs['n']:,} ({theirs['sha256'][:8]}). Pairs can be ranked on the same "
            "questions only: give runs that share them, or one run at a time"
        )
