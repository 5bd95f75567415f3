"""The run directory: who was measured, one atomic record a point, and the scores behind it.

A record of points/ says under `scores` what was asked whole, under `select` what a search asked of the choosing
questions alone, and under `stopped` that, and why, a search stopped asking; what was answered until then is under
`some`.
"""

import fcntl
import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Literal

from merge_calib.agreement import contradictions, united
from merge_calib.asked import Asked, asked_hash, read_asked, write_asked, write_ids
from merge_calib.errors import InputError, OutputError, RunDirectoryError
from merge_calib.files import remove_partial, write_json
from merge_calib.merging.point import MergePoint
from merge_calib.points import AxisPoint, Point, axis_points
from merge_calib.questions import Task
from merge_calib.scores import Scores, load_scores

FORMAT = 1
Part = Literal["all", "select", "some"]  # of a task's questions: all, those that choose, those asked before it stopped
_KEYS: Mapping[Part, str] = {"all": "scores", "select": "select", "some": "some"}
_REQUIRED = {
    "sweep": {
        *("identity", "base", "aligned", "tasks", "confidence", "bins"),
        *("method", "search", "lambdas", "seed", "device"),
    },
    "evaluation": {"identity", "models", "axis", "tasks", "confidence", "bins"},
}
_CHOOSE = "Choose another --out, or the options that the run was made with."


