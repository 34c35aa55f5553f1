"""Training examples: the features of one window of each clip, computed once and mapped, and two targets.

The targets are the motif and a score of the strokes in lines of 10 ms. A small Transformer needs the score, because it
does not learn to detect strokes from the motifs alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scripts.pretrain_nano.sounds import CLIP_SECONDS, Corpus, take
from sousaphone.backbones.backbone import Backbone
from sousaphone.config import TrainConfig
from sousaphone.data.cache.build import WaveformCache
from sousaphone.data.synthetic.players import perform
from sousaphone.files import atomic_write
from sousaphone.text import Announce

WINDOW_SECONDS = TrainConfig.clip_seconds
LINE_MS = 10
LINES = 256  # per score: 250 of the window, then padding
MARKS = ("onset", "accent", "grace", "buzz", "weak hand")  # of the stroke that starts in a line, as bits of a byte
_BATCH = 64


@dataclass(frozen=True)
class Examples:
    features: np.ndarray  # float16 [N, ...], mapped, in the backbone's layout
    scores: np.ndarray  # uint8 [N, LINES], bits of MARKS
    motifs: np.ndarray  # int64 [N]
    training: int  # the number of training examples, which come first; the others are held out

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features float32 [B, ...], marks float32 [B, LINES, 5], motifs int64 [B]."""
        at = rows.numpy()
        marks = ((self.scores[at][..., None] >> np.arange(len(MARKS))) & 1).astype(np.float32)
        return torch.from_numpy(self.features[at]).float(), torch.from_numpy(marks), torch.from_numpy(self.motifs[at])


def open_examples(corpus: Corpus, cache: WaveformCache, backbone: Backbone, root: Path, announce: Announce) -> Examples:
    """Open the examples of one backbone below `root`, after computing missing files."""
    root.mkdir(parents=True, exist_ok=True)
    scores, features = root / "scores.npy", root / f"{backbone.spec.name}.npy"
    if not scores.is_file():
        announce("writing the scores")
        with atomic_write(scores) as temporary, temporary.open("wb") as file:
            np.save(file, np.stack([score(corpus, index) for index in range(corpus.clips)]))
    if not features.is_file():
        announce(f"{backbone.spec.name}: computing features of {corpus.clips:,} windows")
        with atomic_write(features) as temporary:
            _write_features(corpus, cache, backbone, temporary)
    motifs = np.arange(corpus.clips) % corpus.motifs
    return Examples(np.load(features, mmap_mode="r"), np.load(scores), motifs, corpus.motifs * corpus.takes)


def window_ms(corpus: Corpus, index: int) -> int:
    """Start of the window of a clip in whole milliseconds, which are the same at every sample rate."""
    rng = np.random.default_rng((corpus.seed, 6, index))
    return int(rng.integers(round(1000 * (CLIP_SECONDS - WINDOW_SECONDS))))


def score(corpus: Corpus, index: int) -> np.ndarray:
    """Score of the strokes in a clip's window in lines of 10 ms: uint8 [LINES], bits of MARKS."""
    clip, start_ms = take(corpus, index), window_ms(corpus, index)
    lines = np.zeros(LINES, np.uint8)
    columns = perform(clip).columns
    names = ("actual_time_ms", "stroke_type", "is_grace_note", "is_accent", "hand")
    strokes = zip(*(columns[name] for name in names), strict=True)
    for time, kind, grace, accent, hand in strokes:
        line = int((time - start_ms) // LINE_MS)
        if 0 <= line < round(1000 * WINDOW_SECONDS / LINE_MS):
            marks = (True, accent, grace and kind == "grace", kind == "buzz", hand != clip.player.dominant)
            lines[line] |= sum(bit << place for place, bit in enumerate(map(int, marks)))
    return lines


def _write_features(corpus: Corpus, cache: WaveformCache, backbone: Backbone, path: Path) -> None:
    samples = round(WINDOW_SECONDS * cache.sample_rate)
    shape = backbone.frontend(torch.zeros(1, samples)).shape[1:]
    into = np.lib.format.open_memmap(path, "w+", "<f2", (corpus.clips, *shape), version=(2, 0))
    for first in range(0, corpus.clips, _BATCH):
        rows = range(first, min(first + _BATCH, corpus.clips))
        starts = [int(cache.offsets[i]) + window_ms(corpus, i) * cache.sample_rate // 1000 for i in rows]
        wave = torch.from_numpy(np.stack([cache.wave[start : start + samples] for start in starts])).float() / 32768
        with torch.inference_mode():
            into[first : rows.stop] = backbone.frontend(wave).numpy()
    into.flush()
