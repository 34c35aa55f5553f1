"""The machine without weights and without a network that the tests of `sousaphone.weights` have."""

from tests.weights.conftest import machine, small_mn

__all__ = ["machine", "small_mn"]
