"""python -m sousaphone.weights: list, fetch, verify."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from sousaphone.backbones.registry import REGISTRY
from sousaphone.cli.weights import main
from sousaphone.weights.check import fixed_clip
from tests.weights.conftest import Machine


def test_the_list_says_of_each_backbone_what_it_is_and_where_it_is(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = {"config.json": b"{}", "model.safetensors": b"weights"}
    snapshot = machine.into_hub_cache("laion/clap-htsat-unfused", whole)
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name, spec in REGISTRY.items():
        assert f"{name}: {spec.title}, " in text
        assert spec.licence in text
        assert spec.pretraining in text
        assert spec.weights[0].address in text
    assert f"  here, unchecked: {snapshot}" in text
    assert text.count("  missing: python -m sousaphone.weights fetch ") == len(REGISTRY) - 1


def test_fetching_without_a_network_names_all_that_is_missing(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "beats", "efficientat"]) == 2
    text = capsys.readouterr().err
    assert "weights of beats, efficientat are not on this machine" in text
    assert main(["fetch", "wavlm"]) == 2
    assert "backbone 'wavlm' is unknown; choose from: ast, " in capsys.readouterr().err


def test_verifying_gives_the_same_numbers_each_time(
    machine: Machine, small_mn: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.pt"
    path.write_bytes(small_mn)
    said = []
    for _ in range(2):
        assert main(["verify", f"efficientat={path}"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert "  origin: local\n" in said[0]
    assert "  parameters: 43,384\n" in said[0]
    assert re.search(r"fingerprint of the loaded tensors: [0-9a-f]{64}\n", said[0])
    assert re.search(r"fixed clip: 96 numbers of mean \S+ and norm \S+, the first ", said[0])


def test_verifying_looks_at_all_that_is_here_and_says_what_is_wrong(
    machine: Machine, small_mn: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify"]) == 1
    assert "no published weights are on this machine" in capsys.readouterr().out
    spec = REGISTRY["efficientat"]
    source = dataclasses.replace(spec.weights[0], sha256=None, file="mn.pt", parameters=43_384)
    monkeypatch.setitem(REGISTRY, "efficientat", dataclasses.replace(spec, weights=(source,)))
    (machine.torch / "mn.pt").write_bytes(small_mn)
    assert main(["verify"]) == 0
    assert "parameters: 43,384 (as published)" in capsys.readouterr().out
    (machine.torch / "mn.pt").write_bytes(small_mn[:-500])
    assert main(["verify", "efficientat", "beats"]) == 1
    captured = capsys.readouterr()
    assert "efficientat: " in captured.err
    assert "damaged" in captured.err
    assert "beats: not on this machine; to fetch it: python -m sousaphone.weights fetch beats" in captured.err


def test_the_help_has_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "\n  python -m sousaphone.weights verify " in text
    assert "exit codes: " in text


@pytest.mark.parametrize("rate", [16_000, 32_000, 48_000])
def test_the_fixed_clip_is_the_same_sound_everywhere(rate: int) -> None:
    clip = fixed_clip(rate)
    assert clip.shape == (2.5 * rate,)
    assert np.array_equal(clip[:: rate // 16_000], fixed_clip(48_000)[::3])
    loud = np.abs(clip.astype(int))
    assert loud.max() <= 16_000
    assert loud[: rate // 100].mean() > 5 * loud[rate // 10 : rate // 8].mean()
