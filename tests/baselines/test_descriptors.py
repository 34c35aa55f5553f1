"""Features of the baselines depend neither on padding nor on batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sousaphone.backbones.frontends import to_float
from sousaphone.backbones.registry import REGISTRY
from sousaphone.baselines import descriptors
from sousaphone.baselines.classifiers import EvaluationSetup
from sousaphone.baselines.descriptors import embeddings, log_mel_features, pooled_log_mels
from sousaphone.baselines.strokes import onset_features
from sousaphone.config import TrainConfig
from sousaphone.data.batches import ClipSet
from sousaphone.data.prepare import read_subset
from sousaphone.model import load_backbone
from sousaphone.transcription.transcribe import transcribe

CPU = torch.device("cpu")
RATE = 16_000


def no_progress(clips: int) -> None:
    pass


@pytest.fixture(scope="module")
def clips(trial_config: Callable[..., TrainConfig]) -> dict[str, ClipSet]:
    config = trial_config()
    return EvaluationSetup(read_subset(Path(config.data_dir), "tiny"), {"ast": config}, CPU).clips(RATE, CPU)


@pytest.mark.parametrize("rate", [16_000, 32_000, 48_000])
def test_log_mels_do_not_depend_on_padding(rate: int) -> None:
    wave = 0.1 * torch.randn(1, rate, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([rate // 2])
    padded = torch.cat([wave[:, : rate // 2], torch.zeros(1, rate // 2)], dim=1)
    noisy = torch.cat([wave[:, : rate // 2], 9 * torch.ones(1, rate // 2)], dim=1)
    alone = pooled_log_mels(wave[:, : rate // 2], lengths, rate)
    assert alone.shape == (1, 128)
    torch.testing.assert_close(pooled_log_mels(padded, lengths, rate), alone)
    torch.testing.assert_close(pooled_log_mels(noisy, lengths, rate), alone)


def test_log_mels_are_mean_and_deviation_over_frames() -> None:
    wave = 0.1 * torch.randn(1, 2_000, generator=torch.Generator().manual_seed(0))
    frames = wave[0].unfold(0, 400, 160)  # 25 ms every 10 ms, [F, 400]
    each = pooled_log_mels(frames, torch.full((len(frames),), 400), RATE)[:, :64]
    expected = torch.cat([each.mean(0), each.std(0, correction=0)])
    torch.testing.assert_close(pooled_log_mels(wave, torch.tensor([2_000]), RATE)[0], expected)


def test_log_mels_of_silence_and_short_clips_are_finite() -> None:
    assert pooled_log_mels(torch.zeros(2, 4_000), torch.tensor([4_000, 10]), RATE).isfinite().all()


def test_tone_is_in_the_same_band_at_every_rate() -> None:
    bands = set()
    for rate in (16_000, 32_000, 48_000):
        wave = torch.sin(2 * torch.pi * 1_000 * torch.arange(rate) / rate)[None]
        bands.add(int(pooled_log_mels(wave, torch.tensor([rate]), rate)[0, :64].argmax()))
    assert len(bands) == 1


def test_onsets_are_counted_within_the_clip_length(clips: dict[str, ClipSet]) -> None:
    (batch,) = clips["train"].evaluation_batches(100)
    found = onset_features(clips["train"], RATE, no_progress)
    for row, wave, length in zip(found, to_float(batch.wave).numpy(), batch.lengths.tolist(), strict=True):
        count = len(transcribe(np.ascontiguousarray(wave[:length]), RATE).times)
        assert row.tolist() == pytest.approx([count, count / (length / RATE)])
    assert (found[:, 0] > 2).all()


def test_features_do_not_depend_on_batches_and_progress_counts_all_clips(
    clips: dict[str, ClipSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    for describe in (onset_features, log_mel_features):
        monkeypatch.setattr(descriptors, "CPU_BATCH", 100)
        whole = describe(clips["train"], RATE, no_progress)
        monkeypatch.setattr(descriptors, "CPU_BATCH", 5)
        counts: list[int] = []
        torch.testing.assert_close(describe(clips["train"], RATE, counts.append), whole)
        assert sum(counts) == len(clips["train"]) == len(whole)
        assert len(counts) > 1


@pytest.mark.parametrize("model", REGISTRY)
def test_embedding_is_the_mean_of_tokens(model: str, trial_config: Callable[..., TrainConfig]) -> None:
    config, rate = trial_config(model=model), REGISTRY[model].sample_rate
    setup = EvaluationSetup(read_subset(Path(config.data_dir), "tiny"), {model: config}, CPU)
    test = setup.clips(rate, CPU)["test"]
    backbone = load_backbone(model, "nano", clip_seconds=1.0)
    found = embeddings(backbone, 4, test, rate, no_progress)
    (batch,) = test.evaluation_batches(100)
    with torch.inference_mode():
        tokens = backbone.encode(backbone.frontend(to_float(batch.wave), batch.lengths))
    torch.testing.assert_close(found, tokens.mean(1), atol=1e-4, rtol=1e-4)
    for name in backbone.spec.fresh:
        for parameter in backbone.get_submodule(name).parameters():
            parameter.data.normal_()
    assert torch.equal(embeddings(backbone, 4, test, rate, no_progress), found)
    assert not found.requires_grad
