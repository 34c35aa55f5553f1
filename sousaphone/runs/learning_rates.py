"""The learning rates that a search found: RUN/rates.json, written at its end, read by `--rates`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sousaphone.config import TrainConfig
from sousaphone.errors import UserError
from sousaphone.files import atomic_write
from sousaphone.runs.statuses import Status
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.text import counted

FILE = "rates.json"
_RANDOM = "random"


def write(run: Path, trials: Iterable[TrainConfig], records: Mapping[str, TrialRecord]) -> Iterator[str]:
    """Write what the search's trials found so far; yields it in words.

    The best rate has the lowest validation loss at the last epoch: after so few steps accuracies are coarse.

    Args:
        trials: all that are planned.
        records: of those that have begun, by trial.
    """
    waiting = {t.trial_id: TrialRecord(t.trial_id, dataclasses.asdict(t), Status.PENDING) for t in trials}
    known = {**waiting, **records}.values()
    rows = sorted((_row(record) for record in known), key=lambda row: (row["model"], row["learning_rate"]))
    found: dict[str, float] = {}
    for model in dict.fromkeys(row["model"] for row in rows):
        tried = [row for row in rows if row["model"] == model]
        whole = [row for row in tried if row["status"].is_full]
        if len(whole) < len(tried):
            ended = "; ".join(f"{row['learning_rate']:g} {row['status']}" for row in tried if row not in whole)
            yield f"{model}: not every rate came to its end ({ended})"
        if not whole or any(row["status"] is not Status.DIVERGED for row in tried if row not in whole):
            continue  # a rate that is too high may diverge, and is out; any other end leaves the question open
        best = min(whole, key=lambda row: row["val_loss"])
        found[model] = best["learning_rate"]
        edge = best in (tried[0], tried[-1])
        yield (
            f"{model}: learning rate {best['learning_rate']:g}, val_loss {best['val_loss']:.3f}, val_acc "
            f"{best['val_acc']:.1%}" + ("; at the edge of the grid, a better one may lie beyond" if edge else "")
        )
    settings = {key: rows[0][key] for key in ("scale", "strategy", "lora_targets", "dataset", "epochs")}
    content = {**settings, "selected_by": "val_loss of the last epoch", "found": found, "table": rows}
    with atomic_write(run / FILE) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    yield f"rates: {run / FILE}" + (f"; to use them: --rates {run / FILE}" if found else "; none is settled yet")


def _row(record: TrialRecord) -> dict[str, Any]:
    config = record.config
    settings = ("model", "learning_rate", "scale", "strategy", "lora_targets", "dataset", "epochs", "seed", "augment")
    last = record.history[-1] if record.history else {}
    return {
        **{key: config.get(key) for key in settings},
        "limit_train_batches": config.get("limit_train_batches"),
        "pretrained": config.get("weights") != _RANDOM,
        "status": record.status,
        **{key: last.get(key) for key in ("val_loss", "val_acc", "val_macro_f1")},
    }


def read(
    file: str, scale: str, strategy: str, lora_targets: str, weights: Mapping[str, str]
) -> tuple[dict[str, float], str]:
    """The rates of a file, for the backbones that it has, and how they were found, in words.

    Args:
        weights: by backbone, what the sweep will start from.

    Raises:
        UserError: it is no such file, or was found for another scale, another strategy or other weights: what suits a
            nano or a random network says nothing about a published one.
    """
    path = Path(file).expanduser()
    try:
        path = path / FILE if path.is_dir() else path
        content = json.loads(path.read_text(encoding="utf-8"))
        found = {str(model): float(rate) for model, rate in content["found"].items()}
        searched = {key: content[key] for key in ("scale", "strategy", "lora_targets")}
        pretrained = {row["model"]: bool(row["pretrained"]) for row in content["table"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not in the form that such a run writes"
        raise UserError(
            f"--rates {file}: {path} cannot be read ({why}); give the {FILE} of a run of --config rates"
        ) from None
    wanted = {"scale": scale, "strategy": strategy, "lora_targets": lora_targets}
    if strategy != "lora":
        del wanted["lora_targets"]
    other = [
        f"{key.replace('_', ' ')} {searched[key]}, not {value}"
        for key, value in wanted.items()
        if searched[key] != value
    ]
    other += [
        f"{model} with {'pretrained' if pretrained[model] else 'random'} weights"
        for model in found
        if model in weights and pretrained[model] != (weights[model] != _RANDOM)
    ]
    if other:
        raise UserError(
            f"--rates {file}: its rates were found for {'; '.join(other)}, and say nothing about others; search again "
            "with --config rates and the settings of this sweep, or leave --rates out"
        )
    used = {model: rate for model, rate in found.items() if model in weights}
    return used, _conditions(content, used)


def _conditions(content: Mapping[str, Any], used: Mapping[str, float]) -> str:
    """What a search heard, for how long, and which of its rates stand at the edge of what was tried."""
    rows = [row for row in content["table"] if row["model"] in used]
    steps = {row.get("limit_train_batches") for row in rows} - {None}
    told = f"searched on {content.get('dataset')}, {counted(content.get('epochs'), 'epoch')}"
    told += f" of {counted(min(steps), 'step')}" if steps else ""
    grids = {model: [row["learning_rate"] for row in rows if row["model"] == model] for model in used}
    edge = [model for model, rate in used.items() if rate in (min(grids[model]), max(grids[model]))]
    return told + (f"; at the edge of the rates tried: {', '.join(edge)}" if edge else "")
