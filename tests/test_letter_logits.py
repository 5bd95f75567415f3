"""Letter logits in CSV files become a run of the two parents, on which everything works that needs no weights."""

import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import refused, write_questions

from merge_calib.analysis import Analysis
from merge_calib.calibration import metrics
from merge_calib.checkpoints.opening import Parents
from merge_calib.errors import InputError, RunDirectoryError
from merge_calib.letter_logits.importing import import_letters
from merge_calib.letter_logits.letters_plan import Layout, LettersPlan
from merge_calib.letter_logits.reading import read_letters
from merge_calib.plan import SweepPlan
from merge_calib.run_directory import RunDirectory
from merge_calib.scores import load_scores
from merge_calib.sweep import sweep
from merge_calib.tasks import Library, load_task

HEADER = ["0", "1", "2", "3", "4", "5", "Logit_A", "Logit_B", "Logit_C", "Logit_D", "Predicted", "Correct"]
# Files are named in another order than their subjects: "_" comes after "s", a blank before it.
SUBJECTS = {"world_religions": 4, "anatomy": 6, "college_physics": 5}


def question(subject: str, i: int) -> list[str]:
    return [f"What of {subject} is\nnumber {i}?", f"one {i}", f"two {i}", f"three {i}", f"four {i}", "ABCD"[i % 4]]


