"""What a set of experiments lacks, and why its numbers may then not be what they say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from analysis.compare.experiments import Experiment, arm_title
from analysis.run_summary import Findings
from sousaphone.rudiments import SLUGS
from sousaphone.runs.statuses import Status
from sousaphone.text import counted

CHANCE = 1 / len(SLUGS)
_MOST_NAMES = 3


def shortcomings(experiments: Sequence[Experiment], run: Findings | None) -> list[str]:
    """One sentence each; of a run of ours (`run`), whose records answer for themselves, only what is missing."""
    found = [*_ends(experiments)]
    if run is not None:
        return [*found, *([run.banner] if run.banner else [])]
    return [*found, *_tests(experiments), *_validation(experiments), *_repetitions(experiments), *_origins(experiments)]


def _ends(experiments: Sequence[Experiment]) -> list[str]:
    said = []
    bad = [each for each in experiments if not each.full and each.status not in (Status.RUNNING, Status.PENDING)]
    if bad:
        causes = Counter(each.error or "no reason is on record" for each in bad).most_common(_MOST_NAMES)
        words = "; ".join(f"{cause} ({count})" for cause, count in causes)
        said.append(f"{len(bad)} of {len(experiments)} did not run to their end: {words}")
    running = [each for each in experiments if each.status == Status.RUNNING]
    if running:
        last = max(each.began for each in running)
        since = f"; the last of them began {last[:19].replace('T', ' ')}" if last else ""
        said.append(f"{len(running)} {'is' if len(running) == 1 else 'are'} still called running{since}")
    return said


def _tests(experiments: Sequence[Experiment]) -> list[str]:
    full = [each for each in experiments if each.full]
    known = [each.scores["test_acc"] for each in full if "test_acc" in each.scores]
    said = []
    if zeros := sum(value == 0 for value in known):
        said.append(
            f"{zeros} of {len(full)} completed say a test accuracy of exactly 0.0, worse than guessing ({CHANCE:.1%}): "
            "so nothing was measured, or nothing that had been trained"
        )
    if perfect := sum(value == 1 for value in known):
        said.append(f"{perfect} of {len(full)} completed say exactly 1.0, which only a handful of clips can give")
    if missing := len(full) - len(known):
        said.append(f"{missing} of {len(full)} completed have no test accuracy")
    return said


def _validation(experiments: Sequence[Experiment]) -> list[str]:
    full = [each for each in experiments if each.full]
    without = sum(not each.validated for each in full)
    if not without:
        return []
    some = f"{without} of {len(full)} have no validation metric"
    how_many = "there is no validation metric anywhere" if without == len(full) else some
    return [f"{how_many}: no state was chosen by it, and whether anything was learnt cannot be seen"]


def _repetitions(experiments: Sequence[Experiment]) -> list[str]:
    groups: dict[str, list[Experiment]] = {}
    for each in experiments:
        groups.setdefault(repr(sorted(each.config.items(), key=lambda item: item[0])), []).append(each)
    repeated = [group for group in groups.values() if len(group) > 1]
    if not repeated:
        return []
    fewest, most = min(map(len, repeated)), max(map(len, repeated))
    times = f"{most} times" if fewest == most else f"{fewest} to {most} times"
    all_of_them = f"{counted(len(experiments), 'experiment')} are {counted(len(groups), 'configuration')}"
    said = [f"{all_of_them}: {len(repeated)} were run {times}, and which one counts is not said"]
    other = []
    for group in repeated:
        counts = sorted({each.trainable_params for each in group if each.trainable_params is not None})
        if len(counts) > 1:
            other.append(f"{arm_title(group[0].arm)}: {' and '.join(f'{count:,}' for count in counts)}")
    if other:
        more = f"; and {len(other) - _MOST_NAMES} more" if len(other) > _MOST_NAMES else ""
        told = "one configuration trained different numbers of parameters at different times"
        said.append(f"{told}: {'; '.join(other[:_MOST_NAMES])}{more}")
    return said


def _origins(experiments: Sequence[Experiment]) -> list[str]:
    said = []
    commits = Counter(each.commit for each in experiments)
    if len(commits) > 1:
        words = ", ".join(f"{commit[:10]} ({count})" for commit, count in commits.most_common(_MOST_NAMES))
        said.append(f"its experiments come from {len(commits)} commits: {words}")
    known = {name for each in experiments for name in each.config}
    missing = [name for name in ("seed", "learning_rate", "weights") if name not in known]
    words = ", ".join(f"no {name.replace('_', ' ')}" for name in [*missing, "data fingerprint"])
    said.append(f"on record are {words} and nothing of single clips, so no interval can be given")
    return said
