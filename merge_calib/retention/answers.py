"""The aligned model's responses as the run directory keeps them: written once, the same for every point."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from merge_calib.errors import RunDirectoryError
from merge_calib.files import written_whole
from merge_calib.retention.record import RESPONSES, damaged
from merge_calib.run_directory import RunDirectory
from merge_calib.scoring.distributions import LogProbabilities
from merge_calib.scoring.instructions import Prompts
from merge_calib.scoring.responses import Response

_LOG_PROBABILITIES = "aligned.npy"


def require_same_prompts(run: RunDirectory, prompts: Prompts) -> None:
    """Raise RunDirectoryError where the run has responses to other prompts than those that the user names.

    Prompts that nobody named contradict nothing: the run goes on with those that it has.
    """
    content = run.retained(RESPONSES)
    if content is None or not prompts.is_given:
        return
    held = _part(run, content, "prompts")
    if held.get("sha256") != prompts.sha256:
        raise RunDirectoryError(
            f"--prompts {prompts.source}: {run.path} holds the retained alignment on other prompts "
            f"({held.get('source')}), nothing was changed; leave --prompts out to go on with those, choose another "
            f"--out, or delete {run.retained_file('')} to have all points measured on the new ones"
        )


def write_responses(
    run: RunDirectory, prompts: Prompts, answered: Sequence[tuple[str, str, Response]], facts: Mapping[str, Any]
) -> None:
    """Keep the text of each prompt, the text of its response, and both as ids."""
    described = [
        {"prompt": prompt, "text": text, "prompt_ids": response.prompt.tolist(), "ids": response.written.tolist()}
        for prompt, text, response in answered
    ]
    asked = {"source": prompts.source, "sha256": prompts.sha256, "in_file": len(prompts.texts)}
    key = _sha256([response for *_, response in answered])
    run.write_retained(RESPONSES, {"sha256": key, "prompts": asked, **facts, "responses": described})


def read_responses(run: RunDirectory) -> tuple[Response, ...]:
    """The responses that the run keeps; raises RunDirectoryError where they are not those that were written."""
    content = run.retained(RESPONSES)
    assert content is not None
    try:
        found = tuple(Response(_ids(each["prompt_ids"]), _ids(each["ids"])) for each in content["responses"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise damaged(run, RESPONSES, error) from error
    if _sha256(found) != content.get("sha256"):
        raise damaged(run, RESPONSES, "its hash is another")
    return found


def write_log_probabilities(run: RunDirectory, values: LogProbabilities) -> None:
    """Keep the aligned model's log-probabilities (R, V) at all positions of its responses."""
    with written_whole(run.retained_file(_LOG_PROBABILITIES)) as partial, partial.open("wb") as file:
        np.save(file, values)


def read_log_probabilities(run: RunDirectory, positions: int) -> LogProbabilities | None:
    """What was written (R, V), left on the disk until it is looked at; None where nothing whole for R is there."""
    try:
        values = np.load(run.retained_file(_LOG_PROBABILITIES), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return values if values.ndim == 2 and len(values) == positions and values.dtype == np.float32 else None


def _sha256(responses: Sequence[Response]) -> str:
    ids = [[response.prompt.tolist(), response.written.tolist()] for response in responses]
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()


def _ids(values: Any) -> Any:
    ids = np.array(values, dtype=np.int64)
    if ids.ndim != 1 or not len(ids):
        raise ValueError("ids must be a list of whole numbers")
    return ids


def _part(run: RunDirectory, content: Mapping[str, Any], key: str) -> dict[str, Any]:
    part = content.get(key)
    if not isinstance(part, dict):
        raise damaged(run, RESPONSES, f"it has no {key!r}")
    return part
