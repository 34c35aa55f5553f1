"""Baselines: each is what it says, and learns nothing from the clips that it is scored on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier

from sousaphone.backbones.registry import REGISTRY
from sousaphone.baselines import classifiers
from sousaphone.baselines.classifiers import (
    NEIGHBOURS,
    Fitted,
    Hearing,
    Labelled,
    fit_logistic,
    fit_majority,
    fit_nearest,
    fit_neighbours,
    measure_baseline,
    skipped,
    titles,
)
from sousaphone.config import TrainConfig
from sousaphone.data.dataset import Dataset
from sousaphone.data.prepare import read_subset
from sousaphone.rudiments import SLUGS
from sousaphone.runs.baseline_results import SCORES

CPU = torch.device("cpu")
NAMES = ("majority", "onsets", "logmel", "knn-ast", "knn-efficientat")


@pytest.fixture(scope="module")
def hearing(trial_config: Callable[..., TrainConfig]) -> Hearing:
    trials = {model: trial_config(model=model) for model in ("ast", "efficientat")}
    return Hearing(read_subset(Path(trials["ast"].data_dir), "tiny"), trials, CPU)


def split(hearing: Hearing, name: str) -> pd.DataFrame:
    clips = hearing.dataset.clips
    return clips[clips["split"] == name]


def some(clips: int, width: int, classes: int = 4, seed: int = 0) -> Labelled:
    """Noise with a little of the class in it."""
    chance = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (clips,), generator=chance)
    return Labelled(torch.randn(clips, width, generator=chance) + labels[:, None] / 2, labels)


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_the_answers_and_there_is_an_answer_for_every_test_clip(
    name: str, hearing: Hearing
) -> None:
    baseline, answers = measure_baseline(name, hearing)
    assert (baseline.name, baseline.title, baseline.why) == (name, titles(hearing.trials)[name], "")
    assert set(baseline.scores) == set(SCORES)
    assert baseline.seconds > 0
    assert list(answers) == ["sample_id", "player", "rudiment", "predicted"]
    assert answers["sample_id"].tolist() == split(hearing, "test")["sample_id"].tolist()
    assert set(answers["predicted"]) <= set(SLUGS)
    assert baseline.scores["test_acc"] == pytest.approx((answers["rudiment"] == answers["predicted"]).mean())
    expected = f1_score(answers["rudiment"], answers["predicted"], average="macro")
    assert baseline.scores["test_macro_f1"] == pytest.approx(expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_second_time_gives_the_same(name: str, hearing: Hearing) -> None:
    (first, answers), (second, again) = measure_baseline(name, hearing), measure_baseline(name, hearing)
    assert dataclasses.replace(first, seconds=0) == dataclasses.replace(second, seconds=0)
    pd.testing.assert_frame_equal(answers, again)


def relabelled(dataset: Dataset, name: str) -> Dataset:
    """The same clips, but for one split's labels: each has its neighbour's."""
    clips = dataset.clips.copy()
    mine = clips["split"] == name
    for column in ("label", "rudiment"):
        clips.loc[mine, column] = pd.concat([clips.loc[mine, column].iloc[1:], clips.loc[mine, column].iloc[:1]]).array
    return dataclasses.replace(dataset, clips=clips)


@pytest.mark.parametrize("name", NAMES)
def test_other_labels_of_the_test_clips_change_no_answer(name: str, hearing: Hearing) -> None:
    baseline, answers = measure_baseline(name, hearing)
    other = dataclasses.replace(hearing, dataset=relabelled(hearing.dataset, "test"))
    changed, again = measure_baseline(name, other)
    assert again["predicted"].tolist() == answers["predicted"].tolist()
    assert again["rudiment"].tolist() != answers["rudiment"].tolist()
    assert (changed.chosen, changed.scores["val_acc"]) == (baseline.chosen, baseline.scores["val_acc"])


@pytest.mark.parametrize("fit", [fit_majority, fit_nearest])
def test_where_nothing_is_chosen_the_validation_clips_change_nothing(
    fit: Callable[[Labelled, Labelled], Fitted],
) -> None:
    train, features = some(50, 3), some(20, 3, seed=1).features
    one, other = (fit(train, some(30, 3, seed=seed)).predict(features) for seed in (2, 3))
    assert torch.equal(one, other)


@pytest.mark.parametrize("fit", [fit_neighbours, fit_logistic])
def test_validation_clips_choose_among_candidates_that_the_training_clips_alone_made(
    fit: Callable[[Labelled, Labelled], Fitted],
) -> None:
    train, features = some(60, 3), some(40, 3, seed=1).features
    answers: dict[str, torch.Tensor] = {}
    for seed in range(2, 12):
        fitted = fit(train, some(10, 3, seed=seed))
        assert torch.equal(answers.setdefault(fitted.chosen, fitted.predict(features)), fitted.predict(features))
    assert len(answers) > 1


def test_the_majority_is_the_most_frequent_training_class_counted_by_hand(hearing: Hearing) -> None:
    clips = split(hearing, "train")
    second = clips["rudiment"].unique()[1]
    fewer = hearing.dataset.clips.drop(clips.index[clips["rudiment"] != second][::2]).reset_index(drop=True)
    counted = fewer[fewer["split"] == "train"]["rudiment"].value_counts()
    assert counted.idxmax() == second
    labels = torch.tensor(fewer[fewer["split"] == "train"]["label"].to_numpy())
    fitted = fit_majority(Labelled(torch.zeros(len(labels), 0), labels), some(1, 1))
    assert fitted.chosen == second
    assert fitted.predict(torch.zeros(3, 0)).tolist() == [SLUGS.index(second)] * 3
    baseline, _ = measure_baseline("majority", hearing)
    tested = split(hearing, "test")["rudiment"]
    assert baseline.scores["test_acc"] == (tested == baseline.chosen).mean() == pytest.approx(1 / 3)


def test_pooled_log_mels_tell_tones_apart(hearing: Hearing) -> None:
    baseline, _ = measure_baseline("logmel", hearing)
    assert baseline.scores["test_acc"] == 1.0
    assert baseline.chosen.startswith("C=")


def test_onsets_tell_spacings_apart_better_than_chance(make_sousa: Callable[..., Path], tmp_path: Path) -> None:
    # Far apart: 80 and 470 ms between taps.
    root = make_sousa(tmp_path / "sousa", rudiments=SLUGS, long_clips=0)
    dataset = read_subset(root, "tiny")
    kept = dataset.clips[dataset.clips["label"].isin([0, 39])].reset_index(drop=True)
    config = TrainConfig(data_dir=str(root), cache_dir=str(tmp_path / "cache"), clip_seconds=2.0)
    hearing = Hearing(dataclasses.replace(dataset, clips=kept), {"ast": config}, CPU)
    assert measure_baseline("onsets", hearing)[0].scores["test_acc"] == 1.0


def test_the_equally_near_vote_and_of_a_tie_the_first_class_wins() -> None:
    train = Labelled(torch.tensor([[0.0], [0.0], [0.0], [9.0], [9.0]]), torch.tensor([3, 5, 5, 2, 1]))
    predicted = fit_nearest(train, train).predict(torch.tensor([[1.0], [8.0], [100.0]]))
    assert predicted.tolist() == [5, 1, 1]


def test_columns_weigh_alike_whatever_their_unit() -> None:
    train, test = some(60, 2), some(40, 2, seed=1)
    unit = torch.tensor([1.0, 1000.0])
    plain = fit_nearest(train, train).predict(test.features)
    scaled = fit_nearest(Labelled(train.features * unit, train.labels), train).predict(test.features * unit)
    assert torch.equal(plain, scaled)


@pytest.mark.parametrize("k", NEIGHBOURS)
def test_neighbours_answer_as_scikit_learns(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifiers, "NEIGHBOURS", (k,))
    train, test = some(80, 6), some(300, 6, seed=1)
    fitted = fit_neighbours(train, some(20, 6, seed=2))
    theirs = KNeighborsClassifier(k, metric="cosine").fit(train.features.numpy(), train.labels.numpy())
    assert fitted.chosen == f"k={k}"
    assert fitted.predict(test.features).tolist() == theirs.predict(test.features.numpy()).tolist()


def test_fewer_training_clips_than_neighbours_are_no_error() -> None:
    few = some(3, 2)
    assert len(fit_neighbours(few, few).predict(some(5, 2).features)) == 5


def test_the_best_on_validation_is_chosen_and_of_equally_good_ones_the_first() -> None:
    validation = Labelled(torch.zeros(2, 1), torch.tensor([1, 2]))

    def always(*labels: int) -> Fitted:
        return Fitted(lambda features: torch.tensor(labels), str(labels))

    candidates = [always(0, 0), always(1, 0), always(1, 2), always(1, 2)]
    assert classifiers._best_on(validation, candidates) is candidates[2]


def test_one_class_is_nothing_to_tell_apart() -> None:
    one = Labelled(torch.randn(5, 2), torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ValueError, match="class"):
        fit_logistic(one, one)


def test_features_without_a_number_are_an_error_not_a_score(hearing: Hearing, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(clips: object, rate: int, heard: object) -> torch.Tensor:
        return torch.full((len(clips), 2), torch.nan)  # type: ignore[arg-type]

    monkeypatch.setattr(classifiers, "onset_features", broken)
    with pytest.raises(ValueError, match="the train clips is not finite"):
        measure_baseline("onsets", hearing)


def test_a_full_size_backbone_on_a_cpu_hears_few_clips_or_none(hearing: Hearing) -> None:
    base = {model: dataclasses.replace(trial, scale="base") for model, trial in hearing.trials.items()}
    few = dataclasses.replace(hearing, trials=base)
    clips = pd.concat([hearing.dataset.clips] * 9)
    many = dataclasses.replace(few, dataset=dataclasses.replace(hearing.dataset, clips=clips))
    assert len(clips) > classifiers.FEW_CLIPS >= len(hearing.dataset.clips)
    assert skipped("knn-ast", few) == skipped("majority", many) == skipped("logmel", many) == ""
    assert skipped("knn-ast", many) == "a full-size model on a CPU, and more than 200 clips"
    assert skipped("knn-ast", dataclasses.replace(many, device=torch.device("cuda"))) == ""
    assert skipped("knn-ast", dataclasses.replace(many, trials=hearing.trials)) == ""


def test_every_backbone_of_a_run_has_a_baseline() -> None:
    assert list(titles(REGISTRY)) == ["majority", "onsets", "logmel", *(f"knn-{model}" for model in REGISTRY)]
