"""The model card of a merge, and the licence it may name."""

import json

import pytest
import yaml
from conftest import save_model, tiny_llama
from huggingface_hub import ModelCard

from merge_calib.analysis import Analysis
from merge_calib.checkpoints.card import Card, CardParent, Measured
from merge_calib.checkpoints.licences import (
    RANKS,
    Licence,
    Standing,
    joint_licence,
    link_in,
    named_files,
    read_licence,
)
from merge_calib.checkpoints.locate import hub_id, snapshot_of
from merge_calib.checkpoints.opening import Parents
from merge_calib.checkpoints.pair import ModelPair
from merge_calib.merging.point import MergePoint
from merge_calib.plan import SweepPlan
from merge_calib.recovery import parents_record, write_point
from merge_calib.selection import Rule
from merge_calib.sweep import sweep

APACHE, MIT, BSD, CC0 = (Licence(id) for id in ("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0"))
LLAMA, GEMMA, NC = Licence("llama3.1"), Licence("gemma"), Licence("cc-by-nc-4.0")
OWN = Licence("other", "own-licence", "LICENSE")
NAMELESS = Licence("other", None, "https://example.org/terms")
SILENT = Licence()


def joined(*licences: Licence) -> Standing:
    return joint_licence(list(zip(("base", "aligned model", "third"), licences, strict=False)))


# The table of licences


@pytest.mark.parametrize(
    ("one", "other", "claimed", "said"),
    [
        (APACHE, APACHE, APACHE, "The base is under apache-2.0. The aligned model is under apache-2.0."),
        (LLAMA, LLAMA, LLAMA, "llama3.1"),
        (OWN, OWN, OWN, "own-licence"),
        (NAMELESS, NAMELESS, NAMELESS, "a licence of its own that has no name"),
        (APACHE, LLAMA, LLAMA, "The stricter one is named"),
        (MIT, OWN, OWN, "The stricter one is named"),
        (CC0, NC, NC, "The stricter one is named"),
        (MIT, APACHE, APACHE, "The stricter one is named"),
        (CC0, MIT, MIT, "The stricter one is named"),
        (MIT, NAMELESS, NAMELESS, "a licence of its own that has no name"),
        (MIT, BSD, Licence("other", "mit-and-bsd-3-clause"), "None of these is the stricter one"),
        (LLAMA, GEMMA, Licence("other", "llama3.1-and-gemma"), "under each of them"),
        (LLAMA, OWN, Licence("other", "llama3.1-and-own-licence"), "under each of them"),
        (LLAMA, NAMELESS, SILENT, "Not all of these have a name, so no licence is claimed"),
        (APACHE, SILENT, SILENT, "The aligned model does not say its licence. So no licence is claimed"),
        (SILENT, SILENT, SILENT, "The base does not say its licence. The aligned model does not"),
    ],
)
def test_the_stricter_licence_is_named_and_never_invented(one, other, claimed, said):
    found = joined(one, other)
    assert found.licence == claimed
    assert said in found.why
    assert joined(other, one).licence.id == claimed.id


def test_two_licences_of_one_name_and_other_links_are_not_one():
    assert joined(OWN, Licence("other", "own-licence", "https://example.org")).licence.id == "other"
    assert joined(Licence("other"), Licence("other")).licence == SILENT


def test_of_three_the_strictest_holds():
    assert joined(MIT, APACHE, GEMMA).licence == GEMMA
    assert joined(MIT, GEMMA, LLAMA).licence.name == "gemma-and-llama3.1"


def test_no_licence_has_two_ranks():
    every = [name for names in RANKS.values() for name in names]
    assert len(every) == len(set(every))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("---\nlicense: MIT\n---\n# x", Licence("mit")),
        ("---\r\nlicense: mit\r\n---\r\n", Licence("mit")),
        ("---\nlicense:\n- apache-2.0\n---\n", Licence("apache-2.0")),
        ("---\nlicense: other\nlicense_name: own-licence\nlicense_link: LICENSE\n---\n", OWN),
        ("---\nlicense: unknown\n---\n", SILENT),
        ("---\nlicense: [mit, gemma]\n---\n", SILENT),
        ("---\nlicense: 3\n---\n", SILENT),
        ("---\n- a\n---\n", SILENT),
        ("---\nlicense: mit\n", SILENT),
        ("---\nlicense: {: [\n---\n", SILENT),
        ("# license: mit", SILENT),
        ("", SILENT),
    ],
)
def test_a_licence_is_read_from_the_front_matter(tmp_path, text, found):
    (tmp_path / "README.md").write_text(text, newline="")
    assert read_licence(tmp_path) == found


def test_a_card_that_is_no_text_says_nothing(tmp_path):
    assert read_licence(tmp_path) == SILENT
    (tmp_path / "README.md").write_bytes(b"---\nlicense: \xff\xfe\n---\n")
    assert read_licence(tmp_path) == SILENT


