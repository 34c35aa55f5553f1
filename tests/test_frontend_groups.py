"""On a CPU the front ends work on a few clips at a time; what they give is what they give for the whole batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from sousaphone import frontends
from sousaphone.frontends import AstFrontend, BeatsFrontend, ClapFrontend, EfficientAtFrontend, Frontend, power

MAKERS: dict[str, Callable[[], Frontend]] = {
    "ast": lambda: AstFrontend(128),
    "beats": BeatsFrontend,
    "htsat": lambda: ClapFrontend(1.0),
    "efficientat": lambda: EfficientAtFrontend(160, 64),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("clips", [1, 2, 5])
def test_groups_change_no_feature(name: str, clips: int, monkeypatch: pytest.MonkeyPatch) -> None:
    frontend = MAKERS[name]()
    generator = torch.Generator().manual_seed(clips)
    wave = torch.rand(clips, frontend.sample_rate, generator=generator) - 0.5
    lengths = torch.randint(2_000, frontend.sample_rate + 1, (clips,), generator=generator)
    grouped = frontend(wave, lengths)
    monkeypatch.setattr(frontends, "_CLIPS", 100)
    assert torch.allclose(grouped, frontend(wave, lengths), rtol=1e-6, atol=1e-6)


def test_power_is_that_of_the_two_parts_to_the_last_bit() -> None:
    spectrum = torch.fft.rfft(torch.rand(3, 64) - 0.5)
    assert torch.equal(power(spectrum), spectrum.real.square() + spectrum.imag.square())


@pytest.mark.parametrize("width", [900, 1_000, 1_300])
def test_a_clip_that_fits_the_window_once_is_filled_the_same_beside_one_that_is_repeated(width: int) -> None:
    frontend = ClapFrontend(1_000 / 48_000)
    wave = torch.rand(3, width) - 0.5
    once = torch.tensor([501, 700, min(width, 1_000)])
    alone = frontend.fill(wave, once)
    # A short clip among them sends all of them the long way.
    beside = frontend.fill(torch.cat([wave, wave[:1]]), torch.cat([once, torch.tensor([300])]))
    assert torch.equal(alone, beside[:3])
