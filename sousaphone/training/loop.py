"""Training of one model without Ray: `fit`, a generator of epochs.

The random numbers of an epoch depend only on (seed, epoch), so a checkpoint needs no RNG state and a resumed trial
repeats the uninterrupted one: bit for bit on a CPU at an equal number of threads; on CUDA up to rounding, since
attention adds gradients in no fixed order there.
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

from sousaphone import lora
from sousaphone.backbones.frontends import to_float
from sousaphone.config import TrainConfig
from sousaphone.data.batches import ClipSet
from sousaphone.data.prepare import TrialData
from sousaphone.errors import UserError
from sousaphone.model import RudimentClassifier
from sousaphone.runs.statuses import Cause
from sousaphone.training import augment, metrics
from sousaphone.training.device_clock import DeviceClock
from sousaphone.training.rank_allocation import IMPORTANCE, RankAllocation
from sousaphone.training.scoring import FinalScores, Scores, evaluate, final_metrics, score_all
from sousaphone.training.step import MicroBatch, micro_batch_of

# Called between batches with the epoch number and the completed fraction of its training; an exception ends the epoch.
# Time limits, hang detection and progress displays use it.
Tick = Callable[[int, float], None]


class DivergedError(RuntimeError):
    """The loss is NaN or infinite."""


@dataclass(frozen=True)
class Epoch:
    """A completed epoch."""

    number: int  # from 1
    # Numbers by name, in the last epoch including those of `final_metrics`. `epoch_seconds` is the wall time of the
    # training steps, `processor_seconds` the time that the device worked on them (see `DeviceClock`), and
    # `wall_seconds` the time of the whole epoch with its evaluation.
    metrics: dict[str, Any]
    end: Cause | None  # why the trial ends with this epoch, None if it continues
    state: dict[str, Any]  # input for `fit` to resume from here: tensors on the CPU and plain data
    # In the last epoch, the scores of the best state by clip set: `val`, `test` and the additional sets.
    final: Mapping[str, FinalScores] = field(default_factory=dict)

    @property
    def test(self) -> Scores | None:
        """The scores of the test clips' centre windows, None except in the last epoch."""
        return self.final["test"].centre if "test" in self.final else None


