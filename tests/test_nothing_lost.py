"""What a run loses when it is cut off, when the disk is full or a record is torn: nothing.

The long proof, with many moments and the demo pair, is tools/prove_nothing_lost.py.
"""

import json
import os
import random
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import quick_sweep, save_model, tiny_llama, write_questions
from prove_nothing_lost import (
    FULL,
    RESULTS,
    Cut,
    differences,
    prove_round,
    rewritten,
    stamps,
    trace_measuring,
)

import merge_calib.sweep as sweep_module
from merge_calib.analysis import Analysis
from merge_calib.checkpoints.opening import Parents
from merge_calib.errors import RunDirectoryError
from merge_calib.experiment import Experiment
from merge_calib.leases import Leases
from merge_calib.merging.point import MergePoint
from merge_calib.plan import SweepPlan, parse_lambdas
from merge_calib.run_directory import RunDirectory
from merge_calib.sweep import TornRecordWarning, sweep

SEARCHES = {
    "grid": ["--lambdas", "0:1:0.25"],
    "adaptive": ["--search", "adaptive", "--lambdas", "0:1:0.25", "--budget", "6"],
    "optuna": ["--search", "optuna", "--sampler", "tpe", "--trials", "5"],
}
MIDDLE = "linear-lambda-0.5000"


@pytest.fixture(scope="module")
def asked(pair_folders, tmp_path_factory) -> list[str]:
    """A sweep of the tiny pair, without a search and without --out."""
    return quick_sweep(pair_folders, write_questions(tmp_path_factory.mktemp("asked") / "quiz.jsonl", 40))


@pytest.fixture(scope="module", params=SEARCHES)
def undisturbed(request, starter, asked, tmp_path_factory):
    """A search, the folder of a run of it that nobody cut off, and its events."""
    arguments, whole = [*asked, *SEARCHES[request.param]], tmp_path_factory.mktemp("whole") / "run"
    ended = starter.run([*arguments, "--out", str(whole)], whole)
    assert ended.code == 0, ended.said
    return arguments, whole, starter.events()


