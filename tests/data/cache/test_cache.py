"""The waveform cache equals direct decoding, is built once, and is never read incomplete."""

import dataclasses
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from sousaphone.data.cache import build as cache_module
from sousaphone.data.cache.build import build_caches
from sousaphone.data.cache.decode import Resampler, resampler, to_mono
from sousaphone.data.readers.samples import read_samples
from sousaphone.data.readers.sousa import read_dataset
from sousaphone.errors import UserError

RATES = (16_000, 32_000, 48_000)


@pytest.fixture
def dataset(make_sousa, tmp_path):
    return read_dataset(make_sousa(tmp_path / "sousa"))


@pytest.fixture
def cache_dir(tmp_path):
    return tmp_path / "cache"


def direct(dataset, row, rate):
    """Decode a clip with soundfile and torchaudio, float32 [T] at int16's scale."""
    samples, source_rate = soundfile.read(dataset.root / dataset.clips.audio_path[row], dtype="float32", always_2d=True)
    mono = torch.from_numpy(samples.mean(axis=1))
    return torchaudio.functional.resample(mono, source_rate, rate).numpy() * 32768


def test_cache_equals_direct_decoding_within_one_step(dataset, cache_dir):
    caches = build_caches(dataset, RATES, cache_dir)
    for rate, cache in caches.items():
        assert len(cache) == len(dataset.clips)
        assert cache.wave.dtype == np.int16
        assert not cache.wave.flags.writeable
        for row in range(len(cache)):
            wave = cache.wave[cache.offsets[row] : cache.offsets[row + 1]]
            expected = direct(dataset, row, rate)
            assert wave.shape == expected.shape
            assert np.abs(wave - expected).max() <= 1


def test_only_missing_rates_are_built(dataset, cache_dir, capsys):
    build_caches(dataset, [16_000], cache_dir)
    assert "16 kHz" in capsys.readouterr().err
    build_caches(dataset, [16_000], cache_dir)
    assert capsys.readouterr().err == ""
    build_caches(dataset, RATES, cache_dir)
    assert "32, 48 kHz" in capsys.readouterr().err


def test_changed_file_has_another_cache(dataset, cache_dir):
    before = build_caches(dataset, [16_000], cache_dir)[16_000]
    path = dataset.root / dataset.clips.audio_path[0]
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    after = build_caches(read_dataset(dataset.root), [16_000], cache_dir)[16_000]
    assert after.path != before.path


def test_temporary_directories_of_other_builds_are_removed(dataset, cache_dir):
    key = f"{'0' * 16}-16000hz"
    killed = [cache_dir / f"{key}.part", cache_dir / f".{key}.0123abcd.tmp"]
    foreign = [cache_dir / "recordings.part", cache_dir / f"{key}.backup"]
    for path in (*killed, *foreign):
        path.mkdir(parents=True)
    build_caches(dataset, [16_000], cache_dir)
    assert not any(path.exists() for path in killed)
    assert all(path.is_dir() for path in foreign)


def test_infinite_duration_counts_as_unknown(dataset, cache_dir):
    clips = dataset.clips.assign(duration_sec=float("inf"))
    assert len(build_caches(dataclasses.replace(dataset, clips=clips), [16_000], cache_dir)[16_000]) == len(clips)


def test_cache_is_pickled_as_a_path(dataset, cache_dir):
    cache = build_caches(dataset, [16_000], cache_dir)[16_000]
    sent = pickle.dumps(cache)
    assert len(sent) < 1_000
    assert np.array_equal(pickle.loads(sent).wave, cache.wave)


def test_concurrent_calls_build_once(dataset, cache_dir, monkeypatch):
    decoded = []

    def counted(name, source):
        decoded.append(name)
        time.sleep(0.03)
        return read_samples(name, source)

    monkeypatch.setattr(cache_module, "read_samples", counted)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(build_caches(dataset, [16_000], cache_dir))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(decoded) == len(dataset.clips)
    assert len({result[16_000].path for result in results}) == 1
    assert len(results) == 3


BUILD = """
import sys
from pathlib import Path
from sousaphone.data.cache.build import build_caches
from sousaphone.data.readers.sousa import read_dataset
print("ready", flush=True)
sys.stdin.readline()
build_caches(read_dataset(sys.argv[1]), [16_000, 32_000], Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_processes_that_build_at_once_leave_one_whole_cache(dataset, cache_dir):
    command = [sys.executable, "-c", BUILD, str(dataset.root), str(cache_dir)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sum("decoded" in errors for _, errors in outputs) == 1
    caches = build_caches(dataset, [16_000, 32_000], cache_dir)
    assert np.abs(caches[16_000].wave[: caches[16_000].offsets[1]] - direct(dataset, 0, 16_000)).max() <= 1
    assert {path for path in cache_dir.iterdir() if path.is_dir()} == {cache.path for cache in caches.values()}


KILLED_BUILD = """
import sys, time
from pathlib import Path
from sousaphone.data.cache import build
from sousaphone.data.readers.samples import read_samples
from sousaphone.data.readers.sousa import read_dataset
def stopping(name, source):
    print("started", flush=True)
    time.sleep(600)
