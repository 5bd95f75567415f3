"""lm-eval's logged samples, read and written; tests/data/lm_eval/README.md says how the files were made."""

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from conftest import save_model, tiny_llama

from merge_calib.errors import InputError
from merge_calib.lm_eval_samples import folder_name, read_samples, write_samples
from merge_calib.lm_eval_samples.writing import doc_hash, sha256
from merge_calib.questions import Question, TaskSet
from merge_calib.scores import ChoiceScores

DATA = Path(__file__).parent / "data" / "lm_eval"
DATE = datetime(2025, 1, 31, 12, 34, 56)
MULTIPLE_CHOICE = ["texts", "words", "letters", "blanks", "filters", "outside"]


def logged(kind: str) -> Path:
    (path,) = (DATA / "stories260k").glob(f"samples_village_{kind}_*.jsonl")
    return path


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def changed(tmp_path: Path, kind: str, change) -> Path:
    """A copy of a logged file after `change` has seen its lines, in place or by giving others."""
    lines = lines_of(logged(kind))
    lines = change(lines) or lines
    path = tmp_path / "a_model" / logged(kind).name
    path.parent.mkdir()
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def same(a: ChoiceScores, b: ChoiceScores) -> bool:
    """Whether all fields are equal bit for bit."""
    fields = ("answers", "logprobs", "mask")
    return a.ids == b.ids and all(
        np.array_equal(getattr(a, f), getattr(b, f), equal_nan=f == "logprobs") for f in fields
    )


# Reading what lm-eval wrote


@pytest.mark.parametrize(
    ("kind", "printed"),
    [
        ("texts", {"continuation-sum": 1 / 12, "continuation-norm": 1 / 12}),
        ("words", {"continuation-sum": 2 / 12, "continuation-norm": 2 / 12}),
        ("letters", {"choice": 7 / 12}),
        ("blanks", {"continuation-sum": 6 / 12}),
        ("filters", {"continuation-sum": 1 / 5, "continuation-norm": 1 / 5}),
    ],
)
def test_accuracies_are_those_that_lm_eval_printed(kind, printed):
    scores = read_samples(logged(kind)).scores
    assert {name: float(s.predictions.hit.mean()) for name, s in scores.items()} == printed


def test_a_file_says_model_task_and_date():
    task = read_samples(logged("texts"))
    assert (task.model, task.task) == ("stories260k", "village_texts")
    assert logged("texts").name == f"samples_{task.task}_{task.date}.jsonl"
    assert task.checked == ("acc", "acc_norm")
    assert not task.skipped
    assert not task.notes


def test_log_likelihoods_are_those_of_the_lines():
    """The slow twin: every number of every line, and its choice's length."""
    task = read_samples(logged("texts"))
    for i, line in enumerate(lines_of(logged("texts"))):
        for k, choice in enumerate(line["doc"]["choices"]):
            total = float(line["resps"][k][0][0])
            assert task.scores["continuation-sum"].logprobs[i, k] == total
            assert task.scores["continuation-norm"].logprobs[i, k] == total / len(choice)
        assert task.scores["continuation-sum"].mask[i].sum() == len(line["doc"]["choices"])
        assert task.scores["continuation-sum"].answers[i] == line["doc"]["answer"]
        assert task.scores["continuation-sum"].ids[i] == f"village_texts-{line['doc_hash'][:16]}"


def test_the_questions_come_with_their_texts():
    task = read_samples(logged("texts"))
    for q, line in zip(task.questions.questions, lines_of(logged("texts")), strict=True):
        assert q.choices == tuple(line["doc"]["choices"])
        assert q.context == f"Question: {line['doc']['question']}\nAnswer:"
    assert tuple(q.id for q in task.questions.questions) == task.scores["continuation-sum"].ids
    assert read_samples(logged("letters")).questions is None


def test_a_target_may_be_a_text_or_a_letter():
    for kind in ("words", "letters"):
        (scores, *_) = read_samples(logged(kind)).scores.values()
        for line, answer in zip(lines_of(logged(kind)), scores.answers, strict=True):
            assert line["arguments"][f"gen_args_{answer}"]["arg_1"].strip() == line["target"]


