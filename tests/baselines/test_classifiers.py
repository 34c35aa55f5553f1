"""Each baseline matches its definition, and learns nothing from the clips that it is scored on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sousaphone.backbones.registry import REGISTRY
from sousaphone.baselines import classifiers
from sousaphone.baselines.classifiers import (
    NEIGHBOURS,
    EvaluationSetup,
    Fitted,
    Labelled,
    fit_logistic,
    fit_majority,
    fit_nearest,
    fit_neighbours,
    measure_baseline,
    select_best,
    skip_reason,
    titles,
)
from sousaphone.config import TrainConfig
from sousaphone.data.dataset import Dataset
from sousaphone.data.prepare import read_subset
from sousaphone.rudiments import SLUGS
from sousaphone.runs.baseline_results import AVERAGED, SCORES

CPU = torch.device("cpu")
NAMES = ("majority", "length", "onsets", "strokes", "logmel", "knn-ast", "knn-efficientat")


@pytest.fixture(scope="module")
def setup(trial_config: Callable[..., TrainConfig]) -> EvaluationSetup:
    trials = {model: trial_config(model=model) for model in ("ast", "efficientat")}
    return EvaluationSetup(read_subset(Path(trials["ast"].data_dir), "tiny"), trials, CPU)


def split(setup: EvaluationSetup, name: str) -> pd.DataFrame:
    clips = setup.dataset.clips
    return clips[clips["split"] == name]


def some(clips: int, width: int, classes: int = 4, seed: int = 0) -> Labelled:
    """Noise with a weak signal of the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (clips,), generator=generator)
    return Labelled(torch.randn(clips, width, generator=generator) + labels[:, None] / 2, labels)


@pytest.mark.parametrize("name", NAMES)
def test_scores_match_the_test_predictions(name: str, setup: EvaluationSetup) -> None:
    baseline, predictions = measure_baseline(name, setup)
    assert (baseline.name, baseline.title, baseline.why) == (name, titles(setup.trials)[name], "")
    assert set(baseline.scores) == {*SCORES, *AVERAGED}
    assert baseline.seconds > 0
    assert list(predictions) == ["sample_id", "player", "rudiment", "predicted", "averaged_predicted"]
    assert predictions["sample_id"].tolist() == split(setup, "test")["sample_id"].tolist()
    for way in ("", "averaged_"):
        true, predicted = predictions["rudiment"], predictions[f"{way}predicted"]
        assert set(predicted) <= set(SLUGS)
        assert baseline.scores[f"test_{way}acc"] == pytest.approx((true == predicted).mean())
        assert baseline.scores[f"test_{way}macro_f1"] == pytest.approx(
            f1_score(true, predicted, average="macro", labels=true.unique())
        )


@pytest.mark.parametrize("name", NAMES)
def test_results_are_reproducible(name: str, setup: EvaluationSetup) -> None:
    (first, predictions), (second, again) = measure_baseline(name, setup), measure_baseline(name, setup)
    assert dataclasses.replace(first, seconds=0) == dataclasses.replace(second, seconds=0)
    pd.testing.assert_frame_equal(predictions, again)


def relabelled(dataset: Dataset, name: str) -> Dataset:
    """The same clips with the labels of one split shifted by one clip."""
    clips = dataset.clips.copy()
    mine = clips["split"] == name
    for column in ("label", "rudiment"):
        clips.loc[mine, column] = pd.concat([clips.loc[mine, column].iloc[1:], clips.loc[mine, column].iloc[:1]]).array
    return dataclasses.replace(dataset, clips=clips)


@pytest.mark.parametrize("name", NAMES)
def test_predictions_do_not_depend_on_test_labels(name: str, setup: EvaluationSetup) -> None:
    baseline, predictions = measure_baseline(name, setup)
    other = dataclasses.replace(setup, dataset=relabelled(setup.dataset, "test"))
    changed, again = measure_baseline(name, other)
    assert again["predicted"].tolist() == predictions["predicted"].tolist()
    assert again["rudiment"].tolist() != predictions["rudiment"].tolist()
    assert (changed.chosen, changed.scores["val_acc"]) == (baseline.chosen, baseline.scores["val_acc"])


@pytest.mark.parametrize("fit", [fit_majority, fit_nearest])
def test_baselines_without_selection_ignore_validation_clips(
    fit: Callable[[Labelled, Labelled], Fitted],
) -> None:
    train, features = some(50, 3), some(20, 3, seed=1).features
    one, other = (fit(train, some(30, 3, seed=seed)).score(features) for seed in (2, 3))
    assert torch.equal(one, other)