def with_files(folder, **texts):
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / name.replace("_dot_", ".")).write_text(text)
    return read_licence(folder)


def test_files_of_licences_are_named_where_nothing_else_is_said(tmp_path):
    silent = with_files(tmp_path, LICENSE="terms", NOTICE_dot_txt="note", other="x", LICENSED="x")
    assert [path.name for path in silent.files] == ["LICENSE", "NOTICE.txt"]
    found = joined(APACHE, silent)
    assert found.licence == SILENT
    assert "The aligned model says its licence only in LICENSE, NOTICE.txt, copied here." in found.why


def test_different_texts_are_both_kept(tmp_path):
    base = with_files(tmp_path / "a", LICENSE_dot_txt="one", USE_POLICY_dot_md="same")
    aligned = with_files(tmp_path / "b", LICENSE_dot_txt="two", USE_POLICY_dot_md="same", NOTICE="note")
    found = named_files([("base", base), ("aligned model org/x", aligned)])
    assert {name: path.read_text() for name, path in found.items()} == {
        "LICENSE-base.txt": "one",
        "LICENSE-aligned-model-org-x.txt": "two",
        "USE_POLICY.md": "same",
        "NOTICE": "note",
    }


def test_a_link_follows_its_file(tmp_path):
    card = "---\nlicense: other\nlicense_name: own\nlicense_link: ./LICENSE\n---\n"
    base, aligned = (
        with_files(tmp_path / "a", LICENSE="one"),
        with_files(tmp_path / "b", LICENSE="two", README_dot_md=card),
    )
    files = named_files([("base", base), ("aligned model", aligned)])
    assert link_in(aligned, files) == "LICENSE-aligned-model"
    assert link_in(aligned, named_files([("aligned model", aligned)])) == "LICENSE"
    assert link_in(aligned, {}) is None
    assert link_in(NAMELESS, files) == "https://example.org/terms"
    assert link_in(APACHE, files) is None


# Where models come from


def test_a_download_knows_its_id_and_commit(tmp_path):
    folder = tmp_path / "models--org--na--me" / "snapshots" / ("ab" * 20)
    assert snapshot_of(folder) == ("org/na--me", "ab" * 20)
    assert snapshot_of(tmp_path) is None
    assert snapshot_of(folder.with_name("main")) is None


