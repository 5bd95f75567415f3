"""MMLU (Hendrycks et al. 2021, arXiv 2009.03300): 57 subjects in four groups, four options.

Files: the official `mmlu/test/SUBJECT_test.csv`, as many as are there; no header, the columns question, A, B, C, D,
answer letter. The subject is the file's with spaces for underscores. Questions stand in the order of their subjects.
Worked examples, five a subject: `mmlu/dev/SUBJECT_dev.csv`; questions to select by: `mmlu/val/SUBJECT_val.csv`.
Hub: `cais/mmlu`, with the configuration `all` and one a subject, a row `{"question", "subject", "choices", "answer"}`.

The tasks mmlu_SUBJECT and mmlu_GROUP ask a part of the same questions under the same ids; a group pools its questions,
so a large subject counts for more. The groups are those of the paper's table, in which anatomy counts as STEM.
"""

from collections.abc import Sequence
from pathlib import Path

from merge_calib.errors import InputError
from merge_calib.tasks.benchmark import Benchmark, Draft, Part
from merge_calib.tasks.hub import HubData
from merge_calib.tasks.lines import Rows, Values, text, texts, whole_number
from merge_calib.tasks.records import read_csv

COLUMNS = 6
ANSWERS = ("A", "B", "C", "D")
FILES = (("test", "test"), ("dev", "dev"), ("val", "validation"))  # asked, shown, to select by; the hub's name of each
_NAMES = {
    "stem": """
        abstract_algebra anatomy astronomy college_biology college_chemistry college_computer_science
        college_mathematics college_physics computer_security conceptual_physics electrical_engineering
        elementary_mathematics high_school_biology high_school_chemistry high_school_computer_science
        high_school_mathematics high_school_physics high_school_statistics machine_learning
    """,
    "humanities": """
        formal_logic high_school_european_history high_school_us_history high_school_world_history international_law
        jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory professional_law
        world_religions
    """,
    "social_sciences": """
        econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics
        high_school_microeconomics high_school_psychology human_sexuality professional_psychology public_relations
        security_studies sociology us_foreign_policy
    """,
    "other": """
        business_ethics clinical_knowledge college_medicine global_facts human_aging management marketing
        medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology
    """,
}
GROUPS = {group: tuple(names.split()) for group, names in _NAMES.items()}
SUBJECTS = tuple(sorted(subject for subjects in GROUPS.values() for subject in subjects))


def read(paths: Sequence[Path]) -> Rows:
    """The rows of all subjects' files."""
    for path in paths:
        subject = path.stem.rpartition("_")[0].replace("_", " ")
        for place, columns in read_csv(path):
            yield place, {"subject": subject, "columns": columns}


def parse(values: Values) -> Draft:
    """One row of an original file."""
    columns = values["columns"]
    if len(columns) != COLUMNS:
        raise InputError(f"{COLUMNS} columns are needed (question, A, B, C, D, answer letter), here are {len(columns)}")
    if columns[5] not in ANSWERS:
        raise InputError(f"the answer must be one of {', '.join(ANSWERS)}, not {columns[5]!r}")
    return Draft(columns[0], columns[1:5], ANSWERS.index(columns[5]), subject=values["subject"])


def parse_hub(values: Values) -> Draft:
    """One row of the hub's data set."""
    choices, subject = texts(values, "choices"), text(values, "subject").replace("_", " ")
    if len(choices) != len(ANSWERS):
        raise InputError(f"{len(ANSWERS)} choices are needed, here are {len(choices)}")
    return Draft(text(values, "question"), choices, whole_number(values, "answer"), subject=subject)


def subjects_of(name: str) -> tuple[str, ...]:
    """The subjects that the task mmlu, mmlu_GROUP or mmlu_SUBJECT asks; none for any other name."""
    if name == "mmlu":
        return SUBJECTS
    key = name.removeprefix("mmlu_") if name.startswith("mmlu_") else ""
    return GROUPS.get(key, (key,) if key in SUBJECTS else ())


def part(name: str) -> Benchmark | None:
    """The task mmlu_SUBJECT or mmlu_GROUP; None for any other name."""
    key = name.removeprefix("mmlu_")
    if not name.startswith("mmlu_"):
        return None
    if key in GROUPS:
        subjects, configs = GROUPS[key], (("all",), GROUPS[key])
        return _part(name, subjects, configs, f"MMLU, test: {key.replace('_', ' ')}, {len(subjects)} subjects pooled")
    if key in SUBJECTS:
        return _part(name, (key,), ((key,), ("all",)), f"MMLU, test: {key.replace('_', ' ')}")
    return None


def _part(name: str, subjects: tuple[str, ...], configs: tuple[tuple[str, ...], ...], description: str) -> Benchmark:
    parts = tuple(_files(subjects, file, split) for file, split in FILES)
    return _benchmark(name, description, parts, HubData("cais/mmlu", configs, frozenset(subjects)))


def _files(subjects: tuple[str, ...], file: str, split: str) -> Part:
    words = f"mmlu/{file}/SUBJECT_{file}.csv of its {len(subjects)} subjects" if len(subjects) > 1 else ""
    return Part((tuple(f"mmlu/{file}/{subject}_{file}.csv" for subject in subjects),), split, words)


def _benchmark(name: str, description: str, parts: Sequence[Part], hub: HubData) -> Benchmark:
    asked, shown, validation = parts
    rest = read, parse, hub, parse_hub
    return Benchmark(
        name, "mmlu", description, asked, shown, *rest, validation=validation, family="mmlu", by_subject=True
    )


MMLU = _benchmark(
    "mmlu",
    "MMLU, test: exam questions of 57 subjects",
    tuple(Part(((f"mmlu/{file}/*_{file}.csv",),), split) for file, split in FILES),
    HubData("cais/mmlu", (("all",), SUBJECTS)),
)
