"""Sweeps by other methods, by groups, of adapters, averages and different vocabularies."""

import csv
import json
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import save_model, tiny_llama
from peft import LoraConfig, get_peft_model

from merge_calib.checkpoints.opening import Parents
from merge_calib.errors import CheckpointError, InputError, RunDirectoryError
from merge_calib.evaluation import evaluate
from merge_calib.merging.point import MergePoint
from merge_calib.plan import EvaluationPlan, SweepPlan
from merge_calib.recovery import write_point
from merge_calib.scores import load_scores
from merge_calib.sweep import sweep


def run(folders, questions, out, **options):
    aligned = options.pop("aligned", (str(folders[1]),))
    parents = {key: options.pop(key) for key in ("aligned_weights", "adapter_base", "vocab") if key in options}
    plan = SweepPlan(
        parents=Parents(base=str(folders[0]), aligned=tuple(map(str, aligned)), **parents),
        out=out,
        tasks=(str(questions),),
        **{"lambdas": (0.0, 0.5, 1.0), **options},
    )
    return sweep(plan)


def points_of(out) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in (out / "points").glob("*.json")}


def scores(out, point):
    return load_scores(out / "scores" / point / "quiz.choice.npz").logprobs


@pytest.fixture
def adapter(pair_folders, tmp_path):
    """A LoRA adapter on the base, whose config names the base's folder."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(pair_folders[0], dtype=torch.float32)
    config = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers in an old way
        tuned = get_peft_model(model, config)
    tuned.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_a_second_method_adds_its_points_to_the_run(pair_folders, questions, tmp_path):
    out = tmp_path / "out"
    run(pair_folders, questions, out)
    before = (out / "results.csv").read_text()
    results = run(pair_folders, questions, out, method="ties", options={"density": 0.5})
    assert sorted(points_of(out)) == [
        "linear-lambda-0.0000",
        "linear-lambda-0.5000",
        "linear-lambda-1.0000",
        "ties-density-0.5-lambda-0.5000",
        "ties-density-0.5-lambda-1.0000",
    ]
    assert set(before.splitlines()) < set((out / "results.csv").read_text().splitlines())
    assert results.unmeasured == 0
    trimmed, aligned = scores(out, "ties-density-0.5-lambda-1.0000"), scores(out, "linear-lambda-1.0000")
    assert np.nanmax(np.abs(trimmed - aligned)) > 1e-3


def test_slerp_says_what_was_truly_rotated(pair_folders, questions, tmp_path):
    out = tmp_path / "out"
    run(pair_folders, questions, out, method="slerp")
    facts = points_of(out)["slerp-lambda-0.5000"]["merge"]
    assert 0 < facts["slerped_tensors"] <= facts["tensors"] == 21
    assert facts["slerped_parameters"] <= facts["parameters"]
    assert "merge" not in points_of(out)["linear-lambda-1.0000"]


def test_groups_measure_every_combination(pair_folders, questions, tmp_path):
    out = tmp_path / "out"
    run(pair_folders, questions, out, groups="attention,rest", lambdas=(0.0, 1.0))
    points = points_of(out)
    assert len(points) == 4
    groups = [point["groups"] for point in points.values() if "groups" in point]
    assert sorted(groups, key=str) == [{"attention": 0.0, "rest": 1.0}, {"attention": 1.0, "rest": 0.0}]
    with (out / "results.csv").open(newline="") as file:
        lambdas = [row["lambda"] for row in csv.DictReader(file) if (row["task"], row["split"]) == ("quiz", "all")]
    assert lambdas == ["0.0", "1.0", "", ""]


def test_each_group_may_have_lambdas_of_its_own(pair_folders, questions, tmp_path):
    out = tmp_path / "out"
    run(pair_folders, questions, out, lambdas=(), group_lambdas={"attention": (0.0, 0.5, 1.0), "rest": (1.0,)})
    assert len(points_of(out)) == 4
    with pytest.raises(InputError, match="disagree about 'mlp'"):
        run(pair_folders, questions, out, lambdas=(), groups="mlp,rest", group_lambdas={"rest": (1.0,)})


def test_an_adapter_is_swept_on_the_model_that_it_names(pair_folders, questions, tmp_path, adapter):
    out = tmp_path / "out"
    run(pair_folders, questions, out, aligned=(adapter,), lambdas=(0.0, 0.5, 1.0, 2.0))
    found = [scores(out, f"linear-lambda-{lam}") for lam in ("0.0000", "0.5000", "1.0000", "2.0000")]
    assert all(np.nanmax(np.abs(one - other)) > 1e-3 for one, other in pairwise(found))
    evaluate(
        EvaluationPlan(models=(str(adapter), str(pair_folders[0])), out=tmp_path / "axis", tasks=(str(questions),))
    )
    for label, point in (("adapter", "linear-lambda-1.0000"), ("base", "linear-lambda-0.0000")):
        assert np.array_equal(scores(tmp_path / "axis", label), scores(out, point), equal_nan=True)


def test_an_adapter_that_names_a_model_which_is_not_here_says_how_to_give_it(
    pair_folders, questions, tmp_path, adapter
):
    config = json.loads((adapter / "adapter_config.json").read_text()) | {"base_model_name_or_path": "/gone/model"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="is an adapter of /gone/model: .*--adapter-base MODEL says where"):
        run(pair_folders, questions, tmp_path / "out", aligned=(adapter,))
    run(pair_folders, questions, tmp_path / "out", aligned=(adapter,), adapter_base=str(pair_folders[0]))


def test_a_base_for_adapters_where_there_is_none_is_refused(pair_folders, questions, tmp_path):
    with pytest.raises(InputError, match="neither --base nor --aligned is an adapter"):
        run(pair_folders, questions, tmp_path / "out", adapter_base=str(pair_folders[0]))
    assert not (tmp_path / "out").exists()


def test_the_average_of_two_models_is_the_aligned_parent(pair_folders, questions, tmp_path):
    third = save_model(tiny_llama(5), tmp_path / "third", torch.bfloat16)
    both = (pair_folders[1], third)
    run(pair_folders, questions, tmp_path / "one", aligned=both, aligned_weights=(3.0, 1.0))
    run(pair_folders, questions, tmp_path / "two", aligned=both[::-1], aligned_weights=(1.0, 3.0))
    run(pair_folders, questions, tmp_path / "three", aligned=both)
    first, same, other = (scores(tmp_path / run, "linear-lambda-1.0000") for run in ("one", "two", "three"))
    np.testing.assert_allclose(first, same, rtol=0, atol=2e-2)  # sums in another order, rounded to bf16
    assert np.nanmax(np.abs(first - other)) > 2e-2
    with pytest.raises(RunDirectoryError, match="aligned: the run has other weights"):
        run(pair_folders, questions, tmp_path / "one", aligned=both)


def test_two_vocabularies_are_swept_and_noted(pair_folders, questions, tmp_path):
    wider = save_model(tiny_llama(5, vocab=270), tmp_path / "wider", torch.bfloat16)
    out = tmp_path / "out"
    run((pair_folders[0], wider), questions, out)
    record = json.loads((out / "run.json").read_text())
    assert record["identity"]["vocab"] == "aligned"
    assert any("270" in note for note in record["pair_notes"])
    with pytest.raises(RunDirectoryError, match="vocab: the run has aligned, asked is base"):
        run((pair_folders[0], wider), questions, out, vocab="base")
    with pytest.raises(CheckpointError, match="--vocab aligned"):
        run((pair_folders[0], wider), questions, tmp_path / "other", vocab="error")


@pytest.mark.parametrize("vocab", ["aligned", "base"])
def test_a_checkpoint_between_two_vocabularies_gives_the_scores_of_the_sweep(pair_folders, questions, tmp_path, vocab):
    wider = save_model(tiny_llama(5, vocab=270, tie_word_embeddings=True), tmp_path / "wider", torch.bfloat16)
    out = tmp_path / "out"
    run((pair_folders[0], wider), questions, out, vocab=vocab)
    pair = Parents(base=str(pair_folders[0]), aligned=(str(wider),), vocab=vocab).open()
    write_point(pair, MergePoint("linear", 0.5), tmp_path / "merged", None, {})
    evaluate(EvaluationPlan(models=(str(tmp_path / "merged"),), out=tmp_path / "axis", tasks=(str(questions),)))
    there = scores(tmp_path / "axis", "merged"), scores(out, "linear-lambda-0.5000")
    np.testing.assert_allclose(*there, rtol=0, atol=1e-5)