def write_side(folder: Path, seed: int, subjects=SUBJECTS, ending="_test_logits.csv") -> Path:
    """A folder with a file a subject; logits are eighths, as coarse formats have them."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for subject, count in subjects.items():
        logits = rng.integers(30, 160, (count, 4)) / 8
        rows = [
            [*question(subject, i), *map(str, logits[i].tolist()), "ABCD"[logits[i].argmax()], ""] for i in range(count)
        ]
        write_rows(folder / f"{subject}{ending}", rows)
    return folder


def write_rows(path: Path, rows: list[list[str]], header=HEADER) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def read_rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


def cell(path: Path, row: int, column: str, value: str) -> None:
    """Replace one cell; rows count from 0."""
    rows = read_rows(path)
    rows[row][HEADER.index(column)] = value
    write_rows(path, rows)


@pytest.fixture
def sides(tmp_path) -> tuple[Path, Path]:
    return write_side(tmp_path / "base", 1), write_side(tmp_path / "aligned", 2)


def plan(sides, tmp_path, **options) -> LettersPlan:
    return LettersPlan(base=sides[0], aligned=sides[1], out=tmp_path / "out", **options)


def scores_of(out: Path, lam: str, task: str = "mmlu"):
    return load_scores(out / "scores" / f"linear-lambda-{lam}" / f"{task}.choice.npz")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_run_has_the_two_parents_and_their_logits(sides, tmp_path):
    results = import_letters(plan(sides, tmp_path, base_name="small", aligned_name="small-chat"))
    assert [point.name for point in results.points] == ["linear-lambda-0.0000", "linear-lambda-1.0000"]
    for side, lam in zip(sides, ("0.0000", "1.0000"), strict=True):
        expected = [
            [float(value) for value in row[6:10]]
            for subject in sorted(SUBJECTS)
            for row in read_rows(side / f"{subject}_test_logits.csv")
        ]
        scores = scores_of(tmp_path / "out", lam)
        assert scores.logprobs.tolist() == expected
        assert scores.mask.all()
        assert scores.answers.tolist()[:6] == [0, 1, 2, 3, 0, 1]
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["kind"], record["base"], record["aligned"]) == ("sweep", "small", "small-chat")
    assert record["identity"]["source"] == "letter logits"


def test_measures_are_those_of_a_plain_loop_over_the_files(sides, tmp_path):
    results = import_letters(plan(sides, tmp_path))
    for side, point in zip(sides, results.points, strict=True):
        nll, hits, n = 0.0, 0, 0
        for subject in SUBJECTS:
            for row in read_rows(side / f"{subject}_test_logits.csv"):
                logits = [float(value) for value in row[6:10]]
                right = "ABCD".index(row[5])
                nll += math.log(sum(math.exp(logit) for logit in logits)) - logits[right]
                hits += logits.index(max(logits)) == right
                n += 1
        found = results.get(point, "mmlu", "choice", "all")
        assert found.n == n == 15
        assert found.accuracy == hits / n
        assert found.nll == pytest.approx(nll / n, abs=1e-12)


def test_what_letters_have_of_the_vocabulary_is_unknown_even_where_logits_are_small(sides, tmp_path):
    """Logits far below 0 look like log-probabilities; nothing may be read off their mass."""
    for side in sides:
        for path in side.iterdir():
            rows = read_rows(path)
            write_rows(path, [[*row[:6], *(str(float(value) - 40) for value in row[6:10]), *row[10:]] for row in rows])
    low = import_letters(plan(sides, tmp_path))
    assert low.get(low.points[0], "mmlu", "choice", "all").letter_mass is None
    shutil.rmtree(sides[0])
    shutil.rmtree(sides[1])
    high = import_letters(
        LettersPlan(
            base=write_side(tmp_path / "base", 1), aligned=write_side(tmp_path / "aligned", 2), out=tmp_path / "high"
        )
    )
    for point in low.points:
        one, other = low.get(point, "mmlu", "choice", "all"), high.get(point, "mmlu", "choice", "all")
        assert one.nll == pytest.approx(other.nll, abs=1e-12)
        assert one.sce == pytest.approx(other.sce, abs=1e-12)


def test_questions_have_the_ids_and_the_order_of_a_sweep_on_mmlu(sides, tmp_path):
    repeated = read_rows(sides[0] / "anatomy_test_logits.csv")[2][:6]
    for side in sides:
        path = side / "anatomy_test_logits.csv"
        rows = read_rows(path)
        write_rows(path, [*rows, [*repeated, *rows[0][6:]]])
    folder = tmp_path / "data" / "mmlu" / "test"
    folder.mkdir(parents=True)
    for subject in SUBJECTS:
        rows = read_rows(sides[0] / f"{subject}_test_logits.csv")
        with (folder / f"{subject}_test.csv").open("w", newline="") as file:
            csv.writer(file).writerows(row[:6] for row in rows)
    task = load_task("mmlu", Library(data_dir=tmp_path / "data"))
    results = import_letters(plan(sides, tmp_path))
    assert scores_of(tmp_path / "out", "0.0000").ids == task.ids
    assert results.run.asked("mmlu").ids == task.ids
    assert results.run.asked("mmlu").subjects == tuple(q.subject for q in task.questions)
    assert results.run.plan["tasks"]["mmlu"]["sha256"] == task.sha256
    assert results.run.plan["tasks"]["mmlu"]["repeated"] == 1
    assert sum(id.endswith("-2") for id in task.ids) == 1


def test_parts_of_mmlu_are_asked_of_their_subjects_alone(sides, tmp_path):
    results = import_letters(plan(sides, tmp_path, tasks=("mmlu_anatomy", "mmlu_world_religions")))
    assert results.tasks == ("mmlu_anatomy", "mmlu_world_religions")
    assert set(results.run.asked("mmlu_anatomy").subjects) == {"anatomy"}
    whole = read_letters(plan(sides, tmp_path))
    part = scores_of(tmp_path / "out", "1.0000", "mmlu_world_religions")
    assert part.ids == tuple(q.id for q in whole.questions[-4:])
    np.testing.assert_array_equal(part.logprobs, whole.aligned[-4:])


def test_a_group_whose_subjects_are_not_all_there_is_refused(sides, tmp_path):
    with pytest.raises(InputError, match=r"--tasks mmlu_humanities: .* lacks 12 of its subjects: formal_logic, "):
        import_letters(plan(sides, tmp_path, tasks=("mmlu_humanities",)))


def test_other_questions_have_a_task_and_columns_of_their_own(tmp_path):
    header = ["topic", "text", "yes", "no", "gold", "a", "b"]
    pair = [["night_sky", "Is moon {} far?", "yes", "no", "a"], ["sea", "Is sea {} dry?", "yes", "no", "B"]]
    rows = [[topic, text.format(i), *rest] for i in range(6) for topic, text, *rest in pair]
    base = write_rows(tmp_path / "before.csv", [[*row, "2", "1"] for row in rows], header)
    aligned = write_rows(tmp_path / "after.csv", [[*row, "5", "1"] for row in rows], header)
    layout = Layout(question="text", choices=("yes", "no"), answer="gold", logits=("a", "b"), subject="topic")
    results = import_letters(plan((base, aligned), tmp_path, tasks=("nature",), layout=layout))
    found = results.get(results.points[0], "nature", "choice", "all")
    assert (found.n, found.accuracy) == (12, 0.5)
    right = math.e / (math.e + 1)
    assert found.nll == pytest.approx(-(math.log(right) + math.log(1 - right)) / 2)
    assert results.run.asked("nature").subjects == ("night sky",) * 6 + ("sea",) * 6
    without = import_letters(
        LettersPlan(
            base=base,
            aligned=aligned,
            out=tmp_path / "without",
            tasks=("nature",),
            layout=Layout(question="text", choices=("yes", "no"), answer="gold", logits=("a", "b")),
        )
    )
    assert without.run.asked("nature").subjects == ("",) * 12


def test_the_names_of_the_files_may_end_in_csv_alone_and_other_files_are_left_alone(tmp_path):
    sides = write_side(tmp_path / "base", 1), write_side(tmp_path / "aligned", 2, ending=".csv")
    (sides[0] / "notes.txt").write_text("not a table")
    (sides[0] / "._anatomy.csv").write_text("what a Mac leaves")
    results = import_letters(plan(sides, tmp_path))
    assert results.run.plan["tasks"]["mmlu"]["n"] == 15


@pytest.mark.usefixtures("unsaved_figures")
def test_an_option_without_text_is_kept_and_counted(sides, tmp_path, call):
    for side in sides:
        cell(side / "anatomy_test_logits.csv", 0, "3", "")
    code, printed, said = call("letters", "--base", sides[0], "--aligned", sides[1], "--out", tmp_path / "out")
    assert code == 0, said
    assert said == "mmlu: 1 question(s) have an option without text\n"
    assert "choice, 1 task" in printed


@pytest.mark.usefixtures("unsaved_figures")
def test_the_command_reports_and_reports_again_from_what_is_stored(sides, tmp_path, call):
    out = tmp_path / "out"
    code, printed, said = call("letters", "--base", sides[0], "--aligned", sides[1], "--out", out)
    assert code == 0, said
    assert "choice, 1 task" in printed
    before = files(out)
    assert {"report.md", "results.csv", "frontier.json", "questions/mmlu.jsonl"} <= set(before)
    shutil.rmtree(sides[0])
    code, again, said = call("report", out)
    assert (code, again) == (0, printed), said
    assert files(out) == before


def test_the_same_command_again_changes_nothing_and_other_tasks_are_added(sides, tmp_path):
    import_letters(plan(sides, tmp_path))
    before = files(tmp_path / "out")
    import_letters(plan(sides, tmp_path))
    assert files(tmp_path / "out") == before
    results = import_letters(plan(sides, tmp_path, tasks=("mmlu_anatomy",)))
    assert set(results.tasks) == {"mmlu_anatomy", "mmlu"}


def test_other_logits_are_another_run(sides, tmp_path):
    import_letters(plan(sides, tmp_path))
    cell(sides[1] / "anatomy_test_logits.csv", 0, "Logit_A", "1.5")
    with pytest.raises(RunDirectoryError, match="aligned: the run has other weights"):
        import_letters(plan(sides, tmp_path))


def test_a_sweep_into_such_a_run_is_refused_and_the_other_way_round(sides, tmp_path, pair_folders):
    import_letters(plan(sides, tmp_path))
    before = files(tmp_path / "out")
    quiz = write_questions(tmp_path / "quiz.jsonl", 12)
    parents = Parents(base=str(pair_folders[0]), aligned=(str(pair_folders[1]),))
    asked = SweepPlan(parents=parents, out=tmp_path / "out", tasks=(str(quiz),), lambdas=(0.0, 1.0))
    with pytest.raises(
        RunDirectoryError, match="source: the run was made from letter logits, asked is a run made from models"
    ):
        sweep(asked)
    assert files(tmp_path / "out") == before
    swept = sweep(SweepPlan(parents=parents, out=tmp_path / "swept", tasks=(str(quiz),), lambdas=(0.0, 1.0)))
    with pytest.raises(
        RunDirectoryError, match="source: the run was made from models, asked is a run made from letter logits"
    ):
        import_letters(LettersPlan(base=sides[0], aligned=sides[1], out=swept.run.path))


def damaged(folder: Path, what: str) -> None:
    """Make one thing wrong in the files of the aligned model."""
    path = folder / "anatomy_test_logits.csv"
    rows = read_rows(path)
    changes = {
        "nan": lambda: cell(path, 2, "Logit_B", "nan"),
        "empty": lambda: cell(path, 2, "Logit_B", ""),
        "infinite": lambda: cell(path, 2, "Logit_B", "-inf"),
        "word": lambda: cell(path, 2, "Logit_B", "high"),
        "gold": lambda: cell(path, 2, "5", "E"),
        "no gold": lambda: cell(path, 2, "5", ""),
        "question": lambda: cell(path, 2, "0", "Another?"),
        "option": lambda: cell(path, 2, "4", "another"),
        "other gold": lambda: cell(path, 2, "5", "A"),
        "shorter": lambda: write_rows(path, rows[:-1]),
        "longer": lambda: write_rows(path, [*rows, rows[0]]),
        "swapped": lambda: write_rows(path, [rows[1], rows[0], *rows[2:]]),
        "no column": lambda: write_rows(path, [row[:9] for row in rows], HEADER[:9]),
        "ragged": lambda: write_rows(path, [rows[0][:-1], *rows[1:]]),
        "no rows": lambda: write_rows(path, []),
        "no text": lambda: path.write_text(""),
        "no file": path.unlink,
        "more files": lambda: shutil.copy(path, folder / "virology_test_logits.csv"),
        "twice": lambda: shutil.copy(path, folder / "anatomy.csv"),
        "no subject": lambda: path.rename(folder / "gardening_test_logits.csv"),
    }
    changes[what]()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        # A question goes over two lines, so the third row begins in line 6.
        ("nan", "aligned/anatomy_test_logits.csv:6: column 'Logit_B' must hold a finite number, not 'nan'"),
        ("empty", "aligned/anatomy_test_logits.csv:6: column 'Logit_B' must hold a finite number, not ''"),
        ("infinite", "aligned/anatomy_test_logits.csv:6: column 'Logit_B' must hold a finite number, not '-inf'"),
        ("word", "aligned/anatomy_test_logits.csv:6: column 'Logit_B' must hold a finite number, not 'high'"),
        ("gold", "aligned/anatomy_test_logits.csv:6: column '5': answer 'E' is outside the 4 choices"),
        ("no gold", "aligned/anatomy_test_logits.csv:6: column '5': the answer must be a letter, not the text ''"),
        ("question", "aligned/anatomy_test_logits.csv:6: another question than"),
        ("option", "aligned/anatomy_test_logits.csv:6: another list of options than"),
        ("other gold", "aligned/anatomy_test_logits.csv:6: another right letter than"),
        ("shorter", "aligned/anatomy_test_logits.csv:10: the file ends here with 5 question(s)"),
        ("longer", "aligned/anatomy_test_logits.csv:14: the file ends here with 7 question(s)"),
        ("swapped", "aligned/anatomy_test_logits.csv:2: another question than"),
        ("no column", "aligned/anatomy_test_logits.csv:1: column 'Logit_D' is missing; here are: '0', '1'"),
        ("ragged", "aligned/anatomy_test_logits.csv:2: the header names 12 columns, here are 11"),
        ("no rows", "aligned/anatomy_test_logits.csv:1: the file holds a header and no question"),
        ("no text", "aligned/anatomy_test_logits.csv:1: the file is empty"),
        ("no file", "--aligned"),
        ("more files", "--base"),
        ("twice", "its subject 'anatomy' stands already in"),
        ("no subject", "gardening_test_logits.csv:2: 'gardening' is no subject of MMLU; name other questions with"),
    ],
)
def test_bad_files_are_refused_in_one_message_and_nothing_is_left(sides, tmp_path, call, what, message):
    damaged(sides[1], what)
    said = refused(call, tmp_path, "letters", "--base", sides[0], "--aligned", sides[1])
    assert message in said
    assert said.count("\n") == 1


def test_files_that_are_not_there_or_the_same_are_refused(sides, tmp_path, call):
    (tmp_path / "empty").mkdir()

    def said(base: Path, aligned: Path, *more: str) -> str:
        return refused(call, tmp_path, "letters", "--base", base, "--aligned", aligned, *more)

    assert "--base" in said(tmp_path / "empty", sides[1])
    assert "the folder holds no file NAME.csv" in said(tmp_path / "empty", sides[1])
    assert "there is no such file or folder" in said(sides[0], tmp_path / "nowhere")
    assert "hold the same logits" in said(sides[0], sides[0])
    assert "one is a folder, the other a file" in said(sides[0], sides[1] / "anatomy_test_logits.csv")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--tasks", "mean"), "--tasks 'mean' cannot be the name of a task"),
        (("--tasks", "../x"), "--tasks '../x' cannot be the name of a task"),
        (("--tasks", "mmlu,mmlu"), "two tasks are called 'mmlu'"),
        (("--tasks", "mmlu,quiz"), "only MMLU and its parts can be asked together, not 'quiz'"),
        (("--logit-columns", "Logit_A,Logit_B"), "--logit-columns names 2 column(s), but --choice-columns 4"),
        (("--choice-columns", "1"), "--choice-columns must name 2 to 26 columns, not 1"),
        (("--answer-column", "0"), "the column '0' is named for two things"),
        (("--bins", "0"), "--bins must lie between 1 and 1000, not 0"),
        (("--accuracy-margin", "2"), "--accuracy-margin must lie between 0 and 1, not 2"),
    ],
)
def test_flags_that_cannot_be_meant_are_refused(sides, tmp_path, call, flags, message):
    assert message in refused(call, tmp_path, "letters", "--base", sides[0], "--aligned", sides[1], *flags)


FEW = Analysis(draws=100)  # for intervals, at which nobody looks where there are 14,042 questions


@pytest.fixture(scope="module")
def llama(shared_data, tmp_path_factory):
    """Llama-3.1-8B, base and Instruct, on all of MMLU."""
    folder = shared_data / "llama31_mmlu_logits" / "results"
    sides = folder / "cali_8B_base", folder / "cali_8B"
    return sides, import_letters(plan(sides, tmp_path_factory.mktemp("llama"), analysis=FEW))


REAL = {
    "accuracy": (0.6033, 0.5936),
    "ece": (0.0417, 0.1185),
    "sce": (0.0277, 0.0856),
    "sce_agreement": (0.5549, 0.6008),
    "nll": (0.9293, 1.1743),
    "brier": (0.4926, 0.5406),
}


@pytest.mark.parametrize("name", REAL)
def test_real_letters_give_the_known_measures(llama, name):
    results = llama[1]
    found = [results.get(point, "mmlu", "choice", "all") for point in results.points]
    assert tuple(round(getattr(m, name), 4) for m in found) == REAL[name]
    assert [m.n for m in found] == [14042, 14042]
    assert [m.letter_mass for m in found] == [None, None]


def test_real_letters_have_the_ids_of_mmlu_where_the_texts_agree(llama, shared_data):
    """Ten options are empty that read "None" in MMLU, and two questions are written in another way."""
    task = load_task("mmlu", Library(data_dir=shared_data))
    asked = llama[1].run.asked("mmlu")
    differing = sum(one != other for one, other in zip(asked.ids, task.ids, strict=True))
    assert differing == 12
    assert asked.subjects == tuple(q.subject for q in task.questions)
    record = llama[1].run.plan["tasks"]["mmlu"]
    assert (record["repeated"], record["without_text"]) == (27, 10)


def test_real_letters_by_group_are_a_part_of_the_whole(llama, tmp_path):
    groups = ("mmlu_stem", "mmlu_humanities", "mmlu_social_sciences", "mmlu_other")
    results = import_letters(plan(llama[0], tmp_path, tasks=groups, analysis=FEW))
    counts = [results.get(results.points[0], group, "choice", "all").n for group in groups]
    assert counts == [3153, 4705, 3077, 3107]
    hits = [results.run.scores(results.points[0], group, "choice").predictions for group in groups]
    assert sum(metrics.accuracy(p) * n for p, n in zip(hits, counts, strict=True)) == pytest.approx(
        0.6033 * 14042, abs=1
    )
    assert RunDirectory.open(tmp_path / "out").asked("mmlu_stem").ids
