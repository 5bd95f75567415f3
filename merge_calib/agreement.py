"""Two versions of a run.json: where what is asked contradicts what the run holds, and both as one."""

from collections.abc import Iterator, Mapping
from typing import Any

Content = Mapping[str, Any]


def contradictions(held: Content, asked: Content) -> list[str]:
    """What stands against measuring `asked` into the run that `held` describes, a line each."""
    kinds = held.get("kind", "sweep"), asked.get("kind", "sweep")
    if kinds[0] != kinds[1]:
        return [f"it holds {_KINDS[kinds[0]]}, asked is {_KINDS[kinds[1]]}"]
    identity = list(_other_identity(held, asked))
    if held["identity"].get("source") != asked["identity"].get("source"):
        return identity[:1]
    found = [*identity, *_other_models(held, asked), *_other_tasks(held, asked)]
    # Other prompts or questions are other tokens: what is the cause of the rest has been said.
    causes = [line for line in found if _OTHER_TOKENS not in line]
    return causes or found


def united(held: Content, asked: Content) -> dict[str, Any]:
    """`asked`, with the tasks, confidence methods and models that the run had before after its own."""
    tasks = {name: _one_task(held["tasks"].get(name), task) for name, task in asked["tasks"].items()}
    both = {
        **asked,
        "tasks": {**held["tasks"], **tasks},
        "confidence": list(dict.fromkeys([*asked["confidence"], *held["confidence"]])),
    }
    if "analysis" in asked and (ways := _other_ways(held, asked["analysis"])):
        both["judged_before"] = ways
    if "models" in asked:
        before = {model["label"]: model for model in held["models"]}
        models = {model["label"]: _one_model(before.get(model["label"]), model) for model in asked["models"]}
        both["models"] = list({**models, **{label: before[label] for label in before if label not in models}}.values())
    return both


def _other_ways(held: Content, analysis: Content) -> list[Any]:
    """In what other ways the run was judged before, each once, in order."""
    before = [*held.get("judged_before", ()), *([held["analysis"]] if "analysis" in held else [])]
    ways: list[Any] = []
    for way in before:
        if way not in ways and way != analysis:
            ways.append(way)
    return ways


_KINDS = {"sweep": "a sweep", "evaluation": "an evaluation"}


def _other_identity(held: Content, asked: Content) -> Iterator[str]:
    for key, value in asked["identity"].items():
        if held["identity"].get(key) == value:
            continue
        if key in ("base", "aligned"):
            yield f"{key}: the run has other weights ({held[key]}) than asked for ({asked[key]})"
        else:
            yield f"{key}: the run has {held['identity'].get(key)}, asked is {value}"


def _other_models(held: Content, asked: Content) -> Iterator[str]:
    """Models of an evaluation that are not what the run knows by their label, and positions that some lack."""
    before = {model["label"]: model for model in held.get("models", ())}
    for model in asked.get("models", ()):
        known = before.pop(model["label"], None)
        if known is not None:
            yield from _other_model(known, model)
    positions = [model["position"] is not None for model in asked.get("models", ())]
    for model in before.values():
        if positions and (model["position"] is not None) != positions[0]:
            has = "no position on the axis, those asked for have one" if positions[0] else "a position, those asked not"
            yield f"model {model['label']} of the run has {has}: give it again, with --positions for all or none"


def _other_model(known: Content, model: Content) -> Iterator[str]:
    """The same label must stand for the same weights, settings and tokens, or for the same file."""
    label = model["label"]
    if known.get("sha256") != model.get("sha256"):
        yield f"model {label}: the run has other weights ({known['model']}) than asked for ({model['model']})"
        return
    for key in ("settings", "bos", "longest_context"):
        if known.get(key) != model.get(key):
            yield f"model {label}: {key}: the run has {known.get(key)}, asked is {model.get(key)}"
    for task, asked in model["tasks"].items():
        for confidence in _differing(known["tasks"].get(task, {}), asked)[:1]:
            files = asked.get("files")
            other = f"the run read another file than {files[confidence]}" if files else _OTHER_TOKENS
            yield f"model {label}, task {task}: {other}"


def _other_tasks(held: Content, asked: Content) -> Iterator[str]:
    for name, task in asked["tasks"].items():
        known = held["tasks"].get(name)
        if known and known["sha256"] != task["sha256"]:
            limit = f", --limit {asked['limit']}" if asked.get("limit") else ""
            limit += f" --limit-seed {asked['limit_seed']}" if asked.get("limit_seed") is not None else ""
            yield f"task {name}: the run has other questions ({known['n']}) than asked for ({task['n']}{limit})"
        elif known and _differing(known, task):
            yield f"task {name}: {_OTHER_TOKENS}"


_OTHER_TOKENS = "its questions are other tokens now (another tokenizer?)"


def _differing(known: Content, asked: Content) -> list[str]:
    """The confidence methods that both have, with other rows."""
    return [c for c, rows in asked.get("rows", {}).items() if known.get("rows", {}).get(c, rows) != rows]


def _one_model(before: Content | None, model: Content) -> dict[str, Any]:
    tasks = (before or {}).get("tasks", {})
    return {**model, "tasks": {**tasks, **{name: _one_task(tasks.get(name), t) for name, t in model["tasks"].items()}}}


def _one_task(before: Content | None, task: Content) -> dict[str, Any]:
    """The record of a task, with what other confidence methods left in it."""
    known = before or {}
    more: dict[str, Any] = {
        key: {**known.get(key, {}), **value} for key, value in task.items() if isinstance(value, dict)
    }
    if "letters" in task:
        more["letters"] = task["letters"] or known.get("letters")
    if "methods" in task:
        more["methods"] = list(dict.fromkeys([*task["methods"], *known.get("methods", ())]))
    return {**task, **more}
