"""Models from a local server that imitates the hub: only the needed files are fetched, then they are found offline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sousaphone.deploy import model_folder
from sousaphone.deploy.export import export
from sousaphone.deploy.trained_trials import best_arm
from sousaphone.rudiments import SLUGS
from sousaphone.runs.directory import RunDirectory
from tests.deploy.conftest import STATEMENT
from tests.weights.server import Published
from tests.weights.test_hub import COMMIT, publish

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
LOAD = """
import json, numpy, sys, sousaphone
from sousaphone.errors import UserError
for source in sys.argv[1:]:
    try:
        found = sousaphone.load(source)(numpy.ones(16_000) / 2, 16_000).tolist()
    except UserError as error:
        found = str(error)
    print(json.dumps(found))
"""


def loaded(sources: Sequence[str], cache: Path, endpoint: str) -> list[Any]:
    """Return the probabilities or the error of each source, in a new process, since the hub's library reads its
    environment once."""
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", LOAD, *sources]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_model_of_the_hub_is_fetched_once_without_unused_files(run: RunDirectory, tmp_path: Path) -> None:
    both = tmp_path / "both"
    export(best_arm(run), both, STATEMENT)
    (both / "extra.bin").write_bytes(b"unused")
    server, cache = Published(), tmp_path / "cache"
    publish(server, "someone/drums", both)
    (both / "extra.bin").unlink()
    with server.served():
        fetched, local, missing = loaded(["someone/drums", str(both), "someone/nothing"], cache, server.url)
    # The server has ended.
    again, unreachable = loaded(["hub:someone/drums", "someone/nothing"], cache, "http://127.0.0.1:9")
    assert len(local) == len(SLUGS)
    assert fetched == again == local
    snapshot = cache / "models--someone--drums" / "snapshots" / COMMIT
    unused = {model_folder.CARD, model_folder.RESULTS, "extra.bin"}
    assert not unused & {path.name for path in snapshot.rglob("*")}
    for error in (missing, unreachable):
        assert "someone/nothing" in error
        assert "\n" not in error
