"""The house: every module has a floor, and imports only downward."""

import ast
from pathlib import Path

import merge_calib

ROOT = Path(merge_calib.__file__).parent

# A module may import its own floor (inside its own room, or a room listed before it) and the floors below.
FLOORS = {
    "errors": 0,
    "progress": 0,
    "files": 0,
    "questions": 0,
    "scores": 0,
    "calibration": 0,
    "inference": 0,
    "interpolation": 0,
    "frontier": 0,
    "selection": 0,
    "degradation": 0,
    "checkpoints": 1,
    "merging": 1,
    "tasks": 1,
    "lm_eval_samples": 1,
    "scoring": 2,
    "search": 3,
    "finalists": 3,
    "analysis": 3,
    "plan": 3,
    "plan_record": 3,
    "searching": 3,
    "points": 3,
    "agreement": 3,
    "asked": 3,
    "run_directory": 3,
    "leases": 3,
    "answers": 3,
    "predictions": 3,
    "results": 3,
    "rivals": 3,
    "findings": 3,
    "retention": 3,
    "degrading": 3,
    "frontier_record": 3,
    "measuring": 3,
    "choosing": 3,
    "stopping": 3,
    "opening": 3,
    "sampling": 3,
    "inspection": 3,
    "preparation": 3,
    "experiment": 3,
    "working": 3,
    "crew": 3,
    "recovery": 3,
    "sweep": 3,
    "evaluation": 3,
    "exchange": 3,
    "letter_logits": 3,
    "report": 4,
    "cli": 5,
    "__main__": 5,
    "__init__": 0,
}
HEAVY = {
    "torch",
    "safetensors",
    "transformers",
    "peft",
    "optuna",
    "sqlalchemy",
    "click",
    "rich",
    "matplotlib",
    "huggingface_hub",
}
ALLOWED = {
    0: set(),
    1: {"torch", "safetensors", "huggingface_hub", "peft"},
    2: {"torch", "transformers", "peft"},
    3: {"torch", "transformers", "optuna", "sqlalchemy"},
    4: {"matplotlib"},
    5: {"click", "rich"},
}


def modules():
    return sorted(path for path in ROOT.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found.append(node.module or "")
            if node.module == "merge_calib":
                found += [f"merge_calib.{alias.name}" for alias in node.names if alias.name in FLOORS]
    return found


def upward(floor: int, imported: list[str]) -> list[str]:
    inner = [name for name in imported if name.startswith("merge_calib.")]
    return [name for name in inner if FLOORS[name.split(".")[1]] > floor]


def test_every_room_has_a_floor():
    assert {room(path) for path in modules()} <= set(FLOORS)


def test_nothing_imports_upward():
    assert {str(path): upward(FLOORS[room(path)], imports(path)) for path in modules()} == {
        str(path): [] for path in modules()
    }


def test_an_upward_import_is_seen(tmp_path):
    module = tmp_path / "module.py"
    module.write_text("import numpy\nfrom merge_calib import scoring\nfrom merge_calib.cli.main import main\n")
    assert upward(0, imports(module)) == ["merge_calib.scoring", "merge_calib.cli.main"]
    assert upward(0, ["numpy", "merge_calib.scoring.model"]) == ["merge_calib.scoring.model"]


def test_each_floor_uses_its_own_libraries_only():
    for path in modules():
        used = {name.split(".")[0] for name in imports(path)} & HEAVY
        assert used <= ALLOWED[FLOORS[room(path)]], (path, used)


def test_rooms_of_a_floor_import_each_other_in_one_direction():
    order = list(FLOORS)
    for path in modules():
        for name in imports(path):
            other = name.split(".")[1] if name.startswith("merge_calib.") else room(path)
            assert order.index(other) <= order.index(room(path)), f"{path} imports {name}"


def test_a_folder_exists_only_where_there_is_a_plural():
    for folder in (path for path in ROOT.iterdir() if path.is_dir() and path.name not in ("__pycache__", "demo_pair")):
        assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) > 1, folder