def test_letters_keep_their_mass():
    scores = read_samples(logged("letters")).scores["choice"]
    mass = np.exp(scores.logprobs).sum(1)
    assert ((mass > 0) & (mass < 1)).all()


def test_choices_in_the_contexts_are_told_by_acc_and_doc():
    task = read_samples(logged("blanks"))
    answers = [int(line["doc"]["label"]) - 1 for line in lines_of(logged("blanks"))]
    assert task.scores["continuation-sum"].answers.tolist() == answers
    assert task.notes == ("the right choices are deduced from acc, and go with the docs' own field",)
    assert task.questions is None


def test_one_of_two_filters_is_kept_and_no_unconditional_request():
    task = read_samples(logged("filters"))
    assert sum(task.skipped.values()) == 5
    assert task.notes == ("the filters one, two say the same; one is kept",)
    first_five = read_samples(logged("texts")).scores["continuation-sum"]
    read = task.scores["continuation-sum"]
    assert read.logprobs == pytest.approx(first_five.logprobs[:5, :4], abs=1e-4, nan_ok=True)  # other batches
    assert read.answers.tolist() == first_five.answers[:5].tolist()


def test_questions_without_a_right_choice_are_left_out_and_counted():
    task = read_samples(logged("outside"))
    assert list(task.skipped.values()) == [2]
    assert "which lm-eval counts as wrong" in next(iter(task.skipped))
    assert task.scores["continuation-sum"].answers.tolist() == [2, 2, 2]
    assert len(task.questions) == 3


def test_the_order_of_lines_does_not_matter(tmp_path):
    """Several processes write one rank after the other."""
    path = changed(tmp_path, "texts", lambda lines: lines[::2] + lines[1::2])
    again = read_samples(path)
    assert again.model == "a_model"
    assert same(again.scores["continuation-norm"], read_samples(logged("texts")).scores["continuation-norm"])


def test_older_files_have_numbers_and_lists(tmp_path):
    def age(lines):
        for line in lines:
            line["arguments"] = [list(request.values()) for request in line["arguments"].values()]
            line["resps"] = [[[float(number), greedy == "True"]] for ((number, greedy),) in line["resps"]]
            line["filtered_resps"] = [repeats[0] for repeats in line["resps"]]
            line["target"] = int(line["target"])
            del line["metrics"], line["filter"]

    old = read_samples(changed(tmp_path, "texts", age))
    assert same(old.scores["continuation-norm"], read_samples(logged("texts")).scores["continuation-norm"])
    assert old.checked == ("acc", "acc_norm")


def test_more_than_ten_choices_stay_in_order(tmp_path):
    def widen(lines):
        del lines[1:]
        line = lines[0]
        arguments = {f"gen_args_{k}": {"arg_0": "Pick:", "arg_1": f" item {k}"} for k in range(12)}
        line["arguments"] = {key: arguments[key] for key in sorted(arguments)}  # gen_args_10 before gen_args_2
        line["filtered_resps"] = [[str(-k - 1.0), "False"] for k in range(12)]
        line["resps"] = [[reply] for reply in line["filtered_resps"]]
        line["acc"] = line["acc_norm"] = 1.0

    task = read_samples(changed(tmp_path, "texts", widen))
    assert task.questions.questions[0].choices == tuple(f"item {k}" for k in range(12))
    assert task.scores["continuation-sum"].logprobs[0].tolist() == [-k - 1.0 for k in range(12)]


def test_ids_are_the_docs_own_where_there_are_any(tmp_path):
    def name(lines):
        for i, line in enumerate(lines):
            line["doc"]["id"] = f"own-{i}"

    assert read_samples(changed(tmp_path, "letters", name)).scores["choice"].ids == tuple(f"own-{i}" for i in range(12))


