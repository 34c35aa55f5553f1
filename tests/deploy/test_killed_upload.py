"""A killed upload is resumed, and no log contains the token."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sousaphone.cli.command import EXIT_OK
from sousaphone.deploy import model_folder
from sousaphone.deploy.export import export
from sousaphone.deploy.trained_trials import best_arm
from sousaphone.runs.directory import RunDirectory
from tests.deploy.conftest import STATEMENT
from tests.deploy.hub_server import OWNER, TOKEN, Hub

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_killed_upload_is_resumed_and_no_log_has_the_token(run: RunDirectory, tmp_path: Path) -> None:
    export(best_arm(run), tmp_path / "both", STATEMENT)
    second = hashlib.sha256((tmp_path / "both" / "seed-1" / model_folder.ADAPTER).read_bytes()).hexdigest()
    hub, log = Hub(), tmp_path / "log"
    hub.lost = {second}

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "sousaphone", "publish", str(tmp_path / "both"), "--to", f"{OWNER}/drums"]
        settings = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_DEBUG": "1"}
        with log.open("ab") as output:
            return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings}, stdout=output, stderr=output)

    with hub.served():
        process = start()
        # The library uploads both at once.
        while not (hub.large and f"PUT /upload/{second}" in hub.requests) and process.poll() is None:
            time.sleep(0.1)
        process.kill()
        process.wait()
        assert (hub.commits, len(hub.large)) == (0, 1)
        hub.lost.clear()
        hub.requests.clear()
        assert start().wait() == EXIT_OK, log.read_text()
    assert [each for each in hub.requests if each.startswith("PUT")] == [f"PUT /upload/{second}"]
    assert hub.commits == 1
    assert "<TOKEN>" in log.read_text()  # the library logs its requests
    assert TOKEN not in log.read_text()
