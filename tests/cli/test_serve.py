"""`sousaphone serve` refuses wrong arguments in one line. The page itself is tested in tests/deploy/page."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path

import pytest

from sousaphone.cli.serve import _listener, main


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The line on stderr."""
    try:
        code = main([*map(str, arguments)])
    except SystemExit as error:
        code = error.code
    output = capsys.readouterr()
    assert code == 2
    assert output.out == ""
    assert output.err.count("\n") == 1
    return output.err


@pytest.mark.parametrize("port", [-1, 65_536, "x"])
def test_port_is_validated(capsys: pytest.CaptureFixture[str], port: object) -> None:
    line = refused(capsys, "model", f"--port={port}")
    assert "--port" in line
    assert str(port) in line


def test_port_in_use_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--port {port}" in refused(capsys, "model", "--port", port)


def test_port_of_a_page_that_is_still_loading_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with _listener("127.0.0.1", 0) as loading:
        port = loading.getsockname()[1]
        assert f"--port {port}" in refused(capsys, "model", "--port", port)


def test_address_of_another_machine_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--host 192.0.2.1" in refused(capsys, "model", "--host", "192.0.2.1")


@pytest.mark.parametrize("host", ["a" * 64, ".a", "a..b"])
def test_text_that_is_no_host_is_refused(capsys: pytest.CaptureFixture[str], host: str) -> None:
    assert f"--host {host}" in refused(capsys, "model", "--host", host)


def test_runtime_is_used(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "runtime int8" in refused(capsys, tmp_path, "--port", 0, "--runtime", "int8", "--device", "mps")


def test_missing_extra_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gradio" else find(name))
    assert ".[demo]" in refused(capsys, "model")


def test_directory_without_a_model_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "config.json" in refused(capsys, tmp_path, "--port", 0)