@pytest.mark.parametrize("fit", [fit_neighbours, fit_logistic])
def test_validation_clips_only_select_the_candidate(
    fit: Callable[[Labelled, Labelled], Fitted],
) -> None:
    train, features = some(60, 3), some(40, 3, seed=1).features
    predicted: dict[str, torch.Tensor] = {}
    for seed in range(2, 12):
        fitted = fit(train, some(10, 3, seed=seed))
        assert torch.equal(predicted.setdefault(fitted.chosen, fitted.score(features)), fitted.score(features))
    assert len(predicted) > 1


def test_majority_is_the_most_frequent_training_class(setup: EvaluationSetup) -> None:
    clips = split(setup, "train")
    second = clips["rudiment"].unique()[1]
    fewer = setup.dataset.clips.drop(clips.index[clips["rudiment"] != second][::2]).reset_index(drop=True)
    counted = fewer[fewer["split"] == "train"]["rudiment"].value_counts()
    assert counted.idxmax() == second
    labels = torch.tensor(fewer[fewer["split"] == "train"]["label"].to_numpy())
    fitted = fit_majority(Labelled(torch.zeros(len(labels), 0), labels), some(1, 1))
    assert fitted.chosen == second
    assert fitted.score(torch.zeros(3, 0)).argmax(1).tolist() == [SLUGS.index(second)] * 3
    baseline, _ = measure_baseline("majority", setup)
    tested = split(setup, "test")["rudiment"]
    assert baseline.scores["test_acc"] == (tested == baseline.chosen).mean() == pytest.approx(1 / 3)


def test_pooled_log_mels_distinguish_tones(setup: EvaluationSetup) -> None:
    baseline, _ = measure_baseline("logmel", setup)
    assert baseline.scores["test_acc"] == 1.0
    assert baseline.chosen.startswith("C=")


def test_onsets_distinguish_spacings(make_sousa: Callable[..., Path], tmp_path: Path) -> None:
    # Labels 0 and 39 have 80 and 470 ms between taps.
    root = make_sousa(tmp_path / "sousa", rudiments=SLUGS, long_clips=0)
    dataset = read_subset(root, "tiny")
    kept = dataset.clips[dataset.clips["label"].isin([0, 39])].reset_index(drop=True)
    config = TrainConfig(data_dir=str(root), cache_dir=str(tmp_path / "cache"), clip_seconds=2.0)
    setup = EvaluationSetup(dataclasses.replace(dataset, clips=kept), {"ast": config}, CPU)
    assert measure_baseline("onsets", setup)[0].scores["test_acc"] == 1.0


