"""Weights from a local server that imitates the hub: fetched once, checked, then found offline."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import ASTConfig, ASTModel

from tests.backbones.beats_nets import official, perturbed
from tests.backbones.test_ast import SMALL
from tests.weights.server import COMMIT, Published

pytestmark = pytest.mark.slow
RESOLVE = """
import sys
from sousaphone.errors import UserError
from sousaphone.weights import resolve_all
try:
    print(*resolve_all({sys.argv[1]: sys.argv[2]}, "base").values())
except UserError as error:
    sys.exit(str(error))
"""


def publish(server: Published, repository: str, directory: Path, kind: str = "models") -> None:
    """Serve a directory like a repository of the hub."""
    paths = (path for path in directory.rglob("*") if path.is_file())
    files = {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}
    server.add_repository(repository, files, kind)


def resolve(name: str, choice: str, cache: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    """Resolve in a new process, because the hub's library reads its environment once."""
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1"}
    environment.pop("SOUSAPHONE_WEIGHTS", None)
    command = [sys.executable, "-c", RESOLVE, name, choice]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture
def ast(tmp_path: Path) -> Path:
    path = tmp_path / "ast"
    model = ASTModel(ASTConfig(**SMALL))
    model.save_pretrained(path)
    torch.save(model.state_dict(), path / "pytorch_model.bin")
    (path / "README.md").write_text("about it")
    return path


def test_repository_is_fetched_once_without_unused_files(ast: Path, tmp_path: Path) -> None:
    server, cache = Published(), tmp_path / "cache"
    publish(server, "someone/ast", ast)
    with server.served():
        result = resolve("ast", "hub:someone/ast", cache, server.url)
    assert result.returncode == 0, result.stderr
    snapshot = Path(result.stdout.strip())
    assert snapshot == cache / "models--someone--ast" / "snapshots" / COMMIT
    assert {path.name for path in snapshot.iterdir()} == {"config.json", "model.safetensors"}
    # The server has ended.
    again = resolve("ast", "hub:someone/ast", cache, "http://127.0.0.1:9")
    assert again.stdout == result.stdout, again.stderr


def test_published_name_with_another_size_is_refused(ast: Path, tmp_path: Path) -> None:
    server = Published()
    publish(server, "MIT/ast-finetuned-audioset-10-10-0.4593", ast)
    with server.served():
        result = resolve("ast", "auto", tmp_path / "cache", server.url)
    assert result.returncode == 1
    assert "86,187,264" in result.stderr


def test_file_with_another_hash_is_refused(tmp_path: Path) -> None:
    server = Published()
    (tmp_path / "mirror").mkdir()
    torch.save(official(perturbed()), tmp_path / "mirror" / "BEATs_iter3_plus_AS2M.pt")
    publish(server, "Bencr/beats-checkpoints", tmp_path / "mirror", "datasets")
    with server.served():
        result = resolve("beats", "auto", tmp_path / "cache", server.url)
    assert result.returncode == 1
    assert "d43cbfad4d7b56381c061d7a24774f908d4d94c72961f6eb1d9090ff18cd8d34" in result.stderr


def test_missing_repository_is_named(tmp_path: Path) -> None:
    server = Published()
    with server.served():
        result = resolve("ast", "hub:someone/nothing", tmp_path / "cache", server.url)
    assert result.returncode == 1
    assert "https://huggingface.co/someone/nothing" in result.stderr
    assert "no such repository" in result.stderr


def test_repository_without_the_file_is_named_and_not_fetched(tmp_path: Path) -> None:
    server = Published()
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "README.md").write_text("moved")
    publish(server, "Bencr/beats-checkpoints", tmp_path / "mirror", "datasets")
    with server.served():
        result = resolve("beats", "auto", tmp_path / "cache", server.url)
    assert result.returncode == 1
    assert "BEATs_iter3_plus_AS2M.pt" in result.stderr
    assert not list((tmp_path / "cache").rglob("README.md"))
