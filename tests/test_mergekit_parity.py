"""Our methods against what mergekit gives for the same pair, kept in tests/golden/ (see the note there)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from make_mergekit_golden import CLOSE, DTYPES, FAR, OPTIONS, SHAPES, Run, make_all, make_parents, runs, tensors_of
from safetensors.torch import load_file

from merge_calib.merging.method import Piece
from merge_calib.merging.methods import make_method

GOLDEN = Path(__file__).parent / "golden"
INTEGERS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


@dataclass(frozen=True)
class Whole:
    """A tensor of the pair in one piece."""

    name: str
    base: torch.Tensor
    aligned: torch.Tensor
    layer: int = 0
    layers: int = 1

    @property
    def size(self) -> int:
        return self.base.numel()

    def pieces(self) -> Iterator[Piece]:
        columns = self.base.shape[-1]
        yield Piece(self.base.float().reshape(-1, columns), self.aligned.float().reshape(-1, columns), 0)


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "mergekit.safetensors")


def pair_of(golden, dtype: str) -> dict[str, Whole]:
    base, aligned = (tensors_of(golden[f"{side} {dtype}"]) for side in ("base", "aligned"))
    return {name: Whole(name, base[name], aligned[name]) for name in SHAPES}


def ours(golden, run: Run) -> torch.Tensor:
    options = {name: value for name, value in OPTIONS[run.method].items() if name in ("density", "gamma")}
    method = make_method(run.method, options)
    merged = []
    for tensor in pair_of(golden, run.parents).values():
        seen = method.look(tensor)
        merged += [method.merge(piece, run.lam, seen).to(DTYPES[run.out]).flatten() for piece in tensor.pieces()]
    return torch.cat(merged)


def bits(values: torch.Tensor) -> torch.Tensor:
    return values.view(INTEGERS[values.dtype])


def fuses() -> bool:
    """Whether a product is added before it is rounded, as where the golden values were made."""
    factor, start = torch.full((67,), 1 + 2.0**-12), torch.full((67,), -1 - 2.0**-11)
    return bool((start.addcmul_(factor, factor) == 2.0**-24).all())


def runs_of(method: str, parents: str = "float32") -> list[Run]:
    return [run for run in runs() if run.method == method and run.parents == parents]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_golden_pair_is_the_tools_pair(golden, dtype):
    for side, made in zip(("base", "aligned"), make_parents(DTYPES[dtype]), strict=True):
        assert torch.equal(bits(golden[f"{side} {dtype}"]), bits(made))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_golden_pair_has_the_difficult_cases(golden, dtype):
    pair, slerp = pair_of(golden, dtype), make_method("slerp", {})
    assert slerp.look(pair[FAR]).radians > 0.5
    assert not slerp.look(pair[CLOSE]).is_slerped
    zeros = golden[f"base {dtype}"] == 0
    assert {bool(sign) for sign in golden[f"base {dtype}"][zeros].signbit()} == {True, False}
    assert set(golden) == {run.key for run in runs()} | {
        f"{side} {name}" for side in ("base", "aligned") for name in DTYPES
    }


@pytest.mark.skipif(not fuses(), reason="this CPU rounds a product before it is added")
@pytest.mark.parametrize("parents", DTYPES)
def test_linear_is_bit_equal(golden, parents):
    for run in runs_of("linear", parents):
        assert torch.equal(bits(ours(golden, run)), bits(golden[run.key])), run.key


@pytest.mark.parametrize("parents", DTYPES)
def test_lerp_would_not_be_bit_equal(golden, parents):
    """The negative control: the same line by another order of operations."""
    base, aligned = (golden[f"{side} {parents}"].float() for side in ("base", "aligned"))
    same = [
        torch.equal(bits(torch.lerp(base, aligned, run.lam)), bits(golden[run.key]))
        for run in runs_of("linear", parents)
        if run.out == "float32"
    ]
    assert same
    assert not any(same)


@pytest.mark.parametrize("parents", DTYPES)
def test_task_arithmetic_is_bit_equal(golden, parents):
    for run in runs_of("task_arithmetic", parents):
        assert torch.equal(bits(ours(golden, run)), bits(golden[run.key])), run.key


@pytest.mark.parametrize("method", ["ties", "breadcrumbs"])
def test_what_is_sparse_is_bit_equal(golden, method):
    for run in runs_of(method):
        assert torch.equal(bits(ours(golden, run)), bits(golden[run.key])), run.key
        dropped = (golden[run.key] == golden["base float32"].to(DTYPES[run.out])).float().mean()
        assert 0.4 < dropped < 0.8


@pytest.mark.parametrize("parents", DTYPES)
def test_slerp_is_equal_to_a_rounding(golden, parents):
    """mergekit takes the angle from float32 sums, ours from float64; values reach 2, where float32 steps by 2.4e-7."""
    for run in runs_of("slerp", parents):
        torch.testing.assert_close(ours(golden, run), golden[run.key], rtol=0, atol=5e-7)


@pytest.mark.filterwarnings("ignore")  # what mergekit and its libraries warn of is not ours
def test_mergekit_still_gives_the_golden_values(golden):
    mergekit = pytest.importorskip("mergekit", reason="mergekit is not installed")
    assert mergekit.__file__
    made = make_all()
    assert made.keys() == golden.keys()
    for key, values in made.items():
        assert torch.equal(bits(values), bits(golden[key])), key
