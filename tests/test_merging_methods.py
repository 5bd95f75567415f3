"""Merging methods: worked examples, slow twins, and what every method must not depend on."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from merge_calib.errors import InputError
from merge_calib.merging.dare import DareLinear
from merge_calib.merging.della import DellaLinear
from merge_calib.merging.drops import BLOCK, key_of, uniforms
from merge_calib.merging.linear import Linear
from merge_calib.merging.lines import Lines
from merge_calib.merging.method import Piece
from merge_calib.merging.methods import METHODS, default_options, make_method, option_names, options_of
from merge_calib.merging.ranks import Largest, largest
from merge_calib.merging.slerp import COLLINEAR, Slerp

F32 = np.float32
SPLITMIX_1234567 = (6457827717110365317, 3203168211198807973, 9817491932198370423)  # published first outputs
STEPS = [name for name in METHODS if name not in ("linear", "slerp")]  # base + lambda x something
LAMS = (0.3, 1.0, 1.7, -0.5)


@dataclass
class Pair:
    """A tensor in both parents, cut into pieces of `rows` rows."""

    base: torch.Tensor
    aligned: torch.Tensor
    rows: int = 1 << 30
    name: str = "model.layers.1.mlp.up_proj.weight"
    layer: int = 1
    layers: int = 4
    reads: list[int] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.base.numel()

    def pieces(self) -> Iterator[Piece]:
        self.reads.append(0)
        columns = self.base.shape[-1]
        sides = (side.reshape(-1, columns).split(self.rows) for side in (self.base, self.aligned))
        first = 0
        for base, aligned in zip(*sides, strict=True):
            self.reads[-1] += 1
            yield Piece(base, aligned, first)
            first += base.numel()


def make_pair(shape=(13, 7), seed=0, noise=0.5, dtype=torch.float32, **more) -> Pair:
    rng = np.random.default_rng(seed)
    base = rng.standard_normal(shape)
    aligned = base + noise * rng.standard_normal(shape)
    return Pair(*(torch.from_numpy(side).to(dtype).float() for side in (base, aligned)), **more)


def pair_of(base, aligned, **more) -> Pair:
    return Pair(torch.tensor(base, dtype=torch.float32), torch.tensor(aligned, dtype=torch.float32), **more)


def merged(method, pair: Pair, lam: float) -> torch.Tensor:
    seen = method.look(pair)
    return torch.cat([method.merge(piece, lam, seen) for piece in pair.pieces()]).reshape(pair.base.shape)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.view(torch.int32), other.view(torch.int32))


def with_threads(count: int, compute):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        return compute()
    finally:
        torch.set_num_threads(before)


# Slow twins: plain loops over elements.


def splitmix64(seed: int, count: int) -> list[int]:
    outputs, word = [], 2**64
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) % word
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % word
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % word
        outputs.append(z ^ (z >> 31))
    return outputs


def slow_uniforms(seed: int, name: str, count: int) -> list[np.float32]:
    return [F32(output >> 40) / F32(2**24) for output in splitmix64(key_of(seed, name), count)]


def by_size(delta) -> list[int]:
    """Places from the largest |delta| to the smallest, of equal ones the first one first."""
    return sorted(range(len(delta)), key=lambda i: (-abs(float(delta[i])), i))


def slow_kept(name: str, options: dict, delta, columns: int, tensor: str) -> list[tuple[np.float32, np.float32]]:
    """For each element of delta the 1 or 0 that it is multiplied by and what it is then divided by."""
    n, order = len(delta), by_size(delta)
    if name == "ties":
        chosen = set(order[: max(1, int(options["density"] * n))])
        return [(F32(i in chosen), F32(1)) for i in range(n)]
    if name == "breadcrumbs":
        target, top = int(options["density"] * n), int(options["gamma"] * n)
        smallest = max(0, n - target - top)
        chosen = set(order[n - smallest - target : n - smallest])
        return [(F32(i in chosen), F32(1)) for i in range(n)]
    if name.startswith("dare"):
        drawn = slow_uniforms(options["drop_seed"], tensor, n)
        return [(F32(u < F32(options["density"])), F32(1)) for u in drawn]
    assert name == "della_linear"
    drawn, kept = slow_uniforms(options["drop_seed"], tensor, n), []
    for row in range(0, n, columns):
        smallest_first = sorted(range(columns), key=lambda i: (abs(float(delta[row + i])), i))
        for i in range(columns):
            rank = smallest_first.index(i)
            p = F32(options["density"] - options["epsilon"] + 2 * options["epsilon"] * rank / (columns - 1))
            kept.append((F32(drawn[row + i] < p), p))
    return kept


def slow_step(name: str, options: dict, pair: Pair, lam: float) -> np.ndarray:
    base, aligned = pair.base.numpy().ravel(), pair.aligned.numpy().ravel()
    delta = [a - b for a, b in zip(aligned, base, strict=True)]
    if name == "task_arithmetic":
        kept, step = [(F32(1), F32(1))] * len(delta), lam
    elif name == "lines":
        kept = [(F32(1), F32(1))] * len(delta)
        step = lam * (options["alpha"] + options["beta"] * pair.layer / (pair.layers - 1))
    else:
        kept = slow_kept(name, options, delta, pair.base.shape[-1], pair.name)
        step = lam / options["density"] if name.startswith("dare") else lam
    values = [b + F32(step) * (mask * d / p) for b, d, (mask, p) in zip(base, delta, kept, strict=True)]
    return np.array(values, dtype=F32).reshape(pair.base.shape)


def slow_slerp(base: np.ndarray, aligned: np.ndarray, lam: float) -> np.ndarray:
    a, b = base.astype(np.float64).ravel(), aligned.astype(np.float64).ravel()
    dot, of_a, of_b = (sum(x * y for x, y in zip(*two, strict=True)) for two in ((a, b), (a, a), (b, b)))
    cos = dot / math.sqrt(of_a * of_b)
    if abs(cos) > 0.9995:
        return ((1 - lam) * a + lam * b).reshape(base.shape)
    angle = math.acos(cos)
    turned = math.sin((1 - lam) * angle) * a + math.sin(lam * angle) * b
    return (turned / math.sin(angle)).reshape(base.shape)


# Each method against an example by hand and its twin.


def test_task_arithmetic_by_hand():
    assert merged(make_method("task_arithmetic", {}), pair_of([1, 2], [3, 1]), 0.5).tolist() == [2.0, 1.5]


def test_ties_keeps_the_largest_changes_by_hand():
    pair = pair_of([10.0] * 5, [11.0, 7.0, 12.0, 10.0, 9.0])  # delta 1, -3, 2, 0, -1
    assert merged(make_method("ties", {"density": 0.4}), pair, 0.5).tolist() == [10, 8.5, 11, 10, 10]


def test_ties_keeps_the_first_of_equal_changes_and_at_least_one():
    pair = pair_of([0.0] * 5, [1.0, -2.0, 2.0, -2.0, 2.0])
    assert merged(make_method("ties", {"density": 0.4}), pair, 1.0).tolist() == [0, -2, 2, 0, 0]
    assert merged(make_method("ties", {"density": 0.01}), pair, 1.0).tolist() == [0, -2, 0, 0, 0]


def test_breadcrumbs_by_hand():
    pair = pair_of([0.0] * 10, [3, -9, 1, 10, 5, -2, 8, 7, -4, 6.0])  # 10 is an outlier, 1 to 4 are too small
    found = merged(make_method("breadcrumbs", {"density": 0.5, "gamma": 0.1}), pair, 2.0)
    assert found.tolist() == [0, -18, 0, 0, 10, 0, 16, 14, 0, 12]


def test_dare_by_hand():
    piece = next(pair_of([10.0, 10, 10], [11.0, 12, 13]).pieces())  # the key's numbers are .350, .174, .532
    assert DareLinear(0.5).merge(piece, 0.5, 1234567).tolist() == [[11, 12, 10]]


def test_della_by_hand():
    piece = next(pair_of([0.0, 0, 0], [3.0, -1, 2]).pieces())  # kept with .6, .2, .4; the numbers are .350, .174, .532
    found = DellaLinear(0.4, 0.2).merge(piece, 0.3, 1234567)
    torch.testing.assert_close(found, torch.tensor([[0.3 * 3 / 0.6, -0.3 / 0.2, 0]]), rtol=1e-6, atol=0)


def test_della_keeps_the_only_element_of_a_row_with_the_density():
    pair = make_pair((4000, 1))
    kept = merged(DellaLinear(0.3, 0.2), Pair(torch.zeros(4000, 1), pair.aligned), 1.0)
    assert abs((kept != 0).float().mean() - 0.3) < 0.03  # 4 standard deviations
    assert torch.allclose(kept[kept != 0], pair.aligned[kept != 0] / 0.3)


@pytest.mark.parametrize(("layer", "layers", "scale"), [(0, 5, 0.25), (2, 5, 0.5), (4, 5, 0.75), (0, 1, 0.25)])
def test_lines_by_hand(layer, layers, scale):
    pair = pair_of([1.0, 2.0], [3.0, 0.0], layer=layer, layers=layers)
    assert merged(Lines(0.25, 0.5), pair, 2.0).tolist() == [1 + 4 * scale, 2 - 4 * scale]


@pytest.mark.parametrize(
    ("lam", "expected"),
    [(1 / 3, (math.sqrt(3) / 2, 0.5)), (0.5, (math.sqrt(0.5),) * 2), (2.0, (-1.0, 0.0)), (-1.0, (0.0, -1.0))],
)
def test_slerp_of_unit_vectors_by_hand(lam, expected):
    found = merged(Slerp(), pair_of([1.0, 0.0], [0.0, 1.0]), lam)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-7)  # half a unit in the last place of 1


OPTIONS = {
    "ties": {"density": 0.35},
    "dare_linear": {"density": 0.35, "drop_seed": 7},
    "dare_ties": {"density": 0.9},
    "della_linear": {"density": 0.45, "epsilon": 0.3, "drop_seed": 3},
    "breadcrumbs": {"density": 0.5, "gamma": 0.13},
    "lines": {"alpha": 0.3, "beta": 0.9},
}


def make(name: str):
    return make_method(name, OPTIONS.get(name, {}))


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("lam", LAMS)
@pytest.mark.parametrize(
    ("shape", "dtype"), [((13, 7), torch.bfloat16), ((29,), torch.bfloat16), ((5, 40), torch.float32)]
)
def test_a_plain_loop_gives_the_same_bits(name, lam, shape, dtype):
    pair, method = make_pair(shape, dtype=dtype, noise=0.02), make(name)
    expected = slow_step(name, options_of(method), pair, lam)
    assert torch.equal(merged(method, pair, lam), torch.from_numpy(expected))


def test_the_plain_loop_can_tell_rules_for_equal_changes_apart(monkeypatch):
    """The negative control: with equal |delta| in reverse order the twin disagrees."""
    pair, method = make_pair((13, 7), dtype=torch.bfloat16, noise=0.02), make("ties")
    assert len(set((pair.aligned - pair.base).abs().flatten().tolist())) < pair.size  # there are equal ones
    backwards = lambda delta: sorted(range(len(delta)), key=lambda i: (-abs(float(delta[i])), -i))  # noqa: E731
    monkeypatch.setitem(globals(), "by_size", backwards)
    different = 0
    for count in range(1, pair.size):
        method = make_method("ties", {"density": (count + 0.5) / pair.size})
        expected = torch.from_numpy(slow_step("ties", options_of(method), pair, 1.0))
        different += not torch.equal(merged(method, pair, 1.0), expected)
    assert different > 0


@pytest.mark.parametrize("lam", LAMS)
@pytest.mark.parametrize("noise", [0.01, 0.5, 3.0])
def test_linear_and_slerp_agree_with_float64_loops(lam, noise):
    pair = make_pair(noise=noise)
    base, aligned = pair.base.numpy(), pair.aligned.numpy()
    exact = (1 - lam) * base.astype(np.float64) + lam * aligned.astype(np.float64)
    for name, expected in (("linear", exact), ("slerp", slow_slerp(base, aligned, lam))):
        found = merged(make(name), pair, lam).double().numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6)  # some roundings of float32 values around 10


# Slerp alone.


def test_slerp_is_symmetric():
    pair = make_pair(noise=1.0)
    swapped = Pair(pair.aligned, pair.base)
    there, back = merged(Slerp(), pair, 0.3), merged(Slerp(), swapped, 0.7)
    torch.testing.assert_close(there, back, rtol=2.4e-7, atol=1e-7)  # two units in the last place, less near 0


def test_slerp_keeps_the_length_of_vectors_of_one_length():
    pair = make_pair((64,), noise=2.0)
    pair = Pair(pair.base / pair.base.norm(), pair.aligned / pair.aligned.norm())
    for lam in (0.2, 0.5, 1.4):
        assert abs(merged(Slerp(), pair, lam).norm().item() - 1) < 1e-6
    assert merged(Linear(), pair, 0.5).norm().item() < 0.99  # the negative control


def test_slerp_falls_back_to_linear_bit_for_bit():
    pair = make_pair(noise=0.01)
    assert not Slerp().look(pair).is_slerped
    for lam in LAMS:
        assert same_bits(merged(Slerp(), pair, lam), merged(Linear(), pair, lam))
    assert not same_bits(merged(Slerp(), make_pair(noise=1), 0.3), merged(Linear(), make_pair(noise=1), 0.3))


@pytest.mark.parametrize(("cos", "is_slerped"), [(0.9990, True), (0.9998, False), (-0.9990, True), (-0.9998, False)])
def test_slerp_falls_back_where_vectors_are_all_but_collinear(cos, is_slerped):
    seen = Slerp().look(pair_of([1.0, 0.0], [3 * cos, 3 * math.sqrt(1 - cos * cos)]))
    assert seen.cos == pytest.approx(cos, abs=1e-7)
    assert seen.radians == pytest.approx(math.acos(cos), abs=1e-5)
    assert seen.is_slerped == is_slerped == (abs(seen.cos) <= COLLINEAR)


@pytest.mark.parametrize("base", [[0.0, 0.0], [math.inf, 1.0], [math.nan, 1.0], [math.inf, -math.inf]])
def test_slerp_falls_back_where_there_is_no_angle(base):
    pair = pair_of(base, [math.inf if math.inf in base else 1.0, 2.0])
    seen = Slerp().look(pair)
    assert math.isnan(seen.cos)
    assert not seen.is_slerped
    assert same_bits(merged(Slerp(), pair, 0.5), merged(Linear(), pair, 0.5))


# What holds for every method.


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 2, 5, 12])
def test_the_result_does_not_depend_on_the_pieces(name, dtype, rows):
    whole = make_pair(dtype=dtype, noise=0.05 if name != "slerp" else 1.0)
    cut = dataclasses.replace(whole, rows=rows)
    method = make(name)
    assert method.look(cut) == method.look(whole)
    assert same_bits(merged(method, cut, 0.7), merged(method, whole, 0.7))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shape", [(150_001,), (50, 3001)])
def test_the_result_does_not_depend_on_the_number_of_threads(name, shape):
    pair, method = make_pair(shape, noise=1.0, rows=20), make(name)
    one, two = (with_threads(count, lambda: (method.look(pair), merged(method, pair, 0.7))) for count in (1, 2))
    assert one[0] == two[0]
    assert same_bits(one[1], two[1])


@pytest.mark.parametrize("name", METHODS)
def test_the_result_does_not_depend_on_what_was_visited_before(name):
    method, first, second = make(name), make_pair(rows=3, name="first"), make_pair(seed=1, rows=3, name="second")
    forwards = [merged(method, pair, 0.7) for pair in (first, second)]
    torch.manual_seed(99)
    backwards = [merged(method, pair, 0.7) for pair in (second, first)]
    assert all(map(same_bits, forwards, reversed(backwards)))
    seen = method.look(first)
    pieces = [method.merge(piece, 0.7, seen) for piece in reversed(list(first.pieces()))]
    assert same_bits(torch.cat(pieces[::-1]), forwards[0])


@pytest.mark.parametrize("name", METHODS)
def test_lambda_0_is_the_base(name):
    pair = make_pair(noise=1.0)
    assert torch.equal(merged(make(name), pair, 0.0), pair.base)


@pytest.mark.parametrize("name", ["linear", "slerp"])
def test_lambda_1_is_the_aligned_model(name):
    pair = make_pair(noise=1.0)
    assert torch.equal(merged(make(name), pair, 1.0), pair.aligned)


@pytest.mark.parametrize("name", ["linear", *STEPS])
def test_lambda_scales_the_change(name):
    pair = make_pair()
    pair.base.zero_()  # so that nothing is rounded away
    one = merged(make(name), pair, 0.4)
    assert one.count_nonzero() > 0
    assert torch.equal(merged(make(name), pair, 0.8), 2 * one)
    assert torch.equal(merged(make(name), pair, -0.4), -one)


WHOLE = {
    "ties": {"density": 1},
    "dare_linear": {"density": 1},
    "dare_ties": {"density": 1},
    "breadcrumbs": {"density": 1, "gamma": 0.0},
    "lines": {"alpha": 1, "beta": 0},
}


@pytest.mark.parametrize("name", WHOLE)
def test_keeping_everything_is_task_arithmetic(name):
    pair = make_pair()
    expected = merged(make_method("task_arithmetic", {}), pair, 0.7)
    assert torch.equal(merged(make_method(name, WHOLE[name]), pair, 0.7), expected)
    assert not torch.equal(merged(make(name), pair, 0.7), expected)  # the negative control


@pytest.mark.parametrize("name", METHODS)
def test_the_parents_stay_as_they_are(name):
    pair, before = make_pair(noise=1.0), make_pair(noise=1.0)
    found = merged(make(name), pair, 0.7)
    assert same_bits(pair.base, before.base)
    assert same_bits(pair.aligned, before.aligned)
    assert found.dtype == torch.float32


# What is dropped at random.

RANDOM = ("dare_linear", "dare_ties", "della_linear")


def test_dare_ties_is_dare_linear():
    pair = make_pair()
    one, other = (merged(make_method(name, {"drop_seed": 5}), pair, 0.7) for name in ("dare_linear", "dare_ties"))
    assert same_bits(one, other)


@pytest.mark.parametrize("name", RANDOM)
def test_the_change_is_as_expected_over_seeds(name):
    pair, seeds = pair_of([0.0] * 6, [1.0, -2.0, 3.0, -4.0, 5.0, 6.0]), 2000
    mean = sum(merged(make_method(name, {"drop_seed": seed}), pair, 1.0) for seed in range(seeds)) / seeds
    keep = 0.4 if name == "della_linear" else 0.5  # the smallest probability has the largest variance
    spread = pair.aligned.abs() * math.sqrt((1 - keep) / keep / seeds)
    assert ((mean - pair.aligned).abs() < 4.5 * spread).all()


@pytest.mark.parametrize("name", RANDOM)
def test_every_lambda_drops_the_same(name):
    pair = make_pair((30, 30))
    dropped = [merged(make(name), pair, lam) == pair.base for lam in (0.1, 0.7, 1.5)]
    assert torch.equal(dropped[0], dropped[1])
    assert torch.equal(dropped[0], dropped[2])


@pytest.mark.parametrize("name", RANDOM)
def test_seeds_and_tensors_drop_differently(name):
    pair = make_pair((30, 30))
    renamed = dataclasses.replace(pair, name="another")
    kept = [
        merged(make_method(name, {"drop_seed": seed}), at, 1.0) != at.base for seed in (0, 1) for at in (pair, renamed)
    ]
    for i, one in enumerate(kept):
        for other in kept[:i]:
            assert 0.4 < (one == other).float().mean() < 0.6  # independent halves; 6 standard deviations


def test_della_keeps_large_changes_more_often():
    pair = make_pair((2000, 10))
    kept = merged(DellaLinear(0.5, 0.3), Pair(torch.zeros(2000, 10), pair.aligned), 1.0) != 0
    ranks = pair.aligned.abs().argsort(dim=1).argsort(dim=1)
    shares = [kept[ranks == rank].float().mean().item() for rank in range(10)]
    expected = np.linspace(0.2, 0.8, 10)
    np.testing.assert_allclose(shares, expected, atol=0.045)  # 4 standard deviations


def test_uniforms_are_the_published_splitmix64():
    found = (uniforms(1234567, 0, torch.empty(3)).double() * 2**24).tolist()
    assert found == [output >> 40 for output in SPLITMIX_1234567]
    assert splitmix64(1234567, 3) == list(SPLITMIX_1234567)  # the twin too


@pytest.mark.parametrize("seed", [0, 3, 2**53])
def test_uniforms_agree_with_plain_integers(seed):
    found = uniforms(key_of(seed, "a.weight"), 0, torch.empty(20, 50))
    assert found.flatten().tolist() == [float(u) for u in slow_uniforms(seed, "a.weight", 1000)]
    assert 0 <= found.min() < found.max() < 1


@pytest.mark.parametrize("first", [1, 999, BLOCK - 3, 5 * 2**30])
def test_uniforms_belong_to_places(first):
    key, count = key_of(0, "a.weight"), BLOCK + 10
    found = uniforms(key, first, torch.empty(count))
    for start in (0, 17, BLOCK - 1, BLOCK):
        alone = uniforms(key, first + start, torch.empty(7))
        assert torch.equal(alone, found[start : start + 7])
    jumped = splitmix64((key + first * 0x9E3779B97F4A7C15) % 2**64, 5)
    assert (found[:5].double() * 2**24).tolist() == [output >> 40 for output in jumped]


def test_uniforms_are_uniform():
    found = uniforms(key_of(0, "a.weight"), 0, torch.empty(200_000))
    counts = torch.histc(found, bins=20, min=0, max=1)
    assert ((counts - 10_000).abs() < 450).all()  # 4.6 standard deviations


# What is largest.


def slow_largest(delta: torch.Tensor, count: int) -> set[int]:
    return set(by_size(delta.flatten().tolist())[:count])


def found_largest(pair: Pair, ranked: Largest) -> set[int]:
    masks = [ranked.mask(piece.delta, piece.first) for piece in pair.pieces()]
    return set(torch.cat(masks).flatten().nonzero().flatten().tolist())


DELTAS = {
    "distinct": torch.linspace(-1, 1.03, 60),
    "few values": torch.tensor([0.5, -0.5, 0.25, 0.0, -0.0, 0.5] * 10),
    "all zero": torch.zeros(60),
    "all magnitudes": torch.logspace(-44, 38, 60, dtype=torch.float64).float() * torch.tensor([1.0, -1.0] * 30),
    "one upper half": 1 + torch.arange(60).flip(0) % 17 * 2.0**-23,
}


@pytest.mark.parametrize("kind", DELTAS)
@pytest.mark.parametrize("rows", [1, 4, 100])
def test_the_largest_are_those_of_a_full_sort(kind, rows):
    delta = DELTAS[kind].reshape(12, 5)
    pair = Pair(torch.zeros(12, 5), delta, rows)
    counts = (*range(61), 7, 7)
    for count, ranked in zip(counts, largest(pair, *counts), strict=True):
        assert found_largest(pair, ranked) == slow_largest(delta, count)


def test_the_largest_are_found_in_three_readings_at_most():
    delta = torch.tensor([2.0, 1.0] * 30).reshape(12, 5)
    pair = Pair(torch.zeros(12, 5), delta, rows=1)
    largest(pair, 60, 0)
    assert pair.reads == []  # all and none need no look
    largest(pair, 30)
    assert pair.reads == [12, 12]  # no equal ones are cut
    pair.reads.clear()
    largest(pair, 3, 40)
    assert pair.reads == [12, 12, 4]  # the last of them lies in the fourth row


def test_the_threshold_is_exact():
    delta = torch.from_numpy(np.random.default_rng(0).standard_normal(10_001)).float()
    ranked = largest(Pair(torch.zeros(10_001), delta), 1234)[0]
    assert ranked == Largest(delta.abs().sort(descending=True).values[1233].item(), 10_000)


# Methods by name.


def test_all_methods_have_their_names():
    assert list(METHODS) == [
        "linear",
        "slerp",
        "task_arithmetic",
        "ties",
        "dare_linear",
        "dare_ties",
        "della_linear",
        "breadcrumbs",
        "lines",
    ]
    assert [name for name in METHODS if make_method(name, {}).gives_aligned] == ["linear", "slerp", "task_arithmetic"]
    assert len({make_method(name, {}) for name in METHODS}) == len(METHODS)  # frozen: they can be keys


def test_options_have_their_defaults():
    assert option_names() == ("density", "drop_seed", "epsilon", "gamma", "alpha", "beta")
    assert default_options("linear") == {}
    assert default_options("ties") == {"density": 0.2}
    assert default_options("dare_ties") == {"density": 0.5, "drop_seed": 0}
    assert options_of(make_method("della_linear", {"density": 0.8})) == {"density": 0.8, "epsilon": 0.1, "drop_seed": 0}


def test_numbers_become_what_the_option_is():
    options = options_of(make_method("dare_linear", {"density": 1, "drop_seed": 3.0}))
    assert [type(value) for value in options.values()] == [float, int]
    assert make_method("dare_linear", {"drop_seed": 3.0}) == make_method("dare_linear", {"drop_seed": 3})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ties", {"density": 1.5}, "--density must lie in (0, 1], not 1.5"),
        ("ties", {"density": 0}, "--density must lie in (0, 1], not 0"),
        ("dare_linear", {"density": math.nan}, "--density must lie in (0, 1], not nan"),
        ("dare_ties", {"density": -0.1}, "--density must lie in (0, 1], not -0.1"),
        ("breadcrumbs", {"density": math.inf}, "--density must lie in (0, 1], not inf"),
        ("breadcrumbs", {"gamma": 0.2}, "--gamma 0.2 drops more than --density 0.9 leaves: their sum is at most 1"),
        ("breadcrumbs", {"gamma": 1}, "--gamma must lie in [0, 1), not 1"),
        ("breadcrumbs", {"gamma": -0.1}, "--gamma must lie in [0, 1), not -0.1"),
        ("dare_linear", {"drop_seed": -1}, "--drop-seed must be a whole number from 0 to 2^53, not -1"),
        ("dare_linear", {"drop_seed": 0.5}, "--drop-seed must be a whole number from 0 to 2^53, not 0.5"),
        ("dare_linear", {"drop_seed": math.inf}, "--drop-seed must be a whole number from 0 to 2^53, not inf"),
        ("della_linear", {"drop_seed": 2**53 + 2}, "--drop-seed must be a whole number from 0 to 2^53, not 9007"),
        ("della_linear", {"epsilon": -0.1}, "--epsilon must be above 0, not -0.1"),
        ("della_linear", {"epsilon": 0}, "--epsilon must be above 0, not 0"),
        ("della_linear", {"epsilon": 0.5}, "--epsilon 0.5 around --density 0.5 gives probabilities from 0 to 1;"),
        ("della_linear", {"density": 1}, "--epsilon 0.1 around --density 1 gives probabilities from 0.9 to 1.1;"),
        ("lines", {"alpha": math.nan}, "--alpha must be a finite number, not nan"),
        ("lines", {"beta": math.inf}, "--beta must be a finite number, not inf"),
        ("linear", {"density": 0.5}, "--density is no option of --method linear; ties, dare_linear, dare_ties, della_"),
        ("ties", {"gamma": 0.1}, "--gamma is no option of --method ties; breadcrumbs has it"),
        ("ties", {"drop_seed": 1}, "--drop-seed is no option of --method ties; dare_linear, dare_ties, della_linear h"),
        ("ties", {"nonsense": 1}, "--nonsense is no option of --method ties; no method has it"),
        (
            "soup",
            {},
            "--method soup is unknown; allowed: linear, slerp, task_arithmetic, ties, dare_linear, dare_ties,",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_its_flag(name, options, message):
    with pytest.raises(InputError) as refused:
        make_method(name, options)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(("density", "epsilon"), [(0.9, 0.1), (0.7, 0.3), (0.58, 0.42)])
def test_della_may_keep_the_largest_always(density, epsilon):
    pair = make_pair((50, 9))
    kept = merged(DellaLinear(density, epsilon), Pair(torch.zeros(50, 9), pair.aligned), 1.0) != 0
    assert kept.gather(1, pair.aligned.abs().argmax(dim=1, keepdim=True)).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", METHODS)
def test_a_gpu_sees_the_same_and_gives_the_same_to_a_rounding(name):
    pair, method = make_pair((300, 1000), noise=1.0), make(name)
    there = dataclasses.replace(pair, base=pair.base.cuda(), aligned=pair.aligned.cuda())
    assert method.look(there) == method.look(pair)
    found, expected = merged(method, there, 0.7).cpu(), merged(method, pair, 0.7)
    torch.testing.assert_close(found, expected, rtol=2.4e-7, atol=2.4e-7)  # a product and a sum may be fused or not
    if name in (*STEPS, "linear"):
        assert torch.equal(found == pair.base, expected == pair.base)  # the same is dropped
