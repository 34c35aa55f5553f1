"""BEATs equals the authors' code in every configuration of official files."""

from __future__ import annotations

import copy
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sousaphone import lora
from sousaphone.backbones.beats import Beats
from sousaphone.backbones.beats_encoder import BeatsConfig, PositionConv, distance_buckets
from sousaphone.backbones.registry import REGISTRY
from sousaphone.model import load_backbone
from tests.backbones.beats_nets import GATED, RELATIVE, SMALL, load, official, perturbed, written

SPEC = REGISTRY["beats"]
DIRECTORY = Path(__file__).parents[1] / "reference"
# A small random checkpoint in the official format, two clips, and the output of the authors' code for them: every
# eighth token of the last layer, the norms over all tokens, and the predictor's probabilities.
CHECKPOINT = DIRECTORY / "beats_small_official.pt"
REFERENCE = np.load(DIRECTORY / "beats.npz")
CONFIGS: dict[str, dict[str, Any]] = {
    "post_norm": {},
    "pre_norm": {"layer_norm_first": True},
    "deep_norm": {"deep_norm": True, **GATED},
    "pre_norm_gated": {"layer_norm_first": True, **GATED},
    "relative_ungated": RELATIVE,
    "gates_without_positions": {"gru_rel_pos": True},
    "no_projection_and_conv_bias": {"embed_dim": 32, "conv_bias": True, **GATED},
    "other_patch_and_odd_conv": {"input_patch_size": 12, "conv_pos": 7, **GATED},
    **{f"activation_{name}": {"activation_fn": name} for name in ("gelu_accurate", "relu", "tanh", "linear", "glu")},
}


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def test_tokens_and_predictions_equal_official_ones() -> None:
    backbone = load(CHECKPOINT, "beats-ft")
    with torch.no_grad():
        tokens = backbone.encode(backbone.frontend(torch.from_numpy(REFERENCE["wav16k"]) / 32768))
    assert tokens.shape == (2, 144, 64)
    assert relative_error(tokens[:, ::8], torch.from_numpy(REFERENCE["hidden"])) < 1e-5
    assert torch.allclose(tokens.norm(dim=(1, 2)), torch.from_numpy(REFERENCE["hidden_norm"]), rtol=1e-5)
    model = torch.load(CHECKPOINT, weights_only=True)["model"]
    probabilities = F.linear(tokens, model["predictor.weight"], model["predictor.bias"]).mean(1).sigmoid()
    assert torch.allclose(probabilities, torch.from_numpy(REFERENCE["probs"]), atol=1e-6)


