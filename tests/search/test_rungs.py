"""Which trials continue at a rung, by hand and for any scores."""

from __future__ import annotations

import random

import pytest

from sousaphone.config import TrainConfig
from sousaphone.search.design import Search
from sousaphone.search.rungs import Ladder, Segment, Tried, finalists, rung_epochs
from tests.search.simulation import begin, outcome, run, steps_by_model

# Nine configurations; three continue after 10 steps, and two of them after 30.
NINE = Ladder(rungs=(10, 30, 90), places=(9, 3, 2))


def at(number: int, **scores: float) -> Tried:
    """`at(4, s10=0.5)` has trained 10 steps, with this score."""
    return Tried(number, tuple((int(steps[1:]), score) for steps, score in scores.items()))


def test_hand_worked_case() -> None:
    assert NINE.next_segment([Tried(0)]) == Segment(0, 0)
    trials = [at(0, s10=0.5)]
    assert NINE.next_segment(trials) == Segment(1, 0)  # one in three continues, and one has arrived
    trials += [at(1, s10=0.2), at(2, s10=0.6)]
    assert NINE.next_segment(trials) == Segment(0, 1)  # the untuned default always continues
    trials[0] = at(0, s10=0.5, s30=0.5)
    assert NINE.next_segment(trials) == Segment(3, 0)  # the better trial 2 waits for the second place
    trials += [at(3, s10=0.4), at(4, s10=0.9), at(5, s10=0.3)]
    assert NINE.next_segment(trials) == Segment(4, 1)  # the best of the first six that has not continued
    trials[4] = at(4, s10=0.9, s30=0.7)
    assert NINE.next_segment(trials) == Segment(0, 2)  # two have reached 30 steps: one place at full length
    trials[0] = at(0, s10=0.5, s30=0.5, s90=0.55)
    trials += [at(6, s10=0.1), at(7, s10=0.2), at(8, s10=0.3)]
    assert NINE.next_segment(trials) == Segment(2, 1)  # the third place; 6, 7 and 8 are not better
    trials[2] = at(2, s10=0.6, s30=0.65)
    assert NINE.next_segment(trials) == Segment(4, 2)
    trials[4] = at(4, s10=0.9, s30=0.7, s90=0.8)
    assert NINE.next_segment(trials) is None
    assert sum(trial.steps for trial in trials) == NINE.steps == 9 * 10 + 3 * 20 + 2 * 60
    assert finalists(trials, 90, 2) == [4, 0]
    trials[2] = at(2, s10=0.6, s30=0.65, s90=0.7)
    assert finalists(trials, 90, 1) == [4, 0]  # the default is always one


def test_interrupted_trial_continues_first() -> None:
    trials = [at(0, s10=0.5), at(1, s5=0.9), Tried(2)]
    assert NINE.next_segment(trials) == Segment(1, 0)
    assert NINE.next_segment(trials, live={1: 0}) == Segment(2, 0)
    assert NINE.next_segment([at(0, s10=0.5, s20=0.5)]) == Segment(0, 1)


def test_trial_that_ended_before_a_rung_is_not_replaced_and_not_promoted() -> None:
    trials = [at(0, s10=0.5), Tried(1, ((5, 0.9),), ended=True), Tried(2, ended=True)]
    assert NINE.next_segment(trials) == Segment(0, 1)
    trials[0] = at(0, s10=0.5, s30=0.5)
    assert NINE.next_segment(trials) == Segment(3, 0)


def test_live_trials_keep_their_places() -> None:
    trials = [at(0, s10=0.5), at(1, s10=0.2), at(2, s10=0.6)]
    assert NINE.next_segment(trials, live={0: 1}) == Segment(3, 0)
    assert NINE.next_segment([*trials, Tried(3)], live={0: 1, 3: 0}) == Segment(4, 0)


@pytest.mark.parametrize(
    ("epochs", "compared"), [(1, [1]), (4, [4]), (6, [2, 6]), (10, [3, 10]), (20, [2, 7, 20]), (100, [11, 33, 100])]
)
def test_no_trial_is_compared_before_its_second_epoch(epochs: int, compared: list[int]) -> None:
    assert rung_epochs(epochs, 3) == compared


@pytest.mark.parametrize(("configurations", "places"), [(2, (2, 2, 2)), (8, (8, 3, 3)), (16, (16, 6, 3))])
def test_finalists_and_default_train_at_full_length(configurations: int, places: tuple[int, ...]) -> None:
    assert Search({}, configurations, rungs=(20, 70, 200)).ladder.places == places


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("configurations", [2, 5, 8, 16])
def test_every_backbone_gets_the_same_steps_whatever_its_scores_are(configurations: int, at_once: int) -> None:
    for seed in range(5):
        rng = random.Random(seed)
        trend = {"ast": 1, "beats": -1}  # of scores: each configuration is better than those before it, or worse
        numbers: dict[TrainConfig, int] = {}

        def score(trial: TrainConfig, epoch: int) -> float:
            return rng.random() + trend[trial.model] * numbers.setdefault(trial, len(numbers))  # noqa: B023

        progress = run(begin(epochs=20, configurations=configurations, sampler="qmc"), score, at_once, rng=rng)
        assert progress.is_complete
        assert set(steps_by_model(progress).values()) == {progress.search.ladder.steps}
        for model in progress.search.models:
            assert len(progress.search.own(model)) == configurations
            full = [t.number for t in progress.tried(model) if t.steps == progress.search.rungs[-1]]
            assert len(full) == progress.search.ladder.places[-1]
            assert 0 in full
        assert len(progress.finalists()) == 2 * min(3, configurations)
        assert len(outcome(progress)) == 2 * configurations
