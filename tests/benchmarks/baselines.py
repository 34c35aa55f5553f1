"""Two baselines that train the same model on the same clips without our code.

**Plain**: decode, resample and mel of each clip in the main process, micro-batches of 4, 8 of them accumulated,
autocast. **Careful**: what the libraries' documentation recommends: only the window decoded, the official extractor, a
DataLoader with one worker per core, whole batches, bfloat16.

On a CPU each is measured in bfloat16 and in float32, and the faster counts. Neither augments. PEFT runs the adapters.
"""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchaudio.transforms import Resample

from sousaphone.config import TrainConfig
from sousaphone.kernels.dispatch import use_fused
from sousaphone.model import RudimentClassifier

from .clips import Clips
from .clock import Clock, Peak, processor_seconds, synchronize
from .extractors import extractor
from .result import Round

PLAIN_MICRO_BATCH = 4


class WindowDataset(Dataset[tuple[Tensor, int]]):
    """Clip i as (features, label), from a random window of the file.

    Args:
        decode_all: decode and resample the whole clip before cutting the window; otherwise decode only the window.
    """

    def __init__(self, clips: Clips, model: RudimentClassifier, seconds: float, decode_all: bool) -> None:
        self.paths, self.labels = clips.paths, clips.labels.tolist()
        self.extract = extractor(model)
        self.rate = model.backbone.spec.sample_rate
        self.seconds, self.decode_all = seconds, decode_all
        self.resamplers: dict[int, Resample] = {}  # one per source rate: its filters are computed once

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.extract(self._window(self.paths[index])), self.labels[index]

    def _window(self, path: Path) -> np.ndarray:
        """[T] at the backbone's rate; a shorter clip is padded with silence."""
        place, samples = random.random(), round(self.seconds * self.rate)
        if self.decode_all:
            wave = self._resampled(*soundfile.read(path, dtype="float32", always_2d=True))
            start = int(place * max(0, len(wave) - samples))
        else:
            info = soundfile.info(path)
            frames = round(self.seconds * info.samplerate)
            first = int(place * max(0, info.frames - frames))
            wave = self._resampled(*soundfile.read(path, frames, first, dtype="float32", always_2d=True))
            start = 0
        wave = wave[start : start + samples]
        return np.pad(wave, (0, samples - len(wave)))

    def _resampled(self, samples: np.ndarray, rate: int) -> np.ndarray:
        if rate not in self.resamplers:
            self.resamplers[rate] = Resample(rate, self.rate)
        return self.resamplers[rate](torch.from_numpy(samples.mean(1, dtype=np.float32))).numpy()


class EndlessSampler(Sampler[int]):
    """All clips in random order, again and again, so that workers never pause between epochs."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[int]:
        while True:
            yield from torch.randperm(self.count).tolist()


class _Trainer(ABC):
    """The training and evaluation loop of both baselines."""

    micro_batch: int
    accumulation: int

    def __init__(self, config: TrainConfig, model: RudimentClassifier, bf16: bool) -> None:
        self.config, self.model, self.bf16 = config, model, bf16
        self.device = torch.device(config.device)
        self.trainable = [p for p in model.parameters() if p.requires_grad]
        # A rate of zero takes the same time and leaves the model unchanged for the next contender.
        self.optimizer = torch.optim.AdamW(self.trainable, lr=0.0)

    @abstractmethod
    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless micro-batches of features and labels."""

    def prefetched(self) -> int:
        """Number of micro-batches that are ready before the first step and do not count."""
        return 0

    def train(self, steps: int, by_stage: bool) -> Round:
        self.model.train()
        use_fused(self.model, False)
        batches = self.batches()
        self._steps(batches, -(-self.prefetched() // self.accumulation), Clock(self.device, False))
        clock, peak = Clock(self.device, by_stage), Peak(self.device)
        synchronize(self.device)
        began, processor = time.perf_counter(), processor_seconds()
        clips = self._steps(batches, steps, clock)
        synchronize(self.device)
        seconds = time.perf_counter() - began
        processor = processor_seconds() - processor
        return Round(clips, seconds, processor, peak.read(), clock.fractions(seconds) if by_stage else {})

    def _steps(self, batches: Iterator[tuple[Tensor, Tensor]], steps: int, clock: Clock) -> int:
        """The number of clips trained on."""
        clips = 0
        for _ in range(steps):
            for _ in range(self.accumulation):
                with clock.stage("data"):
                    features, labels = next(batches)
                    features = features.to(self.device, non_blocking=True)
                    labels = labels.to(self.device, non_blocking=True)
                with clock.stage("forward"), self._autocast():
                    loss = F.cross_entropy(self.model.classify(features).float(), labels) / self.accumulation
                with clock.stage("backward"):
                    loss.backward()
                clips += len(labels)
            with clock.stage("optimiser"):
                torch.nn.utils.clip_grad_norm_(self.trainable, 1.0)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
        return clips

    def evaluate(self, clips: int) -> Round:
        self.model.eval()
        use_fused(self.model, False)
        batches = self.batches()
        for _ in range(self.prefetched()):
            next(batches)
        synchronize(self.device)
        began, processor, evaluated = time.perf_counter(), processor_seconds(), 0
        while evaluated < clips:
            features, labels = next(batches)
            with torch.inference_mode(), self._autocast():
                self.model.classify(features.to(self.device)).float().cpu()
            evaluated += len(labels)
        return Round(evaluated, time.perf_counter() - began, processor_seconds() - processor)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)


class Plain(_Trainer):
    def __init__(self, config: TrainConfig, model: RudimentClassifier, clips: Clips, bf16: bool) -> None:
        super().__init__(config, model, bf16)
        self.windows = WindowDataset(clips, model, config.clip_seconds, decode_all=True)
        batch = config.micro_batch * config.accumulation
        self.micro_batch = min(PLAIN_MICRO_BATCH, batch)
        self.accumulation = batch // self.micro_batch

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = iter(EndlessSampler(len(self.windows)))
        while True:
            features, labels = zip(*(self.windows[next(order)] for _ in range(self.micro_batch)), strict=True)
            yield torch.stack(features), torch.tensor(labels)

    def close(self) -> None:
        pass


class Careful(_Trainer):
    """
    Args:
        workers: number of DataLoader processes.
        skip_prefetched: do not count the batches that are ready before the first step, whose loading is not timed.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: RudimentClassifier,
        clips: Clips,
        bf16: bool,
        workers: int,
        skip_prefetched: bool = True,
    ) -> None:
        super().__init__(config, model, bf16)
        self.skip_prefetched = skip_prefetched
        self.micro_batch, self.accumulation = config.micro_batch * config.accumulation, 1
        windows = WindowDataset(clips, model, config.clip_seconds, decode_all=False)
        self.loader: Any = DataLoader(
            windows,
            batch_size=self.micro_batch,
            sampler=EndlessSampler(len(windows)),
            num_workers=workers,
            persistent_workers=True,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=random.seed,
        )
        self.stream: Iterator[Any] | None = None

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.stream is None:
            self.stream = iter(self.loader)
        return self.stream

    def prefetched(self) -> int:
        # The workers fill their queues while other contenders are measured.
        return self.loader.num_workers * self.loader.prefetch_factor if self.skip_prefetched else 0

    def close(self) -> None:
        self.stream = self.loader = None  # drops the last references to the workers, which then exit
