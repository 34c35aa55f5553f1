"""Checkpoints and records are written atomically and read back exactly, and damaged ones are ignored."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from sousaphone.files import atomic_write
from sousaphone.runs.trial_record import CHECKPOINTS_NAME, TrialRecord, error_line
from sousaphone.training import checkpoint
from tests.training.older_files import save_older

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
]


def state_of(epoch: int, **tensors: torch.Tensor) -> dict[str, Any]:
    """A state after some epochs of a layer with an unused bias, trained by AdamW."""
    layer, unused = torch.nn.Linear(2, 2), torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([*layer.parameters(), unused])
    for _ in range(epoch):
        layer(torch.rand(3, 2)).sum().backward()
        optimizer.step()
    row = {"val_acc": 0.1 + 0.2, "val_macro_f1": 1 / 3, "best_epoch": 1}
    trained = {name: tensor.detach().clone() for name, tensor in layer.named_parameters()} | tensors
    return {
        "config": {"micro_batch": 4, "accumulation": 1, "model": "any", "augment": True, "clip_seconds": 0.1},
        "base": "abc",
        "end": None,
        "model": trained,
        "optimizer": optimizer.state_dict(),
        "history": [{"epoch": number + 1, **row} for number in range(epoch)],
        "best": {"epoch": 1, "score": 1 / 3, "model": {name: tensor * 2 for name, tensor in trained.items()}},
    }


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal, bit for bit; lists equal tuples."""
    if isinstance(one, torch.Tensor):
        equal = one.dtype == other.dtype and one.shape == other.shape
        return equal and one.contiguous().numpy(force=True).tobytes() == other.numpy(force=True).tobytes()
    if isinstance(one, dict):
        return set(one) == set(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def test_newest_checkpoint_is_read(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        checkpoint.save(tmp_path, epoch, "aa", state_of(epoch))
    state = checkpoint.newest(tmp_path)
    assert state is not None
    assert len(state["history"]) == 3


@pytest.mark.parametrize("write", [checkpoint.save, save_older])
def test_state_is_read_back_bit_for_bit(write: Any, tmp_path: Path) -> None:
    state = state_of(3)
    write(tmp_path, 3, "aa", state)
    again = checkpoint.newest(tmp_path)
    assert again is not None
    # Only the numbers of AdamW's groups are kept; the flags are those of the present torch.
    kept = ("params", "lr", "betas", "eps", "weight_decay")
    groups = [{name: group[name] for name in kept} for group in state["optimizer"]["param_groups"]]
    assert same(again, {**state, "optimizer": {**state["optimizer"], "param_groups": groups}})
    assert len(again["optimizer"]["state"]) == 2  # the unused parameter has no moments


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_type_are_read_back_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    bits = torch.randint(0, 256, (1024,), dtype=torch.uint8)  # includes NaN, infinities and subnormals
    values = bits > 99 if dtype == torch.bool else bits.view(dtype)
    state = state_of(1, a=values, scalar=values[0], empty=values[:0])
    checkpoint.save(tmp_path, 1, "aa", state)
    again = checkpoint.newest(tmp_path)
    assert again is not None
    assert same(again["model"]["a"].view(torch.uint8), state["model"]["a"].contiguous().view(torch.uint8))
    assert same(again["model"]["scalar"].reshape(1).view(torch.uint8), values[:1].view(torch.uint8))
    assert again["model"]["empty"].shape == (0,)


def test_shared_and_non_contiguous_tensors_are_saved(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {"whole": whole, "tied": whole, "part": whole[1], "transposed": whole.T, "column": whole[:, 1]}
    tensors["expanded"] = torch.ones(1).expand(5)
    tensors["channels_last"] = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    checkpoint.save(tmp_path, 1, "aa", state_of(1, **tensors))
    again = checkpoint.newest(tmp_path)
    assert again is not None
    assert same(tensors, {name: again["model"][name] for name in tensors})
    storages = [tensor.untyped_storage().data_ptr() for tensor in again["model"].values()]
    assert len(set(storages)) == len(storages)


def test_metric_that_is_not_finite_is_read_back_as_none(tmp_path: Path) -> None:
    state = state_of(2)
    state["history"][1] |= {"train_ce": float("nan"), "test_loss": float("inf")}
    for write in (checkpoint.save, save_older):
        write(tmp_path, 2, "aa", state)
        again = checkpoint.newest(tmp_path)
        assert again is not None
        assert again["history"] == [state["history"][0], {**state["history"][1], "train_ce": None, "test_loss": None}]


def test_read_tensors_outlive_their_files(tmp_path: Path) -> None:
    expected = state_of(1)
    path = checkpoint.save(tmp_path, 1, "aa", expected)
    state = checkpoint.newest(tmp_path)
    assert state is not None
    for file in path.iterdir():
        file.write_bytes(bytes(file.stat().st_size))
    assert same(state["model"], expected["model"])


@pytest.mark.parametrize("name", ["state.json", "manifest.json", "model.safetensors", "best.safetensors", "state.pt"])
@pytest.mark.parametrize("change", ["empty", "100 bytes", "truncated", "bit flipped", "missing"])
def test_damaged_checkpoint_is_ignored(change: str, name: str, tmp_path: Path) -> None:
    write = save_older if name == "state.pt" else checkpoint.save
    checkpoint.save(tmp_path, 1, "aa", state_of(1))
    path = write(tmp_path, 2, "aa", state_of(2)) / name
    content = path.read_bytes()
    flipped = bytearray(content)
    # Of the last tensor's bytes (in state.pt an entry of the archive follows), else of a digit.
    flipped[content.index(b"1", 30) if name.endswith(".json") else -1 if name != "state.pt" else len(content) // 2] ^= 1
    changed = {"empty": b"", "100 bytes": content[:100], "truncated": content[:-1], "bit flipped": bytes(flipped)}
    path.unlink() if change == "missing" else path.write_bytes(changed[change])
    state = checkpoint.newest(tmp_path)
    assert state is not None
    assert len(state["history"]) == 1


def test_full_disk_is_an_os_error_and_keeps_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, 1, "aa", state_of(1))

    def write_bytes(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OSError, match="No space left") as caught:
        checkpoint.save(tmp_path, 2, "aa", state_of(2))
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in (tmp_path / CHECKPOINTS_NAME).iterdir()] == ["epoch_0001-aa"]


def test_unfinished_checkpoint_is_ignored_and_removed(tmp_path: Path) -> None:
    whole = checkpoint.save(tmp_path, 1, "aa", state_of(1))
    whole.rename(whole.with_name(f".{whole.name}.0123abcd.tmp"))
    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.resume(tmp_path, lambda state: True) is None
    assert list((tmp_path / CHECKPOINTS_NAME).iterdir()) == []


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    save_older(tmp_path, 1, "aa", state_of(1))
    for epoch in range(2, 6):
        checkpoint.save(tmp_path, epoch, "aa", state_of(epoch))
    names = sorted(path.name for path in (tmp_path / CHECKPOINTS_NAME).iterdir())
    assert names == ["epoch_0004-aa", "epoch_0005-aa"]


def test_damaged_checkpoints_do_not_displace_intact_ones(tmp_path: Path) -> None:
    root = tmp_path / CHECKPOINTS_NAME

    def damage() -> None:
        for name in ("epoch_0003-aa", "epoch_0003-ab", "epoch_0003-ac", "epoch_0008-aa", "epoch_0009-aa"):
            (root / name).mkdir(parents=True)
            os.utime(root / name, (2**32, 2**32))

    damage()
    for epoch in (1, 2, 3):
        checkpoint.save(tmp_path, epoch, "bb", state_of(epoch))
    assert sorted(path.name for path in root.iterdir()) == ["epoch_0002-bb", "epoch_0003-bb"]
    damage()
    state = checkpoint.resume(tmp_path, lambda state: True)
    assert state is not None
    assert len(state["history"]) == 3
    assert sorted(path.name for path in root.iterdir()) == ["epoch_0002-bb", "epoch_0003-bb"]


def test_size_is_that_of_the_tensors(tmp_path: Path) -> None:
    state = state_of(1)
    path = checkpoint.save(tmp_path, 1, "aa", state)
    files = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    assert checkpoint.size(state) < files < checkpoint.size(state) + 2000


def test_attempts_write_under_different_names(tmp_path: Path) -> None:
    first = checkpoint.save(tmp_path, 1, "aa", state_of(1))
    second = checkpoint.save(tmp_path, 1, "bb", state_of(1))
    assert first != second


def test_failed_write_keeps_the_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "page.txt"
    path.write_text("old")

    def lose_power() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("ne")
            raise RuntimeError("power")

    with pytest.raises(RuntimeError, match="power"):
        lose_power()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_record_is_read_back_with_nan_as_null(tmp_path: Path) -> None:
    record = TrialRecord("t", {"model": "ast"}, history=[{"epoch": 1, "best_epoch": 1, "val_loss": float("nan")}])
    record.write(tmp_path)
    again = TrialRecord.read(tmp_path)
    assert again is not None
    assert again.history == [{"epoch": 1, "best_epoch": 1, "val_loss": None}]
    assert TrialRecord.read(tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    ("account", "line"),
    [
        ("Traceback (most recent call last):\n  File ...\nValueError: no luck\n", "ValueError: no luck"),
        (
            "Failure # 1 (occurred at 2026-01-01)\nray.exceptions.RayTaskError(X): Y\nKeyError: 'a'\nadvice",
            "KeyError: 'a'",
        ),
        (
            "Failure # 1 (occurred at 2026-01-01)\nThe actor died unexpectedly.\n\tpid: 1\nadvice",
            "The actor died unexpectedly.",
        ),
        ("", ""),
    ],
)
def test_error_line_is_extracted(account: str, line: str) -> None:
    assert error_line(account) == line
