"""summary_report.md: the run in words and tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from analysis.findings import COLUMNS, Findings
from analysis.trials import Trial

READABLE = (
    "trial",
    "status",
    "val_macro_f1",
    "val_acc",
    "test_acc",
    "best epoch",
    "epochs",
    "trainable",
    "seconds",
    "MB",
)
PARTIAL = (*READABLE, "why")
NONE_YET = "No trial has run to its end yet."
WITHOUT = ("trial", "status", "why")


def summary(found: Findings) -> str:
    """The Markdown text. What comes from outside is escaped: an error's text shows as it is."""
    parts = [f"# {escape(found.name)}"]
    if found.banner:
        parts.append(f"> **{escape(found.banner)}**")
    if found.promotion:
        parts.append(escape(found.promotion))
    parts += [found.state, escape(found.verdict), "## Results"]
    if found.ranked:
        parts.append(_table(READABLE, [cells(trial) for trial in found.ranked]))
    else:
        parts.append(NONE_YET)
    if found.partial:
        rows = [(*cells(trial), trial.why) for trial in found.partial]
        parts += ["## Partial results", found.partial_note, _table(PARTIAL, rows)]
    if found.further:
        head, further, words = found.further
        parts += ["## Further tests", f"{escape(words)}.", _table(head, further)]
    if found.without_results:
        without = [(trial.trial_id, trial.status, trial.why) for trial in found.without_results]
        parts += ["## Without results", _table(WITHOUT, without)]
    if found.next_steps:
        parts.append("## Go on with")
        for words, line in found.next_steps:
            parts += [escape(words), *([f"```\n{line}\n```"] if line else [])]
    parts += ["## How to read the columns", _list(f"**{name}**: {text}" for name, text in COLUMNS.items())]
    parts += ["## What this does not show", _list(map(escape, found.limits))]
    parts += ["## What ran", _list(f"{name}: {escape(value)}" for name, value in found.facts)]
    if found.notes:
        parts += ["## Notes", _list(map(escape, found.notes))]
    parts.append(
        "Every column: [comparison_table.csv](comparison_table.csv); interactive: [report.html](report.html); "
        "pictures: [accuracy](plots/accuracy_comparison.png), [efficiency](plots/efficiency_scatter.png), "
        "[time](plots/training_time.png)."
    )
    parts.append(f"Written {found.written}.")
    return "\n\n".join(parts) + "\n"


def cells(trial: Trial) -> tuple[str, ...]:
    """One row under READABLE; what is not known is a dash."""
    best, last = trial.best, trial.last
    memory = max(trial.values("peak_memory_mb"), default=None)
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
        _number(memory, ",.0f"),
    )


def escape(text: str) -> str:
    """Text as itself in Markdown: on one line, no mark-up, no HTML."""
    return re.sub(r"([\\`*{}\[\]<>|#~&$]|\b_|_\b)", r"\\\1", " ".join(text.split()))


def _number(value: float | None, style: str) -> str:
    return "–" if value is None else format(value, style)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)
