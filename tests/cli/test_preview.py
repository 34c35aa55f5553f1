"""Plots of the models' input have the windows and masks of training."""

import dataclasses

import numpy as np
import pytest

from sousaphone.backbones.frontends import BeatsFrontend
from sousaphone.backbones.registry import REGISTRY
from sousaphone.cli.preview import look, preview
from sousaphone.config import TrainConfig
from sousaphone.data.readers.sousa import read_dataset
from sousaphone.rudiments import SLUGS

RATE = 44_100
FRONTEND = BeatsFrontend(REGISTRY["beats"].frontend)


@pytest.fixture(scope="module")
def clicks():
    """Ten strokes, a quarter of a second apart from 0.2 s, float32 [T]."""
    time = np.arange(3 * RATE) / RATE
    wave = np.zeros(len(time), np.float32)
    for at in 0.2 + 0.25 * np.arange(10):
        since = np.maximum(time - at, 0)
        wave += np.where(time >= at, np.exp(-since / 0.02) * np.sin(2 * np.pi * 900 * since), 0).astype(np.float32)
    return 0.5 * wave


def test_view_is_the_models_window(clicks):
    plain, augmented = look(clicks, RATE, FRONTEND, TrainConfig(clip_seconds=2.5), seed=0)
    for view in (plain, augmented):
        assert len(view.wave) == 40_000
        assert view.image.shape == (128, 248)
    centre = 0.25  # s, start of the window of 2.5 s in a clip of 3 s
    expected = 0.2 + 0.25 * np.arange(10) - centre
    assert plain.strokes == pytest.approx(expected[expected > 0], abs=0.02)
    assert plain.hidden == 0


@pytest.mark.parametrize("milliseconds", [0.0, 100_000.0])
def test_strokes_under_a_time_mask_are_counted(clicks, milliseconds):
    config = TrainConfig(clip_seconds=2.5, time_mask_ms=milliseconds, freq_mask=0.0)
    hidden = [look(clicks, RATE, FRONTEND, config, seed)[1] for seed in range(3)]
    if milliseconds:
        assert any(view.hidden > 2 for view in hidden)
    else:
        assert all(view.hidden == 0 for view in hidden)


def test_noise_adds_no_strokes(clicks):
    config = TrainConfig(clip_seconds=2.5, noise_snr_db=0.0, speed=0.0, shift_ms=0.0)
    plain, augmented = look(clicks, RATE, FRONTEND, config, seed=0)
    assert augmented.strokes == pytest.approx(plain.strokes, abs=0.02)


def test_one_plot_per_clip_of_different_rudiments(make_sousa, tmp_path):
    dataset = read_dataset(make_sousa(tmp_path / "sousa", rudiments=SLUGS[:3], long_clips=0))
    paths = list(preview(dataset, tmp_path / "out", clips=2, scales=["nano"]))
    assert [path.read_bytes()[:4] for path in paths] == [b"\x89PNG"] * 2
    drawn = dataset.clips[dataset.clips.sample_id.isin([path.name.removesuffix("-nano.png") for path in paths])]
    assert drawn.rudiment.nunique() == 2
    assert set(drawn.split) == {"train"}


@pytest.mark.parametrize("training", [["a/flam tap/1", "a/flam_tap/1"], ["é" * 130, "ö" + "é" * 130]])
def test_different_ids_have_different_plots(make_sousa, tmp_path, training):
    dataset = read_dataset(make_sousa(tmp_path / "sousa", rudiments=SLUGS[:1], long_clips=0))
    dataset = dataclasses.replace(dataset, clips=dataset.clips.assign(sample_id=[*training, "b", "c"]))
    assert len(set(preview(dataset, tmp_path / "out", clips=2, scales=["nano"]))) == 2
