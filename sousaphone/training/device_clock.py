"""Time for which the training device worked. Unlike wall time, it does not grow with other programs' load."""

from __future__ import annotations

import time

import torch


class DeviceClock:
    """Measure the time of training steps, starting when the clock is created.

    On a CPU: seconds of processor time of this process, the sum over its threads. On CUDA: seconds between the first
    and the last operation of each step on the GPU, without the gaps between steps. On mps: wall time.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_cuda = device.type == "cuda"
        self._now = time.process_time if device.type == "cpu" else time.perf_counter
        self._began = self._now()
        self._marks: list[torch.cuda.Event] = []  # start and end of each step in turn

    def begin_step(self) -> None:
        """Mark the start of a step; the CPU does not wait for the GPU."""
        if self._on_cuda:
            mark = torch.cuda.Event(enable_timing=True)
            mark.record()
            self._marks.append(mark)

    end_step = begin_step

    def seconds(self) -> float:
        """Return the seconds measured so far. The GPU must have finished its work."""
        if not self._on_cuda:
            return self._now() - self._began
        steps = zip(self._marks[::2], self._marks[1::2], strict=True)
        return sum(begin.elapsed_time(end) for begin, end in steps) / 1000
