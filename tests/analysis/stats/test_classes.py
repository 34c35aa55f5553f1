"""The rudiments of the test clips."""

from __future__ import annotations

import pandas as pd
import pytest

from analysis.stats.classes import classes_of
from sousaphone.rudiments import SLUGS


def clips(*rudiments: str, trials: int = 2) -> pd.DataFrame:
    own = pd.DataFrame({"sample_id": [f"c{n}" for n in range(len(rudiments))], "rudiment": rudiments})
    return pd.concat([own.assign(trial_id=f"t{number}") for number in range(trials)], ignore_index=True)


@pytest.mark.parametrize("number", [10, 40])
def test_chance_is_one_over_the_rudiments_of_the_clips(number: int) -> None:
    found = classes_of(clips(*SLUGS[:number], SLUGS[3]).astype({"rudiment": "category"}))
    assert found is not None
    assert found.slugs == SLUGS[:number]
    assert found.chance == 1 / number
    assert (found.clips, found.majority, found.majority_share) == (number + 1, SLUGS[3], 2 / (number + 1))
    assert f"{number} of 40" in found.text
    assert f"{1 / number:.1%}" in found.text
    assert ("these rudiments only" in found.text) is (number < 40)


def test_no_clips_have_no_classes() -> None:
    assert classes_of(clips()) is None
