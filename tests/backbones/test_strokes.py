"""The backbone over strokes learns rhythms, and says nothing of its own about pretrained weights."""

from __future__ import annotations

import pytest
import torch

from sousaphone.backbones.registry import REGISTRY, strategy_of
from sousaphone.backbones.strokes import StrokesBackbone
from sousaphone.baselines.strokes import train_network
from sousaphone.config import TrainConfig
from sousaphone.errors import UserError
from sousaphone.model import build_model, load_backbone
from sousaphone.runs.directory import banner


def frames(gaps: list[int], count: int = 40, seed: int = 0) -> torch.Tensor:
    """Windows [count, 500 * 4] with strokes at a repeated pattern of intervals in frames, from a random start."""
    rng = torch.Generator().manual_seed(seed)
    found = torch.zeros(count, 500, 4)
    for row in found:
        place, turn = int(torch.randint(3, 40, (1,), generator=rng)), 0
        while place < 498:
            row[place] = torch.tensor([0.9, 0.6, 0.0, 0.0])
            place, turn = place + gaps[turn % len(gaps)], turn + 1
    return found.flatten(1)


def test_equal_numbers_of_strokes_in_another_rhythm_are_distinguished() -> None:
    patterns = ([30, 30, 30], [20, 40, 30], [15, 15, 60])
    train = torch.cat([frames(gaps) for gaps in patterns])
    other = torch.cat([frames(gaps, seed=1) for gaps in patterns])
    labels = torch.arange(3).repeat_interleave(40)
    network = train_network(train, labels, 0, lambda done: None, steps=60)
    assert (network.score(other).argmax(1) == labels).float().mean() > 0.9


def test_equal_seeds_give_equal_networks() -> None:
    train, labels = frames([30, 20]), torch.arange(2).repeat(20)
    one, other = (train_network(train, labels, 3, lambda done: None, steps=3).score(train) for _ in range(2))
    assert torch.equal(one, other)


def test_it_has_at_most_300_000_parameters_and_all_of_them_train() -> None:
    counts = build_model(TrainConfig(model="strokes"), 40).counts()
    assert counts.trainable == counts.total <= 300_000


def test_the_default_strategy_is_its_own_and_others_are_refused() -> None:
    assert TrainConfig(model="strokes").strategy == strategy_of("strokes", "lora") == "full"
    assert strategy_of("ast", "dora") == "dora"
    with pytest.raises(UserError, match=r"dora.*strokes.*full"):
        TrainConfig(model="strokes", strategy="dora")


def test_its_random_weights_and_scale_do_not_void_a_verdict() -> None:
    assert banner([("strokes", "nano", "random")]) is None
    assert banner([("strokes", "base", "random"), ("ast", "base", "/a/file")]) is None
    warning = banner([("strokes", "base", "random"), ("ast", "base", "random")])
    assert warning is not None
    assert REGISTRY["strokes"].title not in warning


def test_silence_has_an_embedding() -> None:
    backbone = load_backbone("strokes", "nano")
    assert backbone(torch.zeros(2, 40_000)).isfinite().all()


def test_weights_of_another_transcriber_are_refused() -> None:
    backbone = StrokesBackbone(REGISTRY["strokes"])
    state = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    backbone.load_state_dict(state)
    state["transcriber"][0] += 1
    with pytest.raises(UserError, match="transcriber"):
        backbone.load_state_dict(state)
    with pytest.raises(UserError, match="transcriber"):  # as part of a model
        torch.nn.ModuleDict({"backbone": backbone}).load_state_dict({f"backbone.{n}": t for n, t in state.items()})
