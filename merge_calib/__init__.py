"""Recover the calibration that alignment took from a language model, by merging it with its base."""

__version__ = "0.1.0"
