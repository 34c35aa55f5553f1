"""Checkpoints and adapters that somebody sent: those that do not fit are ignored or refused, and execute nothing."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sousaphone.config import TrainConfig
from sousaphone.data.prepare import open_trial_data
from sousaphone.errors import UserError
from sousaphone.model import RudimentClassifier, build_model
from sousaphone.rudiments import SLUGS
from sousaphone.runs.trial_record import ADAPTER_NAME, CHECKPOINTS_NAME, OLDER_ADAPTER_NAME
from sousaphone.training import adapter, checkpoint
from sousaphone.training.loop import fit, fits
from tests.test_hostile_run import mutated
from tests.training.older_files import save_older

PARTS = ("model", "best", "optimizer")


class Trial:
    """A directory with the checkpoints of two epochs, the second of which a test changes, and an adapter."""

    def __init__(self, directory: Path, config: TrainConfig, model: RudimentClassifier) -> None:
        self.directory, self.config, self.model = directory, config, model

    @property
    def second(self) -> Path:
        return next((self.directory / CHECKPOINTS_NAME).glob("epoch_0002-*"))

    def epochs(self) -> int:
        """The epochs of the state from which the trial is resumed."""
        state = checkpoint.newest(self.directory, partial(fits, self.config, self.model))
        return len(state["history"]) if state else 0

    def state(self) -> dict[str, Any]:
        state = checkpoint.newest(self.directory)
        assert state is not None
        return state

    def seal(self) -> None:
        """Write the manifest of the second checkpoint's present files."""
        files = {path.name: path for path in self.second.iterdir() if path.name != "manifest.json"}
        sizes = {name: path.stat().st_size for name, path in files.items()}
        digests = {
            name: hashlib.sha256(path.read_bytes() if sizes[name] < 10**7 else b"").hexdigest()
            for name, path in files.items()
        }
        identities = {name: {"bytes": sizes[name], "sha256": digests[name]} for name in files}
        (self.second / "manifest.json").write_text(json.dumps({"epoch": 2, "files": identities}))

    def load(self) -> None:
        self.model.load_trained_state(adapter.read(self.directory))


@pytest.fixture(scope="module")
def trained(trial_config: Callable[..., TrainConfig], tmp_path_factory: pytest.TempPathFactory) -> Trial:
    config = trial_config(model="efficientat", strategy="full")  # has buffers of integers
    model = build_model(config, len(SLUGS))
    trial = Trial(tmp_path_factory.mktemp("trained"), config, model)
    epochs = fit(config, model, open_trial_data(config, model.backbone.spec.sample_rate))
    for epoch, _ in zip(epochs, range(2), strict=False):
        checkpoint.save(trial.directory, epoch.number, "aa", epoch.state)
        adapter.write(trial.directory, epoch.state["best"]["model"])
    return trial


@pytest.fixture
def trial(trained: Trial, tmp_path: Path) -> Trial:
    shutil.copytree(trained.directory, tmp_path / "run" / "trial")
    trial = Trial(tmp_path / "run" / "trial", trained.config, trained.model)
    assert trial.epochs() == 2
    trial.load()
    return trial


def write_header(path: Path, header: Any, size: int | None = None, data: bytes = b"", sparse: int = 0) -> None:
    """Write a safetensors file with any header, which states any size of itself, and `sparse` bytes of zeros."""
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content) if size is None else size) + content + data)
    os.truncate(path, path.stat().st_size + sparse)


