"""A wrong file of any format is refused in one line, and code in it is never executed."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import ASTConfig, ASTModel, ClapAudioConfig, ClapAudioModel

from sousaphone.backbones.efficientat import Channels, MobileNet
from sousaphone.errors import UserError
from sousaphone.model import load_backbone
from tests.backbones.beats_nets import GATED, official, perturbed
from tests.backbones.test_ast import SMALL
from tests.backbones.test_htsat import AUDIO

State = dict[str, Tensor]


class Format:
    """An official format: the tensors of a valid file, and a function that writes tensors to disk."""

    def __init__(self, name: str, state: State, write: Callable[[Path, State], Path]) -> None:
        self.name, self.state, self.write = name, state, write

    def refusal(self, path: Path) -> str:
        """The error for a file, which is one line with its path."""
        given = path.parent if self.name in ("ast", "htsat") else path
        with pytest.raises(UserError) as error:
            load_backbone(self.name, "base", str(given))
        assert "\n" not in str(error.value)
        assert str(given) in str(error.value)
        return str(error.value)


def transformers_format(name: str, model: Any, directory: Path) -> Format:
    model.save_pretrained(directory)
    (directory / "model.safetensors").unlink()

    def write(path: Path, state: State) -> Path:
        torch.save(state, directory / "pytorch_model.bin")
        return directory / "pytorch_model.bin"

    return Format(name, dict(model.state_dict()), write)


@pytest.fixture(params=["ast", "htsat", "beats", "beats-ft", "efficientat"])
def format(request: pytest.FixtureRequest, tmp_path: Path) -> Format:
    name: str = request.param
    torch.manual_seed(0)
    if name == "ast":
        return transformers_format(name, ASTModel(ASTConfig(**SMALL)), tmp_path)
    if name == "htsat":
        return transformers_format(name, ClapAudioModel(ClapAudioConfig(**AUDIO)), tmp_path)
    if name == "efficientat":
        net = MobileNet(Channels.of_width(0.1))
        state = {key: net.state_dict()[own] for own, key in net.official_keys().items()}

        def bare(path: Path, state: State) -> Path:
            torch.save(state, path / "mn.pt")
            return path / "mn.pt"

        return Format(name, state, bare)
    beats = perturbed(**GATED)
    content = official(beats, **({"predictor.weight": torch.zeros(5, 32)} if name == "beats-ft" else {}))

    def with_cfg(path: Path, state: State) -> Path:
        torch.save({"cfg": content["cfg"], "model": state}, path / "beats.pt")
        return path / "beats.pt"

    return Format(name, content["model"], with_cfg)


def a_matrix(state: State) -> str:
    """A tensor whose shape changes when it is transposed."""
    return next(
        key
        for key, tensor in state.items()
        if tensor.dim() >= 2 and tensor.shape[0] != tensor.shape[1] and not key.startswith("predictor")
    )


def test_valid_file_loads(format: Format, tmp_path: Path) -> None:
    path = format.write(tmp_path, format.state)
    given = path.parent if format.name in ("ast", "htsat") else path
    assert load_backbone(format.name, "base", str(given)).spec.name == format.name


def test_missing_tensor_is_named(format: Format, tmp_path: Path) -> None:
    key = a_matrix(format.state)
    path = format.write(tmp_path, {k: v for k, v in format.state.items() if k != key})
    assert f"missing: {key}" in format.refusal(path)


def test_renamed_tensor_is_missing_and_unknown(format: Format, tmp_path: Path) -> None:
    key = a_matrix(format.state)
    path = format.write(tmp_path, {("renamed" if k == key else k): v for k, v in format.state.items()})
    text = format.refusal(path)
    assert f"missing: {key}" in text
    assert "unknown: renamed" in text


def test_transposed_tensor_is_named(format: Format, tmp_path: Path) -> None:
    key = a_matrix(format.state)
    path = format.write(tmp_path, {**format.state, key: format.state[key].transpose(0, 1).contiguous()})
    assert f"of another shape: {key}" in format.refusal(path)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.99])
def test_truncated_file_is_refused(format: Format, tmp_path: Path, fraction: float) -> None:
    path = format.write(tmp_path, format.state)
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    format.refusal(path)


def test_file_of_another_model_is_refused(format: Format, tmp_path: Path) -> None:
    format.refusal(format.write(tmp_path, torch.nn.TransformerEncoderLayer(8, 2, 16).state_dict()))


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("archive", ["zip", "legacy", "plain pickle"])
def test_code_in_a_file_is_never_executed(format: Format, tmp_path: Path, archive: str) -> None:
    mark = tmp_path / "executed"
    path = format.write(tmp_path, format.state)
    content = {**format.state, "code": Hostile(mark)}
    if archive == "plain pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=archive == "zip")
        assert zipfile.is_zipfile(path) == (archive == "zip")
    format.refusal(path)
    assert not mark.exists()
    # Unrestricted loading does execute it.
    torch.load(path, weights_only=False) if archive != "plain pickle" else pickle.loads(path.read_bytes())
    assert mark.exists()
