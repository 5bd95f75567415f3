"""What a run keeps of its questions, and questions that are divided into those to tune on and those to claim from."""

import hashlib
import json

import numpy as np
import pytest

from merge_calib.asked import Asked, read_asked, write_asked, write_ids
from merge_calib.checkpoints.opening import Parents
from merge_calib.errors import InputError, RunDirectoryError
from merge_calib.evaluation import evaluate
from merge_calib.plan import EvaluationPlan, SweepPlan
from merge_calib.questions import Passage, PassageSet, Question, TaskSet
from merge_calib.run_directory import RunDirectory
from merge_calib.scores import ChoiceScores, load_scores
from merge_calib.sweep import sweep


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
    assert "delete it and give the same command again" in str(raised.value)


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
