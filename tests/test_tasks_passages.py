"""Next-token tasks: texts with a seeded place, and facts whose entity is to be named."""

import json
import shutil
from pathlib import Path

import pytest

from merge_calib.errors import InputError
from merge_calib.questions import Passage, PassageSet, content_id
from merge_calib.tasks import Library, load_task


def write(path: Path, content: str | list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = content if isinstance(content, str) else "".join(json.dumps(line) + "\n" for line in content)
    path.write_text(lines, encoding="utf-8", newline="")
    return path


def clm(path: Path, seed: int = 0) -> PassageSet:
    return load_task(f"clm:{path}", Library(seed=seed))


def test_a_jsonl_file_holds_a_text_a_line(tmp_path: Path) -> None:
    path = write(tmp_path / "news.jsonl", [{"text": "One.\nTwo.", "id": "n1"}, {"text": "Three."}])
    task = clm(path)
    assert (task.name, task.source) == ("clm-news", str(path))
    made = content_id("clm", "Three.", ())
    assert [(p.id, p.text, p.answer) for p in task.passages] == [("n1", "One.\nTwo.", None), (made, "Three.", None)]


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_txt_file_holds_texts_between_blank_lines(ends: str, tmp_path: Path) -> None:
    path = write(tmp_path / "news.txt", ends.join(["", "One.", " Two.", "", " \t", "Three.", ""]))
    assert [p.text for p in clm(path).passages] == ["One.\n Two.", "Three."]


def test_a_folder_holds_a_text_a_txt_file_and_lines_of_jsonl_at_any_depth(tmp_path: Path) -> None:
    folder = tmp_path / "the.news"
    write(folder / "b.txt", "One.\n\nTwo.\n\n")
    write(folder / "a" / "c.jsonl", [{"text": "Three."}, {"text": "Four."}])
    write(folder / "README.md", "not a text")
    write(folder / ".hidden" / "d.txt", "not a text")
    write(folder / "._b.txt", "not a text")
    task = clm(folder)
    assert (task.name, [p.text for p in task.passages]) == ("clm-the.news", ["Three.", "Four.", "One.\n\nTwo."])


def test_the_place_depends_on_seed_and_id_alone(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", [{"text": f"Text {i}."} for i in range(500)])
    other = write(tmp_path / "other.jsonl", [{"text": f"Text {i}."} for i in reversed(range(500))])
    places = {p.id: p.at for p in clm(one).passages}
    assert {p.id: p.at for p in clm(other).passages} == places
    assert sum(p.at == places[p.id] for p in clm(one, seed=1).passages) == 0


def test_places_are_uniform(tmp_path: Path) -> None:
    path = write(tmp_path / "one.jsonl", [{"text": f"Text {i}."} for i in range(4000)])
    places = sorted(p.at for p in clm(path).passages)
    gap = max(abs(place - (i + 0.5) / 4000) for i, place in enumerate(places))
    assert gap < 1.95 / 4000**0.5  # Kolmogorov-Smirnov: a uniform sample goes beyond it once in a thousand


def test_a_place_is_the_first_53_bits_of_the_hash(tmp_path: Path) -> None:
    path = write(tmp_path / "one.jsonl", [{"text": "Text.", "id": "p1"}])
    # sha256 of "7 p1", computed by coreutils: printf '7 p1' | sha256sum
    first_bits = int(SHA256_OF_7_P1[:16], 16) >> 11
    assert clm(path, seed=7).passages[0].at == first_bits / 2**53


SHA256_OF_7_P1 = "b283b2b28f3dbe1985c30f5022bfa07dd61ddaa0cd4eab4e8caf76715bce4989"


def test_a_text_that_stands_twice_gets_two_ids(tmp_path: Path) -> None:
    ids = [p.id for p in clm(write(tmp_path / "t.jsonl", [{"text": "Same."}] * 2)).passages]
    assert ids == [content_id("clm", "Same.", ()), content_id("clm", "Same.", ()) + "-2"]


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("t.jsonl", '{"text": "a"}\n{"text": " "}\n', "{path}:2: the text is empty"),
        ("t.jsonl", '{"txt": "a"}\n', "{path}:1: key 'text' is missing; here are: 'txt'"),
        ("t.jsonl", '{"text": 3}\n', "{path}:1: 'text' must be a text, not 3"),
        ("t.jsonl", '{"text": "a", "id": 3}\n', "{path}:1: 'id' must be a text, not 3"),
        ("t.jsonl", '{"text": "\\ud800"}\n', "{path}:1: a text holds half of a surrogate pair"),
        (
            "t.jsonl",
            '{"text": "a", "id": "x"}\n{"text": "b", "id": "x"}\n',
            "{path}:2: id 'x' stands already at {path}:1",
        ),
        ("t.jsonl", "", "{path}:1: the file is empty"),
        ("t.txt", "", "{path}:1: the file is empty"),
        ("t.txt", "\n \n", "task clm-t: {path} holds no texts"),
        ("t.csv", "a,b\n", "{path}: texts are read from a folder, a .jsonl or a .txt file"),
        ("a b.txt", "text", "{path}: the task would be named 'a b'"),
    ],
)
def test_a_bad_file_of_texts_is_refused_at_its_place(file: str, content: str, expected: str, tmp_path: Path) -> None:
    path = write(tmp_path / file, content)
    with pytest.raises(InputError) as caught:
        clm(path)
    assert str(caught.value).startswith(expected.format(path=path))


