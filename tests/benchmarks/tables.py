"""The report of a speed measurement: tables in Markdown, with date, machine and versions."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import geometric_mean

from sousaphone.backbones.registry import REGISTRY
from sousaphone.hardware import device_name, pick_precision
from sousaphone.runs.provenance import provenance

from .clock import STAGES
from .concurrency import Pair
from .contenders import AUGMENTED, BASELINES, FLOAT32, OURS, SWEEP, Measured
from .floor import Rates
from .kernels import Kernel
from .overhead import Overhead
from .setting import Setting
from .small_sweep import EPOCHS, Trial

_PACKAGES = ("torch", "torchaudio", "transformers", "peft", "ray", "numpy", "soundfile")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


class Report:
    """Tables in Markdown, each printed when it is added."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.at = setting, datetime.now(UTC).isoformat()
        self.blocks: list[str] = []
        installed = {one.name: one.version for one in importlib.metadata.distributions()}
        versions = ", ".join(f"{name} {installed[name]}" for name in _PACKAGES if name in installed)
        self.add(
            f"{device_name(setting.device)}, {setting.cores} cores, {setting.scale} scale on {setting.device}, "
            f"{setting.threads} threads, {setting.batch} clips per step, best of {setting.rounds} rounds of "
            f"{setting.steps} steps; {versions}; commit {provenance()['git_commit']}; {self.at[:16]} UTC"
        )

    def add(self, block: str) -> None:
        self.blocks.append(block)
        print(f"\n{block}", flush=True)

    def add_training(self, measured: Sequence[Measured], rates: Mapping[str, Rates]) -> None:
        self._rates_of_training(measured)
        self._stages(measured)
        self._floor(measured, rates)

    def _rates_of_training(self, measured: Sequence[Measured]) -> None:
        rows = []
        for one in measured:
            for name in (SWEEP, OURS, FLOAT32, AUGMENTED, *BASELINES):
                if not one.precisions(name):
                    continue
                best = one.best(name)
                least = min(r.processor_ms for kind in one.precisions(name) for r in one.train[kind])
                evaluated = [one.evaluation[kind] for kind in one.precisions(name) if kind in one.evaluation]
                gain = f"{one.gain(name):.2f}×" if name in (SWEEP, OURS, FLOAT32) else ""
                rows.append(
                    (
                        _title(one.model),
                        name if name in one.train else one.faster(name),
                        f"{best.rate:.3g}",
                        f"{least:.3g} ms",
                        f"{max(r.rate for rounds in evaluated for r in rounds):.3g}" if evaluated else "",
                        f"{best.peak_mb:.0f} MiB" if best.peak_mb else "",
                        f"{gain}, processor {one.processor_gain():.2f}×" if name == OURS else gain,
                    )
                )
        head = ("backbone", "contender", "training, clips/s", "processor time per clip", "evaluation, clips/s")
        self.add("**Training**\n\n" + markdown((*head, "peak memory", "ours against the better baseline"), rows))
        as_run = geometric_mean([one.gain(one.as_run) for one in measured])
        alone = geometric_mean([one.gain() for one in measured])
        processor = geometric_mean([one.processor_gain() for one in measured])
        cache = ", ".join(f"{_title(one.model)} {one.cache_ms:.1f} ms" for one in measured)
        self.add(
            f"Geometric mean: {as_run:.2f}× in clips per second as a sweep runs here, {alone:.2f}× with one trial, "
            f"{processor:.2f}× in processor time per clip. Ours decodes and resamples each clip once, for all epochs "
            f"and trials of a sample rate: {cache} (0 if the cache existed)."
        )

    def _stages(self, measured: Sequence[Measured]) -> None:
        rows = [
            (_title(one.model), name, *(f"{one.fractions[name].get(stage, 0.0):.1%}" for stage in STAGES))
            for one in measured
            for name in (OURS, AUGMENTED, *map(one.faster, BASELINES))
            if name in one.fractions
        ]
        self.add("**Time of a training step by stage**\n\n" + markdown(("backbone", "contender", *STAGES), rows))

    def _floor(self, measured: Sequence[Measured], rates: Mapping[str, Rates]) -> None:
        chosen = pick_precision(self.setting.device, self.setting.scale)
        precision = {"bfloat16": "bf16", "float32": "fp32"}[chosen]
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
        head = (
            "backbone",
            "forward, Gop per clip",
            "backward",
            "front end",
            "memory traffic per clip",
            "floor",
            "measured",
            "gap",
        )
        products = ", ".join(f"{r.operations / 1e9:.0f} Gop/s in {name}" for name, r in rates.items())
        self.add(
            f"**The floor** (measured rates: matrix products {products}; memory {rate.bytes / 1e9:.0f} GB/s; "
            f"MFU against {precision})\n\n" + markdown((*head, "MFU"), rows)
        )

    def add_kernels(self, found: Mapping[str, Sequence[Kernel]]) -> None:
        for model, kernels in found.items():
            rows = [(f"{one.milliseconds:.3f}", str(one.launches), f"`{one.name[:100]}`") for one in kernels[:25]]
            total = sum(one.milliseconds for one in kernels)
            table = markdown(("ms", "launches", "kernel"), rows)
            self.add(f"**Kernels of a micro-batch, {_title(model)}**: {total:.2f} ms\n\n{table}")

    def add_sweep(self, trials: Sequence[Trial]) -> None:
        rows = [
            (
                _title(trial.model),
                "on" if trial.augment else "off",
                f"{trial.ready:.1f} s",
                f"{trial.epoch:.1f} s",
                f"{trial.stepping:.1f} s",
                f"{trial.total / 60:.1f} min",
                f"{trial.peak_mb / 1024:.1f} GiB",
            )
            for trial in trials
        ]
        head = (
            "backbone",
            "augmentation",
            "until its first step",
            "first epoch",
            "of that in training steps",
            f"{EPOCHS} epochs",
            "memory",
        )
        self.add(
            "**The default sweep over 10,000 clips**, one trial at a time, extrapolated from the first epoch\n\n"
            + markdown(head, rows)
            + f"\n\nAll trials: {sum(trial.total for trial in trials) / 60:.1f} minutes."
        )

    def add_concurrency(self, pairs: Mapping[str, Pair]) -> None:
        rows = [
            (_title(m), f"{p.alone:.0f}", f"{p.together:.0f}", f"{p.gain:.2f}×", f"{2 / p.slowdown:.2f}×")
            for m, p in pairs.items()
        ]
        head = ("backbone", "one trial, clips/s", "two at once", "wall", "by processor time")
        self.add("**Two trials of one thread each, augmented**\n\n" + markdown(head, rows))

    def add_startup(self, found: Mapping[str, tuple[float, float]]) -> None:
        rows = [(name, f"{wall:.2f} s", f"{used:.2f} s" if used else "") for name, (wall, used) in found.items()]
        self.add("**Start-up**\n\n" + markdown(("launch.py", "wall", "processor"), rows))

    def add_overhead(self, found: Overhead) -> None:
        self.add(
            f"**Sweep at tiny**: {found.count} trials, {found.at_once} at a time: {found.total:.0f} s for "
            f"{found.trained:.0f} s of training: {found.of_command:.1%} overhead, {found.of_trials:.1%} while "
            f"trials ran. Before the first trial {found.before:.1f} s, trials {found.trials:.0f} s, report and "
            f"shutdown {found.after:.1f} s."
        )

    def save(self, directory: Path) -> Path:
        """Write scale-device-day.md; it replaces an earlier file of the same day."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.setting.scale}-{self.setting.device}-{self.at[:10]}.md"
        path.write_text("\n\n".join(self.blocks) + "\n")
        return path


def _title(model: str) -> str:
    return REGISTRY[model].title
