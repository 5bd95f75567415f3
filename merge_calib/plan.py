"""What a sweep is asked to do: every option in one place, checked before anything is read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Literal, cast

import torch

from merge_calib.analysis import Analysis
from merge_calib.checkpoints.opening import Parents
from merge_calib.errors import InputError
from merge_calib.merging.methods import make_method
from merge_calib.scoring.questionnaire import CONFIDENCE_METHODS, NEXT_TOKEN, ConfidenceMethod
from merge_calib.search.objectives import OBJECTIVES

MOST_LAMBDAS = 1001
MOST = 1000
CPU = torch.device("cpu")
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


ChatFor = Literal["none", "aligned", "both"]
Search = Literal["grid", "adaptive", "optuna"]


@dataclass(frozen=True, kw_only=True)
class Asking:
    """What is asked and how it is read and computed, by the names of the flags: what every measuring command shares.

    chat: who is asked through its chat template (`aligned`: every model but the base itself)
    batch_tokens: tokens read in one pass; None finds out what memory allows
    Raises InputError naming the flag for a value that is not allowed.
    """

    tasks: tuple[str, ...] = ()
    data_dir: Path | None = None
    task_dir: Path | None = None
    four_options: bool = False
    select_from_validation: bool = False
    confidence: tuple[ConfidenceMethod, ...] = ("choice",)
    num_fewshot: int = 0
    chat: ChatFor = "none"
    system_instruction: str | None = None
    finish_prompts: bool = False
    limit: int | None = None
    limit_seed: int | None = None
    bins: int = 10
    seed: int = 0
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    batch_tokens: int | None = None
    strict: bool = False
    allow_pickle: bool = False
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        _at_least("--bins", self.bins, 1)
        if self.bins > 1000:
            raise InputError(f"--bins must be at most 1000, not {self.bins}")
        _at_least("--seed", self.seed, 0)
        _at_least("--num-fewshot", self.num_fewshot, 0)
        for flag, value in (("--batch-tokens", self.batch_tokens), ("--limit", self.limit)):
            if value is not None:
                _at_least(flag, value, 1)
        if self.limit_seed is not None:
            _at_least("--limit-seed", self.limit_seed, 0)
            if self.limit is None:
                raise InputError("--limit-seed draws the questions that --limit N asks; give --limit too")
        if self.system_instruction is not None and self.chat == "none":
            raise InputError("--system-instruction needs --apply-chat-template, which says who hears it")


@dataclass(frozen=True, kw_only=True)
class SweepPlan(Asking):
    """The options of `merge-calib sweep`.

    method: one, or for --search optuna several by comma; options: of the method; ranges: options that are searched
    groups: the selectors of tensors that have lambdas of their own
    group_lambdas: the lambdas of each group by its selector; empty where all have `lambdas`
    tolerance, budget: of --search adaptive; trials, sampler, objectives, min_accuracy, storage, early_stopping: of
        --search optuna; workers: how many processes measure
    retained: whether the distance to the aligned model's own responses is measured; prompts: what it responds to, None
        for the prompts that the run has, or else those that are shipped
    analysis: how what is measured is judged
    """

    parents: Parents
    out: Path
    method: str = "linear"
    options: Mapping[str, float] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    lambdas: tuple[float, ...] = tuple(i / 10 for i in range(16))
    groups: str | None = None
    group_lambdas: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    search: Search = "grid"
    tolerance: float = 0.005
    budget: int = 9
    trials: int = 30
    sampler: str = "gp"
    objectives: tuple[str, ...] = OBJECTIVES
    min_accuracy: float | None = None
    storage: str | None = None
    early_stopping: float | None = None
    workers: int = 1
    analysis: Analysis = field(default_factory=Analysis)
    out_dtype: torch.dtype | None = None
    prompts: Path | None = None
    retained: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompts is not None and not self.retained:
            raise InputError("--prompts says what the retained alignment is measured on; with --no-retained it is not")
        _at_least("--trials", self.trials, 1)
        _at_least("--workers", self.workers, 1)
        if self.min_accuracy is not None and not 0 < self.min_accuracy < 1:
            raise InputError(f"--min-accuracy must lie between 0 and 1, not {self.min_accuracy:g}")
        if self.early_stopping is not None and not 0.5 <= self.early_stopping < 1:
            raise InputError(f"--early-stopping must be at least .5 and below 1, or off, not {self.early_stopping:g}")
        if self.search != "grid":
            self._require_searchable()
        if self.search != "optuna":
            if "," in self.method:
                raise InputError(f"--method {self.method}: several methods are for --search optuna")
            make_method(self.method, self.options)
            for name, (low, high) in self.ranges.items():
                flag = f"--{name.replace('_', '-')}"
                raise InputError(
                    f"{flag} {low:g}:{high:g}: a range is for --search optuna, not for --search {self.search}"
                )
        if "" in self.methods:
            raise InputError(f"--method {self.method!r} has an empty name")

    @property
    def methods(self) -> tuple[str, ...]:
        """The merging methods: several where a study chooses among them."""
        return tuple(name.strip() for name in self.method.split(","))

    def _require_searchable(self) -> None:
        if self.analysis.cross_fit:
            raise InputError(
                "--cross-fit needs --search grid: other searches hear the questions that choose, and with folds all do"
            )
        if self.search == "adaptive" and (self.groups or self.group_lambdas):
            raise InputError("--search adaptive searches one lambda; --groups are for --search optuna or grid")
        if self.group_lambdas:
            raise InputError("--search optuna searches all groups in one interval; GROUP=GRID is for --search grid")
        if len(self.lambdas) < 2:
            raise InputError(f"--search {self.search} needs an interval, as --lambdas 0:1.5:0.1; one lambda is none")


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan(Asking):
    """The options of `merge-calib evaluate`: models in the order of the axis.

    adapter_base: the model that adapters among them are applied to, None for the one that each names
    labels: what each model is called; positions: where it stands on the axis, None where only the order counts
    axis: what the axis is called, as `training steps`; None leaves it as the run has it
    """

    models: tuple[str, ...]
    out: Path
    adapter_base: str | None = None
    labels: tuple[str, ...] = ()
    axis: str | None = None
    positions: tuple[float, ...] | None = None


def parse_early_stopping(text: str | None, search: str) -> float | None:
    """The confidence that stops a point; None for `off` and for searches that stop none."""
    if text is None:
        return 0.95 if search == "optuna" else None
    try:
        return None if text == "off" else float(text)
    except ValueError:
        raise InputError(f"--early-stopping must be off or a confidence as .95, not {text!r}") from None


def parse_lambdas(text: str) -> tuple[float, ...]:
    """`start:stop:step` with the stop included, or a comma list, rounded to 10 decimals and in ascending order.

    Raises InputError for what is neither, for a step that never arrives and for more than 1001 lambdas.
    """
    wrong = InputError(f"--lambdas {text!r} is neither start:stop:step (as 0:1.5:0.1) nor a comma list (as 0,0.3,1)")
    try:
        numbers = [Decimal(part.strip()) for part in text.replace(":", ",").split(",")]
    except InvalidOperation:
        raise wrong from None
    if not all(number.is_finite() for number in numbers):
        raise wrong
    if any(number and not Decimal("1e-10") <= abs(number) <= MOST for number in numbers):
        raise InputError(f"--lambdas {text!r}: numbers must lie between 1e-10 and {MOST} in size, or be 0")
    if ":" not in text:
        return _ascending(numbers)
    if len(numbers) != 3 or "," in text:
        raise wrong
    start, stop, step = numbers
    if step <= 0 or stop < start:
        raise InputError(f"--lambdas {text!r}: the step must be above 0 and the stop not below the start")
    count = int((stop - start) / step) + 1
    if count > MOST_LAMBDAS:
        raise InputError(f"--lambdas {text!r} gives {count} points; at most {MOST_LAMBDAS} are allowed")
    return _ascending([start + step * i for i in range(count)])


def parse_group_lambdas(text: str) -> dict[str, tuple[float, ...]]:
    """`GROUP=LAMBDAS;GROUP=LAMBDAS`, where LAMBDAS is what `parse_lambdas` takes; empty for plain lambdas."""
    if "=" not in text:
        return {}
    found: dict[str, tuple[float, ...]] = {}
    for part in text.split(";"):
        group, _, lambdas = (word.strip() for word in part.rpartition("="))
        if not group or group in found:
            raise InputError(f"--lambdas {text!r}: {part.strip()!r} is not GROUP=LAMBDAS, or names its group twice")
        found[group] = parse_lambdas(lambdas)
    return found


def parse_lambda(text: str) -> tuple[float | None, tuple[tuple[str, float], ...]]:
    """One lambda, or `GROUP=LAMBDA;GROUP=LAMBDA`: the lambda or None, and the lambda of each group.

    Raises InputError for what is neither and for numbers beyond 1000.
    """
    groups = []
    for part in text.split(";"):
        group, _, number = (word.strip() for word in part.rpartition("="))
        try:
            lam = float(number)
        except ValueError:
            raise InputError(f"--lambda {text!r} is neither a number nor GROUP=NUMBER;GROUP=NUMBER") from None
        if not abs(lam) <= MOST:
            raise InputError(f"--lambda must lie between -{MOST} and {MOST}, not {number}")
        groups.append((group, lam))
    names = [group for group, _ in groups]
    if names == [""]:
        return groups[0][1], ()
    if "" in names or len(set(names)) < len(names):
        raise InputError(f"--lambda {text!r}: each number needs a group of its own, as attention=0.4;rest=1")
    return None, tuple(groups)


def parse_shard_size(text: str) -> int:
    """Bytes of `5GB`, `500MB`, `20KB` or a plain number, in powers of ten."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)B?", text.strip(), re.IGNORECASE)
    if not found or float(found.group(1)) <= 0:
        raise InputError(f"--shard-size {text!r} is no size, as 5GB or 500MB")
    return max(1, int(float(found.group(1)) * {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}[found.group(2).upper()]))


