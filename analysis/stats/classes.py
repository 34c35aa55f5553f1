"""The rudiments that the test clips cover, which define chance and the classes of macro F1."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from sousaphone.rudiments import SLUGS, spoken
from sousaphone.text import counted

_MOST_NAMED = 12  # rudiments named in the text


@dataclass(frozen=True)
class Classes:
    """The true rudiments of the test clips, or of the validation clips."""

    slugs: tuple[str, ...]  # in the order of SLUGS
    clips: int
    majority: str  # the most frequent rudiment
    majority_share: float  # its fraction of the clips: the accuracy of always predicting it

    @property
    def chance(self) -> float:
        """The expected accuracy of a random prediction, as a fraction."""
        return 1 / len(self.slugs)

    @property
    def text(self) -> str:
        """What the results are about, in one or two sentences."""
        shares = (
            f"chance is {self.chance:.1%}, and the most frequent one ({spoken(self.majority)}) is "
            f"{self.majority_share:.1%} of them"
        )
        whole = f"The {counted(self.clips, 'test clip')} cover {len(self.slugs)} of {len(SLUGS)} rudiments: {shares}."
        if len(self.slugs) == len(SLUGS):
            return whole
        names = f": {', '.join(map(spoken, self.slugs))}" if len(self.slugs) <= _MOST_NAMED else ""
        return f"{whole} All results are about these rudiments only{names}."


def classes_of(predictions: pd.DataFrame) -> Classes | None:
    """Return the classes of predictions (sample_id, rudiment); None without any."""
    if predictions.empty:
        return None
    counts = predictions.drop_duplicates("sample_id").rudiment.astype(str).value_counts()
    slugs = tuple(slug for slug in SLUGS if slug in counts.index)
    majority = max(slugs, key=lambda slug: counts[slug])
    return Classes(slugs, int(counts.sum()), majority, float(counts[majority] / counts.sum()))
