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


def test_list_shows_each_backbone_and_its_path(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    whole = {"config.json": b"{}", "model.safetensors": b"weights"}
    snapshot = machine.into_hub_cache("laion/clap-htsat-unfused", whole)
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name, spec in REGISTRY.items():
        assert f"{name}: {spec.title}, " in text
        if spec.is_pretrained:
            assert spec.licence in text
            assert spec.pretraining in text
            assert spec.weights.address in text
    assert str(snapshot) in text
    assert text.count("missing: ") == sum(spec.is_pretrained for spec in REGISTRY.values()) - 1


def test_fetch_without_a_network_names_all_missing_weights(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "beats", "efficientat"]) == 2
    text = capsys.readouterr().err
    assert "beats, efficientat" in text
    assert main(["fetch", "wavlm"]) == 2
    text = capsys.readouterr().err
    assert "'wavlm'" in text
    assert "ast" in text


def test_verify_is_reproducible(
    machine: Machine, small_mn: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.pt"
    path.write_bytes(small_mn)
    outputs = []
    for _ in range(2):
        assert main(["verify", f"efficientat={path}"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    assert "  origin: local\n" in outputs[0]
    assert "  parameters: 43,384\n" in outputs[0]
    assert re.search(r"fingerprint.*: [0-9a-f]{64}\n", outputs[0])
    assert re.search(r"fixed clip: 96 outputs, mean \S+, norm \S+, first ", outputs[0])


def test_every_file_that_is_given_is_verified(
    machine: Machine, small_mn: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.pt").write_bytes(small_mn)
    assert main(["verify", f"efficientat={tmp_path / 'gone.pt'}", f"efficientat={tmp_path / 'mine.pt'}"]) == 1
    captured = capsys.readouterr()
    assert "gone.pt" in captured.err
    assert "mine.pt" in captured.out


def test_verify_without_a_path_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "ast="]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "ast=" in line


@pytest.mark.parametrize("words", [["verify", "strokes"], ["verify", "strokes=net.pt"], ["fetch", "strokes"]])
def test_backbone_without_weights_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no published weights" in line
    assert "fetch" not in line


def test_verify_reports_all_weights_and_errors(
    machine: Machine, small_mn: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify"]) == 1
    assert "no published weights" in capsys.readouterr().out
    spec = REGISTRY["efficientat"]
    source = dataclasses.replace(spec.weights, sha256=None, file="mn.pt", parameters=43_384)
    monkeypatch.setitem(REGISTRY, "efficientat", dataclasses.replace(spec, weights=source))
    (machine.torch / "mn.pt").write_bytes(small_mn)
    assert main(["verify"]) == 0
    assert "parameters: 43,384 (as published)" in capsys.readouterr().out
    (machine.torch / "mn.pt").write_bytes(small_mn[:-500])
    assert main(["verify", "efficientat", "beats"]) == 1
    captured = capsys.readouterr()
    damaged, missing = captured.err.splitlines()
    assert damaged.startswith("efficientat: ")
    assert "damaged" in damaged
    assert missing.startswith("beats: ")
    assert "fetch beats" in missing


def test_help_has_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "\n  python -m sousaphone.weights verify " in text
    assert "exit codes: " in text


@pytest.mark.parametrize("rate", [16_000, 32_000, 48_000])
def test_fixed_clip_is_the_same_at_every_rate(rate: int) -> None:
    clip = fixed_clip(rate)
    assert clip.shape == (2.5 * rate,)
    assert np.array_equal(clip[:: rate // 16_000], fixed_clip(48_000)[::3])
    loud = np.abs(clip.astype(int))
    assert loud.max() <= 16_000
    assert loud[: rate // 100].mean() > 5 * loud[rate // 10 : rate // 8].mean()
