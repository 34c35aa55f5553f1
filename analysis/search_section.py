"""The section of a search in the report, as content blocks, and its tables as files."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator

import pandas as pd

from analysis.run_summary import Findings, formatted
from analysis.stats.arms import in_words as settings_in_words
from analysis.stats.arms import title
from analysis.stats.gain import Interval, gain, score_interval
from analysis.stats.importance import FEW_POINTS
from analysis.stats.search_results import Configuration, SearchResults
from analysis.stats.slices import possible
from analysis.write.blocks import Block, Code, Table, Text
from sousaphone.runs.directory import SWEEP_COMMAND
from sousaphone.scores import FEWEST_PLAYERS
from sousaphone.text import counted, in_words

_MOST_ROWS = 40  # of the table of configurations
_SAMPLERS = {"tpe": "Optuna's TPE", "qmc": "quasi-random points"}


def search_blocks(found: Findings) -> Iterator[Block]:
    """Yield the section; nothing for a sweep without a search."""
    results = found.search
    if results is None or not results.configurations:
        return
    yield Text(_design(results))
    yield from _best(found, results)
    yield from _gains(found, results)
    yield from _importances(results)
    yield from _configurations(results)
    if any(trial.full for own in results.configurations.values() for each in own for trial in each.finals):
        yield Text(
            "A sweep of these backbones, each with the settings of its best finalist (by validation, mean over seeds):"
        )
        yield Code(shlex.join([*SWEEP_COMMAND, *_options_of_use(found, results)]))


def _options_of_use(found: Findings, results: SearchResults) -> Iterator[str]:
    """Yield the options of a sweep with the same backbones, data and length, so that no arm of it is untuned."""
    request = found.request
    yield from ("--from", str(found.path), "--models", *results.search.models)
    yield from ("--augment", "on" if True in request.get("augment", ()) else "off")
    for option, name in (("--dataset", "dataset"), ("--data-dir", "data_dir"), ("--epochs", "epochs")):
        if value := request.get(name):
            yield from (option, str(value))


def _design(results: SearchResults) -> str:
    search = results.search
    planned = f", planned for {in_words(search.seconds)}" if search.seconds else ""
    rungs = [f"{steps:,}" for steps in search.rungs]
    compared = (
        f"After {' and '.join(rungs[:-1])} optimiser steps (rungs) they are compared, and the best continue, about one "
        f"in {search.reduction} at each rung; the full length is {rungs[-1]} steps. The default is never stopped. "
        if len(rungs) > 1
        else ""
    )
    return (
        f"Each backbone gets {counted(search.configurations, 'configuration')}{planned}: the untuned default "
        f"(number 0) and others, proposed by {_SAMPLERS.get(search.sampler, search.sampler)} with seed {search.seed}. "
        f"{compared}All scores of the search are macro F1 on the validation clips; the test clips are scored for the "
        f"finalists alone, which are the untuned default and the best {search.finalists} other configurations of each "
        "backbone, trained again with the seeds of the sweep."
    )


def _best(found: Findings, results: SearchResults) -> Iterator[Block]:
    rows = []
    for model, own in results.configurations.items():
        best, default, steps = results.best(model), results.default(model), results.steps(model)
        interval = score_interval(best.trial, results.validation, found.unit) if best else None
        rows.append(
            (
                title(model),
                f"{len(own)} of {results.search.configurations}",
                f"{steps[0]:,}",
                _score(default.score if default else math.nan),
                _described(best) if best else "–",
                _score(best.score if best else math.nan),
                _ends(interval, ".3f") if interval else "–",
                interval.over if interval else "–",
                ", ".join(map(str, results.reached(model))),
                f"{steps[1]:,}",
            )
        )
    head = ("backbone", "configurations", "steps", "default", "best configuration", "best", "95 % interval", "over")
    extra = ("reached each rung", "steps of finalists")
    yield Text(
        "What was spent on each backbone (configurations, optimiser steps), and the validation macro F1 of its untuned "
        "default and of its best configuration:"
    )
    yield Table((*head, *extra), rows, wordy=("best configuration",), extra=extra)
    yield Text(
        f"The best of several scores is too high on average, since it is selected for its luck as well; the interval "
        f"does not include this. The interval is the wider of one over validation {found.unit}s and one over clips; "
        f"with fewer than {FEWEST_PLAYERS} {found.unit}s, or without validation predictions, it is over clips alone."
    )


def _gains(found: Findings, results: SearchResults) -> Iterator[Block]:
    measured = {model: gain(results, model, found.predictions, found.unit) for model in results.configurations}
    gains = {model: each for model, each in measured.items() if each is not None}
    if not gains:
        return
    yield Text(
        "Accuracy on the test clips of the best tuned configuration (selected by validation) minus that of the untuned "
        "default of the same backbone, both trained with the same seeds; percentage points, not adjusted for the "
        "number of rows:"
    )
    rows = [
        (
            title(model),
            _described(each.tuned),
            f"{each.seeds}",
            f"{100 * each.difference:+.1f}",
            _ends(each.interval, "+.1f", 100, limited=False),
            each.interval.over,
        )
        for model, each in gains.items()
    ]
    head = ("backbone", "tuned configuration", "seeds", "percentage points", "95 % interval", "over")
    yield Table(head, rows, wordy=("tuned configuration",))


def _importances(results: SearchResults) -> Iterator[Block]:
    rows = [
        (
            title(model),
            each.name,
            f"{each.importance:.0%}",
            f"{each.p:.3f}",
            "effect visible" if each.is_visible else "no effect visible",
        )
        for model, own in results.importances.items()
        for each in own
    ]
    if not rows:
        return
    points = {model: len(results.compared(model)[0]) for model in results.importances}
    yield Text(
        f"Importance of the settings for the score at the first rung ({min(results.search.rungs):,} steps), which all "
        "configurations reach; a configuration that diverged before counts as 0. Importance (fANOVA) divides the "
        "variation of the scores, noise included, among the settings. Whether an effect is visible is tested: p is the "
        "fraction of 1,000 orders of the scores (the observed one and 999 permutations) that a curve of the setting "
        "fits at least as well as the observed one, adjusted by Holm's method for the number of settings; visible "
        "at 0.05."
    )
    yield Table(("backbone", "setting", "importance", "p", "effect"), rows)
    if few := [f"{title(model)} {number}" for model, number in points.items() if number < FEW_POINTS]:
        yield Text(
            f"Fewer than {FEW_POINTS} configurations ({', '.join(few)}): importances are unreliable, and only large "
            "effects are visible. No visible effect does not mean that a setting has none."
        )


def _configurations(results: SearchResults) -> Iterator[Block]:
    rungs = results.search.rungs
    most = max(1, _MOST_ROWS // len(results.configurations))
    rows, hidden = [], 0
    for own in results.configurations.values():
        ordered = sorted(own, key=lambda c: (-results.search.ladder.reached(c.steps), -c.score, c.number))
        hidden += len(ordered[most:])
        rows += [
            (
                each.name,
                settings_in_words(each.settings),
                *(_score(each.tried.score_at(steps) if each.steps >= steps else math.nan) for steps in rungs),
                f"{each.steps:,}",
                results.outcome(each),
                each.trial.trial_id,
            )
            for each in ordered[:most]
        ]
    yield Text(
        "The configurations, those that trained furthest first, with the best score up to each rung. They continue or "
        "stop as results arrive, so a configuration may be stopped although its final rank would have been enough:"
    )
    heads = [f"{steps:,} steps" for steps in rungs]
    head = ("configuration", "settings", *heads, "optimiser steps", "outcome", "trial")
    yield Table(head, rows, wordy=("settings", "outcome"), extra=("trial",))
    if hidden:
        yield Text(f"and {hidden} more, all in search.csv.")


def search_table(results: SearchResults) -> pd.DataFrame:
    """Return the table of search.csv: one row for each configuration, with its settings and its score at each rung."""
    rungs = results.search.rungs
    return pd.DataFrame(
        [
            {
                "trial_id": each.trial.trial_id,
                "model": model,
                "number": each.number,
                "default": "true" if each.default else "false",
                **{name: each.settings.get(name) for name in results.settings},
                **{f"score_at_{n}": each.tried.score_at(n) if each.steps >= n else math.nan for n in rungs},
                "steps": each.steps,
                "score": each.score if math.isfinite(each.score) else math.nan,
                "status": each.trial.status,
                "outcome": " ".join(results.outcome(each).split()),
                "finalist": "true" if each.finals else "false",
            }
            for model, own in results.configurations.items()
            for each in own
        ]
    )


def importance_table(results: SearchResults) -> pd.DataFrame:
    """Return the table of importance.csv: one row for each backbone and setting that varies."""
    rows = [(model, each.name, each.importance, each.p) for model, own in results.importances.items() for each in own]
    return pd.DataFrame(rows, columns=["model", "setting", "importance", "p"])


def _described(each: Configuration) -> str:
    return f"{each.number}{' (untuned default)' if each.default else ''}: {settings_in_words(each.settings)}"


def _score(value: float) -> str:
    return formatted(value if math.isfinite(value) else None, ".3f")


def _ends(interval: Interval, style: str, scale: float = 1.0, limited: bool = True) -> str:
    if math.isnan(interval.low):
        return "–"
    ends = (possible(end) if limited else end for end in (interval.low, interval.high))
    return " to ".join(format(scale * end, style) for end in ends)
