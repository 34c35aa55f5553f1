"""What a backbone trains on: the features of one window of each clip, computed once and mapped, and what was struck.

Beside the motif's number there is a score of the window, 10 ms a line: a motif can be told only by who hears its
strokes, and a small Transformer does not find them by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scripts.pretrain_nano.sounds import CLIP_SECONDS, Corpus, take
from sousaphone.backbones.backbone import Backbone
from sousaphone.config import TrainConfig
from sousaphone.data.cache.build import WaveformCache
from sousaphone.data.synthetic.players import Performance, perform
from sousaphone.files import atomic_write

WINDOW_SECONDS = TrainConfig.clip_seconds
LINE_MS = 10
LINES = 256  # of a score: the window's 250 and a rest that stays empty
# Of every line: whether a stroke begins, and if so which: bits of a byte.
MARKS = ("onset", "accent", "grace", "buzz", "weak hand")
_AT_ONCE = 64


@dataclass(frozen=True)
class Examples:
    features: np.ndarray  # float16 [N, ...], mapped, in the backbone's layout
    scores: np.ndarray  # uint8 [N, LINES], bits of MARKS
    motifs: np.ndarray  # int64 [N]
    training: int  # how many of them, from the first, are for training; the rest is held out

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features float32 [B, ...], marks float32 [B, LINES, 5], motifs int64 [B]."""
        at = rows.numpy()
        bits = (self.scores[at][..., None] >> np.arange(len(MARKS))) & 1
        return (
            torch.from_numpy(self.features[at]).float(),
            torch.from_numpy(bits.astype(np.float32)),
            torch.from_numpy(self.motifs[at]),
        )


def open_examples(
    corpus: Corpus, cache: WaveformCache, backbone: Backbone, root: Path, say: Callable[[str], None]
) -> Examples:
    """The examples of one backbone, computed below `root` where they are not there yet."""
    root.mkdir(parents=True, exist_ok=True)
    scores, features = root / "scores.npy", root / f"{backbone.spec.name}.npy"
    if not scores.is_file():
        say("writing the scores")
        with atomic_write(scores) as temporary, temporary.open("wb") as file:
            np.save(file, np.stack([score(corpus, index) for index in range(corpus.clips)]))
    if not features.is_file():
        say(f"{backbone.spec.name}: computing features of {corpus.clips:,} windows")
        with atomic_write(features) as temporary:
            _write_features(corpus, cache, backbone, temporary)
    index = np.arange(corpus.clips)
    training = sum(corpus.split(i) == "train" for i in index.tolist())
    return Examples(np.load(features, mmap_mode="r"), np.load(scores), index % corpus.motifs, training)


def window_ms(corpus: Corpus, index: int) -> int:
    """Where the window of a clip begins: whole milliseconds, so that it is the same at every rate."""
    rng = np.random.default_rng((corpus.seed, 6, index))
    return int(rng.integers(round(1000 * (CLIP_SECONDS - WINDOW_SECONDS))))


def score(corpus: Corpus, index: int) -> np.ndarray:
    """What is struck in a clip's window: uint8 [LINES]."""
    clip = take(corpus, index)
    return mark(perform(clip), window_ms(corpus, index), clip.player.dominant)


def mark(performance: Performance, start_ms: int, dominant: str) -> np.ndarray:
    """A performance as lines of 10 ms from `start_ms`: uint8 [LINES], bits of MARKS."""
    lines = np.zeros(LINES, np.uint8)
    strokes = performance.columns
    for time, kind, grace, accent, hand in zip(
        *(strokes[name] for name in ("actual_time_ms", "stroke_type", "is_grace_note", "is_accent", "hand")),
        strict=True,
    ):
        line = int((time - start_ms) // LINE_MS)
        if 0 <= line < round(1000 * WINDOW_SECONDS / LINE_MS):
            own = (True, accent, grace and kind == "grace", kind == "buzz", hand != dominant)
            lines[line] |= sum(bit << place for place, bit in enumerate(map(int, own)))
    return lines


def _write_features(corpus: Corpus, cache: WaveformCache, backbone: Backbone, path: Path) -> None:
    samples = round(WINDOW_SECONDS * cache.sample_rate)
    into: np.memmap | None = None
    for first in range(0, corpus.clips, _AT_ONCE):
        rows = range(first, min(first + _AT_ONCE, corpus.clips))
        begins = [int(cache.offsets[i]) + window_ms(corpus, i) * cache.sample_rate // 1000 for i in rows]
        wave = torch.from_numpy(np.stack([cache.wave[begin : begin + samples] for begin in begins])).float() / 32768
        with torch.inference_mode():
            features = backbone.frontend(wave).numpy()
        if into is None:
            shape = (corpus.clips, *features.shape[1:])
            with path.open("wb") as file:
                np.lib.format.write_array_header_2_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
                offset = file.tell()
                file.truncate(offset + 2 * int(np.prod(shape)))
            into = np.memmap(path, "<f2", "r+", offset, shape)
        into[first : rows.stop] = features
    if into is not None:
        into.flush()
