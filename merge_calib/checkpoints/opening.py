"""The two parents as a user names them: folders, hub ids, adapters, averages of several models."""

from dataclasses import dataclass

from merge_calib.checkpoints.adapter import Adapted, is_adapter, names_base
from merge_calib.checkpoints.average import Average
from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.checkpoints.locate import locate
from merge_calib.checkpoints.pair import ModelPair
from merge_calib.checkpoints.parent import Parent
from merge_calib.checkpoints.slots import Vocab
from merge_calib.errors import InputError, MergeCalibError


@dataclass(frozen=True, kw_only=True)
class Parents:
    """The parents of a merge, by the names of the flags.

    aligned: one model, or several whose average is the aligned parent; aligned_weights: of each, None for equal ones
    adapter_base: the model that adapters are applied to; None takes the one that each adapter names
    vocab: whose rows the merge has where vocabularies differ in size; `error` refuses that
    """

    base: str
    aligned: tuple[str, ...]
    aligned_weights: tuple[float, ...] | None = None
    adapter_base: str | None = None
    vocab: Vocab = "aligned"

    def __post_init__(self) -> None:
        if self.aligned_weights is not None and len(self.aligned_weights) != len(self.aligned):
            counts = f"{len(self.aligned_weights)} weight(s) for {len(self.aligned)} aligned model(s)"
            raise InputError(f"--aligned-weights gives {counts}")

    @property
    def aligned_text(self) -> str:
        """The aligned model, or all of them with a plus between."""
        if self.aligned_weights is None:
            return " + ".join(self.aligned)
        pairs = zip(self.aligned_weights, self.aligned, strict=True)
        return " + ".join(f"{weight:g} {model}" for weight, model in pairs)

    def open(self, *, allow_pickle: bool = False, trust_remote_code: bool = False) -> ModelPair:
        """Find both parents and prove from their configs and headers that they fit."""
        opener = Opener(self.adapter_base, allow_pickle, trust_remote_code)
        base = opener.open(self.base, "--base")
        several = [opener.open(model, "--aligned") for model in self.aligned]
        self._require_others([base, *several])
        if self.adapter_base is not None and not opener.adapters:
            raise InputError(f"--adapter-base {self.adapter_base}: neither --base nor --aligned is an adapter")
        aligned = several[0] if len(several) == 1 else Average.of(several, self.aligned_weights)
        return ModelPair(base, aligned, self.vocab)

    def _require_others(self, parents: list[Parent]) -> None:
        """Raise InputError where one model is given twice."""
        names = [f"--base {self.base}", *(f"--aligned {model}" for model in self.aligned)]
        files = [[file.resolve() for part in parent.parts for file in part.files] for parent in parents]
        for i, name in enumerate(names):
            if files[i] in files[:i]:
                raise InputError(f"{names[files.index(files[i])]} and {name} are the same model")


class Opener:
    """Opens models by name; `adapters` lists those that were adapters."""

    def __init__(self, adapter_base: str | None, allow_pickle: bool, trust_remote_code: bool) -> None:
        self._adapter_base = adapter_base
        self._reading = {"allow_pickle": allow_pickle, "trust_remote_code": trust_remote_code}
        self.adapters: list[str] = []

    def open(self, model: str, flag: str) -> Parent:
        """The checkpoint called `model`, or the adapter with the model that it is applied to; reads headers only."""
        folder = locate(model, flag, **self._reading)
        allow_pickle = self._reading["allow_pickle"]
        if not is_adapter(folder):
            return Checkpoint.open(folder, allow_pickle=allow_pickle)
        self.adapters.append(model)
        named = self._adapter_base or names_base(folder)
        if named is None:
            raise InputError(f"{flag} {model} is an adapter that names no model: say --adapter-base MODEL")
        try:
            below = Checkpoint.open(locate(named, "its model", **self._reading), allow_pickle=allow_pickle)
        except MergeCalibError as error:
            hint = "" if self._adapter_base else "; --adapter-base MODEL says where that model is"
            raise type(error)(f"{flag} {model} is an adapter of {named}: {error}{hint}") from error
        return Adapted.open(folder, below, allow_pickle=allow_pickle)


def parse_weights(text: str) -> tuple[float, ...]:
    """The numbers of --aligned-weights, a comma list."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--aligned-weights {text!r} is no comma list of numbers") from None