def parse_confidences(text: str) -> tuple[ConfidenceMethod, ...]:
    """A comma list of confidence methods for multiple choice, in the order given; the first one selects the point.

    Next-token tasks have a method of their own, which needs no flag.
    """
    names = [name.strip() for name in text.split(",")]
    allowed = [method for method in CONFIDENCE_METHODS if method != NEXT_TOKEN]
    for name in names:
        if name not in allowed:
            raise InputError(f"--confidence {name!r} is unknown; allowed: {', '.join(allowed)}")
    return tuple(dict.fromkeys(cast(list[ConfidenceMethod], names)))


def parse_batch_tokens(text: str) -> int | None:
    """A number of tokens, or `auto`, which is None."""
    if text == "auto":
        return None
    if not text.isdecimal():
        raise InputError(f"--batch-tokens must be auto or a whole number, not {text!r}")
    return int(text)


def parse_device(name: str | None) -> torch.device:
    """The device called `name`, or CUDA if there is one, else the CPU."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    return device


def parse_dtype(flag: str, name: str) -> torch.dtype:
    """The dtype called `name`; raises InputError naming `flag`."""
    if name not in DTYPES:
        raise InputError(f"{flag} {name!r} is unknown; allowed: {', '.join(DTYPES)}")
    return DTYPES[name]


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")


def _ascending(numbers: list[Decimal]) -> tuple[float, ...]:
    return tuple(sorted({round(float(number), 10) + 0.0 for number in numbers}))


def _at_least(flag: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(f"{flag} must be at least {least}, not {value}")
