"""Front ends process groups of clips on a CPU; the features equal those of the whole batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from sousaphone.backbones import frontends
from sousaphone.backbones.frontends import (
    AstFrontend,
    BeatsFrontend,
    ClapFrontend,
    EfficientAtFrontend,
    Frontend,
    fourier_matrices,
    power_spectrum,
    silence_padding,
    to_float,
)
from sousaphone.backbones.registry import REGISTRY

MAKERS: dict[str, Callable[[], Frontend]] = {
    "ast": lambda: AstFrontend(REGISTRY["ast"].frontend, 128),
    "beats": lambda: BeatsFrontend(REGISTRY["beats"].frontend),
    "htsat": lambda: ClapFrontend(REGISTRY["htsat"].frontend, 1.0),
    "efficientat": lambda: EfficientAtFrontend(dataclasses.replace(REGISTRY["efficientat"].frontend, hop=160, mels=64)),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("clips", [1, 2, 5])
def test_features_do_not_depend_on_groups(name: str, clips: int, monkeypatch: pytest.MonkeyPatch) -> None:
    frontend = MAKERS[name]()
    generator = torch.Generator().manual_seed(clips)
    wave = torch.rand(clips, frontend.sample_rate, generator=generator) - 0.5
    lengths = torch.randint(2_000, frontend.sample_rate + 1, (clips,), generator=generator)
    monkeypatch.setattr(frontends, "GROUP_SAMPLES", 2 * frontend.sample_rate)
    grouped = frontend(wave, lengths)
    monkeypatch.setattr(frontends, "GROUP_SAMPLES", 10**9)
    assert torch.allclose(grouped, frontend(wave, lengths), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("hop", [1_600, 1_601, 8_000])
def test_overlapping_windows_have_the_features_of_separate_ones(name: str, hop: int) -> None:
    frontend = MAKERS[name]()
    generator = torch.Generator().manual_seed(hop)
    wave = torch.randint(-9_000, 9_000, (3 * frontend.sample_rate,), dtype=torch.int16, generator=generator)
    views = wave.unfold(0, frontend.sample_rate, hop)
    lengths = torch.full((len(views),), frontend.sample_rate)
    separate = frontend(to_float(views.clone(memory_format=torch.contiguous_format)), lengths)
    assert torch.allclose(frontend(to_float(views), lengths), separate, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", MAKERS)
def test_mel_bank_blocks_equal_the_full_product(name: str) -> None:
    frontend: Any = MAKERS[name]()
    bank = frontend.bank
    power = torch.rand(3, 7, len(bank.matrix))
    assert len(bank.blocks) == -(-bank.bands // 32)
    assert sum(b - a for a, b, _, _ in bank.blocks) < 1.2 * len(bank.matrix)
    torch.testing.assert_close(bank(power), power @ bank.matrix, rtol=1e-5, atol=1e-6)


def test_power_spectrum_is_bit_equal_to_sum_of_squares() -> None:
    frames = torch.rand(3, 50) - 0.5
    spectrum = torch.fft.rfft(frames, n=64)
    assert torch.equal(power_spectrum(frames, 64), spectrum.real.square() + spectrum.imag.square())


@pytest.mark.parametrize(("window", "fft"), [(400, 512), (1024, 1024), (5, 8)])
def test_products_with_fourier_matrices_are_the_transform(window: int, fft: int) -> None:
    frames = torch.rand(3, window) - 0.5
    spectrum = torch.fft.rfft(frames.double(), n=fft)
    cosine, sine = fourier_matrices(window, fft)
    torch.testing.assert_close((frames @ cosine).double(), spectrum.real, rtol=0, atol=1e-4)
    torch.testing.assert_close((frames @ sine).double(), -spectrum.imag, rtol=0, atol=1e-4)


def test_silence_padding_leaves_clips_and_input_unchanged() -> None:
    wave = torch.rand(3, 50) + 0.1
    given = wave.clone()
    silenced = silence_padding(wave, torch.tensor([50, 20, 0]))
    assert torch.equal(wave, given)
    assert torch.equal(silenced[0], given[0])
    assert torch.equal(silenced[1], torch.cat([given[1, :20], torch.zeros(30)]))
    assert not silenced[2].any()
    assert silence_padding(wave, torch.tensor([50, 60, 50])) is wave


@pytest.mark.parametrize("name", MAKERS)
def test_gradient_reaches_the_waveform(name: str) -> None:
    frontend = MAKERS[name]()
    samples = frontend.sample_rate
    wave, lengths = torch.rand(2, samples) - 0.5, torch.tensor([samples, samples // 2])
    plain = frontend(wave, lengths)
    found = frontend(wave.requires_grad_(), lengths)
    torch.testing.assert_close(found.detach(), plain, rtol=1e-4, atol=1e-4)
    found.sum().backward()
    assert wave.grad is not None
    assert wave.grad[0].any()
    assert wave.grad[1, : samples // 2].any()


@pytest.mark.parametrize("width", [900, 1_000, 1_300])
def test_fast_fill_equals_general_fill(width: int) -> None:
    frontend = ClapFrontend(REGISTRY["htsat"].frontend, 1_000 / 48_000)
    wave = torch.rand(3, width) - 0.5
    once = torch.tensor([501, 700, min(width, 1_000)])
    alone = frontend.fill(wave, once)
    # With a short clip in the batch the general path is used.
    general = frontend.fill(torch.cat([wave, wave[:1]]), torch.cat([once, torch.tensor([300])]))
    assert torch.equal(alone, general[:3])


def test_int16_is_scaled_and_float_is_unchanged() -> None:
    wave = to_float(torch.tensor([-32768, 0, 16384, 32767], dtype=torch.int16))
    assert wave.dtype == torch.float32
    assert wave.tolist() == [-1.0, 0.0, 0.5, 32767 / 32768]
    assert to_float(wave) is wave
