"""A Space's folder: its pinned requirements suffice to start the page, which gives the answers of `predict`."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
import venv
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
import yaml
from packaging.requirements import Requirement

from sousaphone import load
from sousaphone.deploy.publish import plan, write
from sousaphone.deploy.space import requirements, space_files
from tests.sweep.conftest import free_port

NAME = "me/drums"


@pytest.fixture
def space(merged: Path, tmp_path: Path) -> Path:
    write(plan(merged, NAME, space=True, licence="cc-by-4.0"), tmp_path / "dry")
    return tmp_path / "dry" / "space"


def test_requirements_are_the_installed_versions_for_the_cpu() -> None:
    index, *pins = requirements()
    assert index.endswith("/cpu")
    names = {pin.name for pin in map(Requirement, pins)}
    assert {"gradio", "torch", "torchaudio", "transformers", "peft", "soundfile", "starlette"} <= names
    assert not {"ray", "tensorboard", "plotly", "wandb", "pytest", "triton", "sousaphone"} & names
    assert not any(name.startswith(("nvidia", "cuda")) for name in names)
    for pin in map(Requirement, pins):
        (version,) = pin.specifier
        assert version.operator == "=="
        assert "+" not in version.version
        assert metadata.version(pin.name).partition("+")[0] == version.version


def test_private_files_in_the_directory_of_the_package_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("__init__.py", "labels.csv", "net.safetensors", ".env", "notes.txt", ".checkpoints/draft.py"):
        path = tmp_path / "sousaphone" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.setattr("sousaphone.__file__", str(tmp_path / "sousaphone" / "__init__.py"))
    files = space_files({}, NAME, None)
    found = {name for name, content in files.items() if isinstance(content, Path)}
    assert found == {f"sousaphone/{name}" for name in ("__init__.py", "labels.csv", "net.safetensors")}


def test_card_configures_the_space(space: Path) -> None:
    header = yaml.safe_load((space / "README.md").read_text().split("---")[1])
    assert (header["sdk"], header["app_file"], header["models"]) == ("gradio", "app.py", [NAME])
    assert (header["sdk_version"], header["license"]) == (metadata.version("gradio"), "cc-by-4.0")
    assert f"gradio=={header['sdk_version']}" in (space / "requirements.txt").read_text()


def environment(directory: Path, pins: list[str]) -> Path:
    """Make an environment with links to the installed files of these packages alone; return its Python."""
    venv.create(directory, with_pip=False, symlinks=True)
    (site,) = directory.glob("lib/python*/site-packages")
    for name in (Requirement(pin).name for pin in pins):
        found = metadata.distribution(name)
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(found.locate_file(top))  # type: ignore[arg-type]
        if name == "torch" and (libraries := Path(str(found.locate_file("nvidia")))).exists():
            (site / "nvidia").symlink_to(libraries)  # this build is not for the CPU alone
    return directory / "bin" / "python"


@pytest.fixture
def address(space: Path, tmp_path: Path) -> Iterator[str]:
    """The address of the page, served by the Space's folder in a fresh environment."""
    python = environment(tmp_path / "venv", (space / "requirements.txt").read_text().splitlines()[1:])
    port = free_port()
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    process = subprocess.Popen(
        [python, "app.py"],
        cwd=space,
        env={**kept, "GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        while process.poll() is None:
            try:
                httpx.get(url, timeout=60)
                break
            except httpx.TransportError:
                time.sleep(0.2)
        assert process.poll() is None, process.stderr and process.stderr.read()
        yield url
    finally:
        process.kill()
        process.communicate()


def answer(url: str, recording: Path) -> list[Any]:
    """What the page shows for a recording, obtained by the requests that a browser sends."""
    with httpx.Client(base_url=url, timeout=240) as client:
        (path,) = client.post("/gradio_api/upload", files={"files": (recording.name, recording.read_bytes())}).json()
        session = uuid.uuid4().hex
        file = {"path": path, "orig_name": recording.name, "meta": {"_type": "gradio.FileData"}}
        client.post("/gradio_api/queue/join", json={"fn_index": 0, "session_hash": session, "data": [file]})
        with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
            for line in stream.iter_lines():
                message = json.loads(line.removeprefix("data: ") or "{}")
                if message.get("msg") == "process_completed":
                    assert message["success"], message
                    return message["output"]["data"]
    raise AssertionError("the page did not answer")


@pytest.mark.slow
def test_space_starts_in_a_fresh_environment_and_answers(
    space: Path, merged: Path, address: str, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "take.wav", np.random.default_rng(0).standard_normal(20_000) / 10, 16_000)
    (top,) = (
        each for each in answer(address, tmp_path / "take.wav") if isinstance(each, dict) and "confidences" in each
    )
    (segment,) = load(merged).predict(tmp_path / "take.wav").segments
    assert [each["confidence"] for each in top["confidences"]] == pytest.approx([p for _, p in segment.top], abs=1e-5)