def test_an_empty_text_file_in_a_folder_is_refused_with_its_name(tmp_path: Path) -> None:
    write(tmp_path / "texts" / "a.txt", "One.")
    path = write(tmp_path / "texts" / "b.txt", "\n\n")
    with pytest.raises(InputError, match=f"^{path}: the text is empty$"):
        clm(tmp_path / "texts")


def test_a_folder_without_texts_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "texts" / "a.csv", "a,b")
    with pytest.raises(InputError, match="task clm-texts: .* holds no texts"):
        clm(tmp_path / "texts")


def relation(folder: Path, name: str, patterns: list[str], facts: list[tuple[str, str, str]]) -> None:
    lines = [{"sub_label": s, "obj_label": o, "uuid": u} for s, o, u in facts]
    write(folder / "trex_lms_vocab" / f"{name}.jsonl", lines)
    write(folder / "graphs_json" / f"{name}.jsonl", [{"pattern": pattern, "tense": "past"} for pattern in patterns])


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "facts"
    relation(folder, "P2", ["[Y] bore [X].", "[X] is from [Y] ."], [("Ann", "Oslo", "u1"), ("Bo", "Rome", "u2")])
    relation(folder, "P1", ["[X] [Y]"], [("[Y]", "New York", "u1")])
    relation(folder, "P3", ["[X] is [Y] citizen.", "From [Y] to [X] and [Y].", "[X]-[Y]."], [("Ann", "Peru", "u4")])
    write(folder / "trex_lms_vocab" / "P4.jsonl", [{"sub_label": "Ann", "obj_label": "Peru", "uuid": "u5"}])
    return folder


def test_facts_are_asked_with_the_first_pattern_that_ends_with_the_entity(facts: Path) -> None:
    task = load_task("facts", Library(facts.parent))
    assert task.passages == (
        Passage("P1-u1", "[Y]", answer="New York", subject="P1"),
        Passage("P2-u1", "Ann is from", answer="Oslo", subject="P2"),
        Passage("P2-u2", "Bo is from", answer="Rome", subject="P2"),
    )
    left_out = "2 without a pattern that ends with the entity are left out (P3, P4)"
    assert (task.name, task.source) == ("facts", f"{facts}: 2 relations; {left_out}")


def test_a_path_to_facts_or_texts_names_the_task_after_it(facts: Path) -> None:
    other = facts.rename(facts.with_name("wiki"))
    assert load_task(f"facts:{other}").name == "facts-wiki"
    write(facts.parent / "clm" / "a.txt", "One.")
    assert load_task("clm", Library(facts.parent)).name == "clm"


@pytest.mark.parametrize(
    ("fact", "reason"),
    [
        ({"sub_label": "Ann", "obj_label": "Oslo"}, "key 'uuid' is missing"),
        ({"sub_label": "Ann", "obj_label": 3, "uuid": "u"}, "'obj_label' must be a text, not 3"),
        ({"sub_label": "Ann", "obj_label": " ", "uuid": "u"}, "the answer is empty"),
        ({"sub_label": " ", "obj_label": "Oslo", "uuid": "u"}, "'sub_label' is empty"),
    ],
)
def test_a_bad_fact_is_refused_at_its_line(fact: dict[str, object], reason: str, facts: Path) -> None:
    path = write(facts / "trex_lms_vocab" / "P2.jsonl", [fact])
    with pytest.raises(InputError, match=f"^{path}:1: {reason}"):
        load_task(f"facts:{facts}")


def test_a_fact_given_twice_in_a_relation_is_refused_with_both_places(facts: Path) -> None:
    relation(facts, "P2", ["[X] is from [Y]."], [("Ann", "Oslo", "u"), ("Bo", "Oslo", "u")])
    path = facts / "trex_lms_vocab" / "P2.jsonl"
    with pytest.raises(InputError, match=f"^{path}:2: id 'P2-u' stands already at {path}:1$"):
        load_task(f"facts:{facts}")


def test_facts_without_any_usable_pattern_are_refused(facts: Path) -> None:
    shutil.rmtree(facts / "graphs_json")
    with pytest.raises(InputError, match=r"task facts: .* holds no texts"):
        load_task("facts", Library(facts.parent))


def test_a_folder_without_facts_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"facts are read from trex_lms_vocab/\*\.jsonl and graphs_json/\*\.jsonl"):
        load_task(f"facts:{tmp_path}")


@pytest.mark.parametrize("kind", ["clm", "facts"])
def test_a_next_token_task_that_is_nowhere_says_where_it_is_looked_for(kind: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"task {kind} needs --data-dir, a folder that holds a folder {kind}; or name"):
        load_task(kind)
    with pytest.raises(InputError, match=f"task {kind} needs {tmp_path} to hold a folder {kind}; or name"):
        load_task(kind, Library(tmp_path))
    with pytest.raises(InputError, match=f"task {kind}:absent: there is no such file or folder"):
        load_task(f"{kind}:absent")
    with pytest.raises(InputError, match=f"task {kind}:: there is no such file or folder"):
        load_task(f"{kind}:")


def test_a_sample_of_texts_depends_on_its_seed(facts: Path) -> None:
    samples = {load_task("facts", Library(facts.parent), 1, seed).passages for seed in range(20)}
    assert len(samples) == 3