def test_ids_of_repeated_docs_differ(tmp_path):
    def repeat(lines):
        lines[5]["doc_hash"] = lines[9]["doc_hash"] = lines[2]["doc_hash"]
        for line in lines:
            line["doc"]["id"] = "the same"

    ids = read_samples(changed(tmp_path, "letters", repeat)).scores["choice"].ids
    assert (ids[5], ids[9]) == (f"{ids[2]}-2", f"{ids[2]}-3")
    assert len(set(ids)) == 12


def test_ids_without_hashes_are_doc_ids(tmp_path):
    def forget(lines):
        for line in lines:
            del line["doc_hash"]

    assert read_samples(changed(tmp_path, "letters", forget)).scores["choice"].ids[3] == "village_letters-3"


@pytest.mark.parametrize(("targets", "answer"), [(("False", "True"), 1), (("0.0", "1.0"), 1), (("0", "1"), 1)])
def test_an_index_may_be_a_truth_value_or_a_float(tmp_path, targets, answer):
    def name(lines):
        for line in lines:
            line["target"] = targets["AB".index(line["target"])]

    scores = read_samples(changed(tmp_path, "letters", name)).scores["choice"]
    assert scores.answers.tolist() == read_samples(logged("letters")).scores["choice"].answers.tolist()


@pytest.mark.parametrize("texts", [("1", "0"), ("2", "1")])
def test_numbers_as_choices_are_told_from_indices_by_acc(tmp_path, texts):
    """The target "1" is choice 1 by index and choice 0 or 1 by text; lm-eval's acc says which it was."""

    def number(lines):
        for line in lines:
            answer = "AB".index(line["target"])
            line["target"] = texts[answer]
            for request, text in zip(line["arguments"].values(), texts, strict=True):
                request["arg_1"] = f" {text}"

    scores = read_samples(changed(tmp_path, "letters", number)).scores["continuation-sum"]
    assert scores.answers.tolist() == read_samples(logged("letters")).scores["choice"].answers.tolist()


def test_lengths_that_are_not_in_the_file_leave_no_norm(tmp_path):
    def divide_otherwise(lines):
        lines[3]["acc_norm"] = 1.0 - lines[3]["acc_norm"]

    task = read_samples(changed(tmp_path, "texts", divide_otherwise))
    assert list(task.scores) == ["continuation-sum"]
    assert task.checked == ("acc",)
    assert task.questions is None
    assert "the lengths that lm-eval divided by" in task.notes[0]


def test_an_unchecked_file_says_so(tmp_path):
    def forget(lines):
        for line in lines:
            line["metrics"] = ["exact_match"]
            line["exact_match"] = 0

    task = read_samples(changed(tmp_path, "texts", forget))
    assert task.checked == ()
    assert "could not be checked" in task.notes[0]


# What is refused


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("generated", ":1: not a multiple-choice task: lm-eval asked for generated text. "),
        ("likelihood", ":1: not a multiple-choice task: lm-eval asked for the likelihood of one text. "),
        ("rolling", ":1: not a multiple-choice task: lm-eval asked for the likelihood of whole texts. "),
        ("several", ":1: the target is [0, 0]: a question with several right answers has no calibration error"),
    ],
)
def test_other_tasks_are_refused(kind, message):
    with pytest.raises(InputError) as refused:
        read_samples(logged(kind))
    assert f"{logged(kind)}{message}" in str(refused.value)


def reply(line: int, choice: int, number: object, greedy: object = "False"):
    def change(lines):
        lines[line]["resps"][choice] = [[number, greedy]]
        lines[line]["filtered_resps"][choice] = [number, greedy]

    return change


def put(line: int, **values):
    return lambda lines: lines[line].update(values)


def drop(line: int, key: str):
    def change(lines):
        del lines[line][key]

    return change


def more(kind: str, **values):
    """Append the lines of another file."""
    return lambda lines: lines + [line | values for line in lines_of(logged(kind))]


def reverse_replies(lines):
    """What a reader with the wrong order of choices would see."""
    for line in lines:
        line["filtered_resps"].reverse()
        line["resps"].reverse()


