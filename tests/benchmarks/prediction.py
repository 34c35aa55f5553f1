"""Speed and memory of predictions on long recordings, by hand: python -m tests.benchmarks.prediction

Ours is `Predictor.predict`. The plain loop decodes the whole file, resamples it with torchaudio, and computes the
features of one window after the other with the libraries' own extractor, as their documentation shows it; it uses the
number of threads that is faster for it. Both score the same windows, and their logits must agree. Memory is the peak of
a process that names a recording of a minute and of one that names an hour.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from torchaudio.transforms import Resample

from sousaphone.backbones.registry import DEFAULT_SWEEP
from sousaphone.config import CLIP_SECONDS, TrainConfig
from sousaphone.deploy.predictor import Predictor
from sousaphone.deploy.scorers import TorchScorer
from sousaphone.deploy.segments import window_starts
from sousaphone.hardware import count_cpus
from sousaphone.model import build_model
from sousaphone.rudiments import SLUGS
from tests.benchmarks.extractors import extractor
from tests.deploy.members import untrained

RATE = 44_100
MEMORY = """
import resource, sys
from tests.benchmarks.prediction import make_predictor
make_predictor(sys.argv[1]).predict(sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
"""


def make_predictor(name: str, scale: str = "nano", precision: str = "float32") -> Predictor:
    """A model with random weights."""
    member = untrained(trial(name, scale, precision))
    return Predictor(member.config, [member.config.calibration], TorchScorer([member], "cpu", precision))


def trial(name: str, scale: str, precision: str = "float32") -> TrainConfig:
    return TrainConfig(model=name, scale=scale, clip_seconds=CLIP_SECONDS[scale], precision=precision)


def write_recording(path: Path, seconds: float) -> None:
    """Decaying noise strokes without pauses, eight per second."""
    with soundfile.SoundFile(path, "w", RATE, 2) as file:
        decay = np.exp(-(np.arange(RATE) % (RATE // 8)) / 900)[:, None]
        for second in range(round(seconds)):
            file.write(np.random.default_rng(second).uniform(-0.5, 0.5, (RATE, 2)) * decay)


def plain(model: Predictor, name: str, scale: str, path: Path) -> np.ndarray:
    """Logits [W, C] by the plain loop."""
    network = build_model(trial(name, scale), len(SLUGS)).eval()
    extract = extractor(network)
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    wave = Resample(rate, model.config.sample_rate)(torch.from_numpy(samples.mean(1))).numpy()
    found = []
    with torch.no_grad():
        for start in window_starts(len(wave), model.window, model.window // 2):
            features = extract(wave[start : start + model.window])
            found.append(network.classify(features[None])[0].numpy())
    return np.stack(found)


def ours(model: Predictor, path: Path) -> np.ndarray:
    """Log probabilities [W, C], which are logits up to a constant of each window."""
    return np.log(model.predict(path).probabilities)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="length of the recording whose speed is measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=list(DEFAULT_SWEEP))
    parser.add_argument("--scale", choices=CLIP_SECONDS, default="nano")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of ours")
    parser.add_argument("--no-memory", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "recording.wav")
        write_recording(path, options.seconds)
        for name in options.models:
            model = make_predictor(name, options.scale, options.precision)
            times: dict[str, list[float]] = {}
            processor: dict[str, list[float]] = {}
            for _ in range(options.rounds):
                for threads in (1, count_cpus()):
                    torch.set_num_threads(threads)
                    began = time.perf_counter(), time.process_time()
                    expected = plain(model, name, options.scale, path)
                    times.setdefault("plain", []).append(time.perf_counter() - began[0])
                    processor.setdefault("plain", []).append(time.process_time() - began[1])
                began = time.perf_counter(), time.process_time()
                found = ours(model, path)
                times.setdefault("ours", []).append(time.perf_counter() - began[0])
                processor.setdefault("ours", []).append(time.process_time() - began[1])
            centred = [each - each.mean(1, keepdims=True) for each in (found, expected)]
            difference = np.abs(centred[0] - centred[1]).max()
            best = {way: min(seconds) for way, seconds in times.items()}
            work = {way: min(seconds) for way, seconds in processor.items()}
            print(
                f"{name}: {options.seconds:g} s of audio, ours {best['ours']:.2f} s, plain {best['plain']:.2f} s, "
                f"{best['plain'] / best['ours']:.1f} times as fast; processor time {work['ours']:.2f} and "
                f"{work['plain']:.2f} s; logits differ by at most {difference:.1g}",
                flush=True,
            )
        if not options.no_memory:
            peaks = {}
            for minutes in (1, 60):
                write_recording(path, 60 * minutes)
                command = [sys.executable, "-c", MEMORY, options.models[0], str(path)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                peaks[minutes] = float(done.stdout)
            print(
                f"peak memory: a minute {peaks[1]:.0f} MiB, an hour {peaks[60]:.0f} MiB, "
                f"{peaks[60] / peaks[1]:.2f} times"
            )


if __name__ == "__main__":
    main()
