"""The Transformer of BEATs (Chen et al., arXiv 2212.09058), with the module names of the official checkpoints.

Source of names, defaults and initialisation: https://github.com/microsoft/unilm/tree/master/beats. Its layer-wise decay
of gradients is omitted, because one recipe trains all backbones; it does not affect outputs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sousaphone.backbones.transformer import add_norm, attend, to_heads
from sousaphone.errors import UserError
from sousaphone.kernels.dispatch import HasFusedPath

MEL_BANDS = 128
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_accurate": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_fast": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "tanh": torch.tanh,
    "linear": lambda x: x,
    "glu": lambda x: x,  # the gate is in the first feed-forward layer
}
# Accepted types and range of the fields of each type.
_LIMITS: dict[str, tuple[tuple[type, ...], Any, Any]] = {
    "int": ((int,), 1, 2**20),
    "bool": ((bool, int), None, None),
    "float": ((float, int), 0.0, 0.999),
    "str": ((str,), None, None),
}


@dataclass(frozen=True)
class BeatsConfig:
    """The fields of an official file's `cfg` that determine the encoder, with the official names and defaults."""

    input_patch_size: int = -1
    embed_dim: int = 512
    conv_bias: bool = False
    encoder_layers: int = 12
    encoder_embed_dim: int = 768
    encoder_ffn_embed_dim: int = 3072
    encoder_attention_heads: int = 12
    activation_fn: str = "gelu"
    layer_norm_first: bool = False
    deep_norm: bool = False
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    encoder_layerdrop: float = 0.0
    dropout_input: float = 0.0
    conv_pos: int = 128
    conv_pos_groups: int = 16
    relative_position_embedding: bool = False
    num_buckets: int = 320
    max_distance: int = 1280
    gru_rel_pos: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, (kinds, low, high) = getattr(self, field.name), _LIMITS[str(field.type)]
            # An int may be used as a bool, but not the reverse.
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise UserError(f"BEATs cfg: {field.name}={value!r} is not of type {field.type}")
            if low is not None and not low <= value <= high:
                raise UserError(f"BEATs cfg: {field.name}={value!r} is not from {low} to {high}")
        for divisor in ("encoder_attention_heads", "conv_pos_groups"):
            if self.encoder_embed_dim % getattr(self, divisor):
                raise UserError(
                    f"BEATs cfg: encoder_embed_dim={self.encoder_embed_dim} is not a multiple of "
                    f"{divisor}={getattr(self, divisor)}"
                )
        if self.input_patch_size > MEL_BANDS:
            raise UserError(f"BEATs cfg: input_patch_size={self.input_patch_size} is above the {MEL_BANDS} mel bands")
        if self.activation_fn not in ACTIVATIONS:
            raise UserError(f"BEATs cfg: activation_fn={self.activation_fn!r} is not one of: {', '.join(ACTIVATIONS)}")
        if self.layer_norm_first and self.deep_norm:
            raise UserError("BEATs cfg: layer_norm_first and deep_norm are mutually exclusive; set one to False")
        if self.relative_position_embedding and not 1 <= self.num_buckets // 4 < self.max_distance:
            raise UserError(
                f"BEATs cfg: num_buckets={self.num_buckets} must be 4 or more and below four times "
                f"max_distance={self.max_distance}"
            )

    @classmethod
    def from_official(cls, cfg: dict[str, Any]) -> Self:
        """Read a file's `cfg` without the keys that do not concern the encoder (predictor, training)."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in cfg.items() if name in known})


class Attention(nn.Module):
    """Self-attention with a relative position bias, gated by the query (WavLM, arXiv 2110.13900)."""

    def __init__(self, config: BeatsConfig, relative: nn.Embedding | None) -> None:
        super().__init__()
        width, self.heads = config.encoder_embed_dim, config.encoder_attention_heads
        self.dropout = config.attention_dropout
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.gated = config.gru_rel_pos
        if self.gated:
            self.grep_linear = nn.Linear(width // self.heads, 8)
            self.grep_a = nn.Parameter(torch.ones(1, self.heads, 1, 1))
        if relative is not None:
            self.relative_attention_bias = relative  # shared by all layers; the file has a copy for each

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x [B, L, D] and bias [1, H, L, L] to [B, L, D]."""
        q, k, v = to_heads(x, self.heads, self.q_proj, self.k_proj, self.v_proj)  # [B, H, L, D / H]
        dropout = self.dropout if self.training else 0.0
        gate = None
        if bias is not None and self.gated:
            # Each gate is the sum of four outputs; summing their weights is equivalent.
            sums = (p.unflatten(0, (2, 4)).sum(1) for p in (self.grep_linear.weight, self.grep_linear.bias))
            first, second = F.linear(q, *sums).sigmoid().split(1, -1)  # [B, H, L, 1]
            gate = first * (second * self.grep_a - 1) + 2
        x = attend(q, k, v, dropout, q.shape[-1] ** -0.5, gate, bias)
        return self.out_proj(x.transpose(1, 2).flatten(2))


