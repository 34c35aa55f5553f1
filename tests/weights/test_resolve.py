"""Resolution of `--weights`: order of the sources, and the message about missing weights."""

from __future__ import annotations

import dataclasses
import socket
import threading
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

import launch
from sousaphone.backbones.backbone_spec import WeightSource
from sousaphone.backbones.registry import DEFAULT_SWEEP, REGISTRY
from sousaphone.errors import UserError
from sousaphone.weights import download
from sousaphone.weights.locate import is_complete
from sousaphone.weights.resolve import resolve_all
from tests.weights.conftest import Machine
from tests.weights.server import Published

MN10 = REGISTRY["efficientat"].weights
AST = "ast-finetuned-audioset-10-10-0.4593"
WHOLE = {"config.json": b"{}", "model.safetensors": b"weights"}


def resolve(name: str, scale: str, option: str) -> str:
    return resolve_all({name: option}, scale)[name]


def without_hash(name: str, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> WeightSource:
    """Replace the registry's source by one without a hash."""
    spec = REGISTRY[name]
    source = dataclasses.replace(spec.weights, sha256=None, **changes)
    monkeypatch.setitem(REGISTRY, name, dataclasses.replace(spec, weights=source))
    return source


def test_user_directory_takes_precedence_over_caches(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    without_hash("efficientat", monkeypatch)
    (machine.torch / MN10.name).write_bytes(b"cached")
    assert resolve("efficientat", "base", "auto") == str(machine.torch / MN10.name)
    monkeypatch.setenv("SOUSAPHONE_WEIGHTS", str(machine.own))
    (machine.own / MN10.name).write_bytes(b"mine")
    assert resolve("efficientat", "base", "auto") == str(machine.own / MN10.name)
    other = machine.own / "other.pt"
    other.touch()
    assert resolve("efficientat", "base", str(other)) == str(other)


@pytest.mark.parametrize("name", ["ast", AST])
def test_checkpoint_in_user_directory_has_backbone_or_repository_name(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("SOUSAPHONE_WEIGHTS", str(machine.own))
    (machine.own / name).mkdir()
    assert resolve("ast", "base", "auto") == str(machine.own / name)


def test_missing_user_directory_is_refused(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOUSAPHONE_WEIGHTS", "/nowhere")
    with pytest.raises(UserError, match=r"SOUSAPHONE_WEIGHTS.*/nowhere"):
        resolve("ast", "base", "auto")


def test_complete_snapshot_is_used_offline(machine: Machine) -> None:
    snapshot = machine.into_hub_cache(f"MIT/{AST}", WHOLE)
    assert resolve("ast", "base", "auto") == str(snapshot)
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(UserError, match="not on this machine"):
        resolve("ast", "base", "auto")


def test_beats_is_found_in_a_data_set_repository(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    source = without_hash("beats", monkeypatch)
    snapshot = machine.into_hub_cache("Bencr/beats-checkpoints", {source.name: b"weights"}, "datasets")
    assert resolve("beats", "base", "auto") == str(snapshot / source.name)


def test_sharded_checkpoint_is_complete_with_all_shards(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}'
    )
    (tmp_path / "1.safetensors").touch()
    assert not is_complete(tmp_path)
    (tmp_path / "2.safetensors").touch()
    assert is_complete(tmp_path)


def test_other_bytes_under_published_name_need_an_explicit_path(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOUSAPHONE_WEIGHTS", str(machine.own))
    path = machine.own / MN10.name
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match=f"{MN10.url}.* SHA-256 .*--weights efficientat={path}"):
        resolve("efficientat", "base", "auto")
    assert resolve("efficientat", "base", str(path)) == str(path)


def test_damaged_blob_in_hub_cache_is_refused(machine: Machine) -> None:
    snapshot = machine.into_hub_cache(f"MIT/{AST}", WHOLE)
    blob = snapshot.parents[1] / ("ab" * 32)
    (snapshot / "model.safetensors").rename(blob)
    (snapshot / "model.safetensors").symlink_to(blob)
    with pytest.raises(UserError, match=r"model\.safetensors .*https://huggingface.co/MIT/.* SHA-256"):
        resolve("ast", "base", "auto")


def test_hub_repository_is_resolved(machine: Machine) -> None:
    snapshot = machine.into_hub_cache("someone/ast", WHOLE)
    assert resolve("ast", "base", "someone/ast") == resolve("ast", "base", "hub:someone/ast") == str(snapshot)
    file = machine.into_hub_cache("someone/beats", {"tuned.pt": b"x"}, "datasets") / "tuned.pt"
    assert resolve("beats", "base", "hub:datasets/someone/beats/tuned.pt") == str(file)
    with pytest.raises(UserError, match=r"hub:OWNER/NAME/FILE\.pt"):
        resolve("beats", "base", "hub:someone/beats")


def test_missing_path_is_refused_in_one_line(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for given in ("/nowhere/ast", "mine/ast", "ast", ""):
        with pytest.raises(UserError, match=r"no such file or directory.*hub:OWNER/NAME") as error:
            resolve("ast", "base", given or "./ast")
        assert "\n" not in str(error.value)


def test_one_message_lists_all_missing_weights(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ["--scale", "base", "--weights", "auto", "--device", "cpu", "--storage", str(tmp_path / "results")]
    assert launch.main(options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    for name in DEFAULT_SWEEP:
        source = REGISTRY[name].weights
        assert f"  {name}: http" in captured.err
        assert source.address in captured.err
        assert f"DIR/{source.name}/" in captured.err or f"{source.address} and put it into DIR/" in captured.err
        assert f" {name}=PATH" in captured.err
    assert "set SOUSAPHONE_WEIGHTS=DIR" in captured.err
    assert not (tmp_path / "results").exists()
    monkeypatch.setenv("SOUSAPHONE_WEIGHTS", str(machine.own))
    with pytest.raises(UserError, match=f"put it into {machine.own}/"):
        resolve("efficientat", "base", "auto")


def test_silent_network_times_out(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def hang(*_: object, **__: object) -> None:
        ended.wait()
        raise URLError("too late")

    monkeypatch.setattr(download, "urlopen", hang)
    monkeypatch.setattr(download, "CONNECT_SECONDS", 0.3)
    with pytest.raises(UserError, match=r"https://huggingface.co .*0\.3 s"):
        resolve_all(dict.fromkeys(DEFAULT_SWEEP, "auto"), "base")
    ended.set()


def test_http_error_counts_as_reachable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with Published().served() as server:
            errors = download.unreachable([server.url, closed])
    assert list(errors) == [closed]
    assert "Connection refused" in errors[closed]


def test_missing_file_is_fetched_once_and_checked(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, small_mn: bytes
) -> None:
    from urllib.request import urlopen

    monkeypatch.setattr(download, "urlopen", urlopen)
    with Published().served() as server:
        server.files["/mn.pt"] = small_mn
        source = without_hash("efficientat", monkeypatch, url=f"{server.url}/mn.pt", file="mn.pt", parameters=43_384)
        assert resolve("efficientat", "base", "auto") == str(machine.torch / "mn.pt")
        requests = len(server.requests)
        assert resolve("efficientat", "base", "auto") == str(machine.torch / "mn.pt")
        assert len(server.requests) == requests
        (machine.torch / "mn.pt").unlink()
        without_hash("efficientat", monkeypatch, parameters=7)
        with pytest.raises(UserError, match=f"{source.address}.* 43,384 .* 7;"):
            resolve("efficientat", "base", "auto")
        assert not (machine.torch / "mn.pt").exists()


@pytest.mark.parametrize(("scale", "option"), [("nano", "auto"), ("base", "random")])
def test_fine_tuned_beats_without_weights_is_refused(scale: str, option: str) -> None:
    assert resolve("beats", scale, option) == "random"
    with pytest.raises(UserError, match="--models beats"):
        resolve("beats-ft", scale, option)


def test_default_sweep_excludes_fine_tuned_beats() -> None:
    assert DEFAULT_SWEEP == ("ast", "htsat", "efficientat", "beats")
    assert set(REGISTRY) - set(DEFAULT_SWEEP) == {"beats-ft", "strokes"}