def by_definition(cfg: BeatsConfig, w: dict[str, Tensor], features: Tensor) -> Tensor:
    """One clip [F, 128] to [L, D], token by token and head by head, from the paper and the names in the file."""

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    p, depth, heads = cfg.input_patch_size, cfg.encoder_layers, cfg.encoder_attention_heads
    patches = [
        features[i : i + p, j : j + p].flatten()
        for i in range(0, len(features) - p + 1, p)
        for j in range(0, 128 - p + 1, p)
    ]
    x = F.linear(torch.stack(patches), w["patch_embedding.weight"].flatten(1), w.get("patch_embedding.bias"))
    x = norm("layer_norm", x)
    if cfg.embed_dim != cfg.encoder_embed_dim:
        x = linear("post_extract_proj", x)
    length, width = x.shape

    g, v = w["encoder.pos_conv.0.weight_g"], w["encoder.pos_conv.0.weight_v"]
    taps, group = cfg.conv_pos, width // cfg.conv_pos_groups
    conv = w["encoder.pos_conv.0.bias"].repeat(length, 1)
    for t in range(length):
        for tap in range(taps):
            at = t + tap - taps // 2
            if 0 <= at < length:
                kernel = g[..., tap] * v[..., tap] / v[..., tap].norm()
                inputs = x[at].view(-1, 1, group).expand(-1, group, -1).reshape(width, group)
                conv[t] += (kernel * inputs).sum(1)
    x = x + F.gelu(conv)
    if not cfg.layer_norm_first:
        x = norm("encoder.layer_norm", x)

    def bucket(distance: int) -> int:
        half, exact = cfg.num_buckets // 2, cfg.num_buckets // 4
        far = abs(distance)
        if far >= exact:
            far = exact + int(math.log(far / exact) / math.log(cfg.max_distance / exact) * (half - exact))
        return min(far, half - 1) + half * (distance > 0)

    def attention(name: str, x: Tensor) -> Tensor:
        out, size = [], width // heads
        for h in range(heads):
            q, k, v = (linear(f"{name}.{p}_proj", x)[:, h * size : (h + 1) * size] for p in "qkv")
            scores = q @ k.T / math.sqrt(size)
            if cfg.relative_position_embedding:
                table = w[f"{name}.relative_attention_bias.weight"][:, h]
                bias = torch.stack([table[[bucket(j - i) for j in range(length)]] for i in range(length)])
                if cfg.gru_rel_pos:
                    gates = linear(f"{name}.grep_linear", q)
                    update, reset = gates[:, :4].sum(1).sigmoid(), gates[:, 4:].sum(1).sigmoid()
                    bias = (update * (reset * w[f"{name}.grep_a"][0, h, 0, 0] - 1) + 2)[:, None] * bias
                scores = scores + bias
            out.append(scores.softmax(-1) @ v)
        return linear(f"{name}.out_proj", torch.cat(out, 1))

    def feed_forward(name: str, x: Tensor) -> Tensor:
        if cfg.activation_fn == "glu":
            value, gate = linear(f"{name}.fc1.linear", x).chunk(2, 1)
            return linear(f"{name}.fc2", value * gate * gate.sigmoid())
        x = linear(f"{name}.fc1", x)
        activations = {
            "gelu": 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
            "gelu_accurate": 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
            "relu": x.clamp_min(0),
            "tanh": torch.tanh(x),
            "linear": x,
        }
        return linear(f"{name}.fc2", activations[cfg.activation_fn])

    alpha = (2 * depth) ** 0.25 if cfg.deep_norm else 1
    for name in (f"encoder.layers.{i}" for i in range(depth)):
        if cfg.layer_norm_first:
            x = x + attention(f"{name}.self_attn", norm(f"{name}.self_attn_layer_norm", x))
            x = x + feed_forward(name, norm(f"{name}.final_layer_norm", x))
        else:
            x = norm(f"{name}.self_attn_layer_norm", alpha * x + attention(f"{name}.self_attn", x))
            x = norm(f"{name}.final_layer_norm", alpha * x + feed_forward(name, x))
    return norm("encoder.layer_norm", x) if cfg.layer_norm_first else x


@pytest.mark.parametrize("name", CONFIGS)
def test_every_configuration_equals_the_definition(name: str, tmp_path: Path) -> None:
    net = perturbed(**CONFIGS[name])
    backbone = load(written(tmp_path / "beats.pt", official(net)))
    features = torch.randn(2, 3 * net.config.input_patch_size + 5, 128)
    with torch.no_grad():
        tokens = backbone.encode(features)
        expected = torch.stack([by_definition(net.config, net.state_dict(), clip) for clip in features])
        assert torch.equal(tokens, net(features))
    assert relative_error(tokens, expected) < 1e-5


def test_distance_buckets_are_symmetric_and_exact_for_near_distances() -> None:
    found = distance_buckets(320, 800)
    assert found.shape == (2 * 800 + 1,)
    assert found[800] == 0
    assert torch.equal(found[801:], found[:800].flip(0) + 160)
    # The nearest 80 on each side have a bucket each.
    assert torch.equal(found[:800].flip(0)[:79], torch.arange(1, 80))
    assert found.max() < 320


