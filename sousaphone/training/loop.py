"""Training and evaluating one model: `fit`, a generator of epochs, and `evaluate`. No Ray anywhere.

Every random draw of an epoch is a function of (seed, epoch) alone, so a checkpoint needs no RNG state and a resumed
trial repeats the uninterrupted one: bit for bit on a CPU at an equal number of threads; on CUDA to within rounding,
since attention there adds gradients in no fixed order.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sousaphone.backbones.frontends import to_float
from sousaphone.config import TrainConfig
from sousaphone.data.batches import ClipSet
from sousaphone.data.prepare import TrialData
from sousaphone.errors import UserError
from sousaphone.model import RudimentClassifier
from sousaphone.runs.statuses import Cause
from sousaphone.training import augment, metrics
from sousaphone.training.step import MicroBatch, micro_batch_of

# Called between batches with the epoch's number and the share of its training that is done; what it raises ends the
# epoch in work. It is how time limits, stall watches and progress displays look in.
Tick = Callable[[int, float], None]


class DivergedError(RuntimeError):
    """The training loss is no longer a number."""


@dataclass(frozen=True)
class Scores:
    """Logits [N, C] and labels [N] of N clips, on the CPU, in the order of the clip set's table."""

    logits: Tensor
    labels: Tensor

    def named(self, prefix: str) -> dict[str, float]:
        """The metrics of these scores: `{prefix}_loss` (cross entropy, nats), `_acc`, `_macro_f1`, `_top5`."""
        return {
            f"{prefix}_loss": metrics.cross_entropy(self.logits, self.labels),
            f"{prefix}_acc": metrics.accuracy(self.logits, self.labels),
            f"{prefix}_macro_f1": metrics.macro_f1(self.logits, self.labels),
            f"{prefix}_top5": metrics.top_k(self.logits, self.labels),
        }


@dataclass(frozen=True)
class Epoch:
    """One finished epoch."""

    number: int  # 1 for the first
    # Flat numbers by name; the last epoch's hold the test metrics as well. `epoch_seconds` is the time in training
    # steps, `wall_seconds` that of the whole epoch with its evaluation.
    metrics: dict[str, Any]
    end: Cause | None  # why the trial ended with this epoch, None while it goes on
    state: dict[str, Any]  # what `fit` needs to go on from here; tensors on the CPU, all else plain data
    # On the last epoch, what was scored with the best state: `test` and the data's further sets, by name.
    tests: Mapping[str, Scores] = field(default_factory=dict)

    @property
    def test(self) -> Scores | None:
        """The test clips' scores, None but on the last epoch."""
        return self.tests.get("test")


def _no_tick(epoch: int, share: float) -> None:
    pass


