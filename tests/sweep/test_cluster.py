"""A sweep on a real cluster of one small node, given by RAY_ADDRESS."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from sousaphone.runs.trial_record import TrialRecord
from tests.sweep.conftest import Launcher, free_port

pytestmark = pytest.mark.slow


def answers(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def record(launcher: Launcher, model: str) -> TrialRecord:
    found = TrialRecord.read(launcher.storage / "run" / "trials" / f"{model}-lora-sweep-aug-off-s0")
    assert found is not None
    return found


@pytest.fixture
def cluster() -> Iterator[dict[str, str]]:
    """The environment variables to use the cluster: its address and its token."""
    access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
    directory = tempfile.mkdtemp(prefix="ray")  # a short path: Ray puts sockets there
    port = free_port()
    command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", f"--port={port}", "--num-cpus=1"]
    command += ["--include-dashboard=false", "--disable-usage-stats"]
    command += [f"--temp-dir={directory}", "--object-store-memory=100000000"]
    with (Path(directory) / "log.txt").open("w+") as log:
        node = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **access})
        try:
            while not answers(port):
                assert node.poll() is None, (Path(directory) / "log.txt").read_text()
                time.sleep(0.2)
            yield {"RAY_ADDRESS": f"127.0.0.1:{port}", **access}
        finally:
            node.terminate()  # and its children
            node.wait()
            shutil.rmtree(directory, ignore_errors=True)


def test_sweep_runs_on_a_cluster_and_excessive_resources_are_refused(
    launcher: Launcher, cluster: dict[str, str]
) -> None:
    launcher.environment |= cluster
    # Steps of 1e30 overflow in the product of adapters; EfficientAT has none here, and its trained layer stays finite.
    options = [*launcher.options, "--models", "efficientat", "--lora-targets", "sweep", "--augment", "off"]
    options += ["--epochs", "2", "--set", "learning_rate=1e30", "max_grad_norm=1e30", "weight_decay=0"]
    assert launcher.start(*options, "--cpus-per-trial", "2").wait() == 2, launcher.log
    assert "--cpus-per-trial 2" in launcher.log
    assert "the cluster has 1" in launcher.log
    assert not (launcher.storage / "run").exists()

    assert launcher.start(*options).wait() == 1, launcher.log
    assert "Traceback" not in launcher.log
    adapted, plain = record(launcher, "ast"), record(launcher, "efficientat")
    assert (plain.status, len(plain.history)) == ("completed", 2)
    assert (adapted.status, adapted.history) == ("diverged", [])
    assert "learning_rate" in str(adapted.reason)
    assert str(adapted.reason) in launcher.log

    assert not adapted.status.is_retried  # it would diverge again


@pytest.mark.parametrize("address", [None, "nonsense"])
def test_cluster_that_does_not_answer_is_one_line(address: str | None, launcher: Launcher) -> None:
    launcher.environment["RAY_ADDRESS"] = address = address or f"127.0.0.1:{free_port()}"
    assert launcher.start(*launcher.options).wait() == 2
    assert launcher.log.splitlines()[-1].startswith(f"launch.py: error: RAY_ADDRESS '{address}' ")
    assert "--cpus-per-trial" in launcher.log
    assert "Traceback" not in launcher.log
    assert not (launcher.storage / "run").exists()
