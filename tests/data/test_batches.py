"""Batches depend only on seed, epoch and row, from the mapped file and from device memory."""

import numpy as np
import pandas as pd
import pytest
import torch

from sousaphone.config import COVERED_SECONDS
from sousaphone.data.batches import ClipSet
from sousaphone.data.cache.build import WaveformCache

RATE = 1_000
LENGTHS = (500, 3_000, 2_000, 1_500, 2_500, 800, 4_000)  # samples; the window is 2,000
CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path):
    """Clip i counts up from 1,000·i + 1, so that each sample identifies its position."""
    waves = [np.arange(length, dtype=np.int16) + 1_000 * i + 1 for i, length in enumerate(LENGTHS)]
    np.concatenate(waves).tofile(tmp_path / "wave.int16")
    np.save(tmp_path / "offsets.npy", np.cumsum([0, *LENGTHS]))
    return WaveformCache(tmp_path, RATE)


@pytest.fixture
def clips():
    # The first and the last clip belong to another split.
    split = ["test", "train", "train", "train", "train", "train", "test"]
    return pd.DataFrame({"label": range(7), "split": split, "sample_id": list("abcdefg")})


def clip_set(cache, clips, device=CPU, seed=0, resident=None, split="train"):
    return ClipSet(cache, clips, split, clip_seconds=2.0, device=device, seed=seed, resident=resident)


def same(a, b):
    return all(
        torch.equal(getattr(x, name).cpu(), getattr(y, name).cpu())
        for x, y in zip(a, b, strict=True)
        for name in ("wave", "lengths", "labels")
    )


def test_clip_set_has_only_its_split(cache, clips):
    training = clip_set(cache, clips)
    assert training.table.sample_id.tolist() == list("bcdef")
    assert training.table.index.tolist() == [0, 1, 2, 3, 4]
    assert training.labels.tolist() == [1, 2, 3, 4, 5]
    assert len(training) == 5


def test_epoch_has_every_clip_once_with_a_smaller_last_batch(cache, clips):
    batches = list(clip_set(cache, clips).training_batches(2, epoch=0))
    assert [len(batch.labels) for batch in batches] == [2, 2, 1]
    assert sorted(torch.cat([batch.labels for batch in batches]).tolist()) == [1, 2, 3, 4, 5]


def test_epoch_depends_only_on_its_number_and_the_seed(cache, clips):
    training = clip_set(cache, clips)
    list(training.training_batches(2, epoch=3))  # has no influence on the next epoch
    once = list(training.training_batches(5, epoch=4))
    assert same(once, clip_set(cache, clips).training_batches(5, epoch=4))
    assert not same(once, training.training_batches(5, epoch=5))
    assert not same(once, clip_set(cache, clips, seed=1).training_batches(5, epoch=4))
    assert not same(once, clip_set(cache, clips, seed=1).training_batches(5, epoch=3))


def test_order_and_windows_do_not_depend_on_batch_size(cache, clips):
    training = clip_set(cache, clips)
    whole = next(training.training_batches(5, epoch=0))
    parts = list(training.training_batches(2, epoch=0))
    assert torch.equal(whole.labels, torch.cat([batch.labels for batch in parts]))
    assert torch.equal(whole.wave, torch.cat([batch.wave for batch in parts]))


def test_window_is_cut_from_its_clip_and_padded_with_zeros(cache, clips):
    for epoch in range(20):
        for batch in clip_set(cache, clips).training_batches(2, epoch):
            assert batch.wave.dtype == torch.int16
            assert batch.wave.shape[1] == 2_000
            for wave, length, label in zip(batch.wave, batch.lengths.tolist(), batch.labels.tolist(), strict=True):
                assert length == min(2_000, LENGTHS[label])
                start = int(wave[0]) - 1_000 * label - 1
                assert 0 <= start <= LENGTHS[label] - length
                assert torch.equal(wave[:length], torch.arange(length, dtype=torch.int16) + wave[0])
                assert not wave[length:].any()


def test_random_windows_reach_both_ends(cache, clips):
    training = clip_set(cache, clips)
    starts = [
        int(batch.wave[0, 0]) - 4_001
        for epoch in range(300)
        for batch in training.training_batches(1, epoch)
        if int(batch.labels) == 4  # 2,500 samples: 501 places
    ]
    assert min(starts) < 20
    assert max(starts) > 480


def test_clip_longer_by_one_sample_has_two_windows(cache, clips):
    training = clip_set(cache, clips)
    starts = {
        int(batch.wave[0, 0]) - 4_001
        for epoch in range(30)
        for batch in training.training_batches(1, epoch, seconds=2.499)
        if int(batch.labels) == 4  # 2,500 samples
    }
    assert starts == {0, 1}


def test_longer_windows_for_augmentation(cache, clips):
    batch = next(clip_set(cache, clips).training_batches(5, epoch=0, seconds=2.4))
    assert batch.wave.shape == (5, 2_400)
    assert sorted(batch.lengths.tolist()) == [800, 1_500, 2_000, 2_400, 2_400]


def test_evaluation_uses_centres_in_table_order(cache, clips):
    batches = list(clip_set(cache, clips).evaluation_batches(3))
    wave, labels = torch.cat([batch.wave for batch in batches]), torch.cat([batch.labels for batch in batches])
    assert labels.tolist() == [1, 2, 3, 4, 5]
    assert wave[:, 0].tolist() == [1_501, 2_001, 3_001, 4_251, 5_001]


