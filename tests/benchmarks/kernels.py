"""What each kernel of one micro-batch takes, both passes, by torch's profiler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

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
from .clock import wait
from .setting import Setting


@dataclass(frozen=True)
class Kernel:
    """Of one name: milliseconds of all its launches together."""

    name: str
    milliseconds: float
    launches: int


def measure(
    setting: Setting, models: Sequence[str], clips: Clips, scratch: Path, say: Callable[[str], None]
) -> dict[str, list[Kernel]]:
    """By backbone, the longest first."""
    found = {}
    device = torch.device(setting.device)
    for model in models:
        config = setting.config(model)
        classifier = build_model(config, len(SLUGS)).train().place(device)
        cache, _ = cached(clips, REGISTRY[model].sample_rate, scratch)
        heard = ClipSet(cast(Any, cache), clips.dataset.clips, "train", config.clip_seconds, device, seed=0)
        batch = next(heard.training_batches(config.micro_batch, epoch=1))
        features = classifier.features(to_float(batch.wave), batch.lengths)
        targets = F.one_hot(batch.labels, len(SLUGS)).float()
        micro_batch = micro_batch_of(config, classifier)
        for _ in range(2):  # compiled, chosen, recorded
            micro_batch.begin()
            micro_batch.train(features, targets, len(features))
        wait(device)
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            micro_batch.train(features, targets, len(features))
            wait(device)
        times = [Kernel(one.key, one.device_time_total / 1000, one.count) for one in profiled.key_averages()]
        found[model] = sorted(times, key=lambda one: -one.milliseconds)
        say(
            f"{model}: {sum(one.milliseconds for one in times):.1f} ms in {sum(one.launches for one in times)} launches"
        )
    return found
