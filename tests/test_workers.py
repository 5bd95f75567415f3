"""Several workers, of which some die: what is found is what one worker finds, and nothing is measured twice."""

import json
import os
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from conftest import quick_sweep, save_model, tiny_llama, write_questions
from postgres import PASSWORD
from postgres import postgres as postgres
from prove_nothing_lost import Starter, differences

from merge_calib.crew import devices_for
from merge_calib.files import is_running
from merge_calib.search.storage import open_storage

TOOLS = Path(__file__).resolve().parents[1] / "tools"
PATIENCE = 120.0  # seconds that anything here may take on a busy machine
LEFT = "nothing is left to measure in"
TRIALS = 8
GRID = ["--lambdas", "0:1:0.125"]
ADAPTIVE = ["--search", "adaptive", "--budget", "6", "--lambdas", "0:1:0.25"]
OPTUNA = ["--search", "optuna", "--sampler", "random", "--trials", str(TRIALS)]


@pytest.fixture(autouse=True)
def _fresh_trace(starter):
    starter.trace.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def asked(pair_folders, tmp_path_factory) -> list[str]:
    """A sweep of the tiny pair with questions enough to be caught at work, without a search and without --out."""
    return quick_sweep(pair_folders, write_questions(tmp_path_factory.mktemp("asked") / "quiz.jsonl", 200))