def fit(
    config: TrainConfig,
    model: RudimentClassifier,
    data: TrialData,
    state: dict[str, Any] | None = None,
    tick: Tick = lambda epoch, fraction: None,
    beat: Tick | None = None,
) -> Iterator[Epoch]:
    """Train and yield each epoch. The last one also has the test scores, of the weights with the best validation score.

    Args:
        model: a model from `build_model(config)`; it is trained in place and has its best weights at the end.
        state: the state of an epoch of an earlier call, to resume after it; a completed trial yields nothing.
        tick: called between batches.
        beat: called instead of `tick` in the final scoring: an exception of a time limit there would lose the epoch,
            whose training is complete.

    Raises:
        UserError: `state` belongs to another base model or configuration.
        DivergedError: the loss is NaN or infinite.
    """
    model.place(config)
    optimizer, micro_batch = make_optimizer(model, config), micro_batch_of(config, model)
    # train_ce is measured on evenly spaced training clips, as many as there are validation clips.
    count = min(len(data.train), len(data.validation))
    probe_rows = [i * len(data.train) // count for i in range(count)]
    history: list[dict[str, Any]] = []
    best: dict[str, Any] = {"epoch": 0, "score": -math.inf, "model": model.trained_state()}
    if state is not None:
        if not fits(config, model, state):
            raise UserError("the tensors of the state are not those of this model; resume from another checkpoint")
        model.load_trained_state(state["model"])
        groups = optimizer.state_dict()["param_groups"]  # functions of the configuration, and of torch's version
        optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": groups})
        history, best = list(state["history"]), state["best"]

    end: Cause | None = None
    while end is None and not (state and state["end"]):
        number = len(history) + 1
        began = time.perf_counter()
        torch.manual_seed(epoch_seed(config.seed, number))
        score = partial(evaluate, config, model, tick=partial(tick, number, 1.0), micro_batch=micro_batch)
        row: dict[str, Any] = train_epoch(config, model, data.train, optimizer, micro_batch, number, tick)
        probe = score(data.train, probe_rows)
        row["train_ce"] = metrics.cross_entropy(probe.logits, probe.labels)
        row.update(score(data.validation).metrics("val"))
        _check_finite(row, "val_loss")  # the model may have diverged in the last step of the epoch
        if row["val_macro_f1"] > best["score"]:
            best = {"epoch": number, "score": row["val_macro_f1"], "model": model.trained_state()}
        row["best_epoch"] = best["epoch"]
        if number >= config.epochs:
            end = Cause.ALL_EPOCHS
        elif number - best["epoch"] >= config.patience:
            end = Cause.PATIENCE
        # The state at the end of this epoch, saved before the best state is loaded for the test.
        trained = model.trained_state()
        moments = optimizer.state_dict()
        moments["state"] = {
            index: {name: value.detach().cpu().clone() for name, value in tensors.items()}
            for index, tensors in moments["state"].items()
        }
        final: dict[str, FinalScores] = {}
        if end is not None:
            model.load_trained_state(best["model"])
            final = score_all(config, model, data, tick=partial(beat or tick, number, 1.0), micro_batch=micro_batch)
            row.update(final_metrics(final))
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
        yield Epoch(number, row, end, now, final)


def cut_short(
    config: TrainConfig,
    model: RudimentClassifier,
    data: TrialData,
    state: dict[str, Any],
    end: Cause,
    tick: Tick = lambda epoch, fraction: None,
) -> Epoch:
    """Score the best state of an interrupted trial and return its last completed epoch with these scores.

    The epoch keeps the given state, so that the trial can later be resumed as if it had not been interrupted.
    """
    model.place(config)
    model.load_trained_state(state["best"]["model"])
    last = state["history"][-1]
    final = score_all(config, model, data, tick=partial(tick, last["epoch"], 1.0))
    return Epoch(last["epoch"], {**last, **final_metrics(final)}, end, state, final)


def train_epoch(
    config: TrainConfig,
    model: RudimentClassifier,
    clips: ClipSet,
    optimizer: torch.optim.Optimizer,
    micro_batch: MicroBatch,
    epoch: int,
    tick: Tick = lambda epoch, fraction: None,
) -> dict[str, Any]:
    """Train for one pass over the clips, or `limit_train_batches` steps of it, and return the training metrics. On CUDA
    no step waits for the GPU."""
    model.train()
    device = torch.device(config.device)
    rate, samples = model.backbone.spec.sample_rate, round(config.clip_seconds * model.backbone.spec.sample_rate)
    rng = torch.Generator().manual_seed(epoch_seed(config.seed, epoch))
    effective = config.micro_batch * config.accumulation
    steps = math.ceil(len(clips) / effective)
    steps = min(steps, config.limit_train_batches or steps)
    planned = min(len(clips), steps * effective)
    loss_sum = torch.zeros((), device=device)
    done, peak = 0, 0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began, clock = time.perf_counter(), DeviceClock(device)
    ranks = RankAllocation(config, model)
    batches = clips.training_batches(effective, epoch, seconds=augment.window_seconds(config))
    for step, batch in zip(range(steps), batches, strict=False):
        clock.begin_step()
        taken = (epoch - 1) * steps + step
        set_learning_rate(optimizer, config.learning_rate, taken, config.warmup_epochs * steps, config.epochs * steps)
        wave, lengths = batch.wave, batch.lengths
        targets = F.one_hot(batch.labels, model.classes).float()
        if config.augment:
            wave, lengths = augment.augment_wave(wave, lengths, samples, rate, config, rng)
        # In micro-batches, since the spectra of a front end take more memory than its features.
        parts = zip(wave.split(config.micro_batch), lengths.split(config.micro_batch), strict=True)
        features = torch.cat([model.features(to_float(part), length) for part, length in parts])
        if config.augment:
            features = augment.mask_features(features, lengths, model.backbone.frontend, config, rng)
            features, targets = augment.mixup(features, targets, config, rng)
        micro_batch.begin()
        # Features, masks and mixup are computed for the whole step, so the micro-batch size affects only memory, the
        # order of dropout's random numbers and, under 'full', the statistics of batch norms.
        for part, target in zip(features.split(config.micro_batch), targets.split(config.micro_batch), strict=True):
            loss_sum += micro_batch.train(part, target, len(features))
            done += len(part)
            tick(epoch, done / planned)  # a step of a large model may take minutes on a CPU
        ranks.add_penalty()
        torch.nn.utils.clip_grad_norm_(micro_batch.trainable, config.max_grad_norm)
        ranks.step(optimizer, taken + 1, config.epochs * steps)
        clock.end_step()
        if device.type == "cpu":
            peak = max(peak, private_memory())
    train_loss = loss_sum.item() / done  # waits for the device
    seconds = time.perf_counter() - began
    if device.type == "cuda":
        peak = torch.cuda.max_memory_reserved()  # includes the memory of CUDA graphs, which is reserved, not allocated
    elif device.type == "mps":
        peak = torch.mps.driver_allocated_memory()
    row = {
        "epoch": epoch,
        "steps": epoch * steps,  # of the optimiser since the beginning of the trial
        "train_loss": train_loss,
        "learning_rate": optimizer.param_groups[0]["lr"],
        "epoch_seconds": seconds,
        "processor_seconds": clock.seconds(),
        "samples_per_second": done / seconds,
        "peak_memory_mb": peak / 2**20,
    }
    _check_finite(row, "train_loss")
    return row


def private_memory() -> int:
    """The resident memory of this process in bytes, without mapped files such as the waveforms: these occupy only free
    memory and would make larger data sets seem to need more (macOS does not distinguish the two)."""
    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


def _check_finite(row: dict[str, Any], name: str) -> None:
    if not math.isfinite(row[name]):
        raise DivergedError(f"{name} is {row[name]} in epoch {row['epoch']}; try a lower learning_rate")


def make_optimizer(model: RudimentClassifier, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters, fused on CUDA; vectors that multiply pretrained weights do not decay."""
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    scales = [p for name, p in trainable.items() if lora.is_scale(name)]
    return adamw(trainable.values(), config.learning_rate, config.weight_decay, scales, config.device == "cuda")


def adamw(
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    weight_decay: float,
    undecayed: Iterable[nn.Parameter] = (),
    fused: bool = False,
) -> torch.optim.AdamW:
    """AdamW with the usual weight decay on matrices only, except those `undecayed`."""
    parameters, kept = list(parameters), set(undecayed)
    decayed = [p for p in parameters if p.dim() > 1 and p not in kept]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1 or p in kept], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, fused=fused or None)


def set_learning_rate(optimizer: torch.optim.Optimizer, peak: float, step: int, warmup: float, total: float) -> None:
    """Set the rate of a linear warm-up followed by a cosine to zero; `step`, `warmup` and `total` are in steps."""
    if step < warmup:
        factor = (step + 1) / (warmup + 1)
    else:
        factor = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))
    for group in optimizer.param_groups:
        group["lr"] = peak * factor


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of one epoch; the factor keeps epochs distinct between seeds (seed 0, epoch 2 and seed 1, epoch 1)."""
    return seed * 1_000_003 + epoch


def fits(config: TrainConfig, model: RudimentClassifier, state: dict[str, Any]) -> bool:
    """Whether the tensors of a state of `fit` have the names, types and shapes of those of the model and its optimizer.

    Raises:
        UserError: `state` belongs to another base model or configuration.
    """
    _check_origin(state, config, model)
    optimizer = make_optimizer(model, config)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    groups, saved = optimizer.state_dict()["param_groups"], state["optimizer"]["param_groups"]
    names = ("params", "betas", "eps", "weight_decay")
    trained = (state["model"], state["best"]["model"])
    ranked = RankAllocation(config, model).parameters
    return (
        [[group[name] for name in names] for group in saved] == [[group[name] for name in names] for group in groups]
        and not any(differing for tensors in trained for differing in model.misfits(tensors).values())
        and all(
            index < len(parameters) and _are_moments(moments, parameters[index], parameters[index] in ranked)
            for index, moments in state["optimizer"]["state"].items()
        )
    )


def _are_moments(moments: Mapping[str, Tensor], parameter: nn.Parameter, ranked: bool) -> bool:
    kind = parameter.dtype, parameter.shape
    expected = {"step": (torch.float32, torch.Size()), "exp_avg": kind, "exp_avg_sq": kind}
    found = {name: (tensor.dtype, tensor.shape) for name, tensor in moments.items()}
    # A trial of few steps allocates no ranks.
    return found == expected or (ranked and found == expected | dict.fromkeys(IMPORTANCE, kind))


def _check_origin(state: dict[str, Any], config: TrainConfig, model: RudimentClassifier) -> None:
    if state["base"] != model.base_fingerprint:
        raise UserError(
            f"the checkpoint's base model ({state['base'][:12]}) differs from the present one "
            f"({model.base_fingerprint[:12]}); give the weights with which the trial started"
        )
    # Paths may change when a trial is resumed, and the division of a step, as after running out of memory; under 'full'
    # batch norms then continue with statistics of smaller batches.
    free = {"data_dir", "cache_dir", "weights", "micro_batch", "accumulation", "eval_batch"}
    now, then = dataclasses.asdict(config), state["config"]
    changed = [k for k, v in then.items() if k not in free and now.get(k) != v]
    if now["micro_batch"] * now["accumulation"] != then["micro_batch"] * then["accumulation"]:
        changed.append("micro_batch × accumulation")
    if changed:
        raise UserError(f"the checkpoint has another {', '.join(changed)}; resume with the same settings")
