"""Validation scores of a search with their intervals, and what tuning gained over the untuned default."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.load.predictions import correct_by_clip
from analysis.load.trials import Trial
from analysis.stats.confusion import counts_of, f1_of_each
from analysis.stats.contrast import contrast
from analysis.stats.search_results import Configuration, SearchResults
from analysis.stats.statistics import tango_interval
from sousaphone.scores import FEWEST_PLAYERS, mean_interval, wilson_interval
from sousaphone.text import counted


@dataclass(frozen=True)
class Interval:
    """A 95 % interval; NaN if unknown."""

    low: float
    high: float
    over: str  # what it is over, such as `8 players`


def score_interval(trial: Trial, rows: pd.DataFrame, unit: str = "player") -> Interval:
    """Return the 95 % interval of a trial's validation macro F1.

    From three players on, it is the wider of an interval over players (jackknife, with a t distribution) and Wilson's
    over clips, as if macro F1 were a fraction of them. With fewer players, or without predictions, it is that over
    clips alone.

    Args:
        rows: the trial's predictions on the validation clips; of other trials are ignored.
    """
    score = trial.best.get("val_macro_f1")
    own = rows[rows.trial_id == trial.trial_id] if len(rows) and trial.most_scored is None else rows.iloc[:0]
    planned = (trial.data.get("clips") or {}).get("validation") or 0
    clips = len(own) or min(planned, trial.most_scored or planned)
    if score is None or not clips:
        return Interval(math.nan, math.nan, "–")
    low, high = wilson_interval(min(max(score, 0.0), 1.0), clips)
    players = sorted(own.player.unique()) if len(own) else []
    if len(players) < FEWEST_PLAYERS:
        return Interval(low, high, counted(clips, "clip"))
    whole = counts_of(own, [trial.trial_id])
    without = [whole - counts_of(own[own.player == player], [trial.trial_id]) for player in players]
    all_players, *left = (float(np.nanmean(f1_of_each(each))) for each in (whole, *without))
    mean, least, _ = mean_interval([len(players) * all_players - (len(players) - 1) * each for each in left])
    half = mean - least
    return Interval(min(low, score - half), max(high, score + half), counted(len(players), unit))


@dataclass(frozen=True)
class Gain:
    """The accuracy of a backbone's best tuned configuration minus that of its untuned default, as fractions."""

    tuned: Configuration
    seeds: int  # with which both were trained
    difference: float
    interval: Interval


def gain(results: SearchResults, model: str, predictions: pd.DataFrame, unit: str = "player") -> Gain | None:
    """Compare the best tuned configuration of a backbone with its untuned default on the test clips, with the seeds
    that both have; None if there are none yet."""
    tuned, default = results.tuned(model), results.default(model)
    if tuned is None or default is None:
        return None
    finals = [_by_seed(each, predictions) for each in (tuned, default)]
    seeds = sorted(finals[0].keys() & finals[1].keys())
    if not seeds:
        return None
    names = [[own[seed] for seed in seeds] for own in finals]
    correct, players = correct_by_clip(predictions, [*names[0], *names[1]])
    first, second = (correct[own] for own in names)
    try:
        found = contrast(first, second, players)
    except ValueError:  # a single player
        by_clip = (first.mean(axis=1) - second.mean(axis=1)).to_numpy()
        gained, lost = (float(np.maximum(sign * by_clip, 0).sum()) for sign in (1, -1))
        interval = Interval(*tango_interval(gained, lost, len(by_clip)), counted(len(by_clip), "clip"))
        return Gain(tuned, len(seeds), float(by_clip.mean()), interval)
    interval = Interval(found.low, found.high, counted(found.players, unit))
    return Gain(tuned, len(seeds), found.difference, interval)


def _by_seed(each: Configuration, predictions: pd.DataFrame) -> Mapping[int, str]:
    """The finalist's trials that have all their results and test predictions, by seed."""
    scored = set(predictions.trial_id) if len(predictions) else set()
    return {int(t.config.get("seed") or 0): t.trial_id for t in each.finals if t.full and t.trial_id in scored}