def test_evaluation_of_selected_rows(cache, clips):
    (batch,) = clip_set(cache, clips).evaluation_batches(3, rows=[4, 1])
    assert batch.labels.tolist() == [5, 2]


@pytest.mark.parametrize(
    "device",
    [CPU, pytest.param(torch.device("cuda"), marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))],
)
def test_resident_and_mapped_batches_are_equal(cache, clips, device):
    host, resident = clip_set(cache, clips), clip_set(cache, clips, device, resident=True)
    assert same(host.training_batches(2, epoch=1, seconds=2.3), resident.training_batches(2, epoch=1, seconds=2.3))
    assert same(host.evaluation_batches(2), resident.evaluation_batches(2))
    assert same(host.windows()[0].evaluation_batches(3), resident.windows()[0].evaluation_batches(3))
    assert same(host.evaluation_batches(2), clip_set(cache, clips, device, resident=False).evaluation_batches(2))


@pytest.mark.parametrize(
    ("free", "fraction", "reserved", "resident"),
    [
        (1e6, 1.0, 0, True),
        (1e5, 1.0, 0, True),
        (1e4, 1.0, 0, False),  # other programs use the card
        (1e6, 0.05, 0, False),  # the share of a trial is 50 kB
        (1e6, 0.2, 0, True),
        (1e6, 0.2, 190_000, False),  # which the model occupies
    ],
)
def test_split_stays_on_a_gpu_if_it_fits_the_share_of_the_trial(
    cache, clips, monkeypatch, free, fraction, reserved, resident
):
    def fraction_of(index):  # torch refuses torch.device("cuda"), which has no index
        assert index is None or isinstance(index, int)
        return fraction

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 1_000_000))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", fraction_of)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
    uploaded = []
    monkeypatch.setattr(ClipSet, "_upload", lambda split: uploaded.append(split))
    clip_set(cache, clips, torch.device("cuda"))  # its waveform has 19,600 bytes
    assert bool(uploaded) == resident


def test_empty_split_gives_no_batches(cache, clips):
    empty = clip_set(cache, clips, split="validation")
    assert len(empty) == 0
    assert list(empty.training_batches(2, epoch=0)) == list(empty.evaluation_batches(2)) == []


def test_cache_and_table_of_different_lengths_are_rejected(cache, clips):
    with pytest.raises(ValueError, match=r"7 clips .* 6 clips"):
        clip_set(cache, clips.iloc[:6])


def test_windows_cover_each_longer_clip_to_its_end_half_a_window_apart(cache, clips):
    windows, rows = clip_set(cache, clips).windows()
    assert rows.tolist() == [0, 0, 3, 3]  # 3,000 and 2,500 samples; the others fit into one window
    (batch,) = windows.evaluation_batches(9)
    assert batch.wave[:, 0].tolist() == [1_001, 2_001, 4_001, 4_501]
    assert batch.wave[:, -1].tolist() == [3_000, 4_000, 6_000, 6_500]
    assert batch.lengths.tolist() == [2_000] * 4
    assert batch.labels.tolist() == [1, 1, 4, 4]
    assert windows.table.sample_id.tolist() == list("bbee")
    parts = list(windows.evaluation_batches(3))  # windows of different clips share a batch
    assert [len(part.labels) for part in parts] == [3, 1]
    assert torch.equal(torch.cat([part.wave for part in parts]), batch.wave)
    assert clip_set(cache, clips).windows(clips=2)[1].tolist() == [0, 0]


def test_windows_cover_the_central_seconds_of_a_very_long_clip(tmp_path):
    length = round(1_000 * COVERED_SECONDS) + 7_000
    (np.arange(length) // 10).astype(np.int16).tofile(tmp_path / "wave.int16")
    np.save(tmp_path / "offsets.npy", [0, length])
    one = ClipSet(
        WaveformCache(tmp_path, RATE), pd.DataFrame({"label": [0], "split": ["test"]}), "test", 2.0, CPU, seed=0
    )
    windows, rows = one.windows()
    (batch,) = windows.evaluation_batches(len(rows))
    assert len(rows) == COVERED_SECONDS - 1
    assert 10 * int(batch.wave[0, 0]) == 3_500
    assert 10 * int(batch.wave[-1, -1]) + 9 == length - 3_500 - 1


@pytest.mark.parametrize("seconds", [0.25, 1.0, 1.999, 2.0, 2.001, 4.0])
def test_windows_leave_no_gap_whatever_their_length(cache, clips, seconds):
    training = ClipSet(cache, clips, "train", clip_seconds=seconds, device=CPU, seed=0)
    windows, rows = training.windows()
    wave = torch.cat([batch.wave for batch in windows.evaluation_batches(5)]) if len(rows) else torch.zeros(0, 1)
    for row, label in enumerate(training.labels.tolist()):
        own = wave[rows == row]
        if LENGTHS[label] <= round(1_000 * seconds):
            assert not len(own)
        else:
            assert set(own.flatten().tolist()) == {1_000 * label + 1 + i for i in range(LENGTHS[label])}
