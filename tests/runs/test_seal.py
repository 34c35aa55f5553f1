"""Seals are valid on one's own machine, also after a move, and for exactly the sealed files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sousaphone.runs.seal import is_sealed, pickles, seal


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """A sealed experiment of one trial."""
    directory = tmp_path / "run" / "tune" / "001"
    (directory / "trial").mkdir(parents=True)
    for name in ("experiment_state-1.json", "tuner.pkl", "trial/params.pkl", "trial/result.json"):
        (directory / name).write_text(name)
    seal(directory, pickles(directory))
    return directory


def sealed(directory: Path) -> bool:
    return is_sealed(directory, pickles(directory))


def test_moved_experiment_is_sealed(experiment: Path, tmp_path: Path) -> None:
    assert sealed(experiment)
    assert sealed(experiment.rename(tmp_path / "001"))


@pytest.mark.parametrize(
    "change",
    [
        lambda path: (path / "tuner.pkl").write_text("other"),
        lambda path: (path / "trial" / "params.pkl").unlink(),
        lambda path: (path / "trial" / "error.pkl").write_text("more"),
        lambda path: (path / "trial" / "params.pkl").rename(path / "trial" / "other.pkl"),
        lambda path: (path / "experiment_state-2.json").write_text("newer"),
        lambda path: (path / ".seal").write_text("é"),
        lambda path: (path / ".seal").write_bytes(b"\xff"),
        lambda path: (path / ".seal").unlink(),
    ],
)
def test_changed_experiment_is_not_sealed(experiment: Path, change: Callable[[Path], object]) -> None:
    change(experiment)
    assert not sealed(experiment)


def test_log_may_change(experiment: Path) -> None:
    (experiment / "trial" / "result.json").write_text("more")
    assert sealed(experiment)


def test_seal_of_another_user_is_not_valid(experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "other"))
    assert not sealed(experiment)  # without a key, and with one
    seal(tmp_path, [])
    assert not sealed(experiment)
    key = tmp_path / "other" / "sousaphone" / "key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert list(key.parent.iterdir()) == [key]
    key.write_bytes(b"")
    assert not is_sealed(tmp_path, [])


def test_no_seal_without_a_configuration_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    seal(tmp_path, [])
    assert not is_sealed(tmp_path, [])
