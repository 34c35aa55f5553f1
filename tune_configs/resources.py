"""What a trial of each backbone takes on each kind of device: threads, a share of a GPU, micro-batches and how many
make a step."""

from __future__ import annotations

from sousaphone.backbones.training_defaults import EFFECTIVE_BATCH, micro_batch
from sousaphone.hardware import shares
from sousaphone.planning.options import Choices


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
