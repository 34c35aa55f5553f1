"""Results of a learning-rate search: RUN/rates.json, written at its end and read by `--rates`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Required

from sousaphone.config import TrainConfig
from sousaphone.errors import UserError
from sousaphone.files import atomic_write, expanded
from sousaphone.runs import schema
from sousaphone.runs.statuses import Status
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.strategies import STRATEGIES
from sousaphone.text import counted

FILE = "rates.json"
_RANDOM = "random"
_ROW = schema.fields(
    model=Required[schema.Text],
    learning_rate=Required[schema.Number],
    pretrained=Required[bool],
    limit_train_batches=schema.Count | None,
)
_CONTENT = schema.fields(
    found=Required[dict[schema.Text, schema.Number]],
    table=Required[list[Annotated[Any, _ROW]]],
    dataset=schema.Text,
    epochs=schema.Count,
    **dict.fromkeys(("scale", "strategy", "lora_targets"), Required[schema.Text]),
)


def write(run: Path, trials: Iterable[TrainConfig], records: Mapping[str, TrialRecord]) -> Iterator[str]:
    """Write the rates found so far to RUN/rates.json; yield them as lines for the terminal.

    The best rate of a backbone has the lowest validation loss at the last epoch; accuracies of few validation clips are
    too coarse. A backbone has none while a trial has neither completed nor diverged. `records` are of the trials begun.
    """
    pending = {t.trial_id: TrialRecord(t.trial_id, dataclasses.asdict(t), Status.PENDING) for t in trials}
    known = {**pending, **records}.values()
    rows = sorted((_row(record) for record in known), key=lambda row: (row["model"], row["learning_rate"]))
    found: dict[str, float] = {}
    for model in dict.fromkeys(row["model"] for row in rows):
        tried = [row for row in rows if row["model"] == model]
        full = [row for row in tried if row["status"].is_full and None not in (row["val_loss"], row["val_acc"])]
        others = [row for row in tried if row not in full]
        if others:
            ends = "; ".join(f"{row['learning_rate']:g} {row['status']}" for row in others)
            yield f"{model}: some learning-rate trials did not finish ({ends})"
        if not full or any(row["status"] is not Status.DIVERGED for row in others):
            continue
        best = min(full, key=lambda row: row["val_loss"])
        found[model] = best["learning_rate"]
        edge = "; at the edge of the grid, a better rate may lie beyond" if best in (tried[0], tried[-1]) else ""
        yield (
            f"{model}: learning rate {best['learning_rate']:g}, val_loss {best['val_loss']:.3f}, val_acc "
            f"{best['val_acc']:.1%}{edge}"
        )
    settings = {key: rows[0][key] for key in ("scale", "strategy", "lora_targets", "dataset", "epochs")}
    content = {**settings, "selected_by": "val_loss of the last epoch", "found": found, "table": rows}
    with atomic_write(run / FILE) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    yield f"rates: {run / FILE}" + (f"; to use them: --rates {run / FILE}" if found else "; none is found yet")


def _row(record: TrialRecord) -> dict[str, Any]:
    config = record.config
    settings = ("model", "learning_rate", "scale", "strategy", "lora_targets", "dataset", "epochs", "seed", "augment")
    last = record.history[-1] if record.history else {}
    return {
        **{key: config.get(key) for key in (*settings, "limit_train_batches")},
        "pretrained": config.get("weights") != _RANDOM,
        "status": record.status,
        **{key: last.get(key) for key in ("val_loss", "val_acc", "val_macro_f1")},
    }


@dataclass(frozen=True)
class Found:
    """The settings that a search found for each backbone, and what it searched with."""

    settings: Mapping[str, Mapping[str, Any]]  # by backbone and field
    pretrained: Mapping[str, bool]  # by backbone: whether its weights were not random
    scale: str
    strategy: str
    lora_targets: str
    description: str  # of data and length of the search

    def check(self, option: str, scale: str, strategy: str, lora_targets: str, weights: Mapping[str, str]) -> None:
        """Raise a UserError if this was found for another scale, strategy or kind of weights: a setting found for a
        nano or random network does not apply to a published one."""
        wanted = {"scale": scale, "strategy": strategy}
        wanted |= {"lora_targets": lora_targets} if STRATEGIES[strategy].low_rank else {}
        differences = [
            f"{key.replace('_', ' ')} {own}, not {value}"
            for key, value in wanted.items()
            if (own := getattr(self, key)) != value
        ]
        differences += [
            f"{model} with {'pretrained' if self.pretrained[model] else 'random'} weights"
            for model in self.settings
            if self.pretrained[model] != (weights[model] != _RANDOM)
        ]
        if differences:
            raise UserError(
                f"{option}: its settings were found for {'; '.join(differences)}; search again with the settings of "
                f"this sweep, or leave {option.partition(' ')[0]} out"
            )


def read(option: str, file: str, models: Collection[str]) -> Found:
    """Read the rates of a file, for those of the backbones that it contains; raise a UserError if it is not one."""
    path = expanded(file)
    try:
        path = path / FILE if path.is_dir() else path
        content = schema.read(path, _CONTENT)
        pretrained = {row["model"]: row["pretrained"] for row in content["table"]}
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not a rates file"
        message = f"{option}: {path} cannot be read ({why}); give a run of --config rates, or its {FILE}"
        raise UserError(message) from None
    used = {m: rate for m, rate in content["found"].items() if m in pretrained and m in models}
    return Found(
        {model: {"learning_rate": rate} for model, rate in used.items()},
        pretrained,
        content["scale"],
        content["strategy"],
        content["lora_targets"],
        _describe_search(content, used),
    )


def _describe_search(content: Mapping[str, Any], used: Mapping[str, float]) -> str:
    """Return data and length of a search, and the backbones whose rate is at the edge of the grid."""
    rows = [row for row in content["table"] if row["model"] in used]
    steps = {row.get("limit_train_batches") for row in rows} - {None}
    description = f"searched on {content.get('dataset')}, {counted(content.get('epochs'), 'epoch')}"
    description += f" of {counted(min(steps), 'step')}" if steps else ""
    grids = {model: [row["learning_rate"] for row in rows if row["model"] == model] for model in used}
    edge = [model for model, rate in used.items() if rate in (min(grids[model]), max(grids[model]))]
    return description + (f"; at the edge of the rates tried: {', '.join(edge)}" if edge else "")