def until(true, what: str, coordinator=None):
    """What `true` gives as soon as it gives something; at the latest when `coordinator` ends."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := true():
            return found
        assert coordinator is None or coordinator.is_alive(), f"the sweep ended before {what}"
        time.sleep(0.002)
    raise AssertionError(f"{what} did not happen")


def holders(out: Path) -> dict[int, Path]:
    """The lease that each process holds, by what the files say."""
    found = {}
    for path in (out / ".leases").glob("linear-*"):
        try:
            if path.stat().st_mtime_ns:
                found[json.loads(path.read_bytes())["pid"]] = path
        except FileNotFoundError:
            continue
    return found


def killed_at_work(out: Path, coordinator) -> tuple[int, str]:
    """Kill the first process that holds a point which is not recorded yet: which one, and the point."""

    def kill() -> tuple[int, str] | None:
        for process, lease in holders(out).items():
            if process == coordinator.pid:
                continue
            os.kill(process, signal.SIGSTOP)
            point = lease.name.rpartition(".")[0]
            record = out / "points" / f"{point}.json"
            if lease.stat().st_mtime_ns and not (record.exists() and json.loads(record.read_bytes())["scores"]):
                os.kill(process, signal.SIGKILL)
                return process, point
            os.kill(process, signal.SIGCONT)
        return None

    return until(kill, "that a worker holds a lease", coordinator)


def children(process: int) -> list[int]:
    """The processes that `process` has started."""
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []


def once(starter: Starter, killed: tuple[int, str]) -> None:
    """Raise unless all was measured once, but for what the killed worker was at, and nobody measured what was there."""
    lines = starter.measured()
    twice = {key for key, times in Counter((point, part) for _, point, part, _ in lines).items() if times > 1}
    left = {(point, part) for process, point, part, _ in lines if int(process) == killed[0] and point == killed[1]}
    assert twice <= left
    assert all(times <= 2 for times in Counter((point, part) for _, point, part, _ in lines).values())
    assert [line for line in lines if line[3] == "again"] == []


def ended(process, starter: Starter, said: str = "said") -> int:
    process.join(PATIENCE)
    assert process.exitcode is not None, starter.said(said)
    return process.exitcode


def measured_together(
    starter: Starter, arguments: Sequence[str], out: Path, storage: str | None = None
) -> tuple[int, str]:
    """A sweep that two workers join, of which one is killed at work; all others end well."""
    where = [] if storage is None else ["--storage", storage]
    coordinator = starter.start([*arguments, *where, "--out", str(out)], out)
    environment = {} if storage is None else {"MERGE_CALIB_STORAGE": storage}
    until(lambda: (out / "run.json").exists() and (out / ".leases").exists(), "that the run begins")
    joining = ["worker", str(out), "--device", "cpu"]
    workers = [starter.start(joining, out, said=f"worker {i}", environment=environment) for i in range(2)]
    killed = killed_at_work(out, coordinator)
    assert ended(coordinator, starter) == 0, starter.said()
    codes = [ended(worker, starter, f"worker {i}") for i, worker in enumerate(workers)]
    assert sorted(codes) == [-signal.SIGKILL, 0]
    assert f"{LEFT} {out}" in starter.said(f"worker {codes.index(0)}")
    return killed


@pytest.mark.parametrize("search", [GRID, ADAPTIVE], ids=["grid", "adaptive"])
def test_workers_that_join_and_die_leave_what_one_worker_leaves(search, starter, asked, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert starter.run([*asked, *search, "--out", str(whole)], whole).code == 0
    starter.trace.unlink()
    killed = measured_together(starter, [*asked, *search], out)
    assert differences(whole, out) == []
    once(starter, killed)
    assert len({line[0] for line in starter.measured()}) > 1


def test_a_crew_of_three_of_which_one_is_killed_leaves_what_one_worker_leaves(starter, asked, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert starter.run([*asked, *GRID, "--out", str(whole)], whole).code == 0
    starter.trace.unlink()
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'worker' in sys.orig_argv:\n"
        f"    sys.path.insert(0, {str(TOOLS)!r})\n"
        "    import pathlib, prove_nothing_lost\n"
        f"    prove_nothing_lost.trace_measuring(pathlib.Path({str(starter.trace)!r}))\n"
    )
    crew = starter.start(
        [*asked, *GRID, "--workers", "3", "--out", str(out)], out, environment={"PYTHONPATH": str(tmp_path)}
    )
    killed = killed_at_work(out, crew)
    assert ended(crew, starter) == 0
    assert re.search(r"worker [012] ended early, see .*: exit code -9", starter.said())
    assert differences(whole, out) == []
    once(starter, killed)
    logs = [(out / "workers" / f"{i}.log").read_text() for i in range(3)]
    assert sum(LEFT in log for log in logs) == 2


def require_whole_study(out: Path, storage: str | None) -> None:
    """Raise unless the study has all trials, each measured, and the finalists were asked everything."""
    trials = studied(out, storage)
    records = {path.stem: json.loads(path.read_bytes()) for path in (out / "points").iterdir()}
    assert len(trials) == TRIALS + 2
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * len(trials)
    assert {trial.user_attrs["point"] for trial in trials} == records.keys()
    assert all(record.get("select") or record["scores"] for record in records.values())
    values = {trial.user_attrs["point"]: trial.values for trial in trials}
    beyond = {name: v for name, v in values.items() if name != "linear-lambda-0.0000"}
    best = {
        name
        for name, (accuracy, sce) in beyond.items()
        if not any(a >= accuracy and s <= sce and (a, s) != (accuracy, sce) for a, s in beyond.values())
    }
    whole = {name for name, record in records.items() if record["scores"]}
    assert best | {"linear-lambda-0.0000", "linear-lambda-1.0000"} <= whole
    assert json.loads((out / "search.json").read_text())["complete"] == TRIALS + 2


def studied(out: Path, storage: str | None):
    import optuna

    opened = open_storage(storage, out / "study.journal", workers=2)
    [name] = optuna.get_all_study_names(opened)
    return optuna.load_study(study_name=name, storage=opened).get_trials()


def test_workers_of_a_study_in_a_journal_lose_nothing(starter, asked, tmp_path):
    killed = measured_together(starter, [*asked, *OPTUNA], tmp_path / "out")
    require_whole_study(tmp_path / "out", None)
    once(starter, killed)


def test_workers_of_a_study_on_a_server_lose_nothing(starter, asked, tmp_path, postgres):
    url = postgres.url(postgres.fresh())
    out = tmp_path / "out"
    killed = measured_together(starter, [*asked, *OPTUNA], out, url)
    require_whole_study(out, url)
    once(starter, killed)
    assert "postgresql" in json.loads((out / "run.json").read_text())["plan"]["storage"]
    assert not [path for path in out.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("number", "code", "is_early"),
    [(signal.SIGINT, 130, True), (signal.SIGTERM, 143, False), (signal.SIGKILL, -9, True)],
)
def test_a_crew_ends_with_its_sweep_and_the_next_start_goes_on(number, code, is_early, starter, asked, tmp_path):
    out = tmp_path / "out"
    arguments = [*asked, *GRID, "--out", str(out)]
    crew = starter.start([*arguments, "--workers", "2"], out)
    until(lambda: len(children(crew.pid)) == 2, "that two begin", crew)
    if not is_early:
        until(lambda: set(holders(out)) - {crew.pid}, "that a worker holds a lease", crew)
    workers = children(crew.pid)
    os.kill(crew.pid, number)
    assert ended(crew, starter) == code, starter.said()
    until(lambda: not any(map(is_running, workers)), "that the workers end")
    assert "Traceback" not in starter.said()
    assert starter.run(arguments, out).code == 0
    assert len(list((out / "points").iterdir())) == 9
    once(starter, (0, ""))


@pytest.fixture(scope="module")
def finished(starter, asked, tmp_path_factory) -> Path:
    """A run to which nothing is left to add."""
    out = tmp_path_factory.mktemp("finished") / "out"
    assert starter.run([*asked, "--lambdas", "0,1", "--out", str(out)], out).code == 0
    return out


@pytest.fixture
def run_dir(finished, tmp_path) -> Path:
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / "run")


def edit(run_dir: Path, **changes) -> None:
    """Change run.json; a key may lie in another one: plan__storage."""
    content = json.loads((run_dir / "run.json").read_text())
    for name, value in changes.items():
        place = content
        *outer, last = name.split("__")
        for key in outer:
            place = place[key]
        place[last] = value
    (run_dir / "run.json").write_text(json.dumps(content))


def refusal(call, run_dir: Path, *more: str) -> str:
    """The one message of a worker that is refused, and leaves nothing."""
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    code, printed, said = call("worker", run_dir, "--device", "cpu", *more)
    assert (code, printed) == (1, ""), said
    assert said.startswith("Error: ")
    assert "Traceback" not in said
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before
    return said


def test_a_worker_that_finds_nothing_to_do_says_so_and_ends(call, run_dir):
    before = sorted(run_dir.rglob("*"))
    code, printed, said = call("worker", run_dir, "--device", "cpu")
    assert (code, said) == (0, "")
    assert printed == f"{LEFT} {run_dir}; the sweep, or merge-calib report, writes what was found\n"
    assert sorted(run_dir.rglob("*")) == before


def test_a_worker_of_another_version_is_refused(call, run_dir):
    edit(run_dir, versions__merge_calib="0.0.1")
    assert "measured with merge-calib 0.0.1, this worker has" in refusal(call, run_dir)


def test_a_worker_on_another_kind_of_device_is_refused(call, run_dir):
    edit(run_dir, device="cuda:3")
    assert "measured with device cuda, this worker has cpu" in refusal(call, run_dir)


def test_a_worker_with_other_weights_is_refused(call, run_dir, tmp_path):
    edit(run_dir, plan__parents__base=str(save_model(tiny_llama(5), tmp_path / "other", torch.bfloat16)))
    assert "base: the run has other weights" in refusal(call, run_dir)


def test_a_worker_that_computes_in_another_dtype_is_refused(call, run_dir):
    edit(run_dir, plan__dtype="bfloat16")
    assert "dtype: the run has float32, asked is bfloat16" in refusal(call, run_dir)


def test_a_worker_needs_a_run(call, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "is no run directory: it has no run.json" in refusal(call, tmp_path / "empty")


def test_a_worker_needs_a_sweep(call, run_dir):
    edit(run_dir, kind="evaluation", models=[], axis="model")
    assert "holds an evaluation; workers help with sweeps only" in refusal(call, run_dir)


def test_a_worker_needs_a_plan(call, run_dir):
    content = json.loads((run_dir / "run.json").read_text())
    del content["plan"]
    (run_dir / "run.json").write_text(json.dumps(content))
    assert "run.json has no plan that a worker could follow; give the sweep again" in refusal(call, run_dir)


def test_a_plan_of_another_time_is_not_followed(call, run_dir):
    edit(run_dir, plan__colour="blue")
    assert "its plan is not understood" in refusal(call, run_dir)


def test_a_worker_does_not_join_a_study_in_sqlite(call, run_dir, tmp_path):
    edit(run_dir, plan__search="optuna", plan__storage=f"sqlite:///{tmp_path}/study.db")
    assert "SQLite is for one worker" in refusal(call, run_dir)
    assert not (tmp_path / "study.db").exists()


def test_a_worker_needs_the_password_that_the_run_does_not_keep(call, run_dir):
    edit(run_dir, plan__search="optuna", plan__storage="postgresql://me:***@127.0.0.1:1/db")
    said = refusal(call, run_dir)
    assert "the run does not keep the password of postgresql://me:***@127.0.0.1:1/db; give the whole URL" in said


def test_a_worker_does_not_begin_a_study_of_its_own(call, run_dir, monkeypatch):
    """Another database than the sweep's, and any where the study lies in the run directory."""
    elsewhere = "postgresql://me:pw@127.0.0.1:1/other"
    edit(run_dir, plan__search="optuna", plan__storage="postgresql://me:***@127.0.0.1:1/db")
    said = refusal(call, run_dir, "--storage", elsewhere)
    assert "me:***@127.0.0.1:1/other: the study of the run is in postgresql://me:***@127.0.0.1:1/db" in said
    edit(run_dir, plan__storage=None)
    assert f"the study of the run is in {run_dir / 'study.journal'}" in refusal(call, run_dir, "--storage", elsewhere)


def test_what_the_environment_says_of_a_storage_does_not_matter_to_a_grid(call, run_dir, monkeypatch):
    monkeypatch.setenv("MERGE_CALIB_STORAGE", "postgresql://me:pw@127.0.0.1:1/db")
    assert call("worker", run_dir, "--device", "cpu")[0] == 0


def test_a_worker_is_told_the_password_in_the_environment(call, run_dir, monkeypatch):
    pytest.importorskip("psycopg")
    edit(run_dir, plan__search="optuna", plan__storage="postgresql://me:***@127.0.0.1:1/db")
    monkeypatch.setenv("MERGE_CALIB_STORAGE", "postgresql://me:pw@127.0.0.1:1/db")
    said = refusal(call, run_dir)
    assert "me:***@127.0.0.1:1/db cannot be used" in said
    assert "pw" not in said


def test_gpus_are_given_in_turn_unless_one_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices_for(3, torch.device("cuda")) == ["cuda:0", "cuda:1", "cuda:0"]
    assert devices_for(2, torch.device("cuda:1")) == ["cuda:1", "cuda:1"]
    assert devices_for(2, torch.device("cpu")) == ["cpu", "cpu"]
