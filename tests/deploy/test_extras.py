"""Without the extras of setup.cfg, commands that need one are refused in one line that names it."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from sousaphone import errors
from sousaphone.cli.main import main
from sousaphone.runs.directory import RunDirectory

EXTRAS = ("gradio", "onnx", "onnxruntime", "onnxscript", "wandb")


@pytest.fixture
def no_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    find = metadata.distribution

    def distribution(name: str) -> metadata.Distribution:
        if name in EXTRAS:
            raise metadata.PackageNotFoundError(name)
        return find(name)

    monkeypatch.setattr(metadata, "distribution", distribution)
    for name in EXTRAS:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("no_extras")
@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["serve", "MODEL"], "demo"),
        (["publish", "MODEL", "--to", "me/drums", "--space", "--dry-run"], "demo"),
        (["export", "RUN", "--onnx", "--to", "NEW"], "deploy"),
        (["export", "RUN", "--quantize", "--to", "NEW"], "deploy"),
        (["predict", "MODEL", "TAKE", "--runtime", "onnx"], "deploy"),
        (["evaluate", "MODEL", "DATA", "--runtime", "int8"], "deploy"),
        (["serve", "MODEL", "--runtime", "onnx"], "demo"),
    ],
)
def test_missing_extra_is_one_line(
    arguments: list[str],
    extra: str,
    run: RunDirectory,
    merged: Path,
    small_sousa: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    take = next(small_sousa.rglob("*.flac"))
    places = {"MODEL": merged, "RUN": run.path, "DATA": small_sousa, "TAKE": take, "NEW": tmp_path / "new"}
    assert main([str(places.get(word, word)) for word in arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"[{extra}]" in line
    assert not (tmp_path / "new").exists()


def test_remedy_needs_no_clone_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "-e '.[demo]'" in str(errors.not_installed("the page", ["gradio"], "demo"))
    monkeypatch.setattr(errors, "IS_CLONE", False)
    assert str(errors.not_installed("the page", ["gradio"], "demo")).endswith("install: pip install gradio")
