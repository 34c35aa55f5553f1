"""Weights from a local server that imitates the hub: fetched once, checked, then found offline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import ASTConfig, ASTModel

from tests.backbones.beats_nets import official, perturbed
from tests.backbones.test_ast import SMALL
from tests.weights.server import COMMIT, Published

pytestmark = pytest.mark.slow
RESOLVE = """
import json, sys
from sousaphone.errors import UserError
from sousaphone.weights import resolve_all
for word in sys.argv[1:]:
    name, _, choice = word.partition("=")
    try:
        (found,) = resolve_all({name: choice}, "base").values()
    except UserError as error:
        found = str(error)
    print(json.dumps(found))
"""


def publish(server: Published, repository: str, directory: Path, kind: str = "models") -> None:
    """Serve a directory like a repository of the hub."""
    paths = (path for path in directory.rglob("*") if path.is_file())
    files = {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}
    server.add_repository(repository, files, kind)


def resolved(words: Sequence[str], cache: Path, endpoint: str) -> list[str]:
    """Return the path or the error of each NAME=CHOICE, in a new process: the hub's library reads its environment
    once."""
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1"}
    environment.pop("SOUSAPHONE_WEIGHTS", None)
    command = [sys.executable, "-c", RESOLVE, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def ast(tmp_path: Path) -> Path:
    path = tmp_path / "ast"
    model = ASTModel(ASTConfig(**SMALL))
    model.save_pretrained(path)
    torch.save(model.state_dict(), path / "pytorch_model.bin")
    (path / "README.md").write_text("about it")
    return path


def test_repository_is_fetched_once_without_unused_files_and_a_wrong_one_is_refused(ast: Path, tmp_path: Path) -> None:
    server, cache, mirror = Published(), tmp_path / "cache", tmp_path / "mirror"
    publish(server, "someone/ast", ast)
    publish(server, "MIT/ast-finetuned-audioset-10-10-0.4593", ast)
    mirror.mkdir()
    torch.save(official(perturbed()), mirror / "BEATs_iter3_plus_AS2M.pt")
    publish(server, "Bencr/beats-checkpoints", mirror, "datasets")
    words = ["ast=hub:someone/ast", "ast=auto", "beats=auto", "ast=hub:someone/nothing"]
    with server.served():
        found, other_size, other_hash, missing = resolved(words, cache, server.url)
    assert Path(found) == cache / "models--someone--ast" / "snapshots" / COMMIT
    assert {path.name for path in Path(found).iterdir()} == {"config.json", "model.safetensors"}
    assert "86,187,264" in other_size
    assert "d43cbfad4d7b56381c061d7a24774f908d4d94c72961f6eb1d9090ff18cd8d34" in other_hash
    assert "https://huggingface.co/someone/nothing" in missing
    assert "no such repository" in missing

    # Another server: the repository without the file is not fetched, and the first one's is found offline.
    server = Published()
    (mirror / "BEATs_iter3_plus_AS2M.pt").rename(mirror / "README.md")
    publish(server, "Bencr/beats-checkpoints", mirror, "datasets")
    shutil.rmtree(cache / "datasets--Bencr--beats-checkpoints")
    with server.served():
        again, without = resolved(["ast=hub:someone/ast", "beats=auto"], cache, server.url)
    assert again == found
    assert "BEATs_iter3_plus_AS2M.pt" in without
    assert not list(cache.rglob("README.md"))
