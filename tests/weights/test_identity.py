"""Identity of weights files: hash, origin, and the record for tables and reports."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
import torch
from transformers import ASTConfig, ASTModel

from sousaphone.backbones.registry import REGISTRY
from sousaphone.config import TrainConfig
from sousaphone.model import build_model, load_backbone
from sousaphone.weights.identity import content_fingerprint, fingerprint, identify, note_origin, record_of
from tests.backbones.test_ast import SMALL
from tests.weights.conftest import Machine

MN = REGISTRY["efficientat"]
AST = "ast-finetuned-audioset-10-10-0.4593"


def test_checkpoint_hash_covers_only_files_that_are_read(tmp_path: Path) -> None:
    ASTModel(ASTConfig(**SMALL)).save_pretrained(tmp_path)
    before = content_fingerprint(str(tmp_path))
    (tmp_path / "README.md").write_text("fetched later")
    assert content_fingerprint(str(tmp_path)) == before
    (tmp_path / "preprocessor_config.json").write_text("{}")
    assert content_fingerprint(str(tmp_path)) != before


def test_fingerprint_depends_on_names_and_shapes() -> None:
    ones = [("a", (2, 3)), ("b", (2, 3)), ("a", (3, 2)), ("a", (6,))]
    modules = [torch.nn.ParameterDict({name: torch.ones(shape)}) for name, shape in ones]
    assert len({fingerprint(module) for module in modules}) == len(ones)


def test_changed_file_has_another_hash(tmp_path: Path) -> None:
    path = tmp_path / "mn.pt"
    for content in (b"one", b"others"):
        path.write_bytes(content)
        assert content_fingerprint(str(path)) == hashlib.sha256(content).hexdigest()


def test_origin_is_hub_commit_or_noted_address_or_local(machine: Machine) -> None:
    snapshot = machine.into_hub_cache(f"MIT/{AST}", {"config.json": b"{}"})
    found = identify(REGISTRY["ast"], snapshot)
    assert found.origin == f"https://huggingface.co/MIT/{AST} at {snapshot.name}"
    assert found.published == REGISTRY["ast"].weights
    beats = machine.into_hub_cache("someone/beats", {"x.pt": b"x"}, "datasets") / "x.pt"
    found = identify(REGISTRY["beats"], beats)
    assert found.origin == f"https://huggingface.co/datasets/someone/beats/x.pt at {snapshot.name}"
    assert found.published is None
    fetched = machine.own / "mn.pt"
    fetched.write_bytes(b"weights")
    assert identify(MN, fetched).origin == "local"
    note_origin(fetched, "https://example.org/mn.pt", content_fingerprint(str(fetched)))
    assert identify(MN, fetched).origin == "https://example.org/mn.pt"
    fetched.write_bytes(b"replaced since")
    assert identify(MN, fetched).origin == "local"


def test_published_bytes_are_identified_by_hash(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    path.write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    source = dataclasses.replace(MN.weights, sha256=sha256)
    found = identify(dataclasses.replace(MN, weights=source), path)
    assert (found.published, found.sha256) == (source, sha256)
    assert found.origin == f"local, with the hash {source.address}"
    named = tmp_path / MN.weights.name
    named.write_bytes(b"other bytes under the published name")
    assert identify(MN, named).published is None


def test_record_describes_loaded_weights(tmp_path: Path, small_mn: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.pt"
    path.write_bytes(small_mn)
    model = build_model(TrainConfig(model="efficientat", weights=str(path)), 40)
    record = model.weights_record(str(path))
    assert record["source"] == str(path)
    assert record["origin"] == "local"
    assert record["sha256"] == hashlib.sha256(small_mn).hexdigest()
    assert record["fingerprint"] == model.base_fingerprint
    assert record["pretraining"] == "not known: not one of the published files"
    assert record["frontend"]["hop"] == 320
    assert record["frontend_mismatch"] == []
    source = dataclasses.replace(MN.weights, sha256=record["sha256"])
    model.backbone.spec = dataclasses.replace(MN, weights=source)
    record = model.weights_record(str(path))
    assert record["published"]
    assert (record["pretraining"], record["objective"], record["licence"]) == (MN.pretraining, MN.objective, "MIT")


def test_record_of_random_weights_has_no_source() -> None:
    record = record_of(load_backbone("ast", "nano"), "random")
    assert (record["origin"], record["published"], record["sha256"]) == ("random", False, None)
    assert record["pretraining"] is None
    assert record["frontend"]["mels"] == 128


def test_registry_states_pretraining_of_each_backbone() -> None:
    pretraining = {name: (spec.pretraining, spec.objective) for name, spec in REGISTRY.items()}
    assert len(set(pretraining.values())) == len(pretraining)
    assert pretraining["beats"] == ("AudioSet without its labels", "self-supervised")
    assert "then with them" in pretraining["beats-ft"][0]
    assert all("labels" in pretraining[name][0] for name in ("ast", "efficientat"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, spec in REGISTRY.items() if spec.is_pretrained])
def test_registry_counts_pretrained_parameters(name: str) -> None:
    from sousaphone.weights.check import pretrained_parameters

    count = pretrained_parameters(load_backbone(name, "base"))
    assert REGISTRY[name].weights.parameters == count
