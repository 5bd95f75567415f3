"""Random numbers that belong to an element of a tensor, not to the moment at which it is visited."""

import hashlib

import torch

from merge_calib.errors import InputError

BLOCK = 1 << 18  # numbers made at once: the 2 MiB of states stay in a CPU's cache and still fill a GPU
BITS = 24  # a float32 holds so many
WORD = 1 << 64
GAMMA, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def key_of(seed: int, name: str) -> int:
    """The 64-bit key of a tensor's numbers: the first 8 bytes of the SHA-256 of `SEED NAME`, big-endian."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big")


def uniforms(key: int, first: int, like: torch.Tensor) -> torch.Tensor:
    """Uniform float32 numbers in [0, 1), multiples of 2^-24, for elements `first`, `first` + 1, ... of a tensor.

    Of the shape and on the device of `like`, and the same on every device. Element i has the upper 24 bits of output
    i of SplitMix64 seeded with the key. Source: Steele, Lea & Flood 2014, Fast splittable pseudorandom number
    generators, with the constants of Vigna's splitmix64.c.
    """
    numbers = torch.empty(like.shape, dtype=torch.float32, device=like.device)
    flat = numbers.view(-1)
    for start in range(0, flat.numel(), BLOCK):
        block = flat[start : start + BLOCK]
        block.copy_(_upper_bits(key, first + start, block))
    return numbers.mul_(2.0**-BITS)


def require_seed(seed: int) -> None:
    """Raise InputError unless the seed is a whole number that JSON and TOML keep as it is."""
    if not (0 <= seed <= 1 << 53 and seed == int(seed)):
        raise InputError(f"--drop-seed must be a whole number from 0 to 2^53, not {seed}")


def _upper_bits(key: int, first: int, like: torch.Tensor) -> torch.Tensor:
    """The upper 24 bits of the outputs from `first` on, int64. The generator's last shift leaves these bits alone."""
    state = torch.arange(like.numel(), dtype=torch.int64, device=like.device)
    state.mul_(_signed(GAMMA)).add_(_signed(key + (first + 1) * GAMMA))
    state.bitwise_xor_(_shifted(state, 30)).mul_(_signed(FIRST))
    state.bitwise_xor_(_shifted(state, 27)).mul_(_signed(SECOND))
    return _shifted(state, 64 - BITS)


def _shifted(state: torch.Tensor, by: int) -> torch.Tensor:
    """A shift to the right as of unsigned numbers: the copies of the sign that int64 shifts in are masked."""
    return torch.bitwise_right_shift(state, by).bitwise_and_((1 << (64 - by)) - 1)


def _signed(word: int) -> int:
    """The int64 with the same 64 bits."""
    word %= WORD
    return word - WORD if word >> 63 else word
