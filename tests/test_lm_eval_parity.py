"""The scorer against lm-eval on the first questions of the real files; the whole files are for the tool."""

import importlib.util

import pytest
from conftest import SHARED, byte_tokenizer, save_model, tiny_llama

if importlib.util.find_spec("lm_eval") is None:
    pytest.skip("lm-eval is not installed", allow_module_level=True)
if not (SHARED / "data").is_dir():
    pytest.skip("shared/data is not there", allow_module_level=True)

import convert_stories260k

from merge_calib.scoring.encoder import Dress, Encoder
from merge_calib.tasks import Library, load_task

FIRST = 40


@pytest.fixture(scope="module")
def prove():
    """The tool; importing it imports lm-eval, whose warnings belong to these tests only."""
    return importlib.import_module("prove_lm_eval_parity")


@pytest.fixture(scope="module")
def sides(prove, tmp_path_factory):
    """stories260K: 512 tokens at most, and no single token for ` A`."""
    folder, source = tmp_path_factory.mktemp("parity") / "stories260k", SHARED / "data" / "stories260K"
    convert_stories260k.convert(source / "stories260K.bin", source / "tok512.vocab", folder)
    return prove.Ours.open(folder, "float64"), prove.Harness(folder, "float64")  # float32 sums differ by rounding


@pytest.mark.parametrize("name", ["arc_easy", "piqa", "mmlu"])
def test_every_choice_agrees(name, prove, sides):
    found = prove.compare_task(name, *sides, SHARED / "data", FIRST)
    assert found.agrees
    assert [c.texts for c in found.comparisons] == ["ours", "lm-eval's"]
    for c in found.comparisons:
        assert c.questions == FIRST
        assert not c.apart
        assert c.largest <= prove.TOLERANCE
        assert c.accuracies[0] == c.accuracies[1]


def test_letters_with_a_space_and_truncated_rows_agree(prove, tmp_path):
    """One question of every MMLU subject, for a model that knows ` A` and reads bytes, so that many prompts are cut."""
    folder = save_model(tiny_llama(3), tmp_path / "bytes")
    found = prove.compare_task("mmlu", prove.Ours.open(folder), prove.Harness(folder), SHARED / "data", per_subject=1)
    ours, theirs = found.comparisons
    assert found.letters == " A"
    assert found.agrees
    assert ours.questions == 57
    assert not ours.apart
    assert not theirs.apart
    assert ours.truncated[0] >= 5
    assert ours.truncated[1] == 4 * ours.truncated[0]


def test_a_scorer_without_bos_is_found_out(prove, sides, monkeypatch):
    ours, harness = sides
    monkeypatch.setattr(ours.encoder, "bos", [])
    for name in prove.METHODS:
        found = prove.compare_task(name, ours, harness, SHARED / "data", FIRST)
        assert not found.agrees
        assert found.comparisons[0].largest > 100 * prove.TOLERANCE


def chat_tokenizer():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    return tokenizer


def their_texts(prove, task, dev, rows, tokenizer=None, system=None, shots=0):
    """The pairs of context and continuation that lm-eval's own definition of an MMLU subject asks."""
    datasets = prove.datasets
    splits = {"dev": datasets.Dataset.from_list(dev), "test": datasets.Dataset.from_list(rows)}
    settings = prove.load_yaml(prove.Path(prove.lm_eval.tasks.__file__).parent / f"mmlu/default/{task}.yaml")
    theirs = prove.ConfigurableTask(config=settings | {"custom_dataset": lambda **_: splits, "num_fewshot": shots})

    def render(history, add_generation_prompt=True):
        return tokenizer.apply_chat_template(history, tokenize=False, add_generation_prompt=add_generation_prompt)

    chat = {"apply_chat_template": True, "chat_template": render, "tokenizer_name": "t"} if tokenizer else {}
    theirs.build_all_requests(system_instruction=system, **chat)
    texts = [[] for _ in rows]
    for request in theirs.instances:
        texts[request.doc_id].append(request.args)
    return texts


def mmlu_rows(prove, path):
    [(_, rows)] = prove._mmlu_rows([path])
    return rows


@pytest.mark.parametrize("subject", ["abstract_algebra", "us_foreign_policy"])
@pytest.mark.parametrize(("shots", "is_chat", "system"), [(5, False, None), (0, True, None), (5, True, "Be brief.")])
def test_worked_examples_and_chats_are_written_as_lm_eval_writes_them(prove, subject, shots, is_chat, system):
    folder = SHARED / "data" / "mmlu"
    dev, rows = (mmlu_rows(prove, folder / part / f"{subject}_{part}.csv") for part in ("dev", "test"))
    tokenizer = chat_tokenizer() if is_chat else byte_tokenizer()
    theirs = their_texts(prove, f"mmlu_{subject}", dev, rows, tokenizer if is_chat else None, system, shots)
    task = load_task(f"mmlu_{subject}", Library(SHARED / "data"))
    ours = Encoder(tokenizer, 4096, Dress(shots, is_chat, system)).choice_texts(task, "A" if is_chat else " A")
    assert len(ours) == len(rows) >= 100
    assert ours == theirs
