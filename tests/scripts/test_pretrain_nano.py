"""The corpus is reproducible, and resumed pretraining equals uninterrupted pretraining."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.pretrain_nano.examples import MARKS, open_examples, window_ms
from scripts.pretrain_nano.learn import RECIPES, learn, make_learner
from scripts.pretrain_nano.sounds import Corpus, other_drums, take
from scripts.pretrain_nano.waves import render_corpus
from sousaphone.data.cache.build import WAVE
from sousaphone.data.synthetic.players import make_players
from sousaphone.data.synthetic.soundfonts import builtin_kits, snare
from sousaphone.errors import UserError

pytestmark = pytest.mark.slow
TOY = Corpus(motifs=4, takes=4, held_out=1)


class KilledError(Exception):
    pass


def silent(text: str) -> None:
    pass


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    render_corpus(TOY, (16_000,), root, 1, silent)
    return root


def test_corpus_does_not_depend_on_workers_or_interruptions(root: Path, tmp_path: Path) -> None:
    render_corpus(TOY, (16_000,), tmp_path, 2, silent)
    assert (tmp_path / "16000hz" / WAVE).read_bytes() == (root / "16000hz" / WAVE).read_bytes()
    wave = np.memmap(tmp_path / "16000hz" / WAVE, np.int16, "r+")
    assert wave.any()
    wave[:] = 0  # as after a kill before the first clip
    wave.flush()
    (tmp_path / "done.txt").unlink()
    render_corpus(TOY, (16_000,), tmp_path, 1, silent)
    assert (tmp_path / "16000hz" / WAVE).read_bytes() == (root / "16000hz" / WAVE).read_bytes()


def test_another_corpus_in_the_same_directory_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match="another corpus"):
        render_corpus(dataclasses.replace(TOY, takes=5), (16_000,), root, 1, silent)


def test_players_and_drums_differ_from_the_built_in_set() -> None:
    snares = [snare(kit) for kit in builtin_kits()]
    assert len(other_drums()) > 20
    assert not any(len(a) == len(b) and np.allclose(a, b) for a in other_drums() for b in snares)
    demo = {dataclasses.replace(player, split="", profile_id="") for player in make_players(0)}
    takes = [take(TOY, index) for index in range(TOY.clips)]
    assert not demo & {dataclasses.replace(clip.player, split="", profile_id="") for clip in takes}
    players = {
        split: {c.player for i, c in enumerate(takes) if TOY.split(i) == split} for split in ("train", "validation")
    }
    assert not players["train"] & players["validation"]


def test_score_matches_onsets_in_the_waveform(root: Path, tmp_path: Path) -> None:
    caches = render_corpus(TOY, (16_000,), root, 1, silent)
    examples = open_examples(TOY, caches[16_000], make_learner(RECIPES["ast"], 4).backbone, tmp_path, silent)
    _, marks, motifs = examples.batch(torch.tensor([0, 5]))
    assert marks.shape == (2, 256, len(MARKS))
    assert motifs.tolist() == [0, 1]
    # The wave is louder at an onset than just before it.
    begin = window_ms(TOY, 0) * 16
    wave = np.abs(caches[16_000].wave[begin : begin + 40_000].astype(float)).reshape(250, 160).max(1)
    onsets = marks[0, :250, 0].nonzero()[:, 0].numpy()
    assert len(onsets) > 5
    later = np.minimum(onsets + 1, 249)
    assert np.mean(np.maximum(wave[onsets], wave[later])) > 2 * np.mean(wave[np.maximum(onsets - 2, 0)])


@pytest.mark.parametrize("model", list(RECIPES))
def test_every_backbone_has_tokens_for_every_160_ms(model: str) -> None:
    learner = make_learner(RECIPES[model], 4)
    rate = learner.backbone.spec.sample_rate
    motifs, marks = learner(learner.backbone.frontend(torch.rand(1, 5 * rate // 2) - 0.5))
    assert motifs.shape == (1, 4)
    assert marks.shape[1] in (240, 256)


def test_resumed_pretraining_equals_uninterrupted(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caches = render_corpus(TOY, (16_000,), root, 1, silent)
    recipe = dataclasses.replace(RECIPES["ast"], epochs=3, batch=8, warmup_steps=2)
    examples = open_examples(TOY, caches[16_000], make_learner(recipe, 4).backbone, tmp_path / "examples", silent)
    whole = learn(recipe, TOY, examples, tmp_path / "whole", silent)

    def fail(text: str) -> None:
        raise KilledError

    for _ in range(2):  # after the first and after the second epoch
        with pytest.raises(KilledError):
            learn(recipe, TOY, examples, tmp_path / "parts", fail)
    resumed = learn(recipe, TOY, examples, tmp_path / "parts", silent)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    with pytest.raises(UserError, match="another recipe"):
        learn(dataclasses.replace(recipe, seed=1), TOY, examples, tmp_path / "parts", silent)
    histories = [torch.load(tmp_path / kept / "ast.pt", weights_only=True)["history"] for kept in ("whole", "parts")]
    assert histories[0] == histories[1]
