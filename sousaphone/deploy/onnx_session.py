"""Inference of a model's ONNX graph, without torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sousaphone.errors import UserError, not_installed
from sousaphone.text import one_line

# Read when ONNX Runtime is imported: since version 1.29 it would send statistics on models to Microsoft, and keep an
# identifier of the device in the user's cache.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

GRAPHS = {"onnx": "model.onnx", "int8": "model.int8.onnx"}  # files in a model folder, by runtime
WAVE, PROBABILITIES, LOGITS = "wave", "probabilities", "logits"  # of a graph, see `onnx_graph`
LEAST_SECONDS = 0.025  # of a wave: a frame of AST
_REMEDY = "export the model again, or copy the folder again"


def missing_packages() -> list[str]:
    """Return the packages of the extra [deploy] that are not installed."""
    return [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]


def refuse_without_onnx(option: str) -> None:
    """Raise a UserError if the extra [deploy] is not installed."""
    if missing := missing_packages():
        raise not_installed(option, missing, "deploy")


class OnnxSession:
    """A graph that computes logits on the CPU."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        """Load a graph; raises a UserError if it is not one that `sousaphone export --onnx` wrote.

        Args:
            threads: of one operation; 0 for all cores.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # errors are raised
        # Int8 weights of convolutions are converted once, at loading, and not in every run.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        self._path = path
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library raises errors of many types
            raise UserError(f"{path} is not an ONNX graph, or damaged ({one_line(error, 200)}); {_REMEDY}") from None
        names = [[each.name for each in side] for side in (self.session.get_inputs(), self.session.get_outputs())]
        if names != [[WAVE], [PROBABILITIES, LOGITS]]:
            raise UserError(f"{path} has the inputs and outputs {names}, not those of this package; {_REMEDY}")

    def refuse_other(self, wanted: Mapping[str, str]) -> None:
        """Raise a UserError unless the graph has the `wanted` metadata."""
        about = self.session.get_modelmeta().custom_metadata_map
        if other := [name for name, value in wanted.items() if about.get(name) != value]:
            raise UserError(f"{self._path} is the graph of another model (other {', '.join(other)}); {_REMEDY}")

    def logits(self, waves: npt.NDArray[np.float32], classes: int | None = None) -> npt.NDArray[np.float32]:
        """Compute logits [B, C] from waves [B, T] in [-1, 1]; raises a UserError if the graph does not compute
        numbers of this shape, with C = `classes` if given."""
        try:
            found: Any = self.session.run([LOGITS], {WAVE: waves})
            logits = np.asarray(found[0], np.float32)
        except Exception as error:  # the library raises errors of many types
            raise UserError(f"{self._path} cannot be computed ({one_line(error, 200)}); {_REMEDY}") from None
        wanted = (len(waves), logits.shape[-1] if classes is None else classes)
        if logits.shape != wanted:
            shapes = f"{list(logits.shape)} instead of {list(wanted)}"
            raise UserError(f"{self._path} computes logits of the shape {shapes}; {_REMEDY}")
        return logits
