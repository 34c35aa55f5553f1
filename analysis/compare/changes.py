"""Changes between two sweeps in the arms that both have: settings, data, weights, program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

from analysis.compare.experiments import Experiment, arm_title, of_trials
from analysis.run_summary import Findings
from analysis.stats.arms import title
from sousaphone.config import ArmKey
from sousaphone.text import first_few

# Options of the arm itself, and paths: data and weights are compared by content.
_LEFT_OUT = {"model", "strategy", "augment", "seed", "tag", "data_dir", "cache_dir", "test_also"}
_SAME_NETWORK = 0.97  # smallest ratio of the numbers of parameters
_DIGITS = 12


def changes_between_runs(here: Findings, there: Findings) -> list[str]:
    """Return one sentence for each change between two runs."""
    settings = changes_in_settings(of_trials(here.trials), of_trials(there.trials), leave_out={"weights"})
    return [*settings, *_content(here, there), *_program(here, there)]


def changes_in_settings(
    here: Sequence[Experiment], there: Sequence[Experiment], leave_out: Set[str] = frozenset()
) -> list[str]:
    """Return the settings that differ, with their arms; settings recorded on one side only are not compared."""
    groups = [by_arm(side) for side in (here, there)]
    arms = [arm for arm in groups[0] if arm in groups[1]]
    names = dict.fromkeys(name for each in here for name in each.config)
    titles_of: dict[str, list[str]] = {}
    for name in (name for name in names if name not in _LEFT_OUT | leave_out):
        for arm in arms:
            values = [[each.config[name] for each in group[arm] if name in each.config] for group in groups]
            for change in _changed(name, *values):
                titles_of.setdefault(change, []).append(arm_title(arm))
    changes = [
        f"{change} ({'all arms' if len(titles) == len(arms) else first_few(titles, separator='; ')})"
        for change, titles in titles_of.items()
    ]
    seeds = [[e.config["seed"] for arm in arms for e in group[arm] if "seed" in e.config] for group in groups]
    return [*changes, *_networks(groups, arms), *_changed("seeds", *seeds)]


def by_arm(experiments: Sequence[Experiment]) -> dict[ArmKey, list[Experiment]]:
    """Group experiments by arm, in order of first occurrence."""
    groups: dict[ArmKey, list[Experiment]] = {}
    for each in experiments:
        groups.setdefault(each.arm, []).append(each)
    return groups


def _networks(groups: Sequence[Mapping[ArmKey, Sequence[Experiment]]], arms: Sequence[ArmKey]) -> list[str]:
    """Name the backbones whose numbers of parameters differ by more than adapters can explain."""
    found = {}
    for arm in arms:
        ours, theirs = ({each.total_params for each in group[arm] if each.total_params} for group in groups)
        if ours and theirs and (max(ours) < _SAME_NETWORK * min(theirs) or _SAME_NETWORK * min(ours) > max(theirs)):
            numbers = f"{max(ours):,} parameters here, {max(theirs):,} there"
            found[arm.model] = f"{title(arm.model)}: {numbers}: not the same network"
    return list(found.values())


def _content(here: Findings, there: Findings) -> list[str]:
    """Compare data and weights by content."""
    changes = []
    prints = [str(side.data.get("fingerprint") or "") for side in (here, there)]
    if all(prints) and prints[0] != prints[1]:
        sides = [
            f"{digest[:_DIGITS]} {where} ({side.data.get('root')}; "
            f"{', '.join(f'{split} {count}' for split, count in (side.data.get('clips') or {}).items())})"
            for digest, where, side in zip(prints, ("here", "there"), (here, there), strict=True)
        ]
        changes.append(f"data: {', '.join(sides)}")
    ours, theirs = (side.plan.get("weights") or {} for side in (here, there))
    for model, weights in ours.items():
        changes += _differing(f"weights of {title(model)}", weights, theirs.get(model), _DIGITS)
    return changes


def _program(here: Findings, there: Findings) -> list[str]:
    """Compare commit, versions and device."""
    changes = []
    ours, theirs = (side.plan.get("provenance") or {} for side in (here, there))
    for name, text in (("git_commit", "commit"), ("python", "Python"), ("device", "device")):
        changes += _differing(text, ours.get(name), theirs.get(name), 40)
    dirty = [where for where, side in (("here", ours), ("there", theirs)) if side.get("git_dirty")]
    if dirty:
        changes.append(f"uncommitted changes {' and '.join(dirty)}: the commit alone does not identify the code")
    versions, others = (side.get("versions") or {} for side in (ours, theirs))
    for package, version in versions.items():
        changes += _differing(package, version, others.get(package))
    return changes


def _differing(name: str, here: Any, there: Any, digits: int | None = None) -> list[str]:
    """Return one sentence if both values are known and differ; values are cut to `digits` characters."""
    differ = here and there and here != there
    return [f"{name}: {str(here)[:digits]} here, {str(there)[:digits]} there"] if differ else []


def _changed(name: str, here: Sequence[Any], there: Sequence[Any]) -> list[str]:
    """Return one sentence if both sides have values and they differ."""
    ours, theirs = _listed(here), _listed(there)
    return [f"{name}: {ours} here, {theirs} there"] if here and there and ours != theirs else []


def _listed(values: Sequence[Any]) -> str:
    """Join the distinct values in sorted order."""
    unique = {str(value): value for value in values}
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in unique.values())
    return " or ".join(sorted(unique, key=unique.__getitem__) if numbers else sorted(unique))