def test_distances_above_the_largest_share_its_bucket() -> None:
    net = perturbed(relative_position_embedding=True, num_buckets=16, max_distance=20)
    bias = net.encoder.relative_bias(60)
    assert bias is not None
    assert torch.equal(bias[..., 0, 20:], bias[..., 0, 20:21].expand(-1, -1, 40))
    assert torch.equal(bias[..., 59, :40], bias[..., 59, 39:40].expand(-1, -1, 40))


@pytest.mark.parametrize("samples", [0, 100, 500, 2_000])
def test_clip_shorter_than_a_patch_is_padded_with_silence(samples: int) -> None:
    backbone = load_backbone("beats", "nano")
    clip = torch.rand(1, samples) - 0.5
    assert torch.isfinite(backbone(clip)).all()
    if samples >= 400:
        # The front end drops the incomplete last frame.
        features = backbone.frontend(clip)
        assert torch.equal(
            backbone.encode(features),
            backbone.encode(F.pad(features, (0, 0, 0, 16 - features.shape[1]), value=backbone.frontend.silence)),
        )


def test_lora_targets_include_gated_linear_units() -> None:
    net = perturbed(activation_fn="glu")
    targets = lora.resolve_targets(net, SPEC.lora_targets["all-linear"], SPEC.aliases, [])
    assert targets.matches == dict.fromkeys(("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"), 3)


def test_dropout_applies_only_in_training() -> None:
    net = perturbed(dropout=0.5, encoder_layerdrop=0.5)
    features = torch.randn(1, 32, 128)
    assert torch.equal(net(features), net(features))
    net.train()
    assert not torch.equal(net(features), net(features))


def test_deep_norm_initialisation_has_the_official_deviations() -> None:
    torch.manual_seed(0)
    net = Beats(BeatsConfig(**{**SMALL, "encoder_embed_dim": 256, "deep_norm": True}))
    layer = net.encoder.layers[0]
    assert layer.self_attn.q_proj.weight.std().item() == pytest.approx(256**-0.5, rel=0.03)
    assert layer.self_attn.v_proj.weight.std().item() == pytest.approx(256**-0.5 * 24**-0.25, rel=0.03)
    assert layer.fc1.weight.std().item() == pytest.approx((2 / (256 + 48)) ** 0.5 * 24**-0.25, rel=0.03)


def position_conv(trainable: bool = False) -> PositionConv:
    torch.manual_seed(0)
    return PositionConv(16, 8, 4).requires_grad_(trainable)


def test_frozen_convolution_trains_earlier_layers_after_inference() -> None:
    conv, x = position_conv(), torch.rand(2, 16, 20, requires_grad=True)
    with torch.inference_mode():
        conv(x)
    conv(x).sum().backward()
    assert x.grad is not None


def test_convolution_follows_changes_of_its_weights() -> None:
    conv, x = position_conv(), torch.rand(2, 16, 20)
    changed = copy.deepcopy(conv)
    changed.weight_v.add_(torch.rand_like(changed.weight_v))
    conv(x)
    conv.load_state_dict(changed.state_dict())
    assert torch.equal(conv(x), changed(x))
    conv.requires_grad_(True)
    conv(x).sum().backward()
    torch.optim.SGD(conv.parameters(), lr=1.0).step()
    conv.requires_grad_(False)
    assert torch.equal(conv(x), copy.deepcopy(conv)(x))
    assert not torch.equal(conv(x), changed(x))


def test_trained_convolution_can_be_copied() -> None:
    conv, x = position_conv(trainable=True), torch.rand(2, 16, 20)
    assert torch.equal(conv(x), copy.deepcopy(conv)(x))


def test_convolution_in_several_threads_computes_the_same() -> None:
    conv, inputs = position_conv(), [torch.rand(1, 16, length) for length in (10, 60, 110, 160)]
    expected = [position_conv()(x) for x in inputs]

    def repeat(first: int) -> bool:
        order = [(first + step) % len(inputs) for step in range(200)]
        return all(torch.allclose(conv(inputs[i]), expected[i], atol=1e-5) for i in order)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(repeat, range(4)))