def test_sweeps_that_are_cut_off_at_random_moments_end_with_the_same_bytes(undisturbed, starter, tmp_path):
    """At single events (a file is opened, synced, renamed...), of which each start has fewer left."""
    arguments, whole, events = undisturbed
    rng = random.Random(5)
    cuts = [Cut(by, "event", event=rng.randint(1, events.all // 4)) for by in ("kill -9", "SIGINT")]
    cuts += [Cut(by, RESULTS, event=rng.randint(1, events.results // 4)) for by in ("SIGTERM", "kill -9")]
    found = prove_round(starter, arguments, tmp_path / "out", cuts, whole)
    assert found["faults"] == []
    assert len(found["cuts"]) == 4


def test_a_disk_that_is_full_stops_with_one_message_and_the_sweep_goes_on_later(undisturbed, starter, tmp_path):
    arguments, whole, events = undisturbed
    cuts = [Cut(FULL, "event", event=n) for n in (1, 4, events.filling // 3, events.filling // 4)]
    found = prove_round(starter, arguments, tmp_path / "out", cuts, whole)
    assert found["faults"] == []
    assert len(found["cuts"]) == 4


def test_what_the_proof_looks_for_is_found(starter, asked, tmp_path, monkeypatch):
    """A record that was written again, one byte of a score, a file too many, a point that was measured twice."""
    arguments = [*asked, "--lambdas", "0,1", "--out"]
    for name in ("whole", "out"):
        assert starter.run([*arguments, str(tmp_path / name)], tmp_path / name).code == 0
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert differences(whole, out) == []
    before = stamps(out)
    assert rewritten(before, stamps(out)) == []
    record = out / "points" / "linear-lambda-0.0000.json"
    shutil.copy(record, out / "copy")
    (out / "copy").replace(record)
    assert rewritten(before, stamps(out)) == ["points/linear-lambda-0.0000.json"]
    scores = out / "scores" / "linear-lambda-1.0000" / "quiz.choice.npz"
    held = bytearray(scores.read_bytes())
    held[200] ^= 1
    scores.write_bytes(held)
    (out / "scores" / "more.npz").touch()
    other, more = "scores/linear-lambda-1.0000/quiz.choice.npz differs", "scores/more.npz"
    assert set(differences(whole, out)) == {other, f"{more} differs", f"{more} is in one only"}
    monkeypatch.setattr(Experiment, "measure", lambda *_, **__: None)
    trace_measuring(starter.trace)
    for lam in (1.0, 0.5):
        Experiment.measure(SimpleNamespace(_run=RunDirectory(out)), MergePoint("linear", lam), whole=True)
    names = [f"linear-lambda-{lam}000" for lam in ("0.0", "1.0", "1.0", "0.5")]
    told = ["new", "new", "again", "new"]
    assert [(line[1], line[3]) for line in starter.measured()[-4:]] == list(zip(names, told, strict=True))


def plan(folders, questions, out, lambdas="0:1:0.5", **options) -> SweepPlan:
    options = {"retained": False, "analysis": Analysis(draws=100)} | options
    parents = Parents(base=str(folders[0]), aligned=(str(folders[1]),))
    return SweepPlan(parents=parents, out=out, tasks=(str(questions),), lambdas=parse_lambdas(lambdas), **options)


def torn(path: Path, at: int) -> None:
    """Leave the first `at` bytes of a file."""
    path.write_bytes(path.read_bytes()[:at])


def copied(whole: Path, out: Path) -> Path:
    shutil.rmtree(out, ignore_errors=True)
    return shutil.copytree(whole, out)


def test_records_that_are_torn_at_any_byte_are_made_again(pair_folders, questions, tmp_path):
    """Of a grid that measures what is retained: records of points and of what they retain, and the responses."""
    make = partial(plan, pair_folders, questions, retained=True)
    whole = tmp_path / "whole"
    sweep(make(whole))
    rng = random.Random(1)
    for name in (f"points/{MIDDLE}.json", f"retained/points/{MIDDLE}.json", "retained/responses.json"):
        for at in (0, rng.randrange(1, (whole / name).stat().st_size - 1)):
            out = copied(whole, tmp_path / "out")
            torn(out / name, at)
            with pytest.warns(TornRecordWarning, match=f"{out / name}.torn was not whole: what it recorded is made"):
                sweep(make(out))
            assert differences(whole, out) == [f"{name}.torn is in one only"]
            numbers = [json.loads((folder / name).read_bytes()) for folder in (whole, out)]
            assert numbers[0].keys() == numbers[1].keys()
            assert numbers[0].get("of_each_prompt") == numbers[1].get("of_each_prompt")


@pytest.mark.parametrize("search", ["adaptive", "optuna"])
def test_a_torn_search_record_is_written_anew(search, pair_folders, questions, tmp_path):
    make = partial(plan, pair_folders, questions, search=search, trials=2, budget=6, sampler="random")
    whole = tmp_path / "whole"
    sweep(make(whole))
    for at in (0, 100):
        out = copied(whole, tmp_path / "out")
        torn(out / "search.json", at)
        with pytest.warns(TornRecordWarning, match="search.json.torn was not whole"):
            sweep(make(out))
        assert differences(whole, out) == ["search.json.torn is in one only"]


def test_a_torn_search_record_does_not_let_questions_judge_that_were_heard(pair_folders, questions, tmp_path):
    sweep(plan(pair_folders, questions, tmp_path / "out", search="adaptive", budget=6))
    torn(tmp_path / "out" / "search.json", 50)
    other = plan(pair_folders, questions, tmp_path / "out", analysis=Analysis(draws=100, select_fraction=0.3))
    with pytest.raises(RunDirectoryError, match="a search chose points by the questions of --select-fraction 0.5"):
        sweep(other)
    (tmp_path / "out" / "search.json").replace(tmp_path / "out" / "search.json.torn")
    with pytest.raises(RunDirectoryError, match="a search chose points by the questions of --select-fraction 0.5"):
        sweep(other)


def test_the_last_line_of_a_study_may_be_torn(pair_folders, questions, tmp_path):
    make = partial(plan, pair_folders, questions, search="optuna", trials=3, sampler="tpe")
    whole = tmp_path / "whole"
    sweep(make(whole))
    last = (whole / "study.journal").read_bytes().rstrip(b"\n").rfind(b"\n") + 1
    size = (whole / "study.journal").stat().st_size
    for at in (last + 5, last + 12, size - 1):
        out = copied(whole, tmp_path / "out")
        torn(out / "study.journal", at)
        sweep(make(out))
        assert differences(whole, out) == []


def test_a_torn_lease_lapses(pair_folders, questions, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_module, "Leases", partial(Leases, beat=0.05, grace=0.4))
    sweep(plan(pair_folders, questions, tmp_path / "whole"))
    sweep(plan(pair_folders, questions, tmp_path / "out", lambdas="0,1"))
    torn_lease = tmp_path / "out" / ".leases" / f"{MIDDLE}.0"
    torn_lease.write_bytes(b'{"worker": "ab')
    sweep(plan(pair_folders, questions, tmp_path / "out"))
    assert differences(tmp_path / "whole", tmp_path / "out") == []
    assert torn_lease.with_name(f"{MIDDLE}.1").exists()


@pytest.fixture(scope="module")
def sure_pair(tmp_path_factory) -> tuple[Path, Path]:
    """A base, and the same model far too sure of itself: worse by every measure of calibration."""
    root, sure = tmp_path_factory.mktemp("sure"), tiny_llama(1)
    with torch.no_grad():
        sure.lm_head.weight.mul_(4)
    return save_model(tiny_llama(1), root / "base"), save_model(sure, root / "aligned")


@pytest.fixture(scope="module")
def stopping(sure_pair, tmp_path_factory):
    """Makes plans of a study that stops hopeless points."""
    questions = write_questions(tmp_path_factory.mktemp("many") / "quiz.jsonl", 420)
    how = {"search": "optuna", "sampler": "random", "trials": 4, "objectives": ("sce", "nll"), "early_stopping": 0.6}
    return lambda out: plan(sure_pair, questions, out, lambdas="0:1.5:0.5", **how)


def test_parents_are_asked_all_choosing_questions_however_hopeless_they_are(stopping, tmp_path):
    """A search compares with the aligned model, and the rule needs its accuracy."""
    results = sweep(stopping(tmp_path / "out"))
    assert results.can_select
    records = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "out" / "points").iterdir()}
    assert "stopped" not in records["linear-lambda-0.0000"]
    assert "stopped" not in records["linear-lambda-1.0000"]
    assert any("stopped" in record for record in records.values())


def test_a_lost_record_of_a_study_is_measured_again_beside_what_was_heard_before_it(stopping, tmp_path):
    """One that was stopped is stopped at the same question, although better points have been heard since."""
    sweep(stopping(tmp_path / "whole"))
    paths = sorted((tmp_path / "whole" / "points").iterdir())
    stopped = [path.name for path in paths if "stopped" in json.loads(path.read_bytes())]
    others = [path.name for path in paths if path.name not in stopped]
    for name in (stopped[0], others[0], others[-1]):
        out = copied(tmp_path / "whole", tmp_path / "out")
        (out / "points" / name).unlink()
        sweep(stopping(out))
        assert differences(tmp_path / "whole", out) == []
        records = [json.loads((folder / "points" / name).read_bytes()) for folder in (tmp_path / "whole", out)]
        assert records[0].get("stopped") == records[1].get("stopped")


def test_a_start_that_was_cut_off_before_the_run_began_stands_in_nobodys_way(pair_folders, questions, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".lock").touch()
    (out / f".run.json.partial-elsewhere-{os.getpid()}").write_text("{")
    sweep(plan(pair_folders, questions, out, lambdas="0,1"))
    assert (out / "results.csv").exists()
