"""How near a point stays to the aligned model on the aligned model's own responses, as the run directory keeps it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from merge_calib.errors import RunDirectoryError
from merge_calib.points import Point
from merge_calib.run_directory import RunDirectory
from merge_calib.scores import Floats

RESPONSES = "responses"
DRAWS, SEED = 2000, 0


@dataclass(frozen=True)
class Retained:
    """How far a point is from the aligned model where that answers prompts in its own words.

    kl: KL(aligned || point) over the whole vocabulary, mean over the tokens of all responses, in nats a token
    agreement: share of these tokens that are the point's most probable ones too
    kl_low, ...: 95 % percentile bootstrap over prompts, whose tokens belong together; None for a single prompt
    """

    kl: float
    kl_low: float | None
    kl_high: float | None
    agreement: float
    agreement_low: float | None
    agreement_high: float | None
    tokens: int
    prompts: int

    @classmethod
    def of(cls, kl: ArrayLike, agreed: ArrayLike, tokens: ArrayLike) -> "Retained":
        """From sums for each prompt (K,): nats, tokens that agree, tokens. The same draws for all of K prompts."""
        counts = np.asarray(tokens, dtype=np.float64)
        kl_all, kl_low, kl_high = _ratio(np.asarray(kl, dtype=np.float64), counts)
        agreement, agreement_low, agreement_high = _ratio(np.asarray(agreed, dtype=np.float64), counts)
        return cls(
            *(kl_all, kl_low, kl_high),
            *(agreement, agreement_low, agreement_high),
            tokens=int(counts.sum()),
            prompts=len(counts),
        )


def retained(run: RunDirectory, point: Point) -> Retained | None:
    """What was measured of `point`; None where nothing was, or on other responses than the run has now.

    Raises RunDirectoryError naming the file where it is damaged.
    """
    record = _record(run, point)
    if record is None or "failed" in record:
        return None
    try:
        sums = [np.array(record["of_each_prompt"][name], dtype=np.float64) for name in ("kl", "agreed", "tokens")]
        if len({each.shape for each in sums}) != 1 or sums[2].ndim != 1 or not sums[2].size or sums[2].min() < 1:
            raise ValueError("its sums are not of the same prompts")
        return Retained.of(*sums)
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(run, _place(point), error) from error


def lacks(run: RunDirectory, point: Point) -> bool:
    """Whether `point` was not measured yet on the responses that the run has."""
    return _record(run, point) is None


def keep(run: RunDirectory, point: Point, sums: Mapping[str, list[Any]] | None, facts: Mapping[str, Any]) -> None:
    """Write what was measured of `point`, or that nothing finite was.

    sums: `kl` (nats), `agreed` and `tokens` of each prompt; None where a distance is not finite
    """
    if sums is None:
        said: dict[str, Any] = {"failed": "the distance to the aligned model is not finite"}
    else:
        tokens = sum(sums["tokens"])
        means = {"kl": sum(sums["kl"]) / tokens, "agreement": sum(sums["agreed"]) / tokens}
        said = {**means, "tokens": tokens, "prompts": len(sums["tokens"]), "of_each_prompt": dict(sums)}
    run.write_retained(_place(point), {"point": point.name, "responses": responses_key(run), **said, **facts})


def responses_key(run: RunDirectory) -> str | None:
    """Hash of the responses that the run has, None where it has none yet."""
    content = run.retained(RESPONSES)
    return None if content is None else str(content.get("sha256"))


def damaged(run: RunDirectory, name: str, reason: object) -> RunDirectoryError:
    """The error for a file below retained/ that does not hold what it must."""
    path = run.retained_file(f"{name}.json")
    return RunDirectoryError(f"{path} is damaged ({reason}); delete {path.name} to have it made again")


def _record(run: RunDirectory, point: Point) -> dict[str, Any] | None:
    record = run.retained(_place(point))
    return record if record is not None and record.get("responses") == responses_key(run) else None


def _place(point: Point) -> str:
    return f"points/{point.name}"


def _ratio(sums: Floats, counts: Floats) -> tuple[float, float | None, float | None]:
    """Mean over tokens of what sums to `sums` (K,) over the `counts` (K,) tokens of each prompt, with its interval."""
    whole = float(sums.sum() / counts.sum())
    if len(counts) < 2:
        return whole, None, None
    drawn = np.random.default_rng(SEED).integers(len(counts), size=(DRAWS, len(counts)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [0.025, 0.975])
    return whole, float(low), float(high)
