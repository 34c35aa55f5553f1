"""The words of the page, in Markdown: the answer, the evenness of strokes, and the limits of the model."""

from __future__ import annotations

from collections.abc import Iterator

from sousaphone.backbones.registry import REGISTRY
from sousaphone.deploy.calibration import DEFAULT_ERROR
from sousaphone.deploy.model_folder import ModelConfig
from sousaphone.deploy.page.evenness import evenness
from sousaphone.deploy.page.strokes import FEWEST, Alignment, measurable
from sousaphone.deploy.predictor import Segment
from sousaphone.rudiments import RUDIMENTS, spoken
from sousaphone.text import counted
from sousaphone.weights import RANDOM

_FEW = 4  # strokes; a smaller number is no rudiment
RESOLUTION_MS = 2.0  # smaller differences are within the error of onset detection


def answer(segment: Segment, config: ModelConfig, strokes: int | None = None) -> str:
    """The rudiment with its confidence, or why it is undecided, with the number of detected strokes if it is known."""
    few = (
        ""
        if strokes is None or strokes >= _FEW
        else f" **Only {counted(strokes, 'stroke')} detected**: too few to determine a rudiment."
    )
    calibration, name = config.calibration, spoken(segment.rudiment)
    if not segment.undecided:
        lines = [f"## {name.capitalize()}", f"Confidence {segment.confidence:.0%}."]
        if calibration.averaged_temperature is None:
            lines.append("It is not calibrated: this model has no validation results.")
        return "\n\n".join([lines[0], " ".join(lines[1:]) + few])
    limit = calibration.undecided_below or 0.0
    why = (
        f"because no confidence kept wrong answers on the validation clips to {DEFAULT_ERROR:.0%}"
        if limit == 1.0
        else f"because that is below {limit:.0%}, above which at most {DEFAULT_ERROR:.0%} of the answers on the "
        "validation clips were wrong"
    )
    return (
        f"## Undecided\n\nThe most probable rudiment is {name} ({segment.confidence:.0%}), but it is not given as the "
        f"answer, {why}. The recording may be unclear, or not one of the {len(config.classes)} rudiments.{few}"
    )


def limits(config: ModelConfig) -> str:
    """The model, and what it cannot be expected to do."""
    trial = config.trial()
    reasons = []
    if config.trained.get("synthetic_data"):
        reasons.append("was trained on synthetic recordings only")
    if trial.scale == "nano":
        reasons.append("is a nano-sized network")
    if config.base_weights.get("source") == RANDOM:
        reasons.append("started from random weights")
    text = f"Model: {REGISTRY[trial.model].title} ({trial.scale})."
    if reasons:
        *most, last = reasons
        what = f"{', '.join(most)} and {last}" if most else last
        text += f" It {what}: do not expect it to classify real recordings correctly."
    return f"{text} Anything that is not a rudiment gets the name of one, too, sometimes with a high confidence."


def on_evenness(segment: Segment, alignment: Alignment | None, strokes: int) -> str:
    """How even the strokes of a segment are, with the limits of the measurement.

    Args:
        strokes: detected in the segment, without grace notes.
    """
    return "### How even\n\n" + "\n".join(_evenness_lines(segment, alignment, strokes))


def _evenness_lines(segment: Segment, alignment: Alignment | None, strokes: int) -> Iterator[str]:
    name, rudiment = spoken(segment.rudiment), RUDIMENTS.get(segment.rudiment)
    if segment.undecided or rudiment is None:
        yield (
            f"Evenness cannot be determined: {strokes} strokes were detected, but without an answer their rhythm is "
            "not known."
        )
    elif not measurable(rudiment):
        yield f"Evenness cannot be determined: the drags or buzzes of a {name} hide the onsets of its main strokes."
    elif alignment is None:
        yield (
            f"Evenness cannot be determined: the {strokes} detected strokes do not fit the rhythm of a {name} without "
            f"missing or additional ones over at least {FEWEST} strokes and half of the recording. Soft strokes may "
            "have been missed, a room's echo may have added some, or the rhythm is another one."
        )
    else:
        yield from _measured(alignment, name)


def _measured(alignment: Alignment, name: str) -> Iterator[str]:
    found = evenness(alignment)
    part = f", the longest stretch without missing or additional ones ({alignment.outside} others are left out)"
    yield (
        f"- **Intervals vary by {found.deviation:.0f} ms**, {found.deviation / found.interval:.0%} of "
        f"{found.interval:.0f} ms: the standard deviation around a beat that may change slowly, over "
        f"{len(alignment.times)} strokes{part if alignment.outside else ''}."
    )
    if found.hands is not None:
        late, uncertain = found.hands.late, found.hands.uncertainty
        between = f"95% interval {_shift(late - uncertain)} to {_shift(late + uncertain)}"
        if abs(late) <= max(uncertain, RESOLUTION_MS):
            yield f"- **No difference in time between the hands can be shown** (left {_shift(late)}; {between})."
        else:
            yield f"- **The left hand comes {_shift(late)} than the right one** ({between})."
        yield (
            f"- Around their own time, right-hand strokes vary by {found.hands.right:.0f} ms, left-hand ones by "
            f"{found.hands.left:.0f} ms."
        )
        begun = " and that the recording begins with its first stroke" if alignment.basis == "start" else ""
        yield (
            f"\nThe sound does not show who plays: this assumes the sticking of a {name}, led by the right hand{begun}."
            " If you lead with the left hand, exchange left and right."
        )
    elif alignment.hands:
        yield "- Too few strokes of one hand to compare the hands."
    else:
        yield "- Cannot compare the hands: neither loudness nor rhythm shows where the sticking begins."
    yield (
        f"\nGrace notes are left out. Onsets are found to about {RESOLUTION_MS:.0f} ms, in echoes and noise less "
        "exactly. Loudness, and the rhythm that you intended, are not judged."
    )


def _shift(late: float) -> str:
    return f"{abs(late):.0f} ms {'later' if late >= 0 else 'earlier'}"
