"""The time of each kernel of one micro-batch, both passes, by torch's profiler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from sousaphone.backbones.frontends import to_float
from sousaphone.backbones.registry import REGISTRY
from sousaphone.data.batches import ClipSet
from sousaphone.model import build_model
from sousaphone.rudiments import SLUGS
from sousaphone.training.step import micro_batch_of

from .clips import Clips, cached
from .clock import synchronize
from .setting import Setting


@dataclass(frozen=True)
class Kernel:
    """All launches of one kernel; `milliseconds` is their total."""

    name: str
    milliseconds: float
    launches: int


def measure(
    setting: Setting, models: Sequence[str], clips: Clips, scratch: Path, log: Callable[[str], None]
) -> dict[str, list[Kernel]]:
    """Kernels by backbone, the longest first."""
    found = {}
    device = torch.device(setting.device)
    for model in models:
        config = setting.config(model)
        classifier = build_model(config, len(SLUGS)).train().place(config)
        cache, _ = cached(clips, REGISTRY[model].sample_rate, scratch)
        clip_set = ClipSet(cache, clips.dataset.clips, "train", config.clip_seconds, device, seed=0)
        batch = next(clip_set.training_batches(config.micro_batch, epoch=1))
        features = classifier.features(to_float(batch.wave), batch.lengths)
        targets = F.one_hot(batch.labels, len(SLUGS)).float()
        micro_batch = micro_batch_of(config, classifier)
        for _ in range(2):  # compiles, selects and captures kernels
            micro_batch.begin()
            micro_batch.train(features, targets, len(features))
        synchronize(device)
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            micro_batch.train(features, targets, len(features))
            synchronize(device)
        times = [Kernel(one.key, one.device_time_total / 1000, one.count) for one in profiled.key_averages()]
        found[model] = sorted(times, key=lambda one: -one.milliseconds)
        total, launches = sum(one.milliseconds for one in times), sum(one.launches for one in times)
        log(f"{model}: {total:.1f} ms in {launches} launches")
    return found
