"""Provenance names a commit only if it contains this package."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sousaphone.runs import provenance

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def git(directory: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    command = ["git", "-C", str(directory), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_commit_of_a_project_that_contains_an_installed_package_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "theirs")
    file = Path(shutil.copy(provenance.__file__, tmp_path))
    monkeypatch.setattr(provenance, "__file__", str(file))
    assert (provenance.provenance()["git_commit"], provenance.provenance()["git_dirty"]) == ("unknown", False)
    git(tmp_path, "add", file.name)
    git(tmp_path, "commit", "-m", "ours")
    assert provenance.provenance()["git_commit"] == git(tmp_path, "rev-parse", "HEAD")