build.read_samples = stopping
build.build_caches(read_dataset(sys.argv[1]), [16_000], Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_remains_of_a_killed_build_are_removed(dataset, cache_dir):
    command = [sys.executable, "-c", KILLED_BUILD, str(dataset.root), str(cache_dir)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline().startswith("started")  # several threads print it
    finally:
        process.kill()
        process.communicate()
    (part,) = [path for path in cache_dir.iterdir() if path.is_dir()]
    assert part.suffix == ".tmp"
    (part / "wave.int16").write_bytes(b"incomplete")
    cache = build_caches(dataset, [16_000], cache_dir)[16_000]
    assert np.abs(cache.wave[: cache.offsets[1]] - direct(dataset, 0, 16_000)).max() <= 1
    assert [path for path in cache_dir.iterdir() if path.is_dir()] == [cache.path]


def test_interrupted_build_leaves_nothing(dataset, cache_dir, monkeypatch):
    def interrupt(name, source):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache_module, "read_samples", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_caches(dataset, [16_000], cache_dir)
    assert not [path for path in cache_dir.iterdir() if path.is_dir()]


@pytest.mark.parametrize("damaged", ["wave.int16", "offsets.npy", "root"])
@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
def test_damaged_cache_is_rebuilt(dataset, cache_dir, damaged, damage):
    cache = build_caches(dataset, [16_000], cache_dir)[16_000]
    whole = np.array(cache.wave), cache.offsets
    path = cache.path / damaged
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "changed":
        content[-2] ^= 1
        path.write_bytes(content)
    elif damage == "truncated":
        path.write_bytes(content[: len(content) // 2 * 2 - 2])
    again = build_caches(dataset, [16_000], cache_dir)[16_000]
    assert np.array_equal(again.wave, whole[0])
    assert np.array_equal(again.offsets, whole[1])
    opened = (again.path / "wave.int16").stat().st_ino
    build_caches(dataset, [16_000], cache_dir)
    assert (again.path / "wave.int16").stat().st_ino == opened  # not built once more


@pytest.mark.parametrize("damage", ["garbage", "truncated"])
def test_undecodable_file_is_named_and_leaves_nothing(dataset, cache_dir, damage):
    path = dataset.root / dataset.clips.audio_path[4]
    path.write_bytes(b"no FLAC" * 100 if damage == "garbage" else path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="copy it again") as error:
        build_caches(dataset, [16_000], cache_dir)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert not [entry for entry in cache_dir.iterdir() if entry.is_dir()]


@pytest.mark.parametrize(("samples", "message"), [(np.zeros(0), "empty"), (np.full(100, np.nan), "NaN")])
def test_empty_or_not_finite_audio_is_rejected(dataset, cache_dir, samples, message):
    path = dataset.root / dataset.clips.audio_path[0]
    soundfile.write(path, samples, 44_100, format="WAV", subtype="FLOAT")
    with pytest.raises(UserError, match=message):
        build_caches(dataset, [16_000], cache_dir)


def test_full_disk_is_reported_before_decoding(dataset, cache_dir, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 1_000))
    with pytest.raises(UserError, match="GB free"):
        build_caches(dataset, [16_000], cache_dir)


@pytest.mark.parametrize("longest", [np.nan, 600.0, 4_200.0])
def test_full_disk_names_the_recording_of_an_implausible_duration(dataset, cache_dir, monkeypatch, longest):
    dataset.clips["duration_sec"] = [3.0] * (len(dataset.clips) - 1) + [longest]
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 1_000))
    with pytest.raises(UserError) as error:
        build_caches(dataset, [16_000], cache_dir)
    named = f"{dataset.clips.audio_path.iloc[-1]} has 4,200 s" in str(error.value)
    assert named == (dataset.clips.audio_path.iloc[-1] in str(error.value)) == (longest > 600)


def test_estimate_of_disk_space_is_not_too_low(dataset, cache_dir, tmp_path, monkeypatch):
    taken = sum(cache.wave.nbytes for cache in build_caches(dataset, RATES, tmp_path / "elsewhere").values())
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(taken, 1, taken - 1))
    with pytest.raises(UserError, match="GB free"):
        build_caches(dataset, RATES, cache_dir)


def test_unwritable_cache_directory_is_rejected(dataset, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        build_caches(dataset, [16_000], tmp_path / "file" / "cache")


def test_number_of_torch_threads_is_restored(dataset, cache_dir):
    before = torch.get_num_threads()
    build_caches(dataset, [16_000], cache_dir)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    "rates", [(44_100, 16_000), (44_100, 48_000), (48_000, 44_100), (22_050, 32_000), (8_000, 8_000)]
)
@pytest.mark.parametrize("samples", [1, 37, 441, 30_000])
def test_resampling_equals_torchaudio(rates, samples):
    wave = torch.rand(samples, generator=torch.Generator().manual_seed(0)) - 0.5
    expected = torchaudio.transforms.Resample(*rates)(wave)
    resampled = Resampler(*rates)(wave)
    assert resampled.shape == expected.shape
    assert torch.allclose(resampled, expected, atol=1e-6)


@pytest.mark.parametrize(
    "rates", [(44_101, 16_000), (4_001, 48_000), (383_999, 48_000), (11_025, 31_999), (44_100, 16_000)]
)
def test_any_rates_are_resampled_alike(rates):
    source, target = rates
    resampled = Resampler(source, target)(torch.from_numpy(tone(source)))
    assert len(resampled) == target
    assert np.abs(resampled.numpy() - tone(target))[target // 10 : -target // 10].max() < 0.005
    resampled = Resampler(44_101, 16_000)(torch.ones(1))
    assert len(resampled) == 1


def tone(rate: int) -> np.ndarray:
    """One second of 1 kHz."""
    return np.sin(2 * np.pi * 1_000 * np.arange(rate) / rate).astype(np.float32)


def test_few_resamplers_are_kept():
    size = resampler.cache_info().maxsize
    assert size is not None
    assert size * 20e6 < 1e9  # bytes


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_mono_is_the_mean_of_the_channels(channels):
    samples = np.random.default_rng(0).uniform(-1, 1, (1000, channels)).astype(np.float32)
    assert np.allclose(to_mono(samples), samples.mean(axis=1), atol=1e-6)
