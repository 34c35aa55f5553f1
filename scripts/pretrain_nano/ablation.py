"""Whether pretrained weights earn their place: under LoRA, on two data sets, against random ones.

Every arm is trained as a trial of the sweep is (`training.loop.fit`, the sweep's own settings), with several seeds. A
rule that is fixed beforehand then decides, and the table shows all of it, whatever it decides.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sousaphone.config import TrainConfig
from sousaphone.data.prepare import open_trial_data
from sousaphone.data.readers.sousa import read_dataset
from sousaphone.files import atomic_write
from sousaphone.model import build_model
from sousaphone.rudiments import SLUGS
from sousaphone.training.loop import fit
from sousaphone.weights import content_fingerprint

RANDOM, PRETRAINED = "random", "pretrained"
SEEDS = (0, 1, 2)
ERRORS = 3.0  # standard errors of the difference by which pretrained weights must beat random ones
DATA_SETS = 2  # on which they must: the built-in tiny one, and one from SOUSA's own generator
STEPS = 250  # of the optimiser: what the tiny sweep takes, ten epochs of 800 clips
RATE = 5e-3  # the sweep's own for nano backbones under LoRA (tune_configs)
METRICS = ("val_acc", "test_acc")


@dataclass(frozen=True)
class Ablation:
    """One training: a backbone, where it starts from, a data set by its name in the table, a seed."""

    model: str
    start: str
    data: str
    seed: int
    rate: float

    @property
    def file(self) -> str:
        return f"{self.model}-{self.start}-{self.data}-lr{self.rate:g}-s{self.seed}.json"


def plan(models: Sequence[str], data: Sequence[str], rates: Sequence[float]) -> list[Ablation]:
    """Every training that the comparison takes; random and pretrained weights get the same."""
    return [
        Ablation(model, start, name, seed, rate)
        for model in models
        for rate in rates
        for name in data
        for seed in SEEDS
        for start in (RANDOM, PRETRAINED)
    ]


def read(directory: Path, weights: Callable[[str], Path]) -> list[dict[str, Any]]:
    """All results that are kept, by the names of their files; but for those of other weights than there are now.

    Args:
        weights: where the pretrained file of a backbone is.
    """
    results: list[dict[str, Any]] = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("*.json"))
    ]
    files = {model: weights(model) for model in {result["model"] for result in results}}
    now = {model: content_fingerprint(str(path)) for model, path in files.items() if path.is_file()}
    return [each for each in results if each["start"] == RANDOM or each["weights"] == now.get(each["model"])]


def measure(
    arm: Ablation, weights: Path, data_dir: Path, cache_dir: Path, directory: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Train one arm, unless its result is there, and keep what came of it.

    Args:
        weights: the pretrained file of this backbone.
        directory: where results are kept, one JSON file each. One of other weights or clips is not taken for this
            one's.
    """
    source = str(weights) if arm.start == PRETRAINED else RANDOM
    origin = {"weights": content_fingerprint(source), "data_fingerprint": read_dataset(data_dir).fingerprint}
    told = {**dataclasses.asdict(arm), **origin, "steps": STEPS}
    path = directory / arm.file
    if path.is_file():
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if all(kept.get(key) == value for key, value in told.items()):
            return kept
    config = TrainConfig(
        model=arm.model,
        strategy="lora",
        scale="nano",
        weights=source,
        augment=False,
        seed=arm.seed,
        learning_rate=arm.rate,
        data_dir=str(data_dir),
        cache_dir=str(cache_dir),
    )
    model = build_model(config, len(SLUGS))
    data = open_trial_data(config, model.backbone.spec.sample_rate)
    # As many steps on a small set as on a large one: else the small one would show but the first of them.
    epochs = round(STEPS / math.ceil(len(data.train) / config.micro_batch))
    config = dataclasses.replace(config, epochs=epochs, patience=epochs)
    history = [epoch.metrics for epoch in fit(config, model, data)]
    last = history[-1]
    best = history[last["best_epoch"] - 1]
    result = {
        **told,
        "val_acc": best["val_acc"],
        "test_acc": last["test_acc"],
        "train_ce": best["train_ce"],
        "best_epoch": last["best_epoch"],
        "epochs": epochs,
        "clips": {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)},
    }
    directory.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    say(f"{path.stem}  val {result['val_acc']:.1%}  test {result['test_acc']:.1%}  ({epochs} epochs)")
    return result


