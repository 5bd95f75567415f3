"""What a run keeps of its questions, and questions that are divided into those to tune on and those to claim from."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import refused

from merge_calib.asked import Asked, read_asked, write_asked, write_ids
from merge_calib.checkpoints.opening import Parents
from merge_calib.errors import InputError, RunDirectoryError
from merge_calib.evaluation import evaluate
from merge_calib.exchange import ImportPlan, import_samples
from merge_calib.plan import EvaluationPlan, SweepPlan
from merge_calib.questions import Passage, PassageSet, Question, TaskSet
from merge_calib.run_directory import RunDirectory
from merge_calib.scores import ChoiceScores, load_scores
from merge_calib.sweep import sweep
from merge_calib.tasks import Library, load_task


def plan(folders, questions, out, lambdas=(0.0, 1.0), **options) -> SweepPlan:
    parents = Parents(base=str(folders[0]), aligned=(str(folders[1]),))
    return SweepPlan(parents=parents, out=out, tasks=(str(questions),), lambdas=lambdas, **options)


def quiz() -> TaskSet:
    questions = (
        Question("a", "Is it \u2028 red?", ("yes", "n\u00f6"), 1, "colours", split="select"),
        Question("b", "Is it blue?", ("yes", "no", "maybe"), 0, split="report"),
    )
    return TaskSet("quiz", "plain", questions)


def test_the_lines_are_the_questions_in_order(tmp_path):
    write_asked(tmp_path / "quiz.jsonl", quiz())
    lines = (tmp_path / "quiz.jsonl").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    assert json.loads(lines[0]) == {
        "id": "a",
        "subject": "colours",
        "split": "select",
        "question": "Is it \u2028 red?",
        "choices": ["yes", "n\u00f6"],
        "answer": 1,
    }
    assert len(lines) == 2
    assert read_asked(tmp_path / "quiz.jsonl", 2) == Asked(("a", "b"), ("colours", ""), ("select", "report"))


def test_the_lines_of_texts_have_no_place_in_them(tmp_path):
    passages = (Passage("a", "One two three.", at=0.5), Passage("b", "Paris is in", answer="France", subject="P17"))
    write_asked(tmp_path / "clm.jsonl", PassageSet("clm", passages))
    assert (tmp_path / "clm.jsonl").read_text() == (
        '{"id": "a", "subject": "", "text": "One two three."}\n{"id": "b", "subject": "P17", "text": "Paris is in"}\n'
    )
    assert read_asked(tmp_path / "clm.jsonl") == Asked(("a", "b"), ("", "P17"), ("", ""))


def test_a_file_that_holds_the_same_is_left_alone_and_another_is_replaced(tmp_path):
    path = tmp_path / "quiz.jsonl"
    write_asked(path, quiz())
    before = path.stat().st_mtime_ns, path.read_bytes()
    write_asked(path, quiz())
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before
    path.write_text("damaged\n")
    write_asked(path, quiz())
    assert path.read_bytes() == before[1]


def test_of_scores_alone_the_ids_and_answers_are_kept_unless_more_is_known(tmp_path):
    scores = ChoiceScores(("a", "b"), np.array([1, 0]), np.zeros((2, 3)), np.ones((2, 3), bool))
    write_ids(tmp_path / "bare.jsonl", scores)
    assert (tmp_path / "bare.jsonl").read_text() == '{"id": "a", "answer": 1}\n{"id": "b", "answer": 0}\n'
    assert read_asked(tmp_path / "bare.jsonl") == Asked(("a", "b"), ("", ""), ("", ""))
    write_asked(tmp_path / "quiz.jsonl", quiz())
    write_ids(tmp_path / "quiz.jsonl", scores)
    assert read_asked(tmp_path / "quiz.jsonl").subjects == ("colours", "")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "quiz.jsonl:2: not valid JSON"),
        ("[]", "quiz.jsonl:2: the line must be a JSON object"),
        ('{"subject": ""}', "quiz.jsonl:2: key 'id' is missing"),
        ('{"id": 7}', "quiz.jsonl:2: 'id' must be a text, not 7"),
        ('{"id": "a"}', "quiz.jsonl:2: id 'a' stands in it twice"),
        ('{"id": "b", "split": "test"}', "quiz.jsonl:2: 'split' must be one of '', 'select', 'report', not"),
        ('{"id": "b", "split": null}', "quiz.jsonl:2: 'split' must be a text, not null"),
        ('{"id": "b"}\n{"id": "c"}', "quiz.jsonl:3: the file ends here with 3 question(s), the run asked 2"),
    ],
)
def test_damage_is_said_with_file_and_line(tmp_path, line, message):
    (tmp_path / "quiz.jsonl").write_text(f'{{"id": "a"}}\n{line}\n')
    with pytest.raises(RunDirectoryError) as raised:
        read_asked(tmp_path / "quiz.jsonl", 2)
    assert message in str(raised.value)
    assert "delete it and give the command that made the run again" in str(raised.value)


def test_an_emptied_file_is_damaged_and_a_missing_one_is_none(tmp_path):
    (tmp_path / "quiz.jsonl").write_text("")
    with pytest.raises(RunDirectoryError, match="quiz.jsonl:1: the file is empty"):
        read_asked(tmp_path / "quiz.jsonl")
    assert read_asked(tmp_path / "other.jsonl") is None


def test_a_sweep_keeps_its_questions_with_the_ids_of_its_scores(pair_folders, questions, tmp_path):
    results = sweep(plan(pair_folders, questions, tmp_path / "out"))
    kept = tmp_path / "out" / "questions" / "quiz.jsonl"
    given = [json.loads(line) for line in questions.read_text().splitlines()]
    assert [json.loads(line) for line in kept.read_text().splitlines()] == [
        {"id": q["id"], "subject": "", "split": "", **{key: q[key] for key in ("question", "choices", "answer")}}
        for q in given
    ]
    scores = load_scores(tmp_path / "out" / "scores" / "linear-lambda-0.0000" / "quiz.choice.npz")
    assert results.run.asked("quiz").ids == scores.ids
    assert results.run.asked("unknown") is None


def test_a_run_of_an_earlier_time_has_none_until_it_is_extended(pair_folders, questions, tmp_path):
    run = sweep(plan(pair_folders, questions, tmp_path / "out")).run
    kept = tmp_path / "out" / "questions" / "quiz.jsonl"
    before = kept.read_bytes()
    kept.unlink()
    kept.parent.rmdir()
    assert RunDirectory.open(run.path).asked("quiz") is None
    sweep(plan(pair_folders, questions, tmp_path / "out"))
    assert kept.read_bytes() == before


def test_lines_that_were_cut_off_are_noticed_by_the_run(pair_folders, questions, tmp_path):
    run = sweep(plan(pair_folders, questions, tmp_path / "out")).run
    kept = tmp_path / "out" / "questions" / "quiz.jsonl"
    kept.write_text("".join(kept.read_text().splitlines(keepends=True)[:5]))
    with pytest.raises(
        RunDirectoryError, match=r"quiz.jsonl:5: the file ends here with 5 question\(s\), the run asked"
    ):
        run.asked("quiz")


def test_an_evaluation_keeps_its_questions(pair_folders, questions, tmp_path):
    models = tuple(str(folder) for folder in pair_folders)
    results = evaluate(EvaluationPlan(models=models, out=tmp_path / "out", tasks=(str(questions),)))
    assert results.run.asked("quiz").ids == tuple(f"q{i}" for i in range(12))


def test_a_split_is_select_or_report(tmp_path):
    with pytest.raises(InputError, match="the split must be 'select' or 'report', or absent, not 'test'"):
        Question("a", "?", ("yes", "no"), 0, split="test")


def test_the_hash_of_a_task_knows_splits_and_is_as_it_was_without_them(tmp_path):
    def task(*splits: str) -> TaskSet:
        questions = [Question(str(i), "Is it?", ("yes", "no"), 0, split=split) for i, split in enumerate(splits)]
        return TaskSet("quiz", "plain", tuple(questions))

    rows = [[str(i), "Is it?", ["yes", "no"], 0, "", None] for i in range(2)]
    plain = hashlib.sha256(("plain" + "".join(json.dumps(row) for row in rows)).encode()).hexdigest()
    assert task("", "").sha256 == plain
    hashes = {task(*splits).sha256 for splits in (("", ""), ("select", ""), ("", "select"), ("select", "report"))}
    assert len(hashes) == 4


def lines(path: Path, *values) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def own(i: int, **more) -> dict[str, object]:
    return {"id": f"q{i}", "question": f"Is it {i}?", "choices": ["yes", "no"], "answer": i % 2, **more}


def arc(id: str, stem: str, options: int = 4) -> dict[str, object]:
    choices = [{"text": f"{stem} {label}", "label": label} for label in "ABCDE"[:options]]
    return {"id": id, "question": {"stem": stem, "choices": choices}, "answerKey": "B"}


def splits_of(task: TaskSet) -> dict[str, str]:
    return {q.id: q.split for q in task.questions}


def test_own_questions_may_say_which_of_them_select(tmp_path):
    path = lines(tmp_path / "own.jsonl", own(0, split="select"), own(1, split="report"), own(2), own(3, split=None))
    assert splits_of(load_task(str(path))) == {"q0": "select", "q1": "report", "q2": "", "q3": ""}


@pytest.mark.parametrize(
    ("split", "message"), [("test", "must be 'select' or 'report'"), (1, "'split' must be a text")]
)
def test_an_own_split_that_is_neither_is_said_with_its_line(tmp_path, split, message):
    path = lines(tmp_path / "own.jsonl", own(0), own(1, split=split))
    with pytest.raises(InputError, match=rf"own.jsonl:2: .*{message}"):
        load_task(str(path))


def test_a_task_file_may_say_which_field_holds_the_split(tmp_path):
    (tmp_path / "quiz.csv").write_text("q,a,b,key,part\nIs it?,yes,no,A,select\nWas it?,yes,no,B,report\n")
    (tmp_path / "quiz.toml").write_text(
        'file = "quiz.csv"\nquestion = "{q}"\nchoices = ["{a}", "{b}"]\nanswer = "key"\nanswer_is = "letter"\n'
        'split = "{part}"\n'
    )
    assert list(splits_of(load_task("quiz", Library(task_dir=tmp_path))).values()) == ["select", "report"]


@pytest.mark.parametrize("seed", [None, 7])
def test_a_limit_asks_as_many_to_select_as_to_report(tmp_path, seed):
    questions = [own(i, split="select" if i % 4 == 3 else "report") for i in range(40)]
    task = load_task(str(lines(tmp_path / "own.jsonl", *questions)), limit=5, limit_seed=seed)
    assert sorted(splits_of(task).values()) == ["report"] * 5 + ["select"] * 5
    order = [int(q.id[1:]) for q in task.questions]
    assert order == sorted(order)
    if seed is None:
        assert order == [0, 1, 2, 3, 4, 5, 7, 11, 15, 19]


@pytest.fixture
def data(tmp_path) -> Path:
    """ARC-Easy with test, train and dev; MMLU with test, dev and val; SciQ with test and valid; PIQA."""
    folder = tmp_path / "data"
    lines(folder / "arc_easy" / "test.jsonl", *(arc(f"t{i}", f"Test {i}?", 4 + i % 2) for i in range(6)))
    lines(folder / "arc_easy" / "train.jsonl", arc("s0", "Train?"))
    dev = [arc(f"d{i}", f"Dev {i}?") for i in range(4)]
    lines(folder / "arc_easy" / "dev.jsonl", *dev, arc("d4", "Test 0?"))  # the last one is asked in the test, too
    for file, subjects in {"test": ("anatomy", "virology"), "dev": ("anatomy",), "val": ("anatomy",)}.items():
        (folder / "mmlu" / file).mkdir(parents=True)
        for subject in subjects:
            rows = "".join(f"What of {file} {i}?,one,two,three,four,C\n" for i in range(3))
            (folder / "mmlu" / file / f"{subject}_{file}.csv").write_text(rows)
    (folder / "sciq").mkdir()
    for file in ("test", "valid"):
        wrong = {f"distractor{i}": f"wrong {i}" for i in (1, 2, 3)}
        (folder / "sciq" / f"{file}.json").write_text(
            json.dumps([{"question": f"{file}?", **wrong, "correct_answer": "right", "support": ""}])
        )
    lines(folder / "piqa" / "valid.jsonl", {"goal": "Open it", "sol1": "push", "sol2": "pull"})
    (folder / "piqa" / "valid-labels.lst").write_text("0\n")
    return folder


def validated(name: str, data: Path, **options) -> TaskSet:
    return load_task(name, Library(data_dir=data, validation=True, **options))


def test_validation_questions_select_and_the_others_report_under_the_ids_they_have_without(data):
    plain, divided = load_task("arc_easy", Library(data_dir=data)), validated("arc_easy", data)
    assert set(splits_of(plain).values()) == {""}
    expected = {**dict.fromkeys(plain.ids, "report"), **{f"d{i}": "select" for i in range(4)}}
    assert splits_of(divided) == expected
    assert list(splits_of(divided)) == list(expected)
    assert "selected by" in divided.source
    assert "1 of them left out that are asked in both" in divided.source
    assert divided.sha256 != plain.sha256


def test_four_options_and_the_limit_hold_for_both_sides(data):
    lines(data / "arc_easy" / "dev.jsonl", *(arc(f"d{i}", f"Dev {i}?", 4 + i % 2) for i in range(6)))
    assert list(splits_of(validated("arc_easy", data, four_options=True))) == ["t0", "t2", "t4", "d0", "d2", "d4"]
    task = load_task("arc_easy", Library(data_dir=data, validation=True), limit=2)
    assert list(splits_of(task)) == ["t0", "t1", "d0", "d1"]


def test_mmlu_selects_by_val_and_shows_examples_of_dev(data):
    task = validated("mmlu", data)
    plain = load_task("mmlu", Library(data_dir=data))
    assert [(q.subject, q.split) for q in task.questions] == [
        *[("anatomy", "report")] * 3,
        *[("anatomy", "select")] * 3,
        *[("virology", "report")] * 3,
    ]
    assert tuple(q.id for q in task.questions if q.split == "report") == plain.ids
    shown = task.shots(task.questions[0], 3)
    assert [q.question for q in shown] == [f"What of dev {i}?" for i in range(3)]
    assert not {q.question for q in shown} & {q.question for q in task.questions}
    assert set(splits_of(validated("mmlu_anatomy", data)).values()) == {"select", "report"}


def test_sciq_has_a_validation_split(data):
    assert [q.split for q in validated("sciq", data).questions] == ["report", "select"]


def test_a_task_without_a_validation_split_or_file_is_refused_by_the_flag_and_its_name(data, tmp_path):
    with pytest.raises(InputError, match="--select-from-validation: task piqa has no validation questions besides"):
        validated("piqa", data)
    (data / "arc_easy" / "dev.jsonl").unlink()
    with pytest.raises(
        InputError, match=r"--select-from-validation: task arc_easy: .* does not hold arc_easy/dev.jsonl"
    ):
        validated("arc_easy", data)
    with pytest.raises(InputError, match=r"--select-from-validation: task .*quiz.jsonl has no questions of its own to"):
        validated(str(lines(tmp_path / "quiz.jsonl", own(0), own(1))), data)
    split = lines(tmp_path / "split.jsonl", own(0, split="select"), own(1, split="report"))
    assert len(validated(str(split), data)) == 2


def test_an_id_that_both_splits_have_is_said_with_both_places(data):
    lines(data / "arc_easy" / "dev.jsonl", arc("t1", "Dev?"))
    with pytest.raises(InputError, match=r"dev.jsonl:1: id 't1' stands already at .*test.jsonl:2"):
        validated("arc_easy", data)


def test_a_sweep_keeps_which_questions_select(pair_folders, data, tmp_path):
    results = sweep(
        plan(pair_folders, "arc_easy", tmp_path / "out", data_dir=data, select_from_validation=True, limit=3)
    )
    asked = results.run.asked("arc_easy")
    assert asked.splits == ("report",) * 3 + ("select",) * 3
    assert results.run.plan["select_from_validation"] is True
    counts = [results.get(results.points[0], "arc_easy", "choice", side).n for side in ("select", "report", "all")]
    assert counts == [3, 3, 6]
    with pytest.raises(RunDirectoryError, match="other questions"):
        sweep(plan(pair_folders, "arc_easy", tmp_path / "out", data_dir=data, limit=3))


@pytest.mark.parametrize(("given", "lacking"), [("report", "select"), ("select", "report")])
def test_a_sweep_needs_questions_on_both_sides_before_anything_is_measured(pair_folders, tmp_path, given, lacking):
    path = lines(tmp_path / "own.jsonl", *(own(i, split=given) for i in range(4)))
    with pytest.raises(InputError, match=f"the 'split' of its questions is {given} throughout") as raised:
        sweep(plan(pair_folders, path, tmp_path / "out"))
    assert lacking in str(raised.value)
    assert not (tmp_path / "out").exists()
    evaluate(EvaluationPlan(models=(str(pair_folders[0]),), out=tmp_path / "axis", tasks=(str(path),)))


def test_the_flag_reaches_the_plan(pair_folders, data, tmp_path, call):
    parents = "--base", pair_folders[0], "--aligned", pair_folders[1]
    said = refused(call, tmp_path, "sweep", *parents, "--tasks", "piqa", "--data-dir", data, "--select-from-validation")
    assert "--select-from-validation: task piqa has no validation questions" in said


def test_of_samples_of_lm_eval_the_ids_and_answers_are_kept(tmp_path):
    folder = Path(__file__).parent / "data" / "lm_eval" / "stories260k"
    results = import_samples(ImportPlan(files=(f"{folder}/samples_village_letters_*",), out=tmp_path / "out"))
    scores = results.run.scores(results.points[0], "village_letters", "choice")
    assert results.run.asked("village_letters") == Asked(scores.ids, ("",) * len(scores.ids), ("",) * len(scores.ids))
    kept = (tmp_path / "out" / "questions" / "village_letters.jsonl").read_text().splitlines()
    assert [json.loads(line)["answer"] for line in kept] == scores.answers.tolist()


@pytest.mark.parametrize(
    ("before", "after"), [('"split": ""', '"split": "select"'), ('"subject": ""', '"subject": "x"')]
)
def test_a_line_that_was_changed_is_noticed_by_the_run(pair_folders, questions, tmp_path, before, after):
    run = sweep(plan(pair_folders, questions, tmp_path / "out", retained=False)).run
    path = tmp_path / "out" / "questions" / "quiz.jsonl"
    text = path.read_text()
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(RunDirectoryError, match="quiz.jsonl: its hash is another than that of the questions asked"):
        RunDirectory.open(run.path).asked("quiz")
    path.write_text(text)
    assert RunDirectory.open(run.path).asked("quiz") is not None
