"""Augmentation stays within its limits, differs between clips, and is reproducible from its seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from sousaphone.backbones.frontends import AstFrontend, ClapFrontend, Frontend
from sousaphone.backbones.registry import REGISTRY
from sousaphone.backbones.strokes import THRESHOLD, StrokeFrontend
from sousaphone.config import TrainConfig
from sousaphone.training import augment
from sousaphone.transcription.transcribe import peaks

FRONTEND = AstFrontend(REGISTRY["ast"].frontend, 256)
CLAP = ClapFrontend(REGISTRY["htsat"].frontend)
OFF = TrainConfig(gain_db=0.0, shift_ms=0.0, noise_snr_db=200.0, speed=0.0, freq_mask=0.0, time_mask_ms=0.0)
RATE, SAMPLES = 16_000, 16_000
WAVE_LIMITS = {"gain_db": 5.0, "shift_ms": 5.0, "noise_snr_db": 20.0, "speed": 0.1}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tone(clips: int = 4, samples: int = SAMPLES, hertz: float = 1_000.0) -> torch.Tensor:
    return 0.25 * torch.sin(2 * torch.pi * hertz * torch.arange(samples) / RATE).repeat(clips, 1)


def changed(wave: torch.Tensor, seed: int = 0, **limits: float) -> torch.Tensor:
    lengths = torch.full((len(wave),), wave.shape[1])
    config = dataclasses.replace(OFF, **limits)
    return augment.augment_wave(wave, lengths, SAMPLES, RATE, config, rng(seed))[0]


def test_waveform_is_unchanged_with_every_limit_at_zero() -> None:
    assert torch.allclose(changed(tone()), tone(), atol=1e-6)


def test_gain_stays_within_its_limit_and_differs_between_clips() -> None:
    decibels = 20 * torch.log10(changed(tone(64), gain_db=6.0).abs().amax(1) / 0.25)
    assert decibels.abs().max() <= 6.01
    assert decibels.std() > 2


def test_noise_is_never_louder_than_its_signal_to_noise_ratio() -> None:
    noise = changed(tone(32), noise_snr_db=20.0) - tone(32)
    ratio = 10 * torch.log10(tone(32).square().mean(1) / noise.square().mean(1))
    assert ratio.min() > 19.5


def test_noise_level_does_not_depend_on_the_length_of_the_sound() -> None:
    short = tone(8)
    short[:, SAMPLES // 4 :] = 0.0
    config = dataclasses.replace(OFF, noise_snr_db=20.0)
    noisy, _ = augment.augment_wave(short, torch.full((8,), SAMPLES // 4), SAMPLES, RATE, config, rng())
    assert torch.allclose(noisy - short, changed(tone(8), noise_snr_db=20.0) - tone(8), atol=1e-5)


def test_noise_is_normal_white_and_independent_between_clips() -> None:
    noise = changed(tone(32), noise_snr_db=20.0) - tone(32)  # [32, T]
    noise = noise / noise.std(1, keepdim=True)
    assert noise.mean(1).abs().max() < 0.05
    assert noise.pow(4).mean() == pytest.approx(3.0, abs=0.1)  # kurtosis of a normal distribution
    power = torch.fft.rfft(noise).abs().square().mean(0)  # [T / 2 + 1]
    octaves = [float(power[a : 2 * a].mean() / power[1:].mean()) for a in (500, 1_000, 2_000, 4_000)]
    assert octaves == pytest.approx([1.0] * 4, abs=0.1)
    correlation = (noise @ noise.T / SAMPLES).fill_diagonal_(0.0)
    assert correlation.abs().max() < 0.05


def test_int16_input_gives_the_result_of_float_input() -> None:
    wave = (tone() * 32768).short()
    assert torch.equal(changed(wave, speed=0.1, gain_db=3.0), changed(wave / 32768, speed=0.1, gain_db=3.0))


def test_speed_changes_the_pitch_by_its_fraction() -> None:
    wave = changed(tone(16, samples=round(SAMPLES * 1.2)), speed=0.1)
    hertz = torch.fft.rfft(wave * torch.hann_window(SAMPLES)).abs().argmax(1).float()
    assert 895 <= hertz.min() < 960
    assert 1040 < hertz.max() <= 1105


def test_shift_leaves_silence_only_before_the_sound() -> None:
    wave = changed(torch.full((64, SAMPLES + 1600), 0.25), shift_ms=100.0)
    silence = wave.abs() < 1e-6
    silent = silence.sum(1)
    assert silent.max() <= 1600
    assert (silent > 0).any()
    assert (silent == 0).any()
    assert (silence.long().diff(dim=1) <= 0).all()


def test_lengths_are_the_ends_of_the_sound_after_speed_and_shift() -> None:
    wave = torch.full((32, SAMPLES), 0.25)
    wave[:, SAMPLES // 2 :] = 0.0
    config = dataclasses.replace(OFF, speed=0.1, shift_ms=50.0)
    changed_wave, lengths = augment.augment_wave(wave, torch.full((32,), SAMPLES // 2), SAMPLES, RATE, config, rng())
    ends = ((changed_wave > 1e-3) * torch.arange(1, SAMPLES + 1)).amax(1)
    assert (ends - lengths).abs().max() <= 2
    assert lengths.float().std() > 500


def test_input_window_fills_the_clip_at_every_speed_and_shift() -> None:
    config = dataclasses.replace(OFF, clip_seconds=SAMPLES / RATE, speed=0.1, shift_ms=50.0)
    wave = torch.full((64, round(augment.window_seconds(config) * RATE)), 0.25)
    changed_wave, lengths = augment.augment_wave(wave, torch.full((64,), wave.shape[1]), SAMPLES, RATE, config, rng())
    assert (changed_wave[:, -1] > 0.2).all()
    assert (lengths == SAMPLES).all()


def with_masks(
    features: torch.Tensor, frontend: Frontend, config: TrainConfig, seed: int = 0, samples: int = 10**7
) -> torch.Tensor:
    """The features with masks, of clips of so many samples."""
    return augment.mask_features(features, torch.full((len(features),), samples), frontend, config, rng(seed))


def test_masks_stay_within_their_fraction_and_milliseconds() -> None:
    config = dataclasses.replace(OFF, freq_mask=0.23, time_mask_ms=400.0)
    features = torch.randn(64, 256, 128, generator=rng(1))
    masked = with_masks(features, FRONTEND, config)
    hidden = masked != features
    bins = hidden.all(1).sum(1)  # [64] bins masked in every frame
    frames = hidden.all(2).sum(1)
    assert 0 < bins.float().mean() < 2 * 0.23 * 128
    assert bins.max() <= 2 * 0.23 * 128 + 2
    assert frames.max() <= 2 * 40 + 2
    assert len(set(bins.tolist())) > 10


def test_masks_are_filled_with_the_mean_of_the_clip() -> None:
    features = torch.randn(4, 256, 128, generator=rng(1)) + 10.0 * torch.arange(4)[:, None, None]
    config = dataclasses.replace(OFF, freq_mask=0.3)
    for before, after in zip(features, with_masks(features, FRONTEND, config), strict=True):
        hidden = after[after != before]
        assert len(hidden) > 0
        assert torch.allclose(hidden, before.mean(), atol=1e-4)


def test_time_masks_add_no_strokes() -> None:
    features = torch.zeros(64, 1_000, 4)
    features[:, ::40, :2] = 0.8
    features[:, :, 3] = 0.7  # buzzes raise the mean above the threshold of a stroke
    config = dataclasses.replace(OFF, time_mask_ms=400.0)
    masked = with_masks(features, StrokeFrontend(REGISTRY["strokes"].frontend), config)
    strokes, left = (peaks(each[:, :, 0], THRESHOLD)[0] for each in (features, masked))
    assert (left <= strokes).all()
    assert left.sum() < strokes.sum()


@pytest.mark.parametrize("seconds", [2.0, 3.0, 5.0])
def test_time_masks_hide_the_same_audio_in_every_repetition_of_a_clip(seconds: float) -> None:
    period, features = round(100 * seconds), torch.randn(64, 1, 1_001, 64, generator=rng(1))
    config = dataclasses.replace(OFF, time_mask_ms=400.0)
    hidden = (with_masks(features, CLAP, config, samples=round(48_000 * seconds)) != features)[:, 0, :, 0]
    copies = hidden[:, : 1_001 // period * period].unflatten(1, (-1, period))
    assert (copies == copies[:, :1]).all()
    assert 20 < copies[:, 0].sum(1).float().mean() < 60  # of the frames of a clip: two masks of 0 to 40, some overlap


def test_time_masks_of_a_clip_without_repetition_do_not_depend_on_the_layout() -> None:
    features = torch.randn(64, 1, 256, 64, generator=rng(1))
    config = dataclasses.replace(OFF, freq_mask=0.23, time_mask_ms=400.0)
    expected = with_masks(features[:, 0], FRONTEND, config)
    assert torch.equal(with_masks(features, CLAP, config)[:, 0], expected)
    assert torch.equal(with_masks(features, CLAP, config, samples=CLAP.samples // 2 + 1)[:, 0], expected)


def test_mixup_blends_features_and_labels_with_equal_weights() -> None:
    config = dataclasses.replace(OFF, mixup_alpha=1.0)
    labels = torch.eye(4)
    features, targets = augment.mixup(labels.clone(), labels, config, rng(3))
    assert torch.allclose(features, targets)
    assert torch.allclose(targets.sum(1), torch.ones(4))
    assert not torch.equal(targets, labels)


def masked(seed: int, **limits: float) -> torch.Tensor:
    features = torch.randn(4, 256, 128, generator=rng(1))
    return with_masks(features, FRONTEND, dataclasses.replace(OFF, **limits), seed)


def mixed(seed: int, **limits: float) -> torch.Tensor:
    return augment.mixup(torch.eye(4), torch.eye(4), dataclasses.replace(OFF, **limits), rng(seed))[0]


@pytest.mark.parametrize(
    ("stage", "limit"),
    [
        *((lambda seed, **limits: changed(tone(), seed, **limits), limit) for limit in WAVE_LIMITS.items()),
        (masked, ("freq_mask", 0.3)),
        (masked, ("time_mask_ms", 400.0)),
        (mixed, ("mixup_alpha", 1.0)),
    ],
)
def test_augmentation_is_reproducible_from_its_seed(
    stage: Callable[..., torch.Tensor], limit: tuple[str, float]
) -> None:
    first, same, other = (stage(seed, **dict([limit])) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
