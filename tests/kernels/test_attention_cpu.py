"""Attention in blocks computes what the plain expression computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sousaphone.backbones.transformer import attend
from sousaphone.config import TrainConfig
from sousaphone.kernels import attention_cpu
from sousaphone.model import build_model
from sousaphone.rudiments import SLUGS

CLIPS, HEADS, TOKENS, WIDTH = 3, 5, 37, 16


def heads(tokens: int = TOKENS) -> Tensor:
    """Heads [B, H, L, D] in the layout of a linear layer's output."""
    return torch.randn(CLIPS, tokens, HEADS, WIDTH).bfloat16().transpose(1, 2)


@pytest.mark.parametrize("most", [1, 3, HEADS], ids=["one head", "three heads", "one clip"])
@pytest.mark.parametrize("gated", [None, False, True], ids=["", "bias", "gated bias"])
@pytest.mark.parametrize("queries", [TOKENS, 2], ids=["all queries", "two queries"])
def test_blocks_compute_one_expression(
    monkeypatch: pytest.MonkeyPatch, most: int, gated: bool | None, queries: int
) -> None:
    torch.manual_seed(0)
    q, k, v = heads(queries), heads(), heads()
    gate = torch.randn(CLIPS, HEADS, queries, 1).bfloat16() if gated else None
    bias = None if gated is None else torch.randn(1, HEADS, queries, TOKENS).bfloat16()
    monkeypatch.setattr(attention_cpu, "_block_size", lambda: most * queries * TOKENS)
    with torch.no_grad():
        assert attention_cpu.usable(q, k)
        blocks = attend(q, k, v, 0.0, 0.25, gate, bias)
    assert not attention_cpu.usable(q, k)  # with gradients
    plain = attend(q, k, v, 0.0, 0.25, gate, bias)
    torch.testing.assert_close(blocks, plain, atol=0.01 * float(plain.abs().max()), rtol=0)


@pytest.mark.parametrize("name", ["ast", "beats"])
def test_backbone_infers_in_blocks_the_logits_that_it_trains_with(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    config = TrainConfig(model=name, precision="bfloat16", clip_seconds=1.0)
    model = build_model(config, len(SLUGS)).place(config).eval()
    features = model.features(torch.rand(3, model.backbone.spec.sample_rate) - 0.5)
    monkeypatch.setattr(attention_cpu, "_block_size", lambda: 100)
    with torch.inference_mode():
        inferred = model.infer(features).clone()
    trained = model.classify(features).detach()
    torch.testing.assert_close(inferred, trained, atol=0.02 * float(trained.abs().max()), rtol=0)