def test_a_folder_is_no_hub_id(tmp_path, monkeypatch):
    assert hub_id("org/name@v1") == ("org/name", "v1")
    assert hub_id("org/name") == ("org/name", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert hub_id("org/name") is None
    assert hub_id(str(tmp_path)) is None


# The card


PARENT = CardParent("base", "org/base@v1", ("org/base",), "v1", "0" * 64)
ROW = {"model": "base", "split": "all", "task": "arc_easy", "n": 2376, "accuracy": 0.61234, "ece": 0.1, "nll": 1.5}


def card(**changes) -> Card:
    given = {
        "name": "linear-lambda-0.4000",
        "point": MergePoint("linear", 0.4).record(),
        "dtype": "bfloat16",
        "parents": (PARENT, CardParent("aligned", "org/chat", ("org/chat",), None, "1" * 64)),
        "standing": Standing(OWN, "Why."),
        "licence_link": "LICENSE",
        "licence_files": ("LICENSE",),
        "version": "9.9",
    }
    return Card(**(given | changes))


def front_matter(text: str):
    return yaml.safe_load(text.split("---\n")[1])


def test_the_front_matter_is_what_the_hub_reads():
    text = card().text()
    assert front_matter(text) == {
        "base_model": ["org/base", "org/chat"],
        "base_model_relation": "merge",
        "library_name": "transformers",
        "tags": ["merge", "merge-calib"],
        "license": "other",
        "license_name": "own-licence",
        "license_link": "LICENSE",
    }
    assert ModelCard(text).data.to_dict() == front_matter(text)


def test_no_licence_is_claimed_where_none_stands():
    assert not [
        key for key in front_matter(card(standing=Standing(SILENT, "x"), licence_link=None).text()) if "lic" in key
    ]


NASTY = [
    'a: b # "c" \\ \n- d',
    "''",
    "yes",
    "{x}",
    "- ",
    "\u2028é\x7f\x85\ufeff😀",
    "\udc80x",
    "null",
    "0x1F",
    "a`|*_<b>",
]


@pytest.mark.parametrize("name", NASTY)
def test_any_name_is_safe(name):
    nasty = CardParent("base", name, (name,), name, name)
    licence = Standing(Licence("other", name), name)
    text = card(parents=(nasty, nasty), standing=licence, licence_link=name, name=name).text()
    text.encode()
    expected = name.encode("utf-8", "replace").decode()
    said = front_matter(text)
    assert said["base_model"] == [expected]
    assert said["license_name"] == said["license_link"] == expected
    rows = [line for line in text.splitlines() if line.startswith("| base")]
    assert len(rows) == 2
    assert all(line.replace("\\|", "").count("|") == 5 for line in rows)


def test_the_body_says_what_was_merged_and_how():
    text = card(point=MergePoint("ties", 0.7, (("density", 0.3),)).record()).text()
    assert "by the method `ties` at lambda 0.7" in text
    assert "- `density`: 0.3" in text
    assert "| base | `org/base@v1` | `v1` | `" + "0" * 64 in text
    assert "| aligned | `org/chat` | – |" in text
    assert "merge-calib 9.9" in text
    assert "`bfloat16`" in text
    assert "What the parents say is in `LICENSE`." in text
    assert "from_pretrained" in text
    assert "Accuracy" not in text


def test_groups_are_listed_with_their_lambdas():
    text = card(point=MergePoint("linear", None, (), (("attention", 0.25), ("rest", 1.0))).record()).text()
    assert "at a lambda of its own for each group" in text
    assert "- lambda of `attention`: 0.25\n- lambda of `rest`: 1\n" in text


def test_what_was_measured_stands_in_a_table():
    rows = [ROW, ROW | {"model": "this merge", "accuracy_low": 0.6, "accuracy_high": 0.62, "sce": 0.07}]
    text = card(measured=Measured(rows, "How.", "the lowest | wins")).text()
    assert "| base | all | arc\\_easy | 2,376 | 0.6123 | 0.1000 | – | 1.5000 |" in text
    assert "| this merge | all | arc\\_easy | 2,376 | 0.6123 (0.6000 to 0.6200) | 0.1000 | 0.0700 | 1.5000 |" in text
    assert "The rule that chose this merge: the lowest \\| wins." in text
    assert "How." in text
    assert "The rule" not in card(measured=Measured(rows)).text()
    assert "## Accuracy" not in card(measured=Measured([])).text()


# In a written checkpoint


@pytest.fixture
def parents(tmp_path):
    folders = [
        save_model(tiny_llama(seed), tmp_path / f"models--org--{name}" / "snapshots" / ("ab" * 20))
        for seed, name in enumerate(("base", "chat"))
    ]
    (folders[0] / "README.md").write_text("---\nlicense: apache-2.0\n---\n# The base\n")
    (folders[0] / "LICENSE").write_text("Apache")
    own = "---\nlicense: other\nlicense_name: own\nlicense_link: LICENSE\n---\n"
    (folders[1] / "README.md").write_text(own)
    (folders[1] / "LICENSE").write_text("Own")
    return folders


def test_a_checkpoint_has_a_card_and_the_licences_of_both_parents(parents, tmp_path):
    named = Parents(base=str(parents[0]), aligned=(str(parents[1]),))
    folder = tmp_path / "merged"
    write_point(ModelPair.open(*parents), MergePoint("linear", 0.4), folder, None, parents_record(named))
    loaded = ModelCard.load(folder / "README.md")
    assert loaded.data.base_model == ["org/base", "org/chat"]
    assert (loaded.data.license, loaded.data.license_name) == ("other", "own")
    assert loaded.data.license_link == "LICENSE-aligned-model"
    assert (folder / "LICENSE-base").read_text() == "Apache"
    assert (folder / "LICENSE-aligned-model").read_text() == "Own"
    assert "ab" * 20 in loaded.text
    assert "The base is under apache-2.0. The aligned model is under own." in loaded.text
    about = json.loads((folder / "merge_calib.json").read_text())
    assert about["base"]["revision"] == "ab" * 20
    assert about["base"]["sha256"] in loaded.text


def test_the_recovered_checkpoint_says_what_was_measured(pair_folders, questions, tmp_path):
    named = Parents(base=str(pair_folders[0]), aligned=(str(pair_folders[1]),))
    plan = SweepPlan(
        parents=named, tasks=(str(questions),), out=tmp_path / "run", analysis=Analysis(rule=Rule(margin=1.0))
    )
    results = sweep(plan)
    assert results.selection.recovers
    text = (tmp_path / "run" / "checkpoints" / results.selection.point / "README.md").read_text()
    point = results.point(results.selection.point)
    for model, place in (
        ("base", MergePoint("linear", 0)),
        ("this merge", point),
        ("aligned", MergePoint("linear", 1)),
    ):
        row = results.row(place, "quiz", "choice", "report")
        found, interval = row.measurement, results.estimate(row, "accuracy")
        accuracy = f"{found.accuracy:.4f} ({interval.low:.4f} to {interval.high:.4f})"
        assert f"| {model} | report | quiz | 6 | {accuracy} | {found.ece:.4f} |" in text
    assert "The point was chosen on other questions than these." in text
