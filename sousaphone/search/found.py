"""What a search has found for each backbone, for `--from RUN`."""

from __future__ import annotations

from collections.abc import Collection
from statistics import fmean
from typing import Any

from sousaphone.config import TrainConfig
from sousaphone.errors import UserError
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.learning_rates import Found
from sousaphone.search.design import SCORE
from sousaphone.search.progress import Progress
from sousaphone.text import counted


def found_settings(run: RunDirectory, models: Collection[str]) -> Found:
    """Return the searched settings of the best finalist of each of these backbones, by its mean validation score over
    seeds; raise a UserError if no finalist has finished."""
    progress = Progress.read(run)
    scores: dict[tuple[str, str], dict[TrainConfig, float]] = {}
    for name, record in progress.records.items():
        trial = progress.trials[name]
        if trial.model in models and trial.score_test and record.status.is_full:
            scores.setdefault((trial.model, trial.tag), {})[trial] = record.best.get(SCORE) or 0.0
    if not scores:
        raise UserError(f"--from {run.path}: its search has no finished finalists; to resume: {run.resume_command}")
    settings: dict[str, dict[str, Any]] = {}
    pretrained: dict[str, bool] = {}
    for (model, _), own in sorted(scores.items(), key=lambda item: fmean(item[1].values())):  # the best is last
        best = next(iter(own))
        settings[model] = {name: getattr(best, name) for name in progress.search.varied(model)}
        pretrained[model] = best.weights != "random"
    search = progress.search
    return Found(
        settings,
        pretrained,
        scale=best.scale,
        strategy=best.strategy,
        lora_targets=best.lora_targets,
        description=f"searched on {best.dataset}, {counted(search.configurations, 'configuration')} of each backbone, "
        f"up to {counted(best.epochs, 'epoch')}",
    )
