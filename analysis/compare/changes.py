"""What changed between two sweeps, for the arms that both have: settings, data, weights, program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

from analysis.compare.experiments import Experiment, arm_title, of_trials
from analysis.run_summary import Findings
from analysis.stats.arms import title
from sousaphone.config import ArmKey

# The arm itself, what tells its trials apart, and where things lie: data and weights are compared by content.
_IDENTITY = {"model", "strategy", "augment", "seed"}
_PLACES = {"data_dir", "cache_dir", "test_also"}
_MOST_ARMS = 3
_SAME_NETWORK = 0.97  # the smaller number of parameters over the larger, at least
_DIGITS = 12
Groups = Mapping[ArmKey, Sequence[Experiment]]


def changes_between_runs(here: Findings, there: Findings) -> list[str]:
    """One sentence each."""
    settings = changes_in_settings(of_trials(here.trials), of_trials(there.trials), leave_out={"weights"})
    return [*settings, *_content(here.plan, there.plan), *_program(here.plan, there.plan)]


def changes_in_settings(
    here: Sequence[Experiment], there: Sequence[Experiment], leave_out: Set[str] = frozenset()
) -> list[str]:
    """The settings that differ, each with the arms in which it does; what only one side has on record is no change."""
    groups = [by_arm(side) for side in (here, there)]
    arms = [arm for arm in groups[0] if arm in groups[1]]
    names = dict.fromkeys(name for each in here for name in each.config)
    found: dict[tuple[str, str, str], list[str]] = {}
    for name in (name for name in names if name not in _IDENTITY | _PLACES | leave_out):
        for arm in arms:
            sides = [[each.config[name] for each in group[arm] if name in each.config] for group in groups]
            ours, theirs = (_words(values) for values in sides)
            if sides[0] and sides[1] and ours != theirs:
                found.setdefault((name, ours, theirs), []).append(arm_title(arm))
    told = [(*key, _where(titles, len(arms))) for key, titles in found.items()]
    said = [f"{name}: {ours} here, {theirs} there ({where})" for name, ours, theirs, where in told]
    return [*said, *_networks(groups, arms), *_seeds(groups, arms)]


def by_arm(experiments: Sequence[Experiment]) -> dict[ArmKey, list[Experiment]]:
    """The experiments of each arm, the arms in the order of their first."""
    groups: dict[ArmKey, list[Experiment]] = {}
    for each in experiments:
        groups.setdefault(each.arm, []).append(each)
    return groups


def _networks(groups: Sequence[Groups], arms: Sequence[ArmKey]) -> list[str]:
    """Backbones whose numbers of parameters differ by more than adapters could make them."""
    found = {}
    for arm in arms:
        ours, theirs = ({each.total_params for each in group[arm] if each.total_params} for group in groups)
        if ours and theirs and (max(ours) < _SAME_NETWORK * min(theirs) or _SAME_NETWORK * min(ours) > max(theirs)):
            numbers = f"{max(ours):,} parameters here, {max(theirs):,} there"
            found[arm.model] = f"{title(arm.model)}: {numbers}: not the same network"
    return list(found.values())


def _seeds(groups: Sequence[Groups], arms: Sequence[ArmKey]) -> list[str]:
    """Seeds are no setting of an arm, but how many it has matters."""
    ours, theirs = ({e.config["seed"] for arm in arms for e in group[arm] if "seed" in e.config} for group in groups)
    return [f"seeds: {_words(ours)} here, {_words(theirs)} there"] if ours and theirs and ours != theirs else []


def _content(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Data and weights, by content."""
    said = []
    ours, theirs = ((plan.get("data") or {}) for plan in (here, there))
    prints = [str(data.get("fingerprint") or "") for data in (ours, theirs)]
    if all(prints) and prints[0] != prints[1]:
        clips = [(data.get("clips") or {}).items() for data in (ours, theirs)]
        sizes = [", ".join(f"{split} {count}" for split, count in each) for each in clips]
        said.append(
            f"data: {prints[0][:_DIGITS]} here ({ours.get('root')}; {sizes[0]}), "
            f"{prints[1][:_DIGITS]} there ({theirs.get('root')}; {sizes[1]})"
        )
    weights = [plan.get("weights") or {} for plan in (here, there)]
    for model in weights[0]:
        first, second = (str(side.get(model, "")) for side in weights)
        if second and first != second:
            said.append(f"weights of {title(model)}: {first[:_DIGITS]} here, {second[:_DIGITS]} there")
    return said


def _program(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Commit, versions, device."""
    said = []
    ours, theirs = ((plan.get("provenance") or {}) for plan in (here, there))
    for name, words in (("git_commit", "commit"), ("python", "Python"), ("device", "device")):
        said += _differing(words, ours.get(name), theirs.get(name), 40)
    dirty = [bool(side.get("git_dirty")) for side in (ours, theirs)]
    if any(dirty):
        where = "both" if all(dirty) else "here" if dirty[0] else "there"
        said.append(f"uncommitted changes: {where}, so the commit does not say all")
    versions = [side.get("versions") or {} for side in (ours, theirs)]
    for package in versions[0]:
        said += _differing(package, *(side.get(package) for side in versions))
    return said


def _differing(what: str, here: Any, there: Any, most: int | None = None) -> list[str]:
    """One sentence, of at most so many letters of either value, where both are known and differ."""
    return [f"{what}: {str(here)[:most]} here, {str(there)[:most]} there"] if here and there and here != there else []


def _words(values: Any) -> str:
    """The different values, in a steady order."""
    unique = {str(value): value for value in values}
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in unique.values())
    ordered = sorted(unique, key=unique.__getitem__) if numbers else sorted(unique)
    return " or ".join(ordered)


def _where(titles: Sequence[str], arms: int) -> str:
    if len(titles) == arms:
        return "all arms"
    more = f" and {len(titles) - _MOST_ARMS} more" if len(titles) > _MOST_ARMS else ""
    return "; ".join(titles[:_MOST_ARMS]) + more
