"""From a name to the task, and the list of all names."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from merge_calib.errors import InputError
from merge_calib.questions import PassageSet, Task, TaskSet
from merge_calib.tasks.arc import ARC_CHALLENGE, ARC_EASY
from merge_calib.tasks.clm import load_clm
from merge_calib.tasks.facts import load_facts
from merge_calib.tasks.hellaswag import HELLASWAG
from merge_calib.tasks.library import Library
from merge_calib.tasks.medmcqa import MEDMCQA
from merge_calib.tasks.mmlu import GROUPS, MMLU, SUBJECTS, part
from merge_calib.tasks.own import load_own, safe_name
from merge_calib.tasks.piqa import PIQA
from merge_calib.tasks.sciq import SCIQ
from merge_calib.tasks.task_file import read_task_file

BENCHMARKS = {entry.name: entry for entry in (ARC_EASY, ARC_CHALLENGE, HELLASWAG, MEDMCQA, MMLU, PIQA, SCIQ)}
PASSAGES = ("clm", "facts")
NOWHERE = Library()


@dataclass(frozen=True)
class KnownTask:
    """A line of the list of tasks: its name or names, what it asks, what it is read from, whether that is there."""

    name: str
    description: str
    files: str
    hub: str = ""
    held: bool = False


def load_task(name: str, library: Library = NOWHERE, limit: int | None = None, limit_seed: int | None = None) -> Task:
    """The questions of a task: all of them, the first `limit`, or with a seed a sample of that many.

    A name is, in this order: a benchmark or a part of MMLU; clm or facts, alone (DATA_DIR/clm) or with a path
    (clm:PATH); a task file NAME.toml in the task folder; an own file, if it ends in .jsonl or is one.
    The whole source is checked, with a limit too.
    """
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit}: at least one question must be asked")
    task = _load(name, library)
    if library.validation and not (isinstance(task, TaskSet) and any(q.split for q in task.questions)):
        raise InputError(
            f"--select-from-validation: task {name} has no questions of its own to select by; in own files and task "
            "files 'split' says which questions select"
        )
    return task.limited(limit, limit_seed)


def available_tasks(library: Library = NOWHERE) -> list[str]:
    """The whole benchmarks that the library holds, in the order of BENCHMARKS; with the hub all of them."""
    return [name for name, benchmark in BENCHMARKS.items() if library.hub or _held(library, benchmark.find)]


def known_tasks(library: Library = NOWHERE) -> list[KnownTask]:
    """All that can be asked, task files in the library's folder among it."""
    held = available_tasks(Library(library.data_dir))
    benchmarks = [KnownTask(b.name, b.description, b.expected, b.hub.repo, b.name in held) for b in BENCHMARKS.values()]
    groups = [part(f"mmlu_{group}") for group in GROUPS]
    parts = [
        KnownTask(b.name, b.description, b.expected, b.hub.repo, _held(library, b.find))
        for b in groups
        if b is not None
    ]
    subjects = f"one of MMLU's {len(SUBJECTS)} subjects, mmlu_abstract_algebra to mmlu_world_religions"
    parts.append(KnownTask("mmlu_SUBJECT", subjects, "mmlu/test/SUBJECT_test.csv", "cais/mmlu"))
    own = KnownTask("FILE.jsonl", 'own questions: {"question": "...", "choices": ["...", "..."], "answer": 0}', "")
    return [*benchmarks, *parts, *_known_passages(library), *_known_files(library), own]


def _known_passages(library: Library) -> list[KnownTask]:
    def there(name: str) -> bool:
        return library.data_dir is not None and (library.data_dir / name).is_dir()

    clm = "next-token prediction at a seeded place of each text; also clm:PATH, a .jsonl, a .txt or a folder of them"
    facts = "first token of the entity in T-REx facts; also facts:FOLDER"
    return [
        KnownTask("clm", clm, "clm/", held=there("clm")),
        KnownTask("facts", facts, "facts/trex_lms_vocab/*.jsonl and facts/graphs_json/*.jsonl", held=there("facts")),
    ]


def _known_files(library: Library) -> list[KnownTask]:
    declared = [read_task_file(path) for path in _task_files(library).values()]
    return [KnownTask(task.name, task.description or f"described by {task.path}", "", held=True) for task in declared]


def _held(library: Library, find: Callable[[Path], list[Path]]) -> bool:
    return library.data_dir is not None and bool(find(library.data_dir))


def _load(name: str, library: Library) -> Task:
    task_files = _task_files(library)
    benchmark = BENCHMARKS.get(name) or part(name)
    if benchmark is not None:
        return benchmark.load(library)
    kind, colon, path = name.partition(":")
    if kind in PASSAGES:
        return _load_passages(kind, path if colon else None, library)
    if name in task_files:
        return read_task_file(task_files[name]).load()
    if name.endswith(".jsonl") or Path(name).is_file():
        return load_own(Path(name))
    raise InputError(_unknown(name, task_files))


def _load_passages(kind: str, path: str | None, library: Library) -> PassageSet:
    """The task KIND from the data folder, or KIND-NAME from a path of that name."""
    if path is not None:
        if not path or not Path(path).exists():
            raise InputError(f"task {kind}:{path}: there is no such file or folder")
        name = f"{kind}-{safe_name(Path(path).resolve())}"
        return _read_passages(kind, name, Path(path), library)
    if library.data_dir is None or not (library.data_dir / kind).is_dir():
        where = "--data-dir, a folder that holds" if library.data_dir is None else f"{library.data_dir} to hold"
        raise InputError(f"task {kind} needs {where} a folder {kind}; or name a path, {kind}:PATH")
    return _read_passages(kind, kind, library.data_dir / kind, library)


def _read_passages(kind: str, name: str, path: Path, library: Library) -> PassageSet:
    return load_clm(name, path, library.seed) if kind == "clm" else load_facts(name, path)


def _task_files(library: Library) -> dict[str, Path]:
    """The files NAME.toml of the task folder by their names, which no other task may have."""
    if library.task_dir is None:
        return {}
    paths = {path.stem: path for path in sorted(library.task_dir.glob("*.toml")) if not path.name.startswith(".")}
    for name, path in paths.items():
        if name in BENCHMARKS or name in PASSAGES or part(name) is not None:
            raise InputError(f"{path}: {name!r} is the name of a task that is built in; give the file another name")
    return paths


def _unknown(name: str, task_files: dict[str, Path]) -> str:
    names = [*BENCHMARKS, *(f"mmlu_{key}" for key in (*GROUPS, *SUBJECTS)), *PASSAGES, *task_files]
    alike = get_close_matches(name.lower().replace("-", "_"), names, n=1)
    meant = f"; did you mean {alike[0]}?" if alike else ""
    groups = ", ".join(f"mmlu_{group}" for group in GROUPS)
    declared = f"{', '.join(task_files)} in --task-dir" if task_files else "task files NAME.toml in --task-dir"
    known = f"{', '.join(BENCHMARKS)}, {groups}, mmlu_SUBJECT, {', '.join(PASSAGES)}, {declared}"
    return f"unknown task {name!r} in --tasks: there are {known}, and own files NAME.jsonl{meant}"
