"""Shortcomings of a set of experiments, and why its results may be unreliable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from analysis.compare.experiments import Experiment, arm_title
from analysis.run_summary import Findings
from sousaphone.runs.statuses import Status
from sousaphone.text import counted, first_few

_MOST_NAMES = 3


def shortcomings(experiments: Sequence[Experiment], run: Findings | None) -> list[str]:
    """Return one sentence per shortcoming; for a run (`run`), whose records are checked, only missing results."""
    found = _unfinished(experiments)
    if run is not None:
        return [*found, *([run.banner] if run.banner else [])]
    return [*found, *_scores(experiments), *_repetitions(experiments), *_origins(experiments)]


def _unfinished(experiments: Sequence[Experiment]) -> list[str]:
    found = []
    bad = [each for each in experiments if not each.full and each.status not in (Status.RUNNING, Status.PENDING)]
    if bad:
        causes = Counter(each.error or "no reason is recorded" for each in bad).most_common(_MOST_NAMES)
        reasons = "; ".join(f"{cause} ({count})" for cause, count in causes)
        found.append(f"{len(bad)} of {len(experiments)} did not finish: {reasons}")
    running = [each for each in experiments if each.status == Status.RUNNING]
    if running:
        last = max(each.began for each in running)
        since = f"; the last of them started {last[:19].replace('T', ' ')}" if last else ""
        found.append(f"{len(running)} {'is' if len(running) == 1 else 'are'} recorded as running{since}")
    return found


def _scores(experiments: Sequence[Experiment]) -> list[str]:
    full = [each for each in experiments if each.full]
    known = [each.scores["test_acc"] for each in full if "test_acc" in each.scores]
    found = []
    if zeros := sum(value == 0 for value in known):
        found.append(
            f"{zeros} of {len(full)} completed have a test accuracy of exactly 0.0, worse than chance: either nothing "
            "was measured or the model was not trained"
        )
    if perfect := sum(value == 1 for value in known):
        found.append(f"{perfect} of {len(full)} completed have exactly 1.0, which is plausible only for very few clips")
    if missing := len(full) - len(known):
        found.append(f"{missing} of {len(full)} completed have no test accuracy")
    if without := sum(not each.validated for each in full):
        which = "no completed experiment has" if without == len(full) else f"{without} of {len(full)} completed lack"
        found.append(f"{which} a validation metric: no epoch was selected by it, and learning cannot be verified")
    return found


def _repetitions(experiments: Sequence[Experiment]) -> list[str]:
    groups: dict[str, list[Experiment]] = {}
    for each in experiments:
        groups.setdefault(repr(sorted(each.config.items(), key=lambda item: item[0])), []).append(each)
    repeated = [group for group in groups.values() if len(group) > 1]
    if not repeated:
        return []
    fewest, most = min(map(len, repeated)), max(map(len, repeated))
    times = f"{most} times" if fewest == most else f"{fewest} to {most} times"
    total = f"{counted(len(experiments), 'experiment')} are {counted(len(groups), 'configuration')}"
    found = [f"{total}: {len(repeated)} were run {times}, and it is not recorded which run counts"]
    differing = []
    for group in repeated:
        counts = sorted({each.trainable_params for each in group if each.trainable_params is not None})
        if len(counts) > 1:
            differing.append(f"{arm_title(group[0].arm)}: {' and '.join(f'{count:,}' for count in counts)}")
    if differing:
        found.append(
            "repetitions of a configuration have different numbers of trainable parameters: "
            + first_few(differing, separator="; ")
        )
    return found


def _origins(experiments: Sequence[Experiment]) -> list[str]:
    found = []
    commits = Counter(each.commit for each in experiments)
    if len(commits) > 1:
        counts = ", ".join(f"{commit[:10]} ({count})" for commit, count in commits.most_common(_MOST_NAMES))
        found.append(f"the experiments are from {len(commits)} commits: {counts}")
    known = {name for each in experiments for name in each.config}
    missing = [name.replace("_", " ") for name in ("seed", "learning_rate", "weights") if name not in known]
    names = ", ".join([*missing, "data fingerprint"])
    return [*found, f"not recorded: {names}, predictions; so no interval can be given"]
