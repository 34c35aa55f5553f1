"""What the report says and in which order: from findings to sections, which write/ writes out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from analysis.load.trials import Trial, counted_states, unlike
from analysis.run_summary import Findings
from analysis.stats.arms import Arm, arms, by_validation, pretrained, title
from analysis.stats.criteria import criteria, expectations
from analysis.stats.slices import accuracy_of, possible
from analysis.stats.verdict import effect_rows, pair_rows
from analysis.write.blocks import Banner, Block, Code, Items, Picture, Section, Sounds, Table, Terms, Text
from sousaphone.rudiments import SLUGS
from sousaphone.runs.statuses import Status
from sousaphone.text import counted

COLUMNS = {
    "val_macro_f1": "macro-averaged F1 on the validation clips, of the best epoch; the table is ordered by it",
    "val_acc, test_acc": f"share of clips named rightly among {len(SLUGS)} rudiments (chance: {100 / len(SLUGS):g} %); "
    "test is measured once, with the weights of the best validation epoch",
    "epochs": "finished, of those planned",
    "trainable": "parameters that train: adapters and fresh layers",
    "seconds": "time in training steps, evaluation not counted",
    "ms": "of one core of this CPU that a clip takes, front end included, one clip at a time",
    "MB": "peak memory: on a GPU of the device; on a CPU of the process, which serves several trials in turn, without "
    "mapped files",
    "signature": "of clips, split, seconds heard, size, layers with adapters, a limit of what is scored, and version; "
    "only rows of one signature may be compared",
}
RESULTS = (
    *("trial", "status", "val_macro_f1", "val_acc", "test_acc", "best epoch", "epochs"),
    *("trainable", "seconds", "ms", "MB", "signature"),
)
EXTRA = ("best epoch", "ms", "MB", "signature")  # of RESULTS, shown on demand
ARMS = ("arm", "seeds", "val_macro_f1", "val_acc", "test_acc", "95 % interval", "trainable")
NONE_YET = "No trial has run to its end yet."
_PAIR = ("difference", "points", "95 % interval", "p")  # and players
_ERROR_LINES = 8
_MOST_FAILURES = 20


def sections(
    found: Findings,
    pictures: Sequence[Picture] = (),
    sounds: Sequence[Sounds] = (),
    remarks: Sequence[str] = (),
) -> list[Section]:
    """The whole report; sections without content stay empty and are left out by the writers.

    Args:
        remarks: what else is to be noted, such as why there are no sounds.
    """
    notes = [*found.notes, *remarks]
    return [
        Section("", list(_opening(found))),
        Section("Results", list(_results(found))),
        Section("Partial results", list(_partial(found))),
        Section("Without results", list(_without(found))),
        Section("What each backbone began from", list(_backbones(found))),
        Section("Baselines", list(_baselines(found))),
        Section("Further tests", list(_further(found))),
        Section("Success criteria", list(_criteria(found))),
        Section("What was expected, and what came out", list(_expectations(found))),
        Section("Other pairs, and what augmentation does", list(_pairs(found))),
        Section("Figures", pictures),
        Section("Listen to the worst confusions", sounds),
        Section("Failed and cut trials", list(_failures(found))),
        Section("Go on with", list(_next_steps(found))),
        Section("How to read the columns", [Terms(list(COLUMNS.items()))]),
        Section("What this does not show", [Items(found.limits)]),
        Section("What ran", [Terms(found.facts)]),
        Section("Notes", [Items(notes)] if notes else []),
    ]


def _opening(found: Findings) -> Iterator[Block]:
    if found.banner:
        yield Banner(found.banner)
    if found.promotion:
        yield Text(found.promotion)
    words = counted_states(trial.status for trial in found.trials)
    live = "; the run is still going on" if found.live else ""
    yield Text(f"{counted(len(found.trials), 'planned trial')}: {words}{live}.")
    if not found.banner:  # the banner is all that may be said
        yield Text(found.verdict.headline)
        details = [*found.verdict.details, *(f"{note[0].upper()}{note[1:]}." for note in found.tuning)]
        if details:
            yield Items(details)
    elif found.too_few_players:
        yield Text(found.too_few_players)
    differing = ((title(t.config.get("model", "")), t.began_from.get("frontend_mismatch")) for t in found.trials)
    for name, what in dict.fromkeys((name, ", ".join(what)) for name, what in differing if what):
        yield Banner(f"{name} heard other features than its weights were trained on ({what}).")
    if differ := unlike(found.trials):
        signatures: dict[str, list[str]] = {}
        for trial in found.trials:
            if trial.history and trial.data:
                signatures.setdefault(trial.signature, []).append(trial.trial_id)
        names = "; ".join(f"{signature}: {', '.join(ids)}" for signature, ids in signatures.items())
        yield Banner(
            f"Not all trials were measured alike, so not all rows may be compared ({'; '.join(differ)}). By signature: "
            f"{names}."
        )


def _results(found: Findings) -> Iterator[Block]:
    if not found.ranked:
        yield Text(NONE_YET)
        return
    groups = by_validation([arm for arm in arms(found.trials) if arm.full])
    if any(len(arm.shown) > 1 for arm in groups):
        yield Text(
            f"Arms: means over seeds; test accuracy is the mean over {found.unit}s, with its 95 % interval over them."
        )
        yield Table(ARMS, [_arm_cells(found, arm) for arm in groups])
        yield Text("Trials:")
    yield Table(RESULTS, [cells(found, trial) for trial in found.ranked], extra=EXTRA)


def _arm_cells(found: Findings, arm: Arm) -> tuple[str, ...]:
    mine = found.predictions[found.predictions.trial_id.isin([trial.trial_id for trial in arm.shown])]
    test = accuracy_of(mine) if len(mine) else None
    tested = mine.trial_id.nunique()
    return (
        arm.label,
        # Those of test apart where some predictions are missing.
        f"{len(arm.shown)}" if tested in (0, len(arm.shown)) else f"{len(arm.shown)} (test: {tested})",
        _number(arm.mean("best", "val_macro_f1"), ".3f"),
        _number(arm.mean("best", "val_acc"), ".1%"),
        _number(test.accuracy if test else None, ".1%"),
        f"{possible(test.low):.1%} to {possible(test.high):.1%}"
        if test is not None and not math.isnan(test.low)
        else "–",
        _number(arm.shown[0].trainable_params, ","),
    )


def _partial(found: Findings) -> Iterator[Block]:
    if found.partial:
        others = "the table above" if found.ranked else "those of a trial that ran to its end"
        yield Text(f"These are of fewer epochs than planned, so not comparable with {others}.")
        rows = [(*cells(found, trial), trial.why) for trial in found.partial]
        yield Table((*RESULTS, "why"), rows, wordy=("why",), extra=("trainable", *EXTRA))


def _without(found: Findings) -> Iterator[Block]:
    rows = [(t.trial_id, t.status, t.why) for t in found.trials if not t.full and not t.partial]
    if rows:
        yield Table(("trial", "status", "why"), rows, wordy=("why",))


def _backbones(found: Findings) -> Iterator[Block]:
    """Pretraining is what differs between the arms, so it stands beside them."""
    rows: dict[str, tuple[str, ...]] = {}
    for trial in found.trials:
        model = trial.config.get("model", "")
        if model not in rows or rows[model][-1] == "–":  # of a trial that has begun, where there is one
            total = _number(trial.parameters.get("total"), ",")
            rows[model] = (title(model), pretrained(trial), total, trial.weights_hash or "–")
    # The fingerprint is of the tensors, random ones included; a file's SHA-256 is in comparison_table.csv.
    head = ("backbone", "weights", "parameters with adapters and head", "fingerprint of its tensors")
    yield Table(head, list(rows.values()), wordy=("weights",))


def _baselines(found: Findings) -> Iterator[Block]:
    if found.baseline_results is None or not found.baseline_results.baselines:
        return
    yield Text(
        f"Trained on the same training clips, choosing on validation, hearing the same "
        f"{found.baseline_results.clip_seconds:g} s: what needs no fine-tuned network."
    )
    rows = []
    for baseline in found.baseline_results.baselines:
        scores = [_number(baseline.scores.get(name), ".1%") for name in ("val_acc", "test_acc")]
        f1 = _number(baseline.scores.get("val_macro_f1"), ".3f")
        rows.append((baseline.title, f1, *scores, f"{baseline.seconds:.1f}", baseline.why or baseline.chosen))
    yield Table(("baseline", "val_macro_f1", "val_acc", "test_acc", "seconds", "how"), rows, wordy=("how",))


def _further(found: Findings) -> Iterator[Block]:
    if found.further:
        head, rows, words = found.further
        yield Text(f"{words}.")
        yield Table(head, rows)


def _criteria(found: Findings) -> Iterator[Block]:
    rows = [
        (c.name, c.word, c.evidence) for c in criteria(found.trials, found.baseline_results, found.scored, found.live)
    ]
    yield Table(("criterion", "met?", "evidence"), rows, wordy=("criterion", "evidence"))
    if found.banner:
        yield Text("They are those of a sweep over published models; here they show what is measured.")


def _expectations(found: Findings) -> Iterator[Block]:
    if found.banner or not found.ranked:
        return
    rows = [
        (each.name, ", ".join(each.expected), ", ".join(each.found), f"{each.agreeing} of {each.pairs}")
        for each in expectations(found.trials)
    ]
    head = ("order by", "expected", "found", "pairs as expected")
    yield Table(head, rows, wordy=("expected", "found"))


def _pairs(found: Findings) -> Iterator[Block]:
    verdict, units = found.verdict, f"{found.unit}s"
    if verdict.others:
        yield Text(f"All other pairs of the backbones' best arms, on the test {units}; p is adjusted (Holm).")
        yield Table((*_PAIR, units), pair_rows(verdict.others))
    if verdict.augmentation:
        yield Text(
            f"With augmentation minus without, on the same test clips; the interval is over {units}, and over seeds "
            "where both arms have three or more. p is not adjusted."
        )
        yield Table(("backbone", *_PAIR[1:], units), effect_rows(verdict.augmentation))
    elif found.without_effect:
        yield Text(found.without_effect)


def _failures(found: Findings) -> Iterator[Block]:
    cut = [trial for trial in found.trials if trial.status is Status.TIME_LIMIT]
    bad = [*(trial for trial in found.trials if trial.status.is_bad), *cut]
    for trial in bad[:_MOST_FAILURES]:
        epochs = f"after epoch {len(trial.history)} of {trial.config.get('epochs', '?')}"
        yield Text(f"{trial.trial_id} ({title(trial.config.get('model', ''))}): {trial.status} {epochs}; {trial.why}")
        if trial.traceback:
            yield Code("\n".join(trial.traceback.strip().splitlines()[-_ERROR_LINES:]))
        for _, line in found.next_steps([trial])[:1]:  # that continues it, or tries it again
            if line is not None:
                yield Code(line)
    if len(bad) > _MOST_FAILURES:
        yield Text(f"and {len(bad) - _MOST_FAILURES} more, all in comparison_table.csv.")


def _next_steps(found: Findings) -> Iterator[Block]:
    for words, line in found.next_steps(found.trials):
        yield Text(f"{words}:" if line else f"{words}.")
        if line:
            yield Code(line)


def cells(found: Findings, trial: Trial) -> tuple[str, ...]:
    """One row under RESULTS; what is not known is a dash."""
    best, last = trial.best, trial.last
    return (
        trial.trial_id,
        trial.status,
        _number(best.get("val_macro_f1"), ".3f"),
        _number(best.get("val_acc"), ".1%"),
        _number(last.get("test_acc"), ".1%"),
        _number(last.get("best_epoch"), ".0f"),
        f"{len(trial.history)} of {trial.config.get('epochs', '?')}",
        _number(trial.trainable_params, ","),
        _number(trial.train_seconds, ",.0f"),
        _number(found.cpu_ms.get(trial.trial_id), ",.1f"),
        _number(trial.peak_memory_mb, ",.0f"),
        trial.signature if trial.data else "–",
    )


def _number(value: float | None, style: str) -> str:
    return "–" if value is None else format(value, style)
