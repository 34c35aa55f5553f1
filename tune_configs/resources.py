"""What a trial of each backbone takes on each kind of device: threads, micro-batch.

A micro-batch is what fits with room to spare: 16 GB on a CUDA card in bfloat16; in float32 on a Mac, whose 36 GB serve
everything else as well; a few GB on a CPU, where a larger one is no faster. A trial that runs out of memory all the
same halves it by itself. The effective batch is the same everywhere: 32, or what `--set` comes to.
"""

from __future__ import annotations

from sousaphone.choices import Choices
from sousaphone.hardware import shares

EFFECTIVE_BATCH = 32
# Smaller where the first layers' maps are so large that a batch of them leaves the processor's caches.
_NANO = {"efficientat": 16}
_BASE = {
    "cuda": {"ast": 32, "htsat": 32, "beats": 32, "beats-ft": 32, "efficientat": 32},
    "mps": {"ast": 4, "htsat": 8, "beats": 8, "beats-ft": 8, "efficientat": 16},
    "cpu": {"ast": 2, "htsat": 2, "beats": 2, "beats-ft": 2, "efficientat": 4},
}


def micro_batch(model: str, scale: str, device: str) -> int:
    """Clips in one forward pass."""
    return _NANO.get(model, EFFECTIVE_BATCH) if scale == "nano" else _BASE[device].get(model, 2)


def steps(model: str, choices: Choices) -> tuple[int, int]:
    """Clips in one forward pass, and how many of these make one step of the optimiser.

    Of the two `--set` may give either: the other comes as near to the effective batch as it can.
    """
    size, times = choices.settings.get("micro_batch"), choices.settings.get("accumulation")
    if size is None and times is not None:
        return max(1, round(EFFECTIVE_BATCH / times)), times
    size = size or micro_batch(model, choices.scale, choices.device)
    return size, times or max(1, round(EFFECTIVE_BATCH / size))


def gpus(choices: Choices) -> float:
    """The share of a GPU that a trial gets: a whole one, unless asked for otherwise."""
    if choices.gpus_per_trial is not None:
        return choices.gpus_per_trial
    return 1.0 if choices.device == "cuda" else 0.0


def threads(choices: Choices) -> int:
    """CPU threads of a trial; the trials that share the machine share its cores.

    On a GPU as many run at a time as it has room for, on mps one; a nano trial on a CPU takes a core, a full-size one
    all of them.
    """
    if "threads" in choices.settings:
        return int(choices.settings["threads"])
    if choices.cpus_per_trial is not None:
        return max(1, int(choices.cpus_per_trial))
    if choices.device == "cpu" and choices.scale == "nano":
        return 1
    at_once = shares(choices.gpus, gpus(choices)) if choices.device == "cuda" and gpus(choices) else 1
    return max(1, choices.cpus // max(1, at_once))
