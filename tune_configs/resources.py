"""What a trial of each backbone takes on each kind of device: threads, a share of a GPU, micro-batches and how many
make a step."""

from __future__ import annotations

from sousaphone.backbones.registry import REGISTRY
from sousaphone.hardware import shares
from sousaphone.planning.sweep_options import Request

EFFECTIVE_BATCH = 32  # clips in a step of the optimiser


def steps(model: str, request: Request) -> tuple[int, int]:
    """Clips in one forward pass, and how many of these make one step of the optimiser.

    Of the two `--set` may give either: the other comes as near to the effective batch as it can.
    """
    size, times = request.settings.get("micro_batch"), request.settings.get("accumulation")
    if size is None and times is not None:
        return max(1, round(EFFECTIVE_BATCH / times)), times
    size = size or REGISTRY[model].micro_batches[request.scale][request.device]
    return size, times or max(1, round(EFFECTIVE_BATCH / size))


def gpus(request: Request) -> float:
    """The share of a GPU that a trial gets: a whole one, unless asked for otherwise."""
    if request.gpus_per_trial is not None:
        return request.gpus_per_trial
    return 1.0 if request.device == "cuda" else 0.0


def threads(request: Request) -> int:
    """CPU threads of a trial; the trials that share the machine share its cores.

    On a GPU as many run at a time as it has room for, on mps one; a nano trial on a CPU takes a core, a full-size one
    all of them.
    """
    if "threads" in request.settings:
        return int(request.settings["threads"])
    if request.cpus_per_trial is not None:
        return max(1, int(request.cpus_per_trial))
    if request.device == "cpu" and request.scale == "nano":
        return 1
    at_once = shares(request.gpus, gpus(request)) if request.device == "cuda" and gpus(request) else 1
    return max(1, request.cpus // max(1, at_once))
