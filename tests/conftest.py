"""Shared fixtures: a tiny SOUSA data set in the original directory layout."""

from __future__ import annotations

import gc
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from sousaphone.config import TrainConfig
from sousaphone.rudiments import SLUGS

RATE = 44_100
# Durations in turn, some shorter than any model input.
SECONDS = (0.4, 1.1, 0.6, 0.8)
LONG_SECONDS = 7.0


gc.disable()  # until all tests are imported

# Run the kernels in Triton's interpreter without a GPU; this must be set before Triton is imported, which the
# conftest.py of a directory may do.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_configure() -> None:
    """Handle SIGINT, which a shell ignores in programs that it starts in the background; other processes inherit that.
    Give trials the priority of everything else: with Ray's default of 15 they get no processor while other tests
    compute."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(RAY_worker_niceness="0")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with whole sweeps, which take longest, so that short tests remain for the end."""
    items.sort(key=lambda item: item.path.parent.name not in ("sweep", "fuzz_runs"))


def pytest_collection_finish() -> None:
    """Exclude the imported modules from garbage collection, which makes the tests faster."""
    gc.freeze()
    gc.enable()


def _taps(label: int, seconds: float, channels: int, rng: np.random.Generator) -> np.ndarray:
    """Decaying noise bursts whose spacing and tone depend on the label, float64 [T, channels]."""
    time = np.arange(round(seconds * RATE)) / RATE
    since_tap = time % (0.08 + 0.01 * (label % 40))
    tone = 0.5 * np.sin(2 * np.pi * (200 + 40 * label) * time) + 0.5 * rng.uniform(-1, 1, len(time))
    wave = 0.5 * np.exp(-since_tap / 0.02) * tone
    return np.stack([wave * gain for gain in np.linspace(1.0, 0.5, channels)], axis=1)


def write_sousa(
    root: Path,
    players: int | Sequence[str] = 4,
    rudiments: Sequence[str] = SLUGS[:3],
    takes: int = 1,
    splits: Mapping[str, Sequence[str]] | None = None,
    long_clips: int = 1,
) -> Path:
    """Write players × rudiments × takes clips; every second one is stereo, the first `long_clips` are 7 s long.

    `splits` is the content of splits.json; by default the last player is the test set, the second last the validation
    set, and the others are the training set.
    """
    names = [f"player{i:03d}" for i in range(players)] if isinstance(players, int) else list(players)
    rows: list[dict[str, object]] = []
    for player in names:
        for label, slug in enumerate(rudiments):
            for take in range(takes):
                index = len(rows)
                sample_id = f"{player}_{slug}_{take}"
                seconds = LONG_SECONDS if index < long_clips else SECONDS[index % len(SECONDS)]
                path = root / "audio" / slug / f"{sample_id}.flac"
                path.parent.mkdir(parents=True, exist_ok=True)
                wave = _taps(label, seconds, channels=1 + index % 2, rng=np.random.default_rng(index))
                soundfile.write(path, wave, RATE, subtype="PCM_24")
                rows.append(
                    {
                        "sample_id": sample_id,
                        "profile_id": player,
                        "rudiment_slug": slug,
                        "tempo_bpm": 60 + 20 * take,
                        "duration_sec": seconds,
                        "num_cycles": 4,
                        "skill_tier": ("beginner", "advanced")[index % 2],
                        "soundfont": "FluidR3_GM",
                        "augmentation_preset": "clean_studio",
                        "augmentation_group_id": f"{player}_{slug}_{take // 2}",
                        "audio_path": path.relative_to(root).as_posix(),
                    }
                )
    (root / "labels").mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(root / "labels" / "samples.parquet")
    content = splits or {
        "train_profile_ids": names[:-2],
        "val_profile_ids": names[-2:-1],
        "test_profile_ids": names[-1:],
    }
    (root / "splits.json").write_text(json.dumps({**content, "stats": {}}))
    return root


@pytest.fixture(scope="session")
def make_sousa() -> Callable[..., Path]:
    """`make_sousa(directory, players=4, rudiments=SLUGS[:3], takes=1, ...) -> directory`, see `write_sousa`."""
    return write_sousa


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Results are bit-identical only at an equal number of threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _configuration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The key of the seals is not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("configuration")))
        yield


@pytest.fixture
def ray_starts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces the start of Ray by launch.py; contains an entry for each start."""
    starts: list[str] = []
    monkeypatch.setattr("sousaphone.sweep.ray_process.Runtime.start", lambda self: starts.append("Ray"))
    return starts


@pytest.fixture(scope="session")
def small_sousa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips: 4 players (2 train, 1 validation, 1 test) × 3 rudiments × 2 takes. Read-only."""
    return write_sousa(tmp_path_factory.mktemp("sousa"), players=4, rudiments=SLUGS[:3], takes=2)


@pytest.fixture(scope="session")
def built_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in set of `--dataset tiny`, made by the first of all worker processes that needs it. Read-only."""
    from sousaphone.data.synthetic.generate import builtin_dataset

    root = tmp_path_factory.getbasetemp()
    return builtin_dataset((root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "built_in", "tiny")


@pytest.fixture(scope="session")
def trial_config(small_sousa: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TrainConfig]:
    """`trial_config(**changes)`: an AST nano trial of three short epochs on `small_sousa`."""
    cache = tmp_path_factory.mktemp("cache")

    def make(**changes: Any) -> TrainConfig:
        values = {"epochs": 3, "micro_batch": 4, "clip_seconds": 1.0, "learning_rate": 1e-3, "weights": "random"}
        return TrainConfig(data_dir=str(small_sousa), cache_dir=str(cache), **{**values, **changes})

    return make
