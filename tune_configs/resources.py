"""Resources of a trial by backbone and device: CPU threads, fraction of a GPU, micro-batch and accumulation."""

from __future__ import annotations

from sousaphone.backbones.registry import REGISTRY
from sousaphone.hardware import shares
from sousaphone.planning.sweep_options import Request

EFFECTIVE_BATCH = 32  # clips per optimiser step


def steps(model: str, request: Request) -> tuple[int, int]:
    """Return the micro-batch (clips per forward pass) and the accumulation (micro-batches per optimiser step).

    If `--set` gives one of them, the other is chosen to come closest to the effective batch.
    """
    size, times = request.settings.get("micro_batch"), request.settings.get("accumulation")
    if size is None and times is not None:
        return max(1, round(EFFECTIVE_BATCH / times)), times
    precision = str(request.settings.get("precision", "auto"))
    size = size or REGISTRY[model].micro_batch(request.scale, request.device, precision)
    return size, times or max(1, round(EFFECTIVE_BATCH / size))


def gpus(request: Request) -> float:
    """Return the fraction or number of GPUs of a trial: `--gpus-per-trial`, else one on CUDA."""
    if request.gpus_per_trial is not None:
        return request.gpus_per_trial
    return 1.0 if request.device == "cuda" else 0.0


def threads(request: Request) -> int:
    """Return the CPU threads of a trial: the machine's cores divided by the trials that run at a time.

    A GPU runs as many trials as fit, mps runs one. On a CPU, a nano trial takes one core, a full-size trial all cores
    of a NUMA node.
    """
    if "threads" in request.settings:
        return int(request.settings["threads"])
    if request.cpus_per_trial is not None:
        return max(1, int(request.cpus_per_trial))
    if request.device == "cpu" and request.scale == "nano":
        return 1
    at_once = request.numa_nodes if request.device == "cpu" else 1
    if request.device == "cuda" and gpus(request):
        at_once = shares(request.gpus, gpus(request))
    return max(1, request.cpus // max(1, at_once))