@dataclass(frozen=True)
class Comparison:
    """One backbone on one data set at one rate: accuracies by start, over seeds."""

    model: str
    data: str
    rate: float
    scores: Mapping[str, Mapping[str, Sequence[float]]]  # metric -> start -> one a seed

    def mean(self, metric: str, start: str) -> float:
        return statistics.fmean(self.scores[metric][start])

    def error(self, metric: str, start: str) -> float:
        """The standard error of the mean over seeds."""
        values = self.scores[metric][start]
        return statistics.stdev(values) / math.sqrt(len(values))

    def lead(self, metric: str) -> float:
        return self.mean(metric, PRETRAINED) - self.mean(metric, RANDOM)

    def errors(self, metric: str) -> float:
        """The standard error of the lead."""
        return math.hypot(self.error(metric, PRETRAINED), self.error(metric, RANDOM))

    @property
    def earned(self) -> bool:
        """The test accuracy decides: validation chose the epoch, so it flatters both."""
        return self.lead("test_acc") > ERRORS * self.errors("test_acc")


def compare(results: Sequence[Mapping[str, Any]]) -> list[Comparison]:
    """One comparison for each backbone, data set and rate whose seeds are all there, in the order of the results."""
    cells: dict[tuple[str, str, float], list[Mapping[str, Any]]] = {}
    for result in results:
        cells.setdefault((result["model"], result["data"], result["rate"]), []).append(result)
    found = []
    for (model, data, rate), own in cells.items():
        scores = {m: {s: [r[m] for r in own if r["start"] == s] for s in (RANDOM, PRETRAINED)} for m in METRICS}
        if all(len(values) == len(SEEDS) for by_start in scores.values() for values in by_start.values()):
            found.append(Comparison(model, data, rate, scores))
    return found


def earns(comparisons: Sequence[Comparison], model: str) -> bool:
    """Whether a backbone's weights are to be shipped: they lead on both data sets, at the sweep's own rate."""
    return decided(comparisons, model) and all(each.earned for each in _own(comparisons, model))


def decided(comparisons: Sequence[Comparison], model: str) -> bool:
    """Whether a backbone was measured on both data sets, at the sweep's own rate."""
    return len(_own(comparisons, model)) == DATA_SETS


def verdict(comparisons: Sequence[Comparison], model: str) -> str:
    """The same in words."""
    own = _own(comparisons, model)
    if not decided(comparisons, model):
        return f"undecided: {len(own)} of {DATA_SETS} data sets are measured at rate {RATE:g}"
    behind = [each.data for each in own if not each.earned]
    if behind:
        return f"not shipped: no lead of more than {ERRORS:g} standard errors on {' and '.join(behind)}"
    return f"shipped: a lead of more than {ERRORS:g} standard errors on {' and '.join(each.data for each in own)}"


def _own(comparisons: Sequence[Comparison], model: str) -> list[Comparison]:
    return [each for each in comparisons if each.model == model and each.rate == RATE]


def table(comparisons: Sequence[Comparison]) -> str:
    """Markdown: means ± standard errors over seeds, and by how many standard errors pretrained weights lead."""
    lines = [
        "| backbone | data | rate | random: val | pretrained: val | random: test | pretrained: test | lead (test) | "
        "more than 3 SE |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in comparisons:
        cells = [
            f"{100 * each.mean(metric, start):.1f} ± {100 * each.error(metric, start):.1f}"
            for metric in METRICS
            for start in (RANDOM, PRETRAINED)
        ]
        lead, error = 100 * each.lead("test_acc"), 100 * each.errors("test_acc")
        times = f", {lead / error:.1f} SE" if error else ""
        verdict = "yes" if each.earned else "no"
        lines.append(
            f"| {each.model} | {each.data} | {each.rate:g} | {' | '.join(cells)} | {lead:+.1f}{times} | {verdict} |"
        )
    return "\n".join(lines)