class Code:
    """Makes a directory when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.mark,)


class Huge:
    """Allocates a gigabyte when it is unpickled, by a function that torch allows."""

    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (10**9,)


TENSORS: dict[str, Callable[[dict[str, torch.Tensor], str], Any]] = {
    "missing": lambda tensors, name: tensors.pop(name),
    "additional": lambda tensors, name: tensors.update(extra=torch.ones(1)),
    "of another shape": lambda tensors, name: tensors.update({name: tensors[name].reshape(-1)[:-1].clone()}),
    "transposed": lambda tensors, name: tensors.update({name: tensors[name][None]}),
    "of another type": lambda tensors, name: tensors.update({name: tensors[name].double()}),
    "of a small type": lambda tensors, name: tensors.update({name: tensors[name].to(torch.float8_e5m2)}),
    "none": lambda tensors, name: tensors.clear(),
}
FILES: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("{}" * 100),
    "pickle": lambda path: path.write_bytes(pickle.dumps(Code(path.with_name("executed")))),
    "torch file": lambda path: torch.save({"a": Code(path.with_name("executed"))}, path),
    "endless header": lambda path: write_header(path, b"{}", size=2**63),
    "header of 10 GB": lambda path: write_header(path, b"{}", size=10**10),
    "no header": lambda path: write_header(path, b""),
    "nested header": lambda path: write_header(path, b"[" * 10**6),
    "claimed terabyte": lambda path: write_header(path, claim([10**12 // 4])),
    "overflowing shape": lambda path: write_header(path, claim([2**62, 2**62], end=4), data=b"1234"),
    "negative shape": lambda path: write_header(path, claim([-1], end=4), data=b"1234"),
    "many dimensions": lambda path: write_header(path, claim([1] * 10_000, end=4), data=b"1234"),
    "no elements, endless": lambda path: write_header(path, claim([0, 2**63], end=0)),
    "unknown type": lambda path: write_header(path, claim([1], "X99", end=4), data=b"1234"),
    "six-bit type": lambda path: write_header(path, claim([4], "F6_E2M3", end=3), data=b"123"),
    "sparse terabyte": lambda path: write_header(path, claim([10**12 // 4]), sparse=10**12),
    "sparse gigabytes": lambda path: write_header(path, claim([10**9]), sparse=4 * 10**9),
    "link out": lambda path: path.symlink_to(path.rename(path.parents[4] / "outside")),
    "link in a circle": lambda path: (path.unlink(), path.symlink_to(path.name)),
    "dangling link": lambda path: (path.unlink(), path.symlink_to("missing")),
    "directory": lambda path: (path.unlink(), path.mkdir()),
    "pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}  # fmt: skip


def claim(shape: list[int], dtype: str = "F32", end: int | None = None) -> Any:
    """The header of one tensor, with as many bytes as it claims or to `end`."""
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, 4 * shape[0] if end is None else end]}}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("change", TENSORS)
def test_checkpoint_of_other_tensors_is_ignored(trial: Trial, change: str, part: str) -> None:
    path = trial.second / f"{part}.safetensors"
    tensors = load_file(path)
    name = max(tensors, key=lambda name: tensors[name].numel())
    TENSORS[change](tensors, name)
    save_file(tensors, path)
    trial.seal()
    assert checkpoint.newest(trial.directory) is not None  # the files are intact
    assert trial.epochs() == 1


@pytest.mark.parametrize("change", FILES)
def test_checkpoint_of_a_hostile_file_is_ignored(trial: Trial, change: str, tmp_path: Path) -> None:
    FILES[change](trial.second / "model.safetensors")
    if "link" not in change and change not in ("directory", "pipe"):
        trial.seal()
    tracemalloc.start()
    assert trial.epochs() == 1
    assert tracemalloc.get_traced_memory()[1] < 10**8
    tracemalloc.stop()
    assert not list(tmp_path.rglob("executed"))


@pytest.mark.parametrize("change", TENSORS)
def test_adapter_of_other_tensors_is_refused_in_one_line(trial: Trial, change: str) -> None:
    path = trial.directory / ADAPTER_NAME
    tensors = load_file(path)
    TENSORS[change](tensors, max(tensors, key=lambda name: tensors[name].numel()))
    save_file(tensors, path)
    with pytest.raises(UserError) as caught:
        trial.load()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", FILES)
def test_hostile_adapter_is_refused_in_one_line(trial: Trial, change: str, tmp_path: Path) -> None:
    # As deep in the directory as a checkpoint's file.
    inner = Trial(trial.directory / "a" / "b", trial.config, trial.model)
    inner.directory.mkdir(parents=True)
    (trial.directory / ADAPTER_NAME).rename(inner.directory / ADAPTER_NAME)
    FILES[change](inner.directory / ADAPTER_NAME)
    with pytest.raises(UserError) as caught:
        inner.load()
    assert str(inner.directory) in str(caught.value) or "another model" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("executed"))


@pytest.mark.parametrize("level", ["checkpoints", "checkpoint", "state.json", "manifest.json"])
def test_checkpoint_through_a_link_out_of_the_trial_is_ignored(trial: Trial, level: str, tmp_path: Path) -> None:
    linked = {"checkpoints": trial.second.parent, "checkpoint": trial.second}
    path = linked.get(level, trial.second / level)
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    assert trial.epochs() == (0 if level == "checkpoints" else 1)


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e999", "1e300", "null", "true", '"1"', "[]", "1e"]
)
@pytest.mark.parametrize("place", ["history.1.val_acc", "best.score", "steps.0", "param_groups.0.eps"])
def test_number_that_is_not_finite_is_damage(trial: Trial, place: str, number: str) -> None:
    content = json.loads((trial.second / "state.json").read_text())
    within: Any = content
    *parents, last = [int(key) if key.isdigit() and not place.startswith("steps") else key for key in place.split(".")]
    for key in parents:
        within = within[key]
    assert isinstance(within[last], float)
    within[last] = "HERE"
    (trial.second / "state.json").write_text(json.dumps(content).replace('"HERE"', number))
    trial.seal()
    assert trial.epochs() == 1


def test_changed_content_is_ignored_or_refused_in_one_line(trial: Trial) -> None:
    rng, path = random.Random(0), trial.second / "state.json"
    content, errors, results = json.loads(path.read_text()), [], []
    for _ in range(80):
        path.write_text(json.dumps(mutated(content, rng)))
        trial.seal()
        try:
            results.append(trial.epochs())
        except UserError as error:  # of another configuration or base model
            errors.append(str(error))
    assert set(results) == {1, 2}
    assert results.count(1) > 30
    assert errors
    assert not any("\n" in error for error in errors)


@pytest.mark.parametrize(
    "changes",
    [
        {"end": "failed"},
        {"end": "running"},
        {"history": []},
        {"best": {"epoch": 3, "score": 0.5}},
        {"config": {}},
        {"steps": {}},
        {"steps": {"0": 1.0, "1000000": 1.0}},
        {"param_groups": []},
    ],
    ids=str,
)
def test_content_that_contradicts_itself_is_damage(trial: Trial, changes: dict[str, Any]) -> None:
    path = trial.second / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    trial.seal()
    assert trial.epochs() == 1


@pytest.mark.parametrize("names", [["../../secret"], ["/etc/hostname"], [], ["state.json"]], ids=str)
def test_manifest_of_other_files_is_damage(trial: Trial, names: list[str]) -> None:
    identity = {"bytes": 1, "sha256": ""}
    (trial.second / "manifest.json").write_text(json.dumps({"epoch": 2, "files": dict.fromkeys(names, identity)}))
    assert trial.epochs() == 1


@pytest.mark.parametrize("change", TENSORS)
def test_older_checkpoint_of_other_tensors_is_ignored(trial: Trial, change: str) -> None:
    state = trial.state()
    TENSORS[change](state["model"], max(state["model"], key=lambda name: state["model"][name].numel()))
    save_older(trial.directory, 3, "aa", state)
    assert trial.epochs() == 2
    assert next((trial.directory / CHECKPOINTS_NAME).glob("epoch_0003-*/state.pt")).is_file()


@pytest.mark.parametrize("hostile", [Code, Huge])
def test_pickle_of_an_older_file_executes_nothing_and_allocates_little(
    trial: Trial, hostile: type, tmp_path: Path
) -> None:
    arguments = [tmp_path / "executed"] if hostile is Code else []
    save_older(trial.directory, 3, "aa", {**trial.state(), "code": hostile(*arguments)})
    (trial.directory / ADAPTER_NAME).unlink()
    torch.save({"a": hostile(*arguments)}, trial.directory / OLDER_ADAPTER_NAME)
    tracemalloc.start()
    assert trial.epochs() == 2
    with pytest.raises(UserError) as caught:
        trial.load()
    assert tracemalloc.get_traced_memory()[1] < 10**8
    tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()
    torch.load(trial.directory / OLDER_ADAPTER_NAME, weights_only=False)  # the test can fail: the file is readable
    assert (tmp_path / "executed").exists() == (hostile is Code)


@pytest.mark.parametrize("value", [None, 1, [], {}, {"model": {}}, {"best": 1}, "x", [[]] * 5], ids=str)
def test_older_checkpoint_of_anything_else_is_ignored(trial: Trial, value: Any) -> None:
    save_older(trial.directory, 3, "aa", value)
    save_older(trial.directory, 4, "aa", {**trial.state(), **dict.fromkeys(("model", "history", "end"), value)})
    assert trial.epochs() == 2


def test_compressed_older_file_allocates_little(trial: Trial) -> None:
    directory = save_older(trial.directory, 3, "aa", trial.state())
    with zipfile.ZipFile(directory / "state.pt") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in content if name.endswith("data.pkl"))
    content[name] += bytes(2 * 10**8)
    with zipfile.ZipFile(directory / "state.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for each, data in content.items():
            archive.writestr(each, data)
    del content
    tracemalloc.start()
    assert trial.epochs() == 2
    assert tracemalloc.get_traced_memory()[1] < 10**8
    tracemalloc.stop()


def test_adapter_of_an_earlier_version_is_read_and_replaced(trial: Trial) -> None:
    tensors = {name: tensor.clone() for name, tensor in adapter.read(trial.directory).items()}
    (trial.directory / ADAPTER_NAME).unlink()
    torch.save(tensors, trial.directory / OLDER_ADAPTER_NAME)
    older = adapter.read(trial.directory)
    assert older.keys() == tensors.keys()
    assert all(torch.equal(older[name], tensors[name]) for name in tensors)
    trial.load()
    adapter.write(trial.directory, tensors)
    assert not (trial.directory / OLDER_ADAPTER_NAME).exists()
    assert adapter.read(trial.directory).keys() == tensors.keys()


def test_missing_adapter_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=ADAPTER_NAME):
        adapter.read(tmp_path)
