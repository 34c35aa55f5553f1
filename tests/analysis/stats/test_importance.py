"""The importance of a search's settings, and whether an effect is visible."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from analysis.stats.importance import importances
from sousaphone.search.dimensions import Dimension

SPACE = {
    "learning_rate": Dimension("loguniform", 1e-4, 1e-2),
    "lora_r": Dimension("choice", values=(4, 8, 16, 32)),
    "head_dropout": Dimension("uniform", 0.0, 0.5),
}


def drawn(number: int, seed: int) -> tuple[list[dict[str, Any]], np.random.Generator]:
    rng = np.random.default_rng(seed)
    return [{name: each.at(rng.random()) for name, each in SPACE.items()} for _ in range(number)], rng


def test_planted_effects_are_visible_and_settings_without_effect_are_not() -> None:
    points, rng = drawn(40, seed=0)
    curve = [-((np.log10(each["learning_rate"]) + 3) ** 2) + 0.4 * (each["lora_r"] == 16) for each in points]
    found = importances(points, list(curve + rng.normal(0, 0.05, 40)), SPACE)
    assert [each.name for each in found] == ["learning_rate", "lora_r", "head_dropout"]
    assert [each.is_visible for each in found] == [True, True, False]
    assert sum(each.importance for each in found) == pytest.approx(1)
    assert found[0].importance > 0.5


def test_same_scores_have_the_same_importance() -> None:
    points, rng = drawn(12, seed=1)
    scores = rng.random(12).tolist()
    assert importances(points, scores, SPACE) == importances(points, scores, SPACE)


def test_scores_without_any_effect_rarely_show_one() -> None:
    visible = 0
    for seed in range(20):
        points, rng = drawn(10, seed)
        visible += any(each.is_visible for each in importances(points, rng.random(10).tolist(), SPACE))
    assert visible <= 4  # 1 is expected; more than 4 has a probability of 0.3 %


def test_untuned_default_may_be_outside_of_the_space() -> None:
    points, rng = drawn(10, seed=2)
    points[0] |= {"learning_rate": 1.0, "lora_r": 5}
    assert {each.name for each in importances(points, rng.random(10).tolist(), SPACE)} == set(SPACE)


@pytest.mark.parametrize("scores", [[0.1, 0.2], [0.5] * 8], ids=["two points", "equal scores"])
def test_without_variation_there_is_no_importance(scores: list[float]) -> None:
    assert importances(drawn(len(scores), seed=3)[0], scores, SPACE) == []


def test_setting_that_does_not_vary_has_no_importance() -> None:
    points, rng = drawn(10, seed=4)
    points = [{**each, "head_dropout": 0.1} for each in points]
    assert {each.name for each in importances(points, rng.random(10).tolist(), SPACE)} == {"learning_rate", "lora_r"}
