"""The sections of the report, in order, as content blocks for analysis.write."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence

from analysis.load.trials import Trial, counted_states, unlike
from analysis.run_summary import Findings, formatted
from analysis.search_section import search_blocks
from analysis.stats.arms import Arm, in_words, pretrained, title
from analysis.stats.calibration import Calibration
from analysis.stats.confusion import f1_by_rudiment, macro_f1
from analysis.stats.criteria import criteria, expectation_rows
from analysis.stats.slices import accuracy_of, possible
from analysis.stats.times import busy_machine
from analysis.stats.verdict_text import details, headline, pair_rows, players_text
from analysis.write.blocks import Banner, Block, Code, Items, Picture, Section, Sounds, Table, Terms, Text
from sousaphone.config import COVERED_SECONDS
from sousaphone.rudiments import spoken
from sousaphone.runs.baseline_results import SHORT_SECONDS
from sousaphone.runs.deployment import COLUMNS, explanation, row
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.statuses import Status
from sousaphone.scores import FEWEST_PLAYERS
from sousaphone.text import counted

_COLUMNS = {
    "val_macro_f1": "macro-averaged F1 on the validation clips, at the best epoch; the table is sorted by it",
    "val_acc, test_acc": "accuracy; the test clips are scored once, with the weights of the best validation epoch; the "
    "test_acc of an arm is a mean over players, that of a trial is over clips",
    "test_averaged_acc": "test accuracy of the mean logits over windows of the same length that cover the clip, half a "
    f"window apart (of clips longer than {COVERED_SECONDS:g} s: the central {COVERED_SECONDS:g} s)",
    "trial": "backbone, strategy, augmentation on or off, and seed (s0 is seed 0); an arm is all trials that differ "
    "only in the seed",
    "best epoch": "the epoch with the highest val_macro_f1; an epoch is one pass over the training clips",
    "epochs": "finished epochs, of those planned",
    "trainable": "number of trainable parameters: adapters and new layers",
    "train s": "seconds in training steps, without evaluation: processor time (sum over threads) or GPU time if every "
    "trial of the run has it, else wall time",
    "ms/clip": "milliseconds per clip on one core of this CPU, front end included, batch size 1",
    "peak MiB": "highest memory use in training: of the GPU, or on a CPU of the process, without memory-mapped files; "
    "a process runs several trials one after another, so earlier ones may contribute",
    "signature": "hash of clips, splits, clip length, size, precision, limit_eval_batches and version; only rows with "
    "the same signature are comparable",
}
_RESULTS = (
    *("trial", "status", "val_macro_f1", "val_acc", "test_acc", "test_averaged_acc", "best epoch", "epochs"),
    *("trainable", "train s", "ms/clip", "peak MiB", "signature"),
)
_EXTRA = ("trainable", "best epoch", "ms/clip", "peak MiB", "signature")  # columns of _RESULTS that are shown on demand
_PAIR = ("difference", "percentage points", "95 % interval", "p")  # followed by the number of players
_INTERVAL = "the wider of that over {unit}s (with both arms' seeds, if each has at least three) and that over clips"
_P = "p is the largest of three p values: t test and sign-flip test over {unit}s, score test over clips"
_ERROR_LINES = 8
_MOST_FAILURES = 20


def sections(
    found: Findings, pictures: Sequence[Picture] = (), sounds: Sequence[Sounds] = (), remarks: Sequence[str] = ()
) -> list[Section]:
    """Return all sections of the report, of which the writers skip empty ones; `remarks` are added to the notes."""
    notes = [*found.notes, *remarks]
    return [
        Section("", list(_opening(found))),
        Section("Results", list(_results(found))),
        Section("Partial results", list(_partial(found))),
        Section("Trials without results", list(_without(found))),
        Section("Search", list(search_blocks(found))),
        Section("Pretrained weights", list(_backbones(found))),
        Section("Baselines", list(_baselines(found))),
        Section("Additional test sets", list(_further(found))),
        Section("Success criteria", list(_criteria(found))),
        Section("Expected and observed rankings", list(_expectations(found))),
        Section("Other pairs of backbones", list(_pairs(found))),
        Section("Effect of augmentation", list(_augmentation(found))),
        Section("F1 by rudiment", list(_rudiments(found))),
        Section("Calibration", list(_calibration(found))),
        Section("Speed and size", list(_deployment(found))),
        Section("Figures", pictures),
        Section("Audio of the most frequent confusions", sounds),
        Section("Failed and stopped trials", list(_failures(found))),
        Section("Next steps", list(_next_steps(found))),
        Section("Column definitions", [Terms(list(_COLUMNS.items()))]),
        Section("Limitations", [Items(found.limits)]),
        Section("Setup", [Terms(found.facts)]),
        Section("Notes", [Items(notes)] if notes else []),
    ]


def _opening(found: Findings) -> Iterator[Block]:
    if found.banner:
        yield Banner(found.banner)
    if found.promotion:
        yield Text(found.promotion)
    states = counted_states(trial.status for trial in found.trials)
    live = "; the run is still running" if found.live else ""
    yield Text(f"{counted(len(found.trials), 'planned trial')}: {states}{live}.")
    if not found.banner:
        yield Text(headline(found.verdict))
        caveats = [found.warning_of_added_seeds] if found.warning_of_added_seeds else []
        if items := [*details(found.verdict), *caveats, *(f"{note[0].upper()}{note[1:]}." for note in found.tuning)]:
            yield Items(items)
    elif found.too_few_players:
        yield Text(found.too_few_players)
    if found.classes:
        yield Text(found.classes.text)
    differing = ((title(t.config.get("model", "")), t.began_from.get("frontend_mismatch")) for t in found.trials)
    for name, features in dict.fromkeys((name, ", ".join(what)) for name, what in differing if what):
        yield Banner(f"The input features of {name} differ from those of its pretraining ({features}).")
    if differ := unlike(found.compared):
        signatures: dict[str, list[str]] = {}
        for trial in found.compared:
            if trial.history and trial.data:
                signatures.setdefault(trial.signature, []).append(trial.trial_id)
        groups = "; ".join(f"{signature}: {', '.join(ids)}" for signature, ids in signatures.items())
        yield Banner(
            f"Trials were measured under different conditions, so not all rows are comparable ({'; '.join(differ)}). "
            f"Trials by signature: {groups}."
        )


def _results(found: Findings) -> Iterator[Block]:
    if not found.ranked:
        yield Text("No trial has finished yet.")
        return
    groups = [arm for arm in found.groups if arm.full]
    yield Text(
        f"Arms: means over seeds; test accuracy is the mean over {found.unit}s, with its 95 % interval, the wider of "
        f"that over {found.unit}s and that over clips; macro F1 is over the rudiments of the test clips."
    )
    head = ("arm", "seeds", "val_macro_f1", "val_acc", "test_acc", "95 % interval", "test_macro_f1", "test clips")
    rows = [_arm_row(found, arm) for arm in groups]
    yield Table((*head, f"{found.unit}s", "trainable"), rows, extra=("val_acc", "trainable"))
    yield Text("Trials:")
    yield _trial_table(found, found.ranked)
    if warning := busy_machine([*found.ranked, *found.partial]):
        yield Text(warning)


def _arm_row(found: Findings, arm: Arm) -> tuple[str, ...]:
    tested, seeds = len(found.scored(arm)), len(arm.shown)
    test = accuracy_of(found.rows(arm)) if tested else None
    return (
        arm.label,
        f"{seeds}" if tested in (0, seeds) else f"{seeds} (test: {tested})",  # some predictions are missing
        formatted(arm.mean("val_macro_f1"), ".3f"),
        formatted(arm.mean("val_acc"), ".1%"),
        formatted(test.accuracy if test else None, ".1%"),
        "–" if test is None or math.isnan(test.low) else f"{possible(test.low):.1%} to {possible(test.high):.1%}",
        formatted(macro_f1(found.predictions, found.scored(arm)) if test else None, ".3f"),
        formatted(test.clips if test else None, ","),
        formatted(test.players if test else None, ","),
        formatted(arm.shown[0].trainable_params, ","),
    )


def _trial_table(found: Findings, trials: Sequence[Trial], **columns: Sequence[str]) -> Table:
    """Return the table of trials, with the settings of each if the sweep varies any, and further columns of text."""
    settings = [in_words(found.settings[trial.trial_id]) for trial in trials]
    columns = {**({"settings": settings} if any(settings) else {}), **columns}
    rows = [(*_trial_row(found, trial), *own) for trial, *own in zip(trials, *columns.values(), strict=True)]
    return Table((*_RESULTS, *columns), rows, wordy=tuple(columns), extra=_EXTRA)


def _trial_row(found: Findings, trial: Trial) -> tuple[str, ...]:
    best, last = trial.best, trial.last
    return (
        trial.trial_id,
        trial.status,
        formatted(best.get("val_macro_f1"), ".3f"),
        formatted(best.get("val_acc"), ".1%"),
        formatted(last.get("test_acc"), ".1%"),
        formatted(last.get("test_averaged_acc"), ".1%"),
        formatted(last.get("best_epoch"), ".0f"),
        f"{len(trial.history)} of {trial.config.get('epochs', '?')}",
        formatted(trial.trainable_params, ","),
        formatted(trial.train_seconds, ",.0f"),
        formatted(found.cpu_ms.get(trial.trial_id), ",.1f"),
        formatted(trial.peak_memory_mb, ",.0f"),
        trial.signature if trial.data else "–",
    )


def _partial(found: Findings) -> Iterator[Block]:
    if found.partial:
        others = "the table above" if found.ranked else "those of finished trials"
        yield Text(f"These trials trained for fewer epochs than planned; do not compare them with {others}.")
        yield _trial_table(found, found.partial, reason=[trial.why for trial in found.partial])


def _without(found: Findings) -> Iterator[Block]:
    rows = [(t.trial_id, t.status, t.why) for t in found.compared if not t.full and not t.partial]
    if rows:
        yield Table(("trial", "status", "reason"), rows, wordy=("reason",))


def _backbones(found: Findings) -> Iterator[Block]:
    rows: dict[str, tuple[str, ...]] = {}
    for trial in found.trials:
        model = trial.config.get("model", "")
        if model not in rows or rows[model][-1] == "–":  # prefer a trial that has started
            total = formatted(trial.parameters.get("total"), ",")
            rows[model] = (title(model), pretrained(trial), total, trial.weights_hash or "–")
    # The fingerprint is of the tensors, even random ones; a file's SHA-256 is in comparison_table.csv.
    head = ("backbone", "weights", "parameters with adapters and head", "fingerprint (hash of the tensors)")
    yield Table(head, list(rows.values()), wordy=("weights",))


def _baselines(found: Findings) -> Iterator[Block]:
    if found.baseline_results is None or not found.baseline_results.baselines:
        return
    shortened = any(baseline.short for baseline in found.baseline_results.baselines)
    yield Text(
        f"Methods without a fine-tuned backbone, trained on the same training clips, and evaluated on the same "
        f"{found.baseline_results.clip_seconds:g} s of each clip as the networks. Their hyperparameters are selected "
        "on validation."
    )
    if shortened:
        yield Text(
            f"Those that read strokes are also scored on one random window of {SHORT_SECONDS:g} s per clip, in which "
            "the number of strokes says less about the rudiment."
        )
    rows = []
    for baseline in found.baseline_results.baselines:
        scores = [formatted(baseline.scores.get(name), ".1%") for name in ("val_acc", "test_acc", "test_averaged_acc")]
        scores += [formatted(baseline.short.get("test_acc"), ".1%")] if shortened else []
        f1 = formatted(baseline.scores.get("val_macro_f1"), ".3f")
        rows.append((baseline.title, f1, *scores, f"{baseline.seconds:.1f}", baseline.why or baseline.chosen))
    short = (f"test_acc, {SHORT_SECONDS:g} s",) if shortened else ()
    head = ("baseline", "val_macro_f1", "val_acc", "test_acc", "test_averaged_acc", *short, "run time, s", "details")
    yield Table(head, rows, wordy=("details",))
    accuracy = {baseline.name: baseline.scores["test_acc"] for baseline in found.baselines}
    clips = (found.data.get("clips") or {}).get("test") or 1
    length, majority = accuracy.get("length", 0.0), accuracy.get("majority", 1.0)
    if length - majority > max(0.05, 1.96 * math.sqrt(0.25 / clips)):
        yield Text(
            f"The length of the audio in the window alone classifies {length:.1%} of the test clips correctly "
            f"(majority class: {majority:.1%}): on these recordings, a model can be correct without using the strokes."
        )


def _further(found: Findings) -> Iterator[Block]:
    request = found.request
    sets = {
        "held_out": f"held_out: test players' clips of {request.get('hold_out')}, which is not in training",
        "also": f"also: {request.get('test_also')}",
    }
    sets = {name: text for name, text in sets.items() if any(f"{name}_acc" in trial.last for trial in found.trials)}
    if not sets:
        return
    for name in sets.keys() & found.further_sizes.keys():
        clips, players = found.further_sizes[name]
        sets[name] += f" ({counted(clips, 'clip')} of {players_text(players, found.unit)})"
    yield Text(f"{'; '.join(sets.values())}.")
    names = ("test_acc", *(f"{name}_{metric}" for name in sets for metric in ("acc", "macro_f1", "averaged_acc")))
    rows = [
        (t.trial_id, *(formatted(t.last.get(name), ".1%" if name.endswith("_acc") else ".3f") for name in names))
        for t in (*found.ranked, *found.partial)
    ]
    yield Table(("trial", *names), rows)


def _criteria(found: Findings) -> Iterator[Block]:
    scored = set(found.predictions.trial_id)
    chance = found.validated.chance if found.validated else None
    evaluated = criteria(found.compared, found.baselines, scored, found.live, chance)
    texts = {True: "met", False: "not met", None: "not known"}
    rows = [(criterion.name, texts[criterion.met], criterion.evidence) for criterion in evaluated]
    yield Table(("criterion", "met?", "evidence"), rows, wordy=("criterion", "evidence"))
    if found.banner:
        yield Text("The criteria apply to sweeps over published models; this run only shows how they are evaluated.")


def _expectations(found: Findings) -> Iterator[Block]:
    if found.banner or not found.ranked:
        return
    head = ("ranking by", "expected", "observed", "pairs as expected")
    yield Table(head, expectation_rows(found.compared), wordy=("expected", "observed"))


def _pairs(found: Findings) -> Iterator[Block]:
    if others := found.other_pairs:
        yield Text(
            f"All other pairs of the backbones' best arms, on the test {found.unit}s. {_P.format(unit=found.unit)}, "
            "adjusted by Holm's method for the number of pairs."
        )
        yield Table((*_PAIR, f"{found.unit}s"), pair_rows(others))


def _augmentation(found: Findings) -> Iterator[Block]:
    if pairs := found.augmentation:
        yield Text(
            f"Test accuracy with augmentation minus test accuracy without it, on the same clips. The interval is "
            f"{_INTERVAL.format(unit=found.unit)}. {_P.format(unit=found.unit)}, not adjusted for the number of rows."
        )
        rows = [
            (pair.first.label_without_augmentation, *row[1:]) for pair, row in zip(pairs, pair_rows(pairs), strict=True)
        ]
        yield Table(("arm", *_PAIR[1:], f"{found.unit}s"), rows)
        losses = [(pair.first, pair.first.mean("train_ce"), pair.second.mean("train_ce")) for pair in pairs]
        behind = [
            f"{arm.label_without_augmentation} ({on:.2f}, {off:.2f} without)"
            for arm, on, off in losses
            if on and off and on > off
        ]
        if behind:
            yield Text(
                f"Not trained to the same degree: at the best epoch, train_ce is higher with augmentation for "
                f"{', '.join(behind)}. The effect may differ after more epochs (docs/report.md)."
            )
    elif found.without_effect:
        yield Text(found.without_effect)


def _rudiments(found: Findings) -> Iterator[Block]:
    if not found.best:
        return
    arm = found.best[0]
    yield Text(
        f"F1 on the test clips of {arm.name}, the best arm by validation, with its 95 % interval, the wider of a "
        f"bootstrap of {found.unit}s and that over clips (from {FEWEST_PLAYERS} {found.unit}s on). Few clips do not "
        "show which rudiments are easier than others."
    )
    rows = [
        (
            spoken(each.slug),
            f"{each.f1:.2f}",
            "–" if math.isnan(each.low) else f"{each.low:.2f} to {each.high:.2f}",
            f"{each.clips:,}",
            f"{each.players:,}",
        )
        for each in f1_by_rudiment(found.rows(arm))
    ]
    yield Table(("rudiment", "F1", "95 % interval", "clips", f"{found.unit}s"), rows)


def _calibration(found: Findings) -> Iterator[Block]:
    rows = []
    for _, trial, scaled in found.calibrated:
        for way, own in scaled.items():
            briers = [f"{each.brier:.3f}" for each in (own.before, own.after)]
            rows.append((trial.trial_id, way, f"{own.temperature:.2f}", _ece(own.before), _ece(own.after), *briers))
    if rows:
        yield Text(
            "The best trial of each arm. Its logits are divided by a temperature fitted on the validation clips, which "
            "does not change the predictions. ECE: mean distance between probability and accuracy in ten bins with "
            f"equal numbers of clips, with its 95 % interval over {found.unit}s; Brier: mean over clips of the squared "
            "errors of the probabilities, summed over classes (0 to 2). Lower is better."
        )
        head = ("trial", "input", "temperature", "ECE before", "ECE after", "Brier before", "Brier after")
        yield Table(head, rows)


def _deployment(found: Findings) -> Iterator[Block]:
    cards = found.deployment.cards
    known = {trial.trial_id for trial in found.trials}
    rows = [(card.trial, *row(card, cost)) for card in cards if card.trial in known for cost in card.costs]
    if rows:
        yield Text(f"The best trial of each arm. {explanation(cards[0])}")
        yield Table(("trial", *COLUMNS), rows, extra=("load, s", "real-time factor"))
        yield from map(Text, dict.fromkeys(card.remarks for card in cards if card.remarks))
    elif found.ranked:
        yield Text("Latency, memory and size of each arm's best trial with PyTorch and ONNX Runtime are measured by:")
        yield Code(shlex.join(["sousaphone", "benchmark", str(found.path)]))


def _ece(own: Calibration) -> str:
    interval = "" if math.isnan(own.low) else f" ({own.low:.1%} to {own.high:.1%})"
    return f"{own.ece:.1%}{interval}"


def _failures(found: Findings) -> Iterator[Block]:
    stopped = [trial for trial in found.to_explain if trial.status is Status.TIME_LIMIT]
    bad = [*(trial for trial in found.to_explain if trial.status.is_bad), *stopped]
    for trial in bad[:_MOST_FAILURES]:
        epochs = f"after epoch {len(trial.history)} of {trial.config.get('epochs', '?')}"
        yield Text(f"{trial.trial_id} ({title(trial.config.get('model', ''))}): {trial.status} {epochs}; {trial.why}")
        if trial.traceback:
            yield Code("\n".join(trial.traceback.strip().splitlines()[-_ERROR_LINES:]))
        for _, command in found.next_steps([trial])[:1]:
            if command is not None:
                yield Code(command)
    if len(bad) > _MOST_FAILURES:
        yield Text(f"and {len(bad) - _MOST_FAILURES} more, all in comparison_table.csv.")


def _next_steps(found: Findings) -> Iterator[Block]:
    for purpose, command in found.next_steps(found.to_explain):
        yield Text(f"{purpose}:" if command else f"{purpose}.")
        if command:
            yield Code(command)
    if found.ranked and not found.live:
        yield Text("To export the best model:")
        yield Code(RunDirectory(found.path).export_command)