BAD = {
    "minus infinity": ("texts", reply(4, 1, "-inf"), ":5: question 4, choice 1: the log-likelihood is -inf, which is"),
    "not a number": ("texts", reply(0, 0, "nan"), ":1: question 0, choice 0: the log-likelihood is nan, which is not"),
    "bare nan": ("texts", reply(0, 0, float("nan")), ":1: question 0, choice 0: the log-likelihood is nan, which is"),
    "a logit": ("texts", reply(2, 0, "12.5"), ":3: question 2, choice 0: 12.5 is above 0 and so not a log-likelihood"),
    "a word": ("texts", reply(2, 0, "high"), ":3: question 2, choice 0: a reply must be [log-likelihood, is_greedy]"),
    "null": ("texts", reply(2, 0, None), ":3: question 2, choice 0: a reply must be [log-likelihood, is_greedy], not"),
    "a missing reply": ("texts", put(1, resps=[[["-1", "True"]]]), ":2: 'resps' holds 1 replies to 3 requests"),
    "no repeats": (
        "texts",
        put(1, resps=[[], [], []]),
        ":2: each item of 'resps' must be a list of replies, not a list",
    ),
    "a filter's own": (
        "texts",
        put(4, filtered_resps=[["-1", "True"], ["-2", "False"]]),
        ":5: the filter 'none' changed the log-likelihoods, 'filtered_resps' differs",
    ),
    "no arguments": ("texts", drop(6, "arguments"), ":7: key 'arguments' is missing"),
    "empty arguments": ("texts", put(6, arguments={}), ":7: 'arguments' must hold the texts of each request"),
    "other arguments": ("texts", put(6, arguments={"a": {}}), ":7: 'arguments' must have keys gen_args_0, ..."),
    "numbers for texts": ("texts", put(6, arguments=[["a", 1], ["a", 2]]), ":7: a request must be two texts, not "),
    "no target": ("texts", drop(11, "target"), ":12: key 'target' is missing"),
    "no doc_id": ("texts", drop(0, "doc_id"), ":1: key 'doc_id' is missing"),
    "a doc of text": ("texts", put(0, doc="a question"), ":1: 'doc' must be a JSON object {...}, not the text"),
    "a wrong acc": ("texts", put(3, acc=0.0), ":4: acc is 0.0 in the file, and its log-likelihoods [-"),
    "a wrong target": ("texts", put(3, target="0"), ":4: acc is 1.0 in the file, and its log-likelihoods [-"),
    "replies in another order": ("texts", reverse_replies, " in the file, and its log-likelihoods [-"),
    "several right": ("texts", put(3, acc=0.37), ":4: acc is 0.37 and neither 0 nor 1: the task does not have one"),
    "one task after another": ("texts", more("likelihood"), ":13: not a multiple-choice task"),
    "two tasks": ("texts", more("letters"), ":13: another task than on line 1: docs or metrics have other fields"),
    "two tasks alike": ("texts", more("words"), ":13: doc_id 0 again, and not as in "),
    "two runs": ("texts", lambda lines: [*lines, lines[4] | {"filter": "b", "target": "0"}], ":13: doc_id 4 again"),
    "no answer at all": (
        "texts",
        lambda lines: [line | {"target": "-100", "acc": 0, "acc_norm": 0} for line in lines],
        "no question is left: no target is one of the choices",
    ),
    "unconditional requests elsewhere": (
        "filters",
        lambda lines: lines[0]["arguments"]["gen_args_6"].update(arg_1=" something else"),
        ":1: acc_mutual_info needs every choice once after its context and once after none",
    ),
    "contexts and no label": (
        "blanks",
        lambda lines: [line | {"doc": {"answer": 0}} for line in lines],
        ":1: the choices stand in the contexts, as in WinoGrande, and lm-eval does not log which is right",
    ),
    "contexts and another label": (
        "blanks",
        lambda lines: lines[0]["doc"].update(label="3"),
        ":1: the choices stand in the contexts",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_by_line(case, tmp_path):
    kind, change, message = BAD[case]
    path = changed(tmp_path, kind, change)
    with pytest.raises(InputError) as refused:
        read_samples(path)
    assert str(refused.value).startswith(str(path))
    assert message in str(refused.value)


def test_the_index_and_the_text_may_be_told_apart_by_nothing(tmp_path):
    def blind(lines):
        for line in lines:
            line["target"] = "1"
            line["metrics"] = []
            for k, request in enumerate(line["arguments"].values()):
                request["arg_1"] = f" {1 - k}"

    with pytest.raises(InputError, match=":1: the target '1' may be the index of a choice or its text"):
        read_samples(changed(tmp_path, "letters", blind))


def test_acc_norm_alone_must_agree(tmp_path):
    def norm_only(lines):
        for line in lines:
            line["metrics"] = ["acc_norm"]
        lines[3]["acc_norm"] = 1.0 - lines[3]["acc_norm"]

    with pytest.raises(InputError, match=":4: acc_norm is "):
        read_samples(changed(tmp_path, "texts", norm_only))


def test_a_cut_off_file_is_refused(tmp_path):
    path = tmp_path / logged("texts").name
    path.write_bytes(logged("texts").read_bytes()[:-40])
    with pytest.raises(InputError, match=":12: not valid JSON: "):
        read_samples(path)


@pytest.mark.parametrize(
    "name",
    ["results_2025-01-31T12-34-56.789012.json", "samples_arc.jsonl", "samples__2025-01-31T12-34-56.jsonl", "x.jsonl"],
)
def test_other_names_are_refused(name, tmp_path):
    with pytest.raises(InputError, match="not named as lm-eval names its samples, samples_TASK_2025-01-31T12-34-56"):
        read_samples(tmp_path / name)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_samples(tmp_path / "samples_arc_easy_2025-01-31T12-34-56.jsonl")


# Writing


def village(confidence: str) -> tuple[TaskSet, ChoiceScores, list[list[tuple[str, str]]]]:
    """Questions of 2 to 4 choices with random scores, and the texts that were scored."""
    rng = np.random.default_rng(5)
    words = ["ä mill", "harbour", "x", "nothing at all"]
    questions, texts, logprobs = [], [], np.full((9, 4), np.nan)
    for i in range(9):
        count = 2 + i % 3
        q = Question(f"q {i}", f"Where is {i}?", tuple(words[:count]), int(rng.integers(count)))
        logprobs[i, :count] = -rng.gamma(3.0, 2.0, count)
        ends = "ABCD" if confidence == "choice" else words
        texts.append([(f"Question: {q.question}\nAnswer:", f" {end}") for end in ends[:count]])
        questions.append(q)
    answers = np.array([q.answer for q in questions])
    scores = ChoiceScores(tuple(q.id for q in questions), answers, logprobs, ~np.isnan(logprobs))
    return TaskSet("my_quiz", "plain", tuple(questions)), scores, texts


@pytest.mark.parametrize("confidence", ["choice", "continuation-sum"])
def test_what_is_written_is_read_back(confidence, tmp_path):
    task, scores, texts = village(confidence)
    path = write_samples(tmp_path / "org__model", task, confidence, scores, texts, DATE)
    assert path == tmp_path / "org__model" / "samples_my_quiz_2025-01-31T12-34-56.000000.jsonl"
    again = read_samples(path)
    assert (again.model, again.task, again.date) == ("org__model", "my_quiz", "2025-01-31T12-34-56.000000")
    assert same(again.scores[confidence], scores)
    assert again.checked == (("acc",) if confidence == "choice" else ("acc", "acc_norm"))
    assert set(again.scores) == ({"choice"} if confidence == "choice" else {"continuation-sum", "continuation-norm"})


def test_the_same_scores_give_the_same_bytes(tmp_path):
    first, second = (write_samples(tmp_path / name, *arguments(), DATE) for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def arguments(confidence: str = "continuation-sum"):
    task, scores, texts = village(confidence)
    return task, confidence, scores, texts


@pytest.mark.parametrize(("kind", "confidence"), [("letters", "choice"), ("texts", "continuation-sum")])
def test_a_line_has_the_fields_of_lm_eval_in_its_order(kind, confidence, tmp_path):
    theirs = lines_of(logged(kind))[0]
    ours = lines_of(write_samples(tmp_path, *arguments(confidence), DATE))[0]
    assert list(ours) == list(theirs)
    assert {key: type(value) for key, value in ours.items()} == {key: type(value) for key, value in theirs.items()}
    assert ours["metrics"] == theirs["metrics"]
    assert ours["resps"] == [[reply] for reply in ours["filtered_resps"]]
    assert ours["resps"][0][0] == [repr(float(village(confidence)[1].logprobs[0, 0])), "None"]
    assert list(ours["arguments"]["gen_args_0"]) == list(theirs["arguments"]["gen_args_0"])


@pytest.mark.parametrize("kind", MULTIPLE_CHOICE)
def test_hashes_are_lm_evals(kind):
    for line in lines_of(logged(kind)):
        assert doc_hash(line["doc"]) == line["doc_hash"]
        assert sha256(line["arguments"]["gen_args_0"]["arg_0"]) == line["prompt_hash"]
        assert sha256(line["target"]) == line["target_hash"]


def test_an_empty_choice_has_no_norm(tmp_path):
    task, scores, texts = village("continuation-sum")
    texts[4][1] = (texts[4][1][0], " ")
    path = write_samples(tmp_path, task, "continuation-sum", scores, texts, DATE)
    again = read_samples(path)
    assert list(again.scores) == ["continuation-sum"]
    assert again.checked == ("acc", "acc_norm")
    assert again.notes == ("no continuation-norm: a choice is empty",)


def test_a_minimum_is_not_written(tmp_path):
    task, scores, texts = village("continuation-sum")
    with pytest.raises(InputError, match="which confidence continuation-min has not; those of choice and continuation"):
        write_samples(tmp_path, task, "continuation-min", scores, texts, DATE)


# Against lm-eval itself


@pytest.mark.filterwarnings("ignore")
def test_a_live_run_of_lm_eval_agrees(tmp_path, monkeypatch):
    """lm-eval runs a tiny model and writes its files; what is read gives its results, and its own task reads ours."""
    pytest.importorskip("lm_eval")
    from lm_eval.evaluator import evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.models.huggingface import HFLM
    from lm_eval.utils import sanitize_model_name

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tasks = {name: lm_eval_task(name) for name in ("village_texts", "village_letters", "village_words")}
    model = HFLM(pretrained=str(save_model(tiny_llama(3), tmp_path / "tiny")), dtype="float32", device="cpu")
    results = evaluate(model, {"tasks": tasks, "groups": {}}, bootstrap_iters=0, log_samples=True)
    tracker = EvaluationTracker(output_path=str(tmp_path / "out"))
    tracker.general_config_tracker.model_name_sanitized = sanitize_model_name("org/tiny:2")
    tracker.save_results_aggregated(dict(results), results["samples"])
    for name in tasks:
        tracker.save_results_samples(name, results["samples"][name])
        (path,) = (tmp_path / "out" / folder_name("org/tiny:2")).glob(f"samples_{name}_*.jsonl")
        theirs = {key.removesuffix(",none"): value for key, value in results["results"][name].items()}
        read = {key: float(scores.predictions.hit.mean()) for key, scores in read_samples(path).scores.items()}
        if name == "village_letters":
            assert read == {"choice": theirs["acc"]}
        else:
            assert read == {"continuation-sum": theirs["acc"], "continuation-norm": theirs["acc_norm"]}
    for line in lines_of(write_samples(tmp_path, *arguments(), DATE)):
        replies = [(float(number), False) for number, _ in line["filtered_resps"]]
        metrics = tasks["village_texts"].process_results(line["doc"], replies)
        assert metrics == {name: line[name] for name in line["metrics"]}


def lm_eval_task(name: str):
    """The task of tests/data/lm_eval over the same questions, without lm-eval's index of all its tasks."""
    import datasets
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    questions = datasets.Dataset.from_list(lines_of(DATA / "questions.jsonl"))
    config = load_yaml(DATA / "tasks" / f"{name}.yaml") | {"num_fewshot": 0, "dataset_kwargs": None}
    return ConfigurableTask(config=config | {"custom_dataset": lambda **_: {"test": questions}})
