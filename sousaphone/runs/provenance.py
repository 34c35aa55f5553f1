"""Provenance of a result: commit, versions, host."""

from __future__ import annotations

import importlib.metadata
import platform
import socket
import subprocess
from pathlib import Path
from typing import Any


def provenance() -> dict[str, Any]:
    """Return the git commit, the versions of Python and packages, and the host."""
    # A package may be installed inside the repository of another project.
    is_tracked = bool(_git("ls-files", Path(__file__).name))
    packages = ("sousaphone", "torch", "torchaudio", "transformers", "peft", "ray", "numpy")
    return {
        "git_commit": (_git("rev-parse", "HEAD") if is_tracked else "") or "unknown",
        "git_dirty": is_tracked and bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in packages},
        "host": socket.gethostname(),
        "platform": platform.platform(),
    }


def _git(*arguments: str) -> str:
    """Return the output of a git command in this package's repository; empty outside a repository."""
    command = ["git", "-C", str(Path(__file__).resolve().parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def package_version(package: str) -> str | None:
    """Return the installed version of a package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
