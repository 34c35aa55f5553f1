"""A model folder may come from anybody: whatever is wrong with it is one line, and nothing in it is executed."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sousaphone import load
from sousaphone.backbones.nano import shipped
from sousaphone.cli.command import EXIT_INPUT
from sousaphone.cli.predict import main as predict
from sousaphone.deploy import model_folder
from sousaphone.deploy.export import export
from sousaphone.deploy.model_folder import VERSION
from sousaphone.deploy.trained_trials import best_arm
from sousaphone.errors import UserError
from sousaphone.runs.directory import RunDirectory
from tests.deploy.conftest import STATEMENT


class Bomb:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    return copy


def change(folder: Path, **changes: Any) -> None:
    path = folder / model_folder.CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        load(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_tensors_that_do_not_fit_are_named(folder: Path) -> None:
    path = folder / model_folder.ADAPTER
    state = load_file(path)
    name = next(iter(state))
    for wrong, named in (
        ({f"{key}x" if key == name else key: tensor for key, tensor in state.items()}, f"{name}x"),
        ({key: tensor for key, tensor in state.items() if key != name}, name),
        ({**state, name: torch.zeros(1, 1)}, name),
        ({**state, name: state[name].long()}, name),
        ({**state, name: state[name] * float("nan")}, name),
        ({**state, "more": torch.zeros(1)}, "more"),
    ):
        save_file(wrong, path)
        message = refusal(folder)
        assert str(path) in message
        assert named in message


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"\xff" * 4096, struct.pack("<Q", 2**62) + b"{}", struct.pack("<Q", 2) + b"[]"],
    ids=["empty", "text", "bytes", "huge header", "list"],
)
def test_file_that_is_not_safetensors_is_refused(folder: Path, content: bytes) -> None:
    (folder / model_folder.ADAPTER).write_bytes(content)
    assert str(folder / model_folder.ADAPTER) in refusal(folder)


@pytest.mark.parametrize("name", [model_folder.ADAPTER, "adapter_model.bin", "extra.pt", "pytorch_model.PKL"])
def test_pickle_is_never_loaded(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    assert name in refusal(folder)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", [model_folder.CONFIG, model_folder.ADAPTER])
def test_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert name in refusal(folder)


def test_truncated_file_is_refused(folder: Path) -> None:
    path = folder / model_folder.ADAPTER
    path.write_bytes(path.read_bytes()[:-100])
    assert str(path) in refusal(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "pickle"),
        ("classes", []),
        ("classes", ["flam", "flam"]),
        ("classes", ["../flam", "drag"]),
        ("sample_rate", "16000"),
        ("sample_rate", 10**9),
        ("sample_rate", 32_000),  # not that of the front end
        ("clip_seconds", 1e9),
        ("clip_seconds", 2.0),  # not that of the architecture
        ("front_end", {}),
        ("calibration", {"temperature": 0.0}),
        ("calibration", {"undecided_below": 2.0}),
        ("members", ["a"]),
        ("base_weights", []),
        ("version", "1"),
    ],
)
def test_wrong_field_is_named(folder: Path, field: str, value: Any) -> None:
    change(folder, **{field: value})
    message = refusal(folder)
    assert str(folder / model_folder.CONFIG) in message
    assert field in message


@pytest.mark.parametrize(
    ("field", "value"),
    [("model", "resnet"), ("lora_r", 10**9), ("lora_r", 0), ("scale", 7), ("clip_seconds", float("nan")), ("seed", -1)],
)
def test_wrong_architecture_is_refused(folder: Path, field: str, value: Any) -> None:
    config = json.loads((folder / model_folder.CONFIG).read_text())
    change(folder, architecture={**config["architecture"], field: value})
    assert str(folder / model_folder.CONFIG) in refusal(folder)


def test_configuration_that_is_no_json_is_refused(folder: Path) -> None:
    for content in ("", "[", "[]", "{}", '{"format": "other", "version": 1}', "x" * 10_000):
        (folder / model_folder.CONFIG).write_text(content)
        assert str(folder / model_folder.CONFIG) in refusal(folder)


def test_later_version_is_refused_and_an_earlier_one_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(folder, version=VERSION + 1)
    assert str(VERSION + 1) in refusal(folder)
    monkeypatch.setattr(model_folder, "VERSION", VERSION + 1)
    change(folder, version=VERSION, later_field=1)
    assert load(folder).classes


@pytest.mark.parametrize(
    ("members", "changes", "named"),
    [
        (["one", "one"], {}, "members"),
        (["one", "two"], {"clip_seconds": 2.0}, "two"),
        (["one", "two"], {"kind": "ensemble", "members": ["c"]}, "two"),
    ],
)
def test_wrong_members_are_refused(
    model: Path, tmp_path: Path, members: list[str], changes: dict[str, Any], named: str
) -> None:
    for name in ("one", "two"):
        shutil.copytree(model, tmp_path / name)
    shutil.copy(model / model_folder.CONFIG, tmp_path)
    change(tmp_path, kind="ensemble", members=["one", "two"])
    assert load(tmp_path).classes
    config = json.loads((model / model_folder.CONFIG).read_text())
    seconds = changes.get("clip_seconds", config["clip_seconds"])
    change(tmp_path / "two", **changes, architecture={**config["architecture"], "clip_seconds": seconds})
    change(tmp_path, members=members)
    assert named in refusal(tmp_path)


def test_other_number_of_classes_does_not_fit(folder: Path) -> None:
    config = json.loads((folder / model_folder.CONFIG).read_text())
    change(folder, classes=config["classes"][:-1])
    assert "classifier" in refusal(folder)


def test_other_front_end_is_refused(folder: Path) -> None:
    config = json.loads((folder / model_folder.CONFIG).read_text())
    change(folder, front_end={**config["front_end"], "hop": 161})
    assert "hop 161" in refusal(folder)


def test_other_base_is_refused(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / model_folder.CONFIG).read_text())
    # Another seed draws other random weights.
    change(folder, architecture={**config["architecture"], "seed": 99})
    assert config["base_weights"]["fingerprint"][:12] in refusal(folder)
    change(folder, **config)
    change(folder, base_weights={**config["base_weights"], "source": str(tmp_path / "gone.pt"), "origin": "local"})
    message = refusal(folder)
    assert "gone.pt" in message
    assert "--weights" in message


def test_moved_base_weights_can_be_given_and_others_are_refused(
    every_backbone: Callable[..., RunDirectory], tmp_path: Path
) -> None:
    first, moved, other = (tmp_path / f"{name}.safetensors" for name in ("first", "moved", "other"))
    shutil.copy(str(shipped("efficientat")), first)
    with safe_open(first, "pt") as file:
        about = file.metadata()
    save_file({key: tensor * 2 for key, tensor in load_file(first).items()}, other, about)
    export(best_arm(every_backbone("efficientat", weights=str(first))), tmp_path / "model", STATEMENT)
    first.rename(moved)
    assert "--weights" in refusal(tmp_path / "model")
    assert load(tmp_path / "model", weights=moved).classes
    with pytest.raises(UserError, match="other base weights"):
        load(tmp_path / "model", weights=other)


def test_damaged_folder_is_one_line_on_the_command_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "take.wav").write_bytes(b"")
    (folder / model_folder.ADAPTER).write_bytes(pickle.dumps(1))
    assert predict([str(folder), str(tmp_path / "take.wav")]) == EXIT_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert model_folder.ADAPTER in line


@pytest.mark.parametrize("source", ["nowhere", "/nowhere/at/all", "three/part/name", "a b/c", ""])
def test_source_that_is_nothing_is_refused(source: str) -> None:
    with pytest.raises(UserError, match=r"folder|directory"):
        load(source)


def test_model_that_computes_no_finite_numbers_gives_no_answer(folder: Path) -> None:
    path = folder / model_folder.ADAPTER
    save_file({name: tensor.fill_(3e38) for name, tensor in load_file(path).items()}, path)
    with pytest.raises(UserError, match="NaN"):
        load(folder)(np.ones(1_000), 16_000)


def test_replaced_folder_keeps_its_name_until_the_new_one_is_on_the_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = []

    def flush(path: Path) -> None:
        assert (folder / model_folder.CONFIG).is_file()
        flushed.append(path.name)

    monkeypatch.setattr("sousaphone.files.flush", flush)
    with model_folder.new_folder(folder, overwrite=True) as new:
        shutil.copy(folder / model_folder.CONFIG, new)
    assert model_folder.CONFIG in flushed
    assert [path.name for path in folder.iterdir()] == [model_folder.CONFIG]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_model_that_a_killed_replacement_left_aside_is_restored(folder: Path) -> None:
    before = (folder / model_folder.CONFIG).read_bytes()
    folder.rename(folder.with_name(f".{folder.name}.123.old"))
    with pytest.raises(UserError, match="--overwrite"), model_folder.new_folder(folder):
        pass
    assert (folder / model_folder.CONFIG).read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
