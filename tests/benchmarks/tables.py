"""What was measured as tables: on the terminal, and kept as Markdown and JSON with date, machine and versions."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from sousaphone.backbones.registry import REGISTRY
from sousaphone.hardware import device_name
from sousaphone.runs.provenance import provenance

from .clock import STAGES
from .concurrency import Pair
from .contenders import AUGMENTED, BASELINES, OURS, SWEEP, Measured
from .floor import Rates
from .kernels import Kernel
from .overhead import Overhead
from .setting import Setting
from .small_sweep import EPOCHS, Trial

_VERSIONS = ("torch", "torchaudio", "transformers", "peft", "ray", "numpy", "soundfile")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose source is aligned as well."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


class Report:
    """Everything is printed as it comes."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.blocks: list[str] = []
        self.data: dict[str, Any] = {"setting": dataclasses.asdict(setting), "at": datetime.now(UTC).isoformat()}
        self.data["machine"] = device_name(setting.device)
        self.data["versions"] = {name: _version(name) for name in _VERSIONS}
        self.data["commit"] = provenance()["git_commit"]
        versions = ", ".join(f"{name} {version}" for name, version in self.data["versions"].items() if version)
        self.add(
            f"{self.data['machine']}, {setting.cores} cores, {setting.scale} scale on {setting.device}, "
            f"{setting.threads} threads, {setting.batch} clips a step, best of {setting.rounds} rounds of "
            f"{setting.steps} steps; {versions}; {self.data['at'][:16]} UTC"
        )

    def say(self, line: str) -> None:
        """What goes on; not kept."""
        print(line, flush=True)

    def note(self, line: str) -> None:
        self.add(line)

    def add(self, block: str) -> None:
        self.blocks.append(block)
        print(f"\n{block}", flush=True)

    def add_training(self, measured: Sequence[Measured], rates: Mapping[str, Rates]) -> None:
        self.data["training"] = [dataclasses.asdict(one) for one in measured]
        self.data["rates"] = {name: dataclasses.asdict(rate) for name, rate in rates.items()}
        self._rates_of_training(measured)
        self._stages(measured)
        self._floor(measured, rates)

    def _rates_of_training(self, measured: Sequence[Measured]) -> None:
        rows = []
        for one in measured:
            for name in (SWEEP, OURS, AUGMENTED, *BASELINES):
                if not one.precisions(name):
                    continue
                best = one.best(name)
                least = min(r.processor_ms for kind in one.precisions(name) for r in one.train[kind])
                scored = [one.evaluation[kind] for kind in one.precisions(name) if kind in one.evaluation]
                gain = f"{one.gain(name):.2f}×" if name in (SWEEP, OURS) else ""
                rows.append(
                    (
                        _title(one.model),
                        name if name in one.train else one.faster(name),
                        f"{best.rate:.3g}",
                        f"{least:.3g} ms",
                        f"{max(r.rate for rounds in scored for r in rounds):.3g}" if scored else "",
                        f"{best.peak_mb:.0f} MB" if best.peak_mb else "",
                        f"{gain}, processor {one.processor_gain():.2f}×" if name == OURS else gain,
                    )
                )
        head = ("backbone", "contender", "training, clips/s", "processor time a clip", "evaluation, clips/s")
        self.add("**Training**\n\n" + markdown((*head, "peak memory", "ours to the better baseline"), rows))
        wall = geometric_mean([one.gain(one.as_run) for one in measured])
        alone = geometric_mean([one.gain() for one in measured])
        busy = geometric_mean([one.processor_gain() for one in measured])
        cache = ", ".join(f"{_title(one.model)} {one.cache_ms:.1f} ms" for one in measured)
        self.add(
            f"Geometric mean: {wall:.2f}× in clips per second as the program runs here, {alone:.2f}× with one trial, "
            f"{busy:.2f}× in processor time a clip. Ours decodes and "
            f"resamples each clip once, for all epochs and trials of a rate: {cache} (0 where the rate was there)."
        )

    def _stages(self, measured: Sequence[Measured]) -> None:
        rows = [
            (_title(one.model), name, *(f"{one.shares[name].get(stage, 0.0):.1%}" for stage in STAGES))
            for one in measured
            for name in (OURS, AUGMENTED, *map(one.faster, BASELINES))
            if name in one.shares
        ]
        self.add("**Where a training step's time goes**\n\n" + markdown(("backbone", "contender", *STAGES), rows))

    def _floor(self, measured: Sequence[Measured], rates: Mapping[str, Rates]) -> None:
        precision = "bf16" if self.setting.device == "cuda" else "fp32"
        rate, rows = rates[precision], []
        for one in measured:
            if (work := one.work) is None:
                continue
            best = one.best(OURS)
            least = work.seconds(rate, one.batch)
            rows.append(
                (
                    _title(one.model),
                    f"{work.forward / 1e9:.4g}",
                    f"{work.backward / 1e9:.4g}",
                    f"{work.frontend / 1e9:.4g}",
                    f"{work.bytes(one.batch) / 1e6:.1f} MB",
                    f"{1000 * least:.3g} ms",
                    f"{1000 / best.rate:.3g} ms",
                    f"{1 / best.rate / least:.1f}×",
                    f"{work.operations * best.rate / rate.operations:.1%}",
                )
            )
        head = ("backbone", "forward, Gop a clip", "backward", "front end", "moved a clip", "floor", "measured", "gap")
        told = ", ".join(f"{r.operations / 1e9:.0f} Gop/s in {name}" for name, r in rates.items())
        self.add(
            f"**The floor** (measured here: matrix products {told}; memory {rate.bytes / 1e9:.0f} GB/s; MFU against "
            f"{precision})\n\n" + markdown((*head, "MFU"), rows)
        )

    def add_kernels(self, found: Mapping[str, Sequence[Kernel]], most: int = 25) -> None:
        self.data["kernels"] = {model: [dataclasses.asdict(one) for one in kernels] for model, kernels in found.items()}
        for model, kernels in found.items():
            rows = [(f"{one.milliseconds:.3f}", str(one.launches), f"`{one.name[:100]}`") for one in kernels[:most]]
            whole = sum(one.milliseconds for one in kernels)
            table = markdown(("ms", "launches", "kernel"), rows)
            self.add(f"**The kernels of a micro-batch, {_title(model)}**: {whole:.2f} ms\n\n{table}")

    def add_sweep(self, trials: Sequence[Trial]) -> None:
        self.data["sweep"] = [dataclasses.asdict(trial) for trial in trials]
        rows = [
            (
                _title(trial.model),
                "on" if trial.augment else "off",
                f"{trial.ready:.1f} s",
                f"{trial.epoch:.1f} s",
                f"{trial.stepping:.1f} s",
                f"{trial.whole / 60:.1f} min",
                f"{trial.peak_mb / 1024:.1f} GB",
            )
            for trial in trials
        ]
        head = (
            "backbone",
            "augmentation",
            "until its first step",
            "first epoch",
            "of it training",
            f"{EPOCHS} epochs",
            "memory",
        )
        self.add(
            "**The default sweep over 10,000 clips**, one trial at a time; every epoch counted as long as the first\n\n"
            + markdown(head, rows)
            + f"\n\nAll trials: {sum(trial.whole for trial in trials) / 60:.1f} minutes."
        )

    def add_concurrency(self, pairs: Mapping[str, Pair]) -> None:
        self.data["concurrency"] = {name: dataclasses.asdict(pair) for name, pair in pairs.items()}
        rows = [
            (_title(m), f"{p.alone:.0f}", f"{p.together:.0f}", f"{p.gain:.2f}×", f"{2 / p.slowdown:.2f}×")
            for m, p in pairs.items()
        ]
        head = ("backbone", "one trial, clips/s", "two at once", "wall", "by processor time")
        self.add("**Two trials of one thread each, augmented**\n\n" + markdown(head, rows))

    def add_startup(self, found: Mapping[str, tuple[float, float]]) -> None:
        self.data["startup"] = dict(found)
        rows = [(name, f"{wall:.2f} s", f"{busy:.2f} s" if busy else "") for name, (wall, busy) in found.items()]
        self.add("**Start-up**\n\n" + markdown(("launch.py", "wall", "processor"), rows))

    def add_overhead(self, found: Overhead) -> None:
        self.data["overhead"] = dataclasses.asdict(found)
        self.add(
            f"**Sweep at tiny**: {found.count} trials, {found.at_once} at a time: {found.whole:.0f} s for "
            f"{found.trained:.0f} s of training: {found.share:.1%} overhead, {found.share_of_trials:.1%} of it while "
            f"trials ran. Before the first trial {found.before:.1f} s, trials {found.trials:.0f} s, report and end "
            f"{found.after:.1f} s."
        )

    def save(self, directory: Path) -> Path:
        """Both files under one name: scale, device and day; the newer of a day replaces the older."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.setting.scale}-{self.setting.device}-{self.data['at'][:10]}.md"
        path.write_text("\n\n".join(self.blocks) + "\n")
        path.with_suffix(".json").write_text(json.dumps(self.data, indent=1))
        return path


def _title(model: str) -> str:
    return REGISTRY[model].title


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