def fit(
    config: TrainConfig,
    model: RudimentClassifier,
    data: TrialData,
    state: dict[str, Any] | None = None,
    tick: Tick = _no_tick,
) -> Iterator[Epoch]:
    """Train, yielding after each epoch; the last one is scored on the test clips from its best validation state.

    Args:
        model: as `build_model(config)` gives it; it is trained in place and left in its best state.
        state: of the last epoch of an earlier call, to go on from; a finished one yields nothing.
        tick: called between batches.

    Raises:
        UserError: `state` belongs to another base model or another configuration.
        DivergedError: the loss is NaN or infinite.
    """
    device = torch.device(config.device)
    model.place(device)
    optimizer, micro_batch = make_optimizer(model, config), micro_batch_of(config, model)
    history: list[dict[str, Any]] = []
    best: dict[str, Any] = {"epoch": 0, "score": -math.inf, "model": model.trained_state()}
    if state is not None:
        _check_state(state, config, model)
        model.load_trained_state(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        history, best = list(state["history"]), state["best"]

    end: Cause | None = None
    while end is None and not (state and state["end"]):
        number = len(history) + 1
        began = time.perf_counter()
        torch.manual_seed(epoch_seed(config.seed, number))
        score = partial(evaluate, config, model, tick=partial(tick, number, 1.0), micro_batch=micro_batch)
        row: dict[str, Any] = train_epoch(config, model, data.train, optimizer, micro_batch, number, tick)
        probe = score(data.train, _probe(data))
        row["train_ce"] = metrics.cross_entropy(probe.logits, probe.labels)
        row.update(score(data.validation).named("val"))
        _check_finite(row, "val_loss")  # the last step of an epoch may be the one that breaks the model
        if row["val_macro_f1"] > best["score"]:
            best = {"epoch": number, "score": row["val_macro_f1"], "model": model.trained_state()}
        row["best_epoch"] = best["epoch"]
        if number >= config.epochs:
            end = Cause.ALL_EPOCHS
        elif number - best["epoch"] >= config.patience:
            end = Cause.PATIENCE
        # The state is of this epoch's end, so it is taken before the best one is put in place for the test.
        trained, moments = model.trained_state(), _to_cpu(optimizer.state_dict())
        tests: dict[str, Scores] = {}
        if end is not None:
            model.load_trained_state(best["model"])
            tests = {name: score(clips) for name, clips in data.tests.items()}
            row.update(named(tests))
        row["wall_seconds"] = time.perf_counter() - began
        history = [*history, row]
        now = {
            "config": dataclasses.asdict(config),
            "base": model.base_fingerprint,
            "end": str(end.status) if end else None,
            "model": trained,
            "optimizer": moments,
            "history": history,
            "best": best,
        }
        yield Epoch(number, row, end, now, tests)


def cut_short(
    config: TrainConfig,
    model: RudimentClassifier,
    data: TrialData,
    state: dict[str, Any],
    end: Cause,
    tick: Tick = _no_tick,
) -> Epoch:
    """The last finished epoch of a trial that ends before its time, with the test clips scored from its best state.

    Its state is the one given: the trial may still be gone on with, as if it had never been cut.
    """
    model.place(torch.device(config.device))
    model.load_trained_state(state["best"]["model"])
    last = state["history"][-1]
    score = partial(evaluate, config, model, tick=partial(tick, last["epoch"], 1.0))
    tests = {name: score(clips) for name, clips in data.tests.items()}
    row = {**last, **named(tests)}
    return Epoch(row["epoch"], row, end, state, tests)


def named(tests: Mapping[str, Scores]) -> dict[str, float]:
    """The metrics of all scores, each under its set's name as prefix."""
    return {metric: value for name, scores in tests.items() for metric, value in scores.named(name).items()}


def evaluate(
    config: TrainConfig,
    model: RudimentClassifier,
    clips: ClipSet,
    rows: list[int] | None = None,
    tick: Callable[[], None] = lambda: None,
    micro_batch: MicroBatch | None = None,
) -> Scores:
    """Score the centre window of each clip (of `rows`, if given) without augmentation, in evaluation mode; with the
    model's own `micro_batch` its CUDA graph is used again."""
    micro_batch = micro_batch or MicroBatch(config, model)
    model.eval()
    logits, labels = [], []
    with torch.inference_mode():
        for number, batch in enumerate(clips.evaluation_batches(config.eval_batch, rows)):
            if config.limit_eval_batches is not None and number >= config.limit_eval_batches:
                break
            features = model.features(to_float(batch.wave), batch.lengths)
            logits.append(micro_batch.score(features))
            labels.append(batch.labels)
            tick()
    return Scores(torch.cat(logits).cpu(), torch.cat(labels).cpu())


def train_epoch(
    config: TrainConfig,
    model: RudimentClassifier,
    clips: ClipSet,
    optimizer: torch.optim.Optimizer,
    micro_batch: MicroBatch,
    epoch: int,
    tick: Tick = _no_tick,
) -> dict[str, Any]:
    """One pass over the training clips, or `limit_train_batches` steps of it; the metrics of its training.

    On CUDA nothing in a step waits for the GPU.
    """
    model.train()
    device = torch.device(config.device)
    rate, samples = model.backbone.spec.sample_rate, round(config.clip_seconds * model.backbone.spec.sample_rate)
    rng = torch.Generator().manual_seed(epoch_seed(config.seed, epoch))
    effective = config.micro_batch * config.accumulation
    steps = math.ceil(len(clips) / effective)
    if config.limit_train_batches is not None:
        steps = min(steps, config.limit_train_batches)
    planned = min(len(clips), steps * effective)
    trainable = [p for p in model.parameters() if p.requires_grad]
    loss_sum = torch.zeros((), device=device)
    heard, peak = 0, 0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    batches = clips.training_batches(effective, epoch, seconds=augment.window_seconds(config))
    for step, batch in zip(range(steps), batches, strict=False):
        taken = (epoch - 1) * steps + step
        set_learning_rate(optimizer, config.learning_rate, taken, config.warmup_epochs * steps, config.epochs * steps)
        wave, lengths = batch.wave, batch.lengths
        targets = F.one_hot(batch.labels, model.classes).float()
        if config.augment:
            wave, lengths = augment.augment_wave(wave, lengths, samples, rate, config, rng)
        # In parts as well: a front end's spectra take more memory than its features.
        parts = zip(wave.split(config.micro_batch), lengths.split(config.micro_batch), strict=True)
        features = torch.cat([model.features(to_float(part), sound) for part, sound in parts])
        if config.augment:
            features = augment.mask_features(features, model.backbone.frontend, config, rng)
            features, targets = augment.mixup(features, targets, config, rng)
        micro_batch.begin()
        # Features, masks and mixup are of the whole step, so micro-batches change memory and nothing else.
        for part, wanted in zip(features.split(config.micro_batch), targets.split(config.micro_batch), strict=True):
            loss_sum += micro_batch.train(part, wanted, len(features))
            heard += len(part)
            tick(epoch, heard / planned)  # a step of a large model may take minutes on a CPU
        torch.nn.utils.clip_grad_norm_(trainable, config.max_grad_norm)
        optimizer.step()
        if device.type == "cpu":
            peak = max(peak, _own_memory())
    train_loss = loss_sum.item() / heard
    seconds = time.perf_counter() - began
    if device.type == "cuda":
        peak = torch.cuda.max_memory_reserved()  # a recorded micro-batch holds its memory without allocating it
    elif device.type == "mps":
        peak = torch.mps.driver_allocated_memory()
    row = {
        "epoch": epoch,
        "train_loss": train_loss,
        "learning_rate": optimizer.param_groups[0]["lr"],
        "epoch_seconds": seconds,
        "samples_per_second": heard / seconds,
        "peak_memory_mb": peak / 2**20,
    }
    _check_finite(row, "train_loss")
    return row


def _own_memory() -> int:
    """Bytes that this process holds for itself: mapped files, as the waveforms are, take memory only while there is
    room, and would make a larger data set look as if it needed more (macOS does not tell them apart)."""
    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


def _check_finite(row: dict[str, Any], name: str) -> None:
    if not math.isfinite(row[name]):
        raise DivergedError(f"{name} is {row[name]} in epoch {row['epoch']}; try a lower learning_rate")


def make_optimizer(model: RudimentClassifier, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over what trains."""
    trainable = (p for p in model.parameters() if p.requires_grad)
    return adamw(trainable, config.learning_rate, config.weight_decay, fused=config.device == "cuda")


def adamw(
    parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float, fused: bool = False
) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices alone, as is the custom."""
    known = list(parameters)
    groups = [
        {"params": [p for p in known if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in known if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, fused=fused or None)


def set_learning_rate(optimizer: torch.optim.Optimizer, peak: float, step: int, warmup: float, total: float) -> None:
    """Linear warm-up, then cosine to zero; `step`, `warmup` and `total` in steps of the optimiser."""
    if step < warmup:
        share = (step + 1) / (warmup + 1)
    else:
        share = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))
    for group in optimizer.param_groups:
        group["lr"] = peak * share


def epoch_seed(seed: int, epoch: int) -> int:
    """What the random draws of one epoch come from."""
    # Far apart for neighbours: seed 0 in epoch 2 must not repeat seed 1 in epoch 1.
    return seed * 1_000_003 + epoch


def _probe(data: TrialData) -> list[int]:
    """Training clips on which train_ce is measured: evenly spread, as many as validation has."""
    count = min(len(data.train), len(data.validation))
    return [i * len(data.train) // count for i in range(count)]


def _to_cpu(value: Any) -> Any:
    """An optimiser's state dict with copies of its tensors on the CPU, so that later steps do not change it."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _to_cpu(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_to_cpu(item) for item in value]
    return value


def _check_state(state: dict[str, Any], config: TrainConfig, model: RudimentClassifier) -> None:
    if state["base"] != model.base_fingerprint:
        raise UserError(
            f"the checkpoint's base model ({state['base'][:12]}) is not the one built now "
            f"({model.base_fingerprint[:12]}); give the weights it was trained from"
        )
    # Where things lie may change between two starts, and how a step is divided; what is computed may not.
    free = {"data_dir", "cache_dir", "weights", "micro_batch", "accumulation", "eval_batch"}
    now, then = dataclasses.asdict(config), state["config"]
    changed = [k for k, v in then.items() if k not in free and now.get(k) != v]
    if now["micro_batch"] * now["accumulation"] != then["micro_batch"] * then["accumulation"]:
        changed.append("micro_batch × accumulation")
    if changed:
        raise UserError(f"the checkpoint was trained with another {', '.join(changed)}; resume with the same settings")
