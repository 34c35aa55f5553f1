"""The machine without weights and without a network of the tests of `sousaphone.weights`, and the run and the model of
those of `sousaphone.deploy`."""

from tests.deploy.conftest import merged, model, run
from tests.weights.conftest import machine, small_mn

__all__ = ["machine", "merged", "model", "run", "small_mn"]