class GatedLinear(nn.Module):
    """Gated linear unit with swish (Shazeer, arXiv 2002.05202)."""

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2 * features)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.linear(x).chunk(2, -1)
        return value * F.silu(gate)


class Layer(nn.Module):
    """Attention and feed-forward with residual connections, in pre-norm or post-norm order.

    In post-norm order deep norm (arXiv 2203.00555) scales the residual by (2 * layers) ** (1 / 4).
    """

    def __init__(self, config: BeatsConfig, relative: nn.Embedding | None) -> None:
        super().__init__()
        width, hidden = config.encoder_embed_dim, config.encoder_ffn_embed_dim
        self.self_attn = Attention(config, relative)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = GatedLinear(width, hidden) if config.activation_fn == "glu" else nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)
        self.activation = ACTIVATIONS[config.activation_fn]
        self.norm_first = config.layer_norm_first
        self.alpha = (2 * config.encoder_layers) ** 0.25 if config.deep_norm else 1.0

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation_dropout(self.activation(self.fc1(x))))

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x [B, L, D] and bias [1, H, L, L] to [B, L, D]."""
        if self.norm_first:
            x = x + self.dropout(self.self_attn(self.self_attn_layer_norm(x), bias))
            return x + self.dropout(self.feed_forward(self.final_layer_norm(x)))
        _, x = add_norm(x, self.dropout(self.self_attn(x, bias)), self.self_attn_layer_norm, self.alpha)
        _, x = add_norm(x, self.dropout(self.feed_forward(x)), self.final_layer_norm, self.alpha)
        return x


class PositionConv(nn.Module, HasFusedPath):
    """Grouped convolution along the tokens, with weight norm for each tap."""

    def __init__(self, width: int, taps: int, groups: int) -> None:
        super().__init__()
        self.taps, self.groups = taps, groups
        weight = torch.randn(width, width // groups, taps) * math.sqrt(4 / (taps * width))
        self.weight_v = nn.Parameter(weight)
        self.weight_g = nn.Parameter(weight.norm(dim=(0, 1), keepdim=True))
        self.bias = nn.Parameter(torch.zeros(width))
        self._cached: tuple[tuple[Any, ...], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[B, D, L] to [B, D, L]; an even number of taps reaches one token further back than ahead."""
        length, kind = x.shape[-1], x.dtype
        if not self.fused or x.device.type == "mps":  # mps lacks complex products
            y = F.conv1d(x, self.weight().to(kind), self.bias, padding=self.taps // 2, groups=self.groups)
            return y[..., :length]
        # By FFT: with many taps and few channels per group conv1d took over a third of a training step on a GPU.
        size = -(-(length + self.taps) // 32) * 32  # long enough to avoid wrap-around, and a multiple of 32 for speed
        spectrum = torch.fft.rfft(F.pad(x.float(), (self.taps // 2, 0)), size).unflatten(1, (self.groups, -1))
        product = spectrum.permute(1, 3, 0, 2) @ self.response(size)  # [G, frequencies, B, O]
        y = torch.fft.irfft(product.permute(2, 0, 3, 1), size)[..., :length].flatten(1, 2)
        return (y + self.bias.float()[:, None]).to(kind)

    def weight(self) -> Tensor:
        """The normalised weight [D, I, taps], float32."""
        weight = self.weight_v.float()
        return weight * (self.weight_g.float() / weight.norm(dim=(0, 1), keepdim=True))

    def response(self, size: int) -> Tensor:
        """The conjugate frequency response [G, frequencies, I, O]. On a CPU that of frozen weights is kept: at full
        size it takes a third of an evaluation. On a GPU, captured graphs would keep its address."""
        parts = (self.weight_v, self.weight_g)
        if self.weight_v.device.type != "cpu" or any(part.requires_grad or part.is_inference() for part in parts):
            return self._response(size)
        key = (size, *((part.data_ptr(), part._version, part.dtype) for part in parts))
        cached = self._cached  # read once: other threads may replace it
        if cached is None or cached[0] != key:
            with torch.inference_mode(False):  # whose tensors could not be used in training
                cached = self._cached = key, self._response(size).resolve_conj().contiguous()
        return cached[1]

    def _response(self, size: int) -> Tensor:
        response = torch.fft.rfft(self.weight(), size).unflatten(0, (self.groups, -1))  # [G, O, I, frequencies]
        return response.permute(0, 3, 2, 1).conj()


class Encoder(nn.Module):
    """Convolutional position embedding, then layers that share one table of relative positions."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        self.config = config
        width, relative = config.encoder_embed_dim, None
        if config.relative_position_embedding:
            relative = nn.Embedding(config.num_buckets, config.encoder_attention_heads)
            self.buckets = nn.Buffer(distance_buckets(config.num_buckets, config.max_distance), persistent=False)
        self.pos_conv = nn.Sequential(PositionConv(width, config.conv_pos, config.conv_pos_groups), nn.GELU())
        self.layers = nn.ModuleList(Layer(config, relative) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as BERT, and for deep norm by the depth, as its authors do."""
        beta = (8 * self.config.encoder_layers) ** -0.25
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
                if self.config.deep_norm and name.endswith(("q_proj", "k_proj")):
                    nn.init.xavier_normal_(module.weight)
                elif self.config.deep_norm and name.endswith(("v_proj", "out_proj", "fc1", "fc1.linear", "fc2")):
                    nn.init.xavier_normal_(module.weight, gain=beta)

    def relative_bias(self, length: int) -> Tensor | None:
        """The bias of each head by the distance of query and key, [1, H, L, L]; the same for all layers."""
        if not self.config.relative_position_embedding:
            return None
        first: Any = self.layers[0]
        table = first.self_attn.relative_attention_bias
        most = self.config.max_distance
        if torch.compiler.is_exporting():  # `unfold` would fix the length
            position = torch.arange(length)
            distance = position - position[:, None]  # [L, L], key - query
            return table(self.buckets[distance.clamp(-most, most) + most]).permute(2, 0, 1).unsqueeze(0)
        distance = torch.arange(1 - length, length, device=self.buckets.device)
        by_distance = table(self.buckets[distance.clamp(-most, most) + most]).T  # [H, 2 L - 1]
        # Row i of the bias is a window of L distances that starts at -i.
        return by_distance.unfold(-1, length, 1).flip(1).unsqueeze(0)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, D] to [B, L, D]."""
        x = x + self.pos_conv(x.transpose(1, 2)).transpose(1, 2)
        if not self.config.layer_norm_first:
            x = self.layer_norm(x)
        x = self.dropout(x)
        bias = self.relative_bias(x.shape[1])
        for layer in self.layers:
            if self.training and torch.rand(()).item() < self.config.encoder_layerdrop:
                continue
            x = layer(x, bias)
        return self.layer_norm(x) if self.config.layer_norm_first else x


def distance_buckets(buckets: int, max_distance: int) -> Tensor:
    """The buckets of the distances key - query from -max_distance to max_distance, [2 * max_distance + 1].

    The scheme is T5's. Half of the buckets are for keys after the query. In each half, the first half of the buckets
    hold one distance each, the others widen logarithmically up to `max_distance`, and the last includes all greater
    distances.
    """
    # Always on the CPU: logarithms of other devices differ in the last bit, which may change a bucket.
    distance = torch.arange(-max_distance, max_distance + 1, device="cpu")
    half = buckets // 2
    exact = half // 2
    ratio = torch.log(distance.abs().clamp_min(exact).float() / exact) / math.log(max_distance / exact)
    wide = (exact + (ratio * (half - exact)).long()).clamp_max(half - 1)
    return torch.where(distance.abs() < exact, distance.abs(), wide) + half * (distance > 0)