@dataclass(frozen=True)
class RunDirectory:
    """A folder that only ever grows: scores that a record vouches for are never written again.

    Raises RunDirectoryError, naming the file, for a folder that is no run, of another format, or damaged.
    """

    path: Path

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """Open an existing run."""
        run = cls(path)
        if run.plan.get("format") != FORMAT:
            raise RunDirectoryError(
                f"{path / 'run.json'} has format {run.plan.get('format')!r}; this version reads format {FORMAT}"
            )
        if run.kind not in _REQUIRED:
            raise _damaged(path / "run.json", f"its kind is {run.kind!r}")
        missing = sorted(_REQUIRED[run.kind] - run.plan.keys())
        if missing or not run.plan["tasks"] or not run.plan["confidence"]:
            raise _damaged(path / "run.json", f"it lacks {', '.join(missing) or 'tasks or confidence'}")
        return run

    @cached_property
    def plan(self) -> dict[str, Any]:
        """The content of run.json."""
        return _read_object(self.path / "run.json")

    @property
    def kind(self) -> str:
        """`sweep`, between two parents, or `evaluation`, of models along an axis."""
        return str(self.plan.get("kind", "sweep"))

    def axis(self, asked: str | None) -> str:
        """What the axis of an evaluation is called: as asked, as before, or just `model`."""
        return asked or (str(self.plan.get("axis", "model")) if self.exists else "model")

    @property
    def exists(self) -> bool:
        """Whether the folder holds a run."""
        return (self.path / "run.json").exists()

    def agree(self, plan: Mapping[str, Any]) -> None:
        """Raise RunDirectoryError where `plan` contradicts the run that this folder holds, if it holds one."""
        if not self.exists:
            if self.path.exists() and not all(_is_left_by_a_start(path) for path in self.path.iterdir()):
                raise RunDirectoryError(f"--out {self.path} is not empty and holds no run (no run.json)")
            return
        held = RunDirectory.open(self.path).plan
        differences = _no_models(held, plan) or contradictions(held, plan)
        if differences:
            listed = [f"  - {difference}" for difference in differences]
            raise RunDirectoryError(
                "\n".join([f"{self.path} holds another run, nothing was changed:", *listed, _CHOOSE])
            )
        if "analysis" in plan:
            self.require_unheard(plan["analysis"])

    def extend(self, plan: Mapping[str, Any], tasks: Sequence[Task] = ()) -> None:
        """Write run.json: `plan`, with what the run had before after its own; then the questions of `tasks`."""
        content = united(self.plan, plan) if self.exists else dict(plan)
        hashes = {task.name: {"questions_sha256": asked_hash(task)} for task in tasks}
        content["tasks"] = {name: {**task, **hashes.get(name, {})} for name, task in content["tasks"].items()}
        content["id"] = (self.id if self.exists else None) or uuid.uuid4().hex
        write_json(self.path / "run.json", content)
        self.__dict__.pop("plan", None)  # what was read before is no longer what the file says
        for task in tasks:
            write_asked(self._asked_file(task.name), task)

    def judge_by(self, analysis: Mapping[str, Any]) -> None:
        """Write into run.json how the run is judged from now on, and in what other ways it was judged before."""
        if self.plan.get("analysis") != analysis:
            self.require_unheard(analysis)
            write_json(self.path / "run.json", united(self.plan, {**self.plan, "analysis": dict(analysis)}))
            self.__dict__.pop("plan", None)

    def require_unheard(self, analysis: Mapping[str, Any]) -> None:
        """Raise RunDirectoryError where questions that a search heard would judge the points that it proposed."""
        held = self.plan.get("analysis")
        if held is None or not self.was_searched:
            return
        for key in ("select_fraction", "cross_fit"):
            if held[key] != analysis[key]:
                raise RunDirectoryError(
                    f"{self.path}: a search chose points by the questions of --{key.replace('_', '-')} {held[key]:g}; "
                    f"divided by {analysis[key]:g} some of these would judge them. Choose another --out"
                )

    @property
    def was_searched(self) -> bool:
        """Whether a search that hears what it measured has proposed points."""
        left = ("search.json", "search.json.torn", "study.journal")
        return any((self.path / name).exists() for name in left)

    @property
    def search(self) -> dict[str, Any] | None:
        """What search.json says of the last search that heard what it measured; None where there was none."""
        path = self.path / "search.json"
        return _read_object(path) if path.exists() else None

    def write_search(self, content: Mapping[str, Any]) -> None:
        """Write search.json."""
        write_json(self.path / "search.json", {"format": FORMAT, **content})

    def asked(self, task: str) -> Asked | None:
        """The questions of `task` in the order of its scores, None where the run is of a time that kept none.

        Raises RunDirectoryError naming file and line where the file is damaged.
        """
        known = self.plan["tasks"].get(task, {})
        return read_asked(self._asked_file(task), known.get("n"), known.get("questions_sha256"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from measuring into the same folder; the lock dies with the process.

        What a killed process left half-written is removed.
        """
        with self._lock_file() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunDirectoryError(f"{self.path} is in use by another merge-calib process") from error
            remove_partial(self.path)
            yield

    def mend(self) -> list[Path]:
        """Set aside, as NAME.torn, the records that are not whole, so that they are made again; gives these."""
        found = []
        for names in ("points/*.json", "retained/responses.json", "retained/points/*.json", "search.json"):
            for path in sorted(self.path.glob(names)):
                try:
                    json.loads(path.read_bytes())
                except ValueError:
                    found.append(path.replace(path.with_name(f"{path.name}.torn")))
        return found

    @property
    def id(self) -> str | None:
        """What tells this run from every other one; None of a run of an earlier time."""
        return self.plan.get("id")

    def _lock_file(self) -> IO[str]:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            return (self.path / ".lock").open("w")
        except OSError as error:
            raise OutputError(f"cannot write into {self.path}: {error.strerror}") from error

    def has(self, point: Point, task: str, confidence: str, part: Part = "all") -> bool:
        """Whether the record of `point` says that this was measured."""
        return confidence in self._record(point).get(_KEYS[part], {}).get(task, {})

    def save(self, point: Point, task: str, confidence: str, scores: Scores, part: Part = "all") -> None:
        """Write the scores of one measurement, and their ids where no questions are kept; `record` makes them count."""
        if part == "all":
            write_ids(self._asked_file(task), scores)
        scores.save(self._scores_file(point.name, task, confidence, part))

    def kept(self, point: Point, task: str, confidence: str, ids: Sequence[str], part: Part = "all") -> bool:
        """Whether a run that was cut off left these scores whole, for these questions."""
        path = self._scores_file(point.name, task, confidence, part)
        try:
            return path.exists() and load_scores(path).ids == tuple(ids)
        except RunDirectoryError:
            return False  # no record vouches for it, so it is measured again

    def record(
        self,
        point: Point,
        measured: Mapping[str, tuple[Sequence[str], Mapping[str, Any]]],
        merge: Mapping[str, Any] | None = None,
        part: Part = "all",
        stopped: Mapping[str, Any] | None = None,
    ) -> None:
        """Write, in one step, that the confidence methods of each task in `measured` are in scores/, with its facts.

        merge: facts about how the weights were merged; what was recorded of it before stays where there are none
        part: of which questions; stopped: why no more were asked
        """
        before = self._record(point)
        scores: dict[str, dict[str, Any]] = dict(before.get(_KEYS[part], {}))
        for task, (confidences, facts) in measured.items():
            scores[task] = dict(scores.get(task, {}))
            for confidence in confidences:
                path = self._scores_file(point.name, task, confidence, part)
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                scores[task][confidence] = {"file": path.relative_to(self.path).as_posix(), "sha256": digest, **facts}
        content = {key: before[key] for key in (*_KEYS.values(), "stopped") if key in before}
        if part != "some":  # it was asked on after all
            content.pop("stopped", None)
        content |= {_KEYS[part]: scores} | ({"stopped": dict(stopped)} if stopped is not None else {})
        self._write_record(point, {**content, **self._merge(point, merge)})

    def fail(self, point: Point, reason: str) -> None:
        """Mark `point` as failed; what was recorded of it before stays."""
        before = self._record(point)
        content = {key: before[key] for key in (*_KEYS.values(), "stopped") if key in before}
        self._write_record(point, {**content, **self._merge(point), "failed": reason})

    def stopped(self, point: Point) -> dict[str, Any] | None:
        """Why a search stopped asking `point`, and what it was told instead of measures; None where it did not."""
        found: dict[str, Any] | None = self._record(point).get("stopped")
        return found

    def failure(self, point: Point) -> str | None:
        """Why `point` failed, None where it did not; deleting its record has it tried again."""
        reason = self._record(point).get("failed")
        return None if reason is None else str(reason)

    def merge_facts(self, point: Point) -> dict[str, Any]:
        """What the record of `point` says of how its weights were merged; empty where it says nothing."""
        return dict(self._record(point).get("merge", {}))

    def _merge(self, point: Point, merge: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The facts about the merge as the record holds them."""
        facts = dict(merge or self.merge_facts(point))
        return {"merge": facts} if facts else {}

    def _write_record(self, point: Point, content: Mapping[str, Any]) -> None:
        if isinstance(point, AxisPoint):
            place: dict[str, Any] = {"label": point.label, "model": point.model}
        else:
            place = point.record()
        write_json(self._record_file(point.name), {"format": FORMAT, "point": point.name, **place, **content})

    def points(self) -> list[Point]:
        """All points with a record: merges by lambda and method, models in the order of their axis."""
        if self.kind == "evaluation":
            return [point for point in axis_points(self.plan["models"]) if self._record_file(point.name).exists()]
        found = []
        for path in (self.path / "points").glob("*.json"):
            found.append(_read_point(path))
        return [*sorted(found)]

    def facts(self, point: Point) -> dict[str, dict[str, dict[str, Any]]]:
        """What the record of `point` says by task and confidence method: file, hash, how and where it was computed."""
        return dict(self._record(point)["scores"])

    def scores(self, point: Point, task: str, confidence: str, part: Part = "all") -> Scores | None:
        """The scores that the record names, None where it names none; their hash is checked."""
        entry = self._record(point).get(_KEYS[part], {}).get(task, {}).get(confidence)
        if entry is None:
            return None
        path = self.path / entry["file"]
        if not path.exists():
            raise RunDirectoryError(f"{path} is missing: {self._measure_again(point)}")
        if hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            raise RunDirectoryError(f"{path} is damaged, its hash is another: {self._measure_again(point)}")
        return load_scores(path)

    def retained(self, name: str) -> dict[str, Any] | None:
        """The JSON object kept as `name` of the retained alignment, None where there is none."""
        path = self.retained_file(f"{name}.json")
        return _read_object(path) if path.exists() else None

    def write_retained(self, name: str, content: Mapping[str, Any]) -> None:
        """Keep `content` as `name` of the retained alignment."""
        write_json(self.retained_file(f"{name}.json"), {"format": FORMAT, **content})

    def retained_file(self, name: str) -> Path:
        """Where a file of the retained alignment is."""
        return self.path / "retained" / name

    def _measure_again(self, point: Point) -> str:
        return f"delete {self._record_file(point.name)} and give the same command again to have it measured anew"

    def _record(self, point: Point) -> dict[str, Any]:
        path = self._record_file(point.name)
        record = _read_object(path) if path.exists() else {"scores": {}}
        if path.exists() and isinstance(point, MergePoint) and _read_point(path) != point:
            raise _damaged(path, f"it is about another point than {point.name}")
        try:
            for key in ("scores", *(key for key in _KEYS.values() if key in record)):
                for task in record[key].values():
                    for entry in task.values():
                        _ = entry["file"], entry["sha256"]
        except (KeyError, TypeError, AttributeError) as error:
            raise _damaged(path, f"it does not say where its scores are: {error}") from error
        if not isinstance(record.get("merge", {}), dict):
            raise _damaged(path, "what it says of the merge is no JSON object")
        return record

    def _record_file(self, name: str) -> Path:
        return self.path / "points" / f"{name}.json"

    def _asked_file(self, task: str) -> Path:
        return self.path / "questions" / f"{task}.jsonl"

    def _scores_file(self, name: str, task: str, confidence: str, part: Part = "all") -> Path:
        suffix = "" if part == "all" else f".{part}"
        return self.path / "scores" / name / f"{task}.{confidence}{suffix}.npz"


def _no_models(held: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """What stands against a sweep of models and one made from files in one run: files have no weights to compare."""
    if held.get("kind", "sweep") != "sweep" or asked.get("kind", "sweep") != "sweep":
        return []
    was, is_now = (plan["identity"].get("source", "models") for plan in (held, asked))
    return [] if was == is_now else [f"source: the run was made from {was}, asked is a run made from {is_now}"]


def _is_left_by_a_start(path: Path) -> bool:
    """Whether a start that was cut off before the run began may have left it."""
    return path.name == ".lock" or path.name.startswith(".run.json.")


def _read_point(path: Path) -> MergePoint:
    """The merge that a record is about."""
    try:
        point = MergePoint.read(_read_object(path))
    except (InputError, KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise _damaged(path, error) from error
    if point.name != path.stem:
        raise _damaged(path, f"it is about {point.name}")
    return point


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunDirectoryError(f"{path.parent} is no run directory: it has no {path.name}") from error
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if not isinstance(content, dict):
        raise _damaged(path, "it holds no JSON object")
    return content


def _damaged(path: Path, reason: object) -> RunDirectoryError:
    return RunDirectoryError(f"{path} is damaged ({reason}); restore it, or delete it to have it made again")
