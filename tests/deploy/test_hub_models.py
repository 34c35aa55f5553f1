"""Models from a local server that imitates the hub: only the needed files are fetched, then they are found offline."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sousaphone.deploy import model_folder
from sousaphone.deploy.export import export
from sousaphone.deploy.trained_trials import best_arm
from sousaphone.runs.directory import RunDirectory
from tests.deploy.conftest import STATEMENT
from tests.weights.server import Published
from tests.weights.test_hub import COMMIT, publish

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
LOAD = """
import sys, numpy, sousaphone
from sousaphone.errors import UserError
try:
    print(*sousaphone.load(sys.argv[1])(numpy.ones(16_000) / 2, 16_000))
except UserError as error:
    sys.exit(str(error))
"""


def loaded(source: str, cache: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    """Load in a new process, because the hub's library reads its environment once."""
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", LOAD, source]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)


def test_model_of_the_hub_is_fetched_once_without_unused_files(run: RunDirectory, tmp_path: Path) -> None:
    export(best_arm(run), tmp_path / "both", STATEMENT)
    (tmp_path / "both" / "extra.bin").write_bytes(b"unused")
    server, cache = Published(), tmp_path / "cache"
    publish(server, "someone/drums", tmp_path / "both")
    with server.served():
        result = loaded("someone/drums", cache, server.url)
    assert result.returncode == 0, result.stderr
    (tmp_path / "both" / "extra.bin").unlink()
    assert result.stdout == loaded(str(tmp_path / "both"), cache, "http://127.0.0.1:9").stdout
    snapshot = cache / "models--someone--drums" / "snapshots" / COMMIT
    unused = {model_folder.CARD, model_folder.RESULTS, "extra.bin"}
    assert not unused & {path.name for path in snapshot.rglob("*")}
    # The server has ended.
    again = loaded("hub:someone/drums", cache, "http://127.0.0.1:9")
    assert again.stdout == result.stdout, again.stderr


def test_missing_repository_and_unreachable_hub_are_one_line(tmp_path: Path) -> None:
    server = Published()
    with server.served():
        missing = loaded("someone/nothing", tmp_path, server.url)
    unreachable = loaded("someone/nothing", tmp_path, "http://127.0.0.1:9")
    for result in (missing, unreachable):
        assert result.returncode == 1
        assert "Traceback" not in result.stderr
        assert "someone/nothing" in result.stderr.splitlines()[-1]
