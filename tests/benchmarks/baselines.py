"""Two ways to train the same model on the same clips without ours.

**Plain**: decode, resample and mel of each clip in the main process, micro-batches of 4, 8 of them accumulated,
autocast. **Careful**: what a good user would write from the libraries' documentation: only the window decoded, the
official extractor, a DataLoader with every core as a worker, whole batches, bfloat16.

On a CPU each is measured in bfloat16 and in float32, and the faster counts. Neither augments. The model is the same;
its adapters are run by PEFT.
"""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchaudio.transforms import Resample

from sousaphone.config import TrainConfig
from sousaphone.kernels.dispatch import use_fused
from sousaphone.model import RudimentClassifier

from .clips import Clips, length, read
from .clock import Clock, Peak, processor_seconds, wait
from .extractors import extractor
from .result import Round

MICRO_BATCH = 4  # of the plain one


class Heard(Dataset[tuple[Tensor, int]]):
    """Clip i as (features, label), from a random window of the file.

    Args:
        whole: decode and resample all of the clip and then cut the window out, instead of the other way round.
    """

    def __init__(self, clips: Clips, model: RudimentClassifier, seconds: float, whole: bool) -> None:
        self.paths, self.labels, self.decoder = clips.paths, clips.labels.tolist(), clips.decoder
        self.extract = extractor(model)
        self.rate = model.backbone.spec.sample_rate
        self.seconds, self.whole = seconds, whole
        self.resample: dict[int, Resample] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.extract(self.window(self.paths[index])), self.labels[index]

    def window(self, path: Path, place: float | None = None) -> np.ndarray:
        """[T] at the backbone's rate, silence after the end of a shorter clip.

        Args:
            place: of the window, from 0 to 1; None: random.
        """
        place = random.random() if place is None else place
        wanted = round(self.seconds * self.rate)
        if self.whole:
            samples, rate = read(path, self.decoder)
            wave = self._resampled(samples, rate)
            start = int(place * max(0, len(wave) - wanted))
        else:
            there, rate = length(path, self.decoder)
            frames = round(self.seconds * rate)
            samples, _ = read(path, self.decoder, int(place * max(0, there - frames)), frames)
            wave, start = self._resampled(samples, rate), 0
        wave = wave[start : start + wanted]
        return np.pad(wave, (0, wanted - len(wave)))

    def _resampled(self, samples: np.ndarray, rate: int) -> np.ndarray:
        if rate not in self.resample:  # its filters are made once
            self.resample[rate] = Resample(rate, self.rate)
        return self.resample[rate](torch.from_numpy(samples.mean(1, dtype=np.float32))).numpy()


class Endless(Sampler[int]):
    """All clips in random order, again and again: workers never pause at an epoch's end."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[int]:
        while True:
            yield from torch.randperm(self.count).tolist()


class _Trainer(ABC):
    """The loop that both share."""

    micro_batch: int
    accumulation: int

    def __init__(self, config: TrainConfig, model: RudimentClassifier, bf16: bool) -> None:
        self.config, self.model, self.bf16 = config, model, bf16
        self.device = torch.device(config.device)
        self.trainable = [p for p in model.parameters() if p.requires_grad]
        # A rate of zero costs the same, and leaves the model as it is for the next contender.
        self.optimizer = torch.optim.AdamW(self.trainable, lr=0.0)

    @abstractmethod
    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Micro-batches of features and labels without end."""

    def settle(self) -> int:
        """Micro-batches to leave uncounted: those that waited, ready, before the first step."""
        return 0

    def train(self, steps: int, shares: bool) -> Round:
        self.model.train()
        use_fused(self.model, False)
        batches = self.batches()
        self._steps(batches, -(-self.settle() // self.accumulation), Clock(self.device, False))
        clock, peak = Clock(self.device, shares), Peak(self.device)
        wait(self.device)
        began, busy = time.perf_counter(), processor_seconds()
        clips = self._steps(batches, steps, clock)
        wait(self.device)
        seconds = time.perf_counter() - began
        return Round(clips, seconds, processor_seconds() - busy, peak.read(), clock.shares(seconds) if shares else {})

    def _steps(self, batches: Iterator[tuple[Tensor, Tensor]], steps: int, clock: Clock) -> int:
        clips = 0
        for _ in range(steps):
            for _ in range(self.accumulation):
                with clock.of("data"):
                    features, labels = next(batches)
                    features = features.to(self.device, non_blocking=True)
                    labels = labels.to(self.device, non_blocking=True)
                with clock.of("forward"), self._autocast():
                    loss = F.cross_entropy(self.model.classify(features).float(), labels) / self.accumulation
                with clock.of("backward"):
                    loss.backward()
                clips += len(labels)
            with clock.of("optimiser"):
                torch.nn.utils.clip_grad_norm_(self.trainable, 1.0)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
        return clips

    def evaluate(self, clips: int) -> Round:
        self.model.eval()
        use_fused(self.model, False)
        batches = self.batches()
        for _ in range(self.settle()):
            next(batches)
        wait(self.device)
        began, busy, heard = time.perf_counter(), processor_seconds(), 0
        while heard < clips:
            features, labels = next(batches)
            with torch.inference_mode(), self._autocast():
                self.model.classify(features.to(self.device)).float().cpu()
            heard += len(labels)
        return Round(heard, time.perf_counter() - began, processor_seconds() - busy)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)


class Plain(_Trainer):
    def __init__(self, config: TrainConfig, model: RudimentClassifier, clips: Clips, bf16: bool) -> None:
        super().__init__(config, model, bf16)
        self.heard = Heard(clips, model, config.clip_seconds, whole=True)
        batch = config.micro_batch * config.accumulation
        self.micro_batch = min(MICRO_BATCH, batch)
        self.accumulation = batch // self.micro_batch

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = iter(Endless(len(self.heard)))
        while True:
            features, labels = zip(*(self.heard[next(order)] for _ in range(self.micro_batch)), strict=True)
            yield torch.stack(features), torch.tensor(labels)

    def close(self) -> None:
        pass


class Careful(_Trainer):
    """
    Args:
        workers: processes beside this one.
        settles: leave out the batches that were ready before the first step; otherwise these are a present to it.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: RudimentClassifier,
        clips: Clips,
        bf16: bool,
        workers: int,
        settles: bool = True,
    ) -> None:
        super().__init__(config, model, bf16)
        self.settles = settles
        self.micro_batch, self.accumulation = config.micro_batch * config.accumulation, 1
        heard = Heard(clips, model, config.clip_seconds, whole=False)
        self.loader: Any = DataLoader(
            heard,
            batch_size=self.micro_batch,
            sampler=Endless(len(heard)),
            num_workers=workers,
            persistent_workers=True,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_own_chance,
        )
        self.stream: Iterator[Any] | None = None

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.stream is None:
            self.stream = iter(self.loader)
        return self.stream

    def settle(self) -> int:
        # While others are measured the workers fill their queues; the pace is that of the batches after these.
        return self.loader.num_workers * self.loader.prefetch_factor if self.settles else 0

    def close(self) -> None:
        self.stream = self.loader = None  # the last hold on the workers, which end with it


def _own_chance(worker: int) -> None:
    random.seed(worker)
