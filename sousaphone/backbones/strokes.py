"""The stroke model: a transformer over the strokes that the frozen transcriber finds.

It has no pretrained weights and trains in full. A stroke is its intervals to its neighbours, relative to the clip's
median and absolute, its velocity, and how sure the transcriber is of it. The attention rotates queries and keys
(RoFormer, Su et al., arXiv 2104.09864) by time in median intervals and by number of strokes, so that it is relative in
both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sousaphone.backbones.backbone import Backbone
from sousaphone.backbones.backbone_spec import BackboneSpec
from sousaphone.backbones.frontend_spec import FrontendContract, FrontendOverrides
from sousaphone.backbones.frontends import Frontend, silence_padding
from sousaphone.errors import UserError
from sousaphone.transcription.network import HOP, RATE
from sousaphone.transcription.transcribe import load_network, peaks, probabilities, weights_digest

WIDTH, LAYERS, HEADS = 96, 3, 4
FEATURES = 9  # of a stroke
MOST_STROKES = 128  # of a window; further ones are ignored
THRESHOLD = 0.12  # below that of `transcribe`: the transformer weighs doubtful strokes
DROPOUT = 0.2
# Regularisation in training, beside dropout, of each clip's strokes: log tempo, jitter, dropped strokes, log velocity.
_TEMPO, _JITTER_SECONDS, _DROPPED, _GAIN = 0.25, 0.003, 0.08, 0.1
_FEWEST_SECONDS = 0.045  # shorter intervals are those of grace notes and buzzes; the median is of the others
_SECONDS = HOP / RATE


class StrokeFrontend(Frontend):
    """Waveform [B, T] to what the transcriber finds in each frame of 5 ms: [B, F, 4], between 0 and 1.

    The channels are onset, velocity, grace note and buzz. The transcriber is no part of the module: it is the same
    frozen network in every model, loaded once.
    """

    silent_padding = True
    has_bands = False

    def __init__(self, contract: FrontendContract) -> None:
        nn.Module.__init__(self)  # without a window and a mel bank
        self.contract, self.sample_rate, self.hop_seconds = contract, contract.sample_rate, _SECONDS

    def forward(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            network = load_network(str(wave.device))
            frames = [probabilities(network(part)) for part in silence_padding(wave, lengths).split(_AT_ONCE)]
        return torch.cat(frames).transpose(1, 2)


_AT_ONCE = 8  # clips: more are not faster


class StrokesBackbone(Backbone):
    """The embedding is the mean and the maximum over the strokes, [B, 2 WIDTH]."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.spec, self.width = spec, 2 * WIDTH
        self.frontend = StrokeFrontend(spec.frontend)
        self.net = StrokeTransformer()
        # Part of the state, so that a model is not used with another transcriber than in its training.
        self.transcriber = nn.Buffer(torch.tensor(list(weights_digest()), dtype=torch.uint8))
        self.register_load_state_dict_pre_hook(_refuse_other_transcriber)

    @classmethod
    def create(cls, spec: BackboneSpec, scale: str, clip_seconds: float | None, overrides: FrontendOverrides) -> Self:
        return cls(spec)

    @classmethod
    def load(cls, spec: BackboneSpec, path: Path, clip_seconds: float | None, overrides: FrontendOverrides) -> Self:
        raise UserError(f"{path}: {spec.title} has no weights files; leave out --weights")

    def encode(self, features: Tensor) -> Tensor:
        """[B, F, 4] to one token of the strokes, [B, 1, 2 WIDTH]."""
        features = features.float()
        valid, time, strokes = self.pick(features)
        return self.net(*stroke_features(time, strokes, valid), valid)[:, None].to(features.dtype)

    def pick(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pick the N strokes of the clip with most: valid [B, N], seconds [B, N], and their channels [B, N, 4]."""
        at, shift = peaks(features[:, :, 0], THRESHOLD)
        batch, frames = at.shape
        if self.training:
            at = at & (torch.rand_like(features[:, :, 0]) >= _DROPPED * torch.rand(batch, 1, device=at.device))
        count = max(2, min(MOST_STROKES, int(at.sum(1).max())))
        order = torch.where(at, frames - torch.arange(frames, device=at.device), 0)
        order, index = order.topk(min(count, frames), dim=1)  # the earliest first
        valid = order > 0
        time = (index + shift.gather(1, index)) * _SECONDS
        strokes = features.gather(1, index[:, :, None].expand(-1, -1, features.shape[2]))
        if self.training:
            scale = torch.randn(batch, 3, 1, device=at.device)
            time = time * (_TEMPO * scale[:, 0].clamp(-1, 1)).exp() + _JITTER_SECONDS * scale[
                :, 1
            ].abs() * torch.randn_like(time)
            gain = (_GAIN * scale[:, 2]).exp()
            strokes = torch.cat([strokes[:, :, :1], strokes[:, :, 1:2] * gain[:, :, None], strokes[:, :, 2:]], 2)
        return valid, time, strokes


def _refuse_other_transcriber(
    backbone: StrokesBackbone, state: dict[str, Tensor], prefix: str, *others: object
) -> None:
    saved = state.get(f"{prefix}transcriber")
    if saved is not None and not torch.equal(saved.cpu(), backbone.transcriber.cpu()):
        raise UserError(
            "this strokes model was trained with another transcriber than that of this version; use the version of "
            "sousaphone that exported it, or train it again"
        )


def stroke_features(time: Tensor, strokes: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the features of strokes [B, N, FEATURES], and their times in median intervals [B, N].

    Args:
        time: seconds [B, N], in ascending order up to jitter.
        strokes: onset, velocity, grace note, buzz, each between 0 and 1 [B, N, 4].
        valid: [B, N]; the valid strokes come first.
    """
    gaps = time.diff(dim=1)
    inside = valid[:, 1:]
    median = torch.where(inside & (gaps > _FEWEST_SECONDS), gaps, torch.nan).nanmedian(dim=1, keepdim=True).values
    median = median.nan_to_num(0.15)
    gaps = torch.where(inside, gaps, 1.0)
    before = F.pad(gaps, (1, 0), value=1.0).clamp(0.004, 2.0)
    after = F.pad(gaps, (0, 1), value=1.0).clamp(0.004, 2.0)
    onset, velocity, grace, buzz = strokes.unbind(2)
    mean = (velocity * valid).sum(1, keepdim=True) / valid.sum(1, keepdim=True).clamp(min=1)
    columns = [
        *((before / median).log(), (after / median).log(), before.log() + 2, after.log() + 2),
        *(2 * velocity - 1, 4 * (velocity - mean), 2 * onset - 1, 2 * grace - 1, 2 * buzz - 1),
    ]
    return torch.stack(columns, 2) * valid[:, :, None], (time - time[:, :1]) / median


class StrokeTransformer(nn.Module):
    """Features of strokes to an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.inlet = nn.Conv1d(FEATURES, WIDTH, 5, padding=2)
        self.blocks = nn.ModuleList(StrokeBlock() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        pairs = WIDTH // HEADS // 2
        in_time, in_number = pairs - pairs // 2, pairs // 2
        # Radians per median interval, and per stroke.
        by_time = F.pad(3 * torch.logspace(0, -1.5, in_time), (0, in_number))
        by_number = F.pad(2 * torch.logspace(0, -1.5, in_number), (in_time, 0))
        self.by_time, self.by_number = nn.Buffer(by_time, persistent=False), nn.Buffer(by_number, persistent=False)

    def forward(self, features: Tensor, time: Tensor, valid: Tensor) -> Tensor:
        """[B, N, FEATURES], [B, N] and [B, N] to [B, 2 WIDTH]."""
        x = self.inlet(features.transpose(1, 2)).transpose(1, 2)
        number = torch.arange(x.shape[1], device=x.device)[None, :, None]
        angle = (time[:, :, None] * self.by_time + number * self.by_number)[:, None]  # [B, 1, N, pairs]
        mask = (valid | ~valid.any(1, keepdim=True))[:, None, None]  # a clip without strokes attends to its padding
        for block in self.blocks:
            x = block(x, angle.cos(), angle.sin(), mask)
        x, inside = self.norm(x), valid[:, :, None]
        mean = (x * inside).sum(1) / inside.sum(1).clamp(min=1)
        greatest = x.masked_fill(~inside, -torch.inf).amax(1)
        return torch.cat([mean, torch.where(inside.any(1), greatest, 0.0)], 1)


class StrokeBlock(nn.Module):
    """A transformer block whose attention depends on distances in time and in number."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, mask: Tensor) -> Tensor:
        qkv = self.qkv(self.attention_norm(x)).unflatten(2, (3, HEADS, WIDTH // HEADS))  # [B, N, 3, heads, d]
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(
            _rotate(query, cosine, sine), _rotate(key, cosine, sine), value, attn_mask=mask
        )
        x = x + self.dropout(self.out(attended.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)