def test_length_alone_classifies_rudiments_of_different_lengths(
    make_sousa: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_sousa(tmp_path / "sousa", rudiments=SLUGS[:4], long_clips=0)  # 0.4, 1.1, 0.6 and 0.8 s
    config = TrainConfig(data_dir=str(root), cache_dir=str(tmp_path / "cache"), clip_seconds=2.0)
    setup = EvaluationSetup(read_subset(root, "tiny"), {"ast": config}, CPU)
    assert measure_baseline("length", setup)[0].scores["test_acc"] == 1.0
    # Only audio in the window counts: here all windows are full.
    full = EvaluationSetup(setup.dataset, {"ast": dataclasses.replace(config, clip_seconds=0.3)}, CPU)
    scores = measure_baseline("length", full)[0].scores
    assert scores["test_acc"] == scores["test_averaged_acc"] == measure_baseline("majority", full)[0].scores["test_acc"]


@pytest.mark.parametrize("classes", [2, 4])
def test_logistic_regression_predicts_as_scikit_learn(classes: int) -> None:
    train, test = some(60, 3, classes), some(200, 3, classes, seed=1)
    fitted = fit_logistic(train, train)
    regression = LogisticRegression(C=float(fitted.chosen.removeprefix("C=")), max_iter=300)
    theirs = make_pipeline(StandardScaler(), regression).fit(train.features.numpy(), train.labels.numpy())
    scores = fitted.score(test.features)
    assert scores.argmax(1).tolist() == theirs.predict(test.features.numpy()).tolist()
    assert scores.isneginf().sum(1).tolist() == [len(SLUGS) - classes] * 200  # classes without training clips


@pytest.mark.parametrize("name", NAMES)
def test_averaged_predictions_use_all_windows_of_long_clips(
    name: str, trial_config: Callable[..., TrainConfig], make_sousa: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_sousa(tmp_path / "sousa", players=3, rudiments=SLUGS[:3], long_clips=9)
    trials = {
        model: dataclasses.replace(trial_config(model=model), data_dir=str(root)) for model in ("ast", "efficientat")
    }
    seen: list[float] = []
    setup = EvaluationSetup(read_subset(root, "tiny"), trials, CPU, progress=seen.append)
    _, predictions = measure_baseline(name, setup)
    assert predictions["averaged_predicted"].notna().all()
    assert sum(seen) == pytest.approx(9)  # the progress bar of a baseline ends at all clips


def test_equally_near_clips_vote_and_ties_go_to_the_first_class() -> None:
    train = Labelled(torch.tensor([[0.0], [0.0], [0.0], [9.0], [9.0]]), torch.tensor([3, 5, 5, 2, 1]))
    predicted = fit_nearest(train, train).score(torch.tensor([[1.0], [8.0], [100.0]])).argmax(1)
    assert predicted.tolist() == [5, 1, 1]


def test_nearest_neighbour_does_not_depend_on_units() -> None:
    train, test = some(60, 2), some(40, 2, seed=1)
    unit = torch.tensor([1.0, 1000.0])
    plain = fit_nearest(train, train).score(test.features)
    scaled = fit_nearest(Labelled(train.features * unit, train.labels), train).score(test.features * unit)
    assert torch.equal(plain, scaled)


@pytest.mark.parametrize("k", NEIGHBOURS)
def test_neighbours_equal_scikit_learn(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifiers, "NEIGHBOURS", (k,))
    train, test = some(80, 6), some(300, 6, seed=1)
    fitted = fit_neighbours(train, some(20, 6, seed=2))
    theirs = KNeighborsClassifier(k, metric="cosine").fit(train.features.numpy(), train.labels.numpy())
    assert fitted.chosen == f"k={k}"
    assert fitted.score(test.features).argmax(1).tolist() == theirs.predict(test.features.numpy()).tolist()


def test_fewer_training_clips_than_neighbours_work() -> None:
    few = some(3, 2)
    assert len(fit_neighbours(few, few).score(some(5, 2).features)) == 5


def test_first_of_the_best_candidates_is_selected() -> None:
    validation = Labelled(torch.zeros(2, 1), torch.tensor([1, 2]))

    def always(*labels: int) -> Fitted:
        return Fitted(lambda features: torch.eye(3)[list(labels)], str(labels))

    candidates = [always(0, 0), always(1, 0), always(1, 2), always(1, 2)]
    assert select_best(validation, candidates) is candidates[2]


def test_single_training_class_is_an_error() -> None:
    one = Labelled(torch.randn(5, 2), torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ValueError, match="class"):
        fit_logistic(one, one)


def test_non_finite_features_are_an_error(setup: EvaluationSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(clips: object, rate: int, progress: object) -> torch.Tensor:
        return torch.full((len(clips), 2), torch.nan)  # type: ignore[arg-type]

    monkeypatch.setattr(classifiers, "onset_features", broken)
    with pytest.raises(ValueError, match="train clips are not finite"):
        measure_baseline("onsets", setup)


def test_full_size_backbone_on_a_cpu_is_skipped_for_many_clips(setup: EvaluationSetup) -> None:
    base = {model: dataclasses.replace(trial, scale="base") for model, trial in setup.trials.items()}
    few = dataclasses.replace(setup, trials=base)
    clips = pd.concat([setup.dataset.clips] * 9)
    many = dataclasses.replace(few, dataset=dataclasses.replace(setup.dataset, clips=clips))
    assert len(clips) > classifiers.MAX_CPU_CLIPS >= len(setup.dataset.clips)
    assert skip_reason("knn-ast", few) == skip_reason("majority", many) == skip_reason("logmel", many) == ""
    assert "200 clips" in skip_reason("knn-ast", many)
    assert skip_reason("knn-ast", dataclasses.replace(many, device=torch.device("cuda"))) == ""
    assert skip_reason("knn-ast", dataclasses.replace(many, trials=setup.trials)) == ""


def test_every_backbone_has_a_baseline() -> None:
    assert list(titles(REGISTRY)) == [
        "majority",
        "length",
        "onsets",
        "strokes",
        "logmel",
        *(f"knn-{model}" for model in REGISTRY),
    ]
