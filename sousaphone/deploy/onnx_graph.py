"""ONNX graphs of trained models: from waveform to probabilities, with the front end and the adapters in the weights.

    input     wave           [batch, samples] in [-1, 1] at the model's rate; 25 ms to a window, all of one length
    outputs   probabilities  [batch, C], calibrated as those of single windows
              logits         [batch, C]; for several windows of a clip: softmax(mean of logits / averaged_temperature)

The metadata of a graph contain `classes` (a JSON list, in the order of the outputs), `sample_rate`, `clip_seconds`,
`averaged_temperature` and `origin` (run and trial). Needs the extra [deploy].
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sousaphone import lora
from sousaphone.deploy.loading import Member
from sousaphone.deploy.onnx_session import LEAST_SECONDS, LOGITS, PROBABILITIES, WAVE
from sousaphone.kernels.dispatch import use_fused
from sousaphone.model import RudimentClassifier

_OPSET = 20
_INT8 = 127


class _Probabilities(nn.Module):
    """Waves [B, T] of at most a window, `samples`, to probabilities and logits, each [B, C]."""

    def __init__(self, network: RudimentClassifier, temperature: float, samples: int) -> None:
        super().__init__()
        self.network, self.temperature, self.samples = network, temperature, samples

    def forward(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        if self.network.backbone.frontend.silent_padding:  # as in training, where all clips are padded to a window
            wave = F.pad(wave, (0, self.samples - wave.shape[-1]))
        logits = self.network(wave)
        return (logits / self.temperature).softmax(-1), logits


def write_graph(member: Member, path: Path) -> None:
    """Write a model, which must be on the CPU, as an ONNX graph. Batch size and length of the wave are dynamic."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    config = member.config
    network = copy.deepcopy(member.network)
    lora.merge(network)
    use_fused(network, False)
    calibration = config.calibration
    samples = round(config.clip_seconds * config.sample_rate)
    least = round(LEAST_SECONDS * config.sample_rate)
    dimensions = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim("samples", min=least, max=samples)}
    with _silent_libraries(), torch.no_grad():
        program = torch.onnx.export(
            _Probabilities(network, calibration.temperature or 1.0, samples).eval(),
            (torch.zeros(2, (least + samples) // 2),),  # an example; its sizes are dynamic
            input_names=[WAVE],
            output_names=[PROBABILITIES, LOGITS],
            dynamic_shapes=(dimensions,),
            opset_version=_OPSET,
            external_data=False,
            verbose=False,
        )
        assert program is not None
        ClearMetadataAndDocStringPass()(program.model)  # stack traces, with the paths of this machine
        program.model.metadata_props.update(
            config.graph_metadata, averaged_temperature=str(calibration.averaged_temperature or 1.0)
        )
        program.save(path)


def quantize(graph: Path, path: Path) -> None:
    """Write a graph with weights in int8. The front end stays in float32.

    Matrix products are computed in int8, with the scale of their input found at run time. Convolutions, which would be
    slower so, store int8 weights with a scale for each channel and compute in float32.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(graph)
    front_end = [node.name for node in model.graph.node if any(".frontend." in name for name in node.input)]
    _store_convolutions_in_int8(model.graph)
    with _silent_libraries():
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_exclude=front_end,
            per_channel=True,
            weight_type=QuantType.QInt8,
        )


def _store_convolutions_in_int8(graph: Any) -> None:
    from onnx import helper, numpy_helper

    stored = {tensor.name: tensor for tensor in graph.initializer}
    kernels = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    for name in sorted(kernels & stored.keys()):
        kernel = numpy_helper.to_array(stored[name])  # [O, I, ...]
        largest = np.abs(kernel).reshape(len(kernel), -1).max(1)
        scale = np.where(largest > 0, largest / _INT8, 1.0).astype(np.float32)
        rounded = np.round(kernel / scale.reshape(-1, *[1] * (kernel.ndim - 1))).astype(np.int8)
        graph.initializer.remove(stored[name])
        graph.initializer.append(numpy_helper.from_array(rounded, f"{name}.int8"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
        inputs = [f"{name}.int8", f"{name}.scale"]
        graph.node.insert(0, helper.make_node("DequantizeLinear", inputs, [name], f"{name}.dequantize", axis=0))


@contextmanager
def _silent_libraries() -> Iterator[None]:
    """Suppress the remarks of the exporter and the quantiser on themselves."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "root")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
