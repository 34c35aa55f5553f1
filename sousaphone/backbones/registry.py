"""The registry of backbones. A new backbone takes one module in this package and one entry here."""

from __future__ import annotations

import dataclasses
import pkgutil
from typing import TYPE_CHECKING, Any

from sousaphone.backbones.backbone_spec import BackboneSpec, WeightSource
from sousaphone.backbones.frontend_spec import FrontendContract, StrokeContract
from sousaphone.errors import UserError

if TYPE_CHECKING:
    from sousaphone.backbones.backbone import Backbone

# Published for AST: LoRA and adapters 5e-3, linear probe 1e-3, full fine-tuning 5e-5 (Cappellazzo et al., arXiv
# 2312.03694). They are the defaults of the others until tuned; the variants of LoRA use its rate. Most nano backbones
# start from random weights, so under the full strategy they use a common rate for training from scratch.
# (IA)³: its vectors start at 1 and move by at most the rate per step; T-Few trains them at 3e-3 for 1,000 steps of
# Adafactor (Liu et al., arXiv 2205.05638), and trials here are shorter. Biases: 1e-3, the highest of the rates 1e-4 to
# 1e-3 that BitFit searches (Ben Zaken et al., arXiv 2106.10199); for nano backbones the rate of the head, most of what
# trains there.
_ADAPTERS = {**dict.fromkeys(("lora", "rslora", "dora", "adalora"), 5e-3), "ia3": 1e-2}
_RATES = {
    "base": {**_ADAPTERS, "bitfit": 1e-3, "head": 1e-3, "full": 5e-5},
    "nano": {**_ADAPTERS, "bitfit": 5e-3, "head": 5e-3, "full": 1e-3},
}
# Micro-batches fit with a margin: in 16 GB of a CUDA card in bfloat16; in float32 on a Mac, whose 36 GB are shared; in
# a few GB on a CPU, where larger ones are not faster (measured on two cores, in both precisions). A trial that runs out
# of memory is retried with half of it. The effective batch is the same on every device: 32, or as set with `--set`.
_NANO_BATCHES = {"cuda": 32, "mps": 32, "cpu": 32}


def _attention(query: str, key: str, value: str, output: str) -> dict[str, tuple[str, ...]]:
    """The groups of targets among the layers of self-attention; `qv` is the choice of LoRA's authors."""
    return {"qv": (query, value), "qkv": (query, key, value), "attention": (query, key, value, output)}


_AST = BackboneSpec(
    name="ast",
    title="AST",
    implementation="sousaphone.backbones.ast:AstBackbone",
    frontend=FrontendContract(
        sample_rate=16_000,
        mels=128,
        window=400,
        hop=160,
        low_hz=20.0,
        high_hz=8_000.0,
        log="ln",
        mean=-4.2677393,
        scale=2 * 4.5689974,
    ),
    scales={
        "base": {},
        "nano": {
            "hidden_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 384,
            "frequency_stride": 16,
            "time_stride": 16,
            "max_length": 256,
        },
    },
    lora_targets={
        "all-linear": (*(f"attention.{name}_proj" for name in "qkvo"), "mlp.fc1", "mlp.fc2"),
        "sweep": ("query", "key", "value", "output.dense"),
        **_attention(*(f"attention.{name}_proj" for name in "qkvo")),
    },
    # As in the paper: keys, values, and the inner activations of the feed-forward layers.
    ia3_outputs=("attention.k_proj", "attention.v_proj"),
    ia3_inputs=("mlp.fc2",),
    aliases={
        # transformers 5 renamed AST's modules; `output.dense` was the name of both blocks' last layer.
        "query": ("attention.q_proj",),
        "key": ("attention.k_proj",),
        "value": ("attention.v_proj",),
        "attention.output.dense": ("attention.o_proj",),
        "intermediate.dense": ("mlp.fc1",),
        "output.dense": ("attention.o_proj", "mlp.fc2"),
    },
    learning_rates=_RATES,
    micro_batches={"base": {"cuda": 32, "mps": 4, "cpu": 2}, "nano": _NANO_BATCHES},
    weights=WeightSource(hub="MIT/ast-finetuned-audioset-10-10-0.4593", parameters=86_187_264),
    format="transformers directory",
    licence="BSD-3-Clause",
    pretraining="AudioSet labels, mAP .459",
    objective="supervised",
)

_HTSAT = BackboneSpec(
    name="htsat",
    title="HTS-AT (CLAP)",
    implementation="sousaphone.backbones.htsat:HtsatBackbone",
    frontend=FrontendContract(
        sample_rate=48_000, mels=64, window=1024, hop=480, low_hz=50.0, high_hz=14_000.0, log="dB", mean=0.0, scale=1.0
    ),
    scales={
        "base": {},
        # 256 frames (2.55 s) in a square of side 128. Patches of twice the base's height and one stage fewer leave 16
        # time steps of 160 ms; the base's are 320 ms.
        "nano": {
            "spec_size": 128,
            "window_size": 4,
            "patch_size": (8, 4),
            "patch_stride": (8, 4),
            "patch_embeds_hidden_size": 24,
            "hidden_size": 96,
            "num_hidden_layers": 3,
            "depths": (1, 2, 2),
            "num_attention_heads": (1, 2, 4),
            "mlp_ratio": 2.0,
        },
    },
    lora_targets={
        **dict.fromkeys(
            ("all-linear", "sweep"),
            ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"),
        ),
        **_attention("query", "key", "value", "attention.output.dense"),
    },
    # As PEFT does for BERT, whose names these are: `output.dense` is the last layer of both blocks.
    ia3_outputs=("key", "value"),
    ia3_inputs=("output.dense",),
    learning_rates=_RATES,
    micro_batches={"base": {"cuda": 32, "mps": 8, "cpu": 2, "cpu bfloat16": 4}, "nano": _NANO_BATCHES},
    weights=WeightSource(hub="laion/clap-htsat-unfused", parameters=27_534_488),
    format="transformers directory",
    licence="Apache-2.0",
    pretraining="audio-text pairs (CLAP); the AudioSet-trained HTS-AT is another checkpoint",
    objective="contrastive, audio against text",
)

_EFFICIENTAT = BackboneSpec(
    name="efficientat",
    title="EfficientAT",
    implementation="sousaphone.backbones.efficientat:EfficientAtBackbone",
    frontend=FrontendContract(
        sample_rate=32_000, mels=128, window=800, hop=320, low_hz=0.0, high_hz=15_000.0, log="ln", mean=-4.5, scale=5.0
    ),
    scales={"base": {"width": 1.0, "hop": 320, "bins": 128}, "nano": {"width": 0.1, "hop": 160, "bins": 64}},
    lora_targets={
        "all-linear": ("expand.conv", "project.conv", "last.conv", "se.fc1", "se.fc2"),
        "sweep": ("attention_pool.0", "attention_pool.2", "classifier.1"),
    },
    # The inner activations of each inverted residual block, its counterpart of a feed-forward layer.
    ia3_inputs=("project.conv",),
    learning_rates={**_RATES, "nano": {**_RATES["nano"], "full": 3e-3}},
    # The first layers' feature maps are large; smaller batches stay in the processor's caches.
    micro_batches={
        "base": {"cuda": 32, "mps": 16, "cpu": 4, "cpu bfloat16": 8},
        "nano": dict.fromkeys(_NANO_BATCHES, 16),
    },
    weights=WeightSource(
        url="https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/mn10_as_mAP_471.pt",
        file="mn10_as_mAP_471.pt",
        sha256="0bd7dc2443af498c289a2e739f02ebb515d6aa3fd3ab9db539c86123ae368a4e",
        parameters=2_971_664,
    ),
    format="state dict (.pt)",
    licence="MIT",
    pretraining="AudioSet labels by distillation, mAP .471",
    objective="supervised, with a Transformer's outputs as targets too",
    fresh=("attention_pool",),
)

# Names of the official cfg; other fields have the official defaults.
_BEATS_SHAPE: dict[str, Any] = {
    **{"input_patch_size": 16, "deep_norm": True, "gru_rel_pos": True},
    **{"relative_position_embedding": True, "num_buckets": 320, "max_distance": 800},
}
# This mirror is a data set repository.
_BEATS_WEIGHTS = WeightSource(
    hub="Bencr/beats-checkpoints",
    hub_type="dataset",
    file="BEATs_iter3_plus_AS2M.pt",
    sha256="d43cbfad4d7b56381c061d7a24774f908d4d94c72961f6eb1d9090ff18cd8d34",
    parameters=90_311_792,
)
_BEATS = BackboneSpec(
    name="beats",
    title="BEATs",
    implementation="sousaphone.backbones.beats:BeatsBackbone",
    frontend=dataclasses.replace(_AST.frontend, mean=15.41663, scale=2 * 6.55582),
    scales={
        "base": {**_BEATS_SHAPE, "embed_dim": 512, "encoder_layerdrop": 0.05},
        "nano": {
            **_BEATS_SHAPE,
            "embed_dim": 128,
            "encoder_layers": 2,
            "encoder_embed_dim": 96,
            "encoder_ffn_embed_dim": 384,
            "encoder_attention_heads": 4,
            "conv_pos": 32,
            "dropout": 0.0,
            "attention_dropout": 0.0,
        },
    },
    lora_targets={
        **dict.fromkeys(("all-linear", "sweep"), ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")),
        **_attention("q_proj", "k_proj", "v_proj", "out_proj"),
    },
    ia3_outputs=("k_proj", "v_proj"),
    ia3_inputs=("fc2",),
    # With a gated linear unit the first layer is one level deeper.
    aliases={"fc1": ("fc1", "fc1.linear")},
    learning_rates=_RATES,
    micro_batches={"base": {"cuda": 32, "mps": 8, "cpu": 2, "cpu bfloat16": 4}, "nano": _NANO_BATCHES},
    weights=_BEATS_WEIGHTS,
    format="BEATs file (.pt)",
    licence="MIT",
    pretraining="AudioSet without its labels",
    objective="self-supervised",
)

_BEATS_FT = dataclasses.replace(
    _BEATS,
    name="beats-ft",
    title="BEATs, fine-tuned",
    weights=dataclasses.replace(
        _BEATS_WEIGHTS,
        file="BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt",
        sha256="e5815275a04b6885e7b8af63d120b29bffae2cd2225cf4915e1ec6d819d3022c",
    ),
    pretraining="AudioSet without its labels, then with them, mAP .486",
    objective="self-supervised, then supervised",
    in_default_sweep=False,
    twin="beats",
)

_STROKES = BackboneSpec(
    name="strokes",
    title="Strokes",
    implementation="sousaphone.backbones.strokes:StrokesBackbone",
    frontend=StrokeContract(
        sample_rate=16_000, mels=4, window=512, hop=80, low_hz=60.0, high_hz=8_000.0, log="ln", mean=0.0, scale=1.0
    ),
    scales={"base": {}, "nano": {}},  # the same
    lora_targets={},
    strategy="full",
    learning_rates={scale: {"full": 3e-3} for scale in ("base", "nano")},
    micro_batches=dict.fromkeys(("base", "nano"), _NANO_BATCHES),
    weights=None,
    format="none",
    licence="MIT",
    pretraining="nothing; the transcriber below it, random stroke sequences",
    objective="none",
    in_default_sweep=False,
    onnx=False,  # the number of picked strokes depends on the data
)

_SPECS = (_AST, _HTSAT, _EFFICIENTAT, _BEATS, _BEATS_FT, _STROKES)
REGISTRY: dict[str, BackboneSpec] = {spec.name: spec for spec in _SPECS}
DEFAULT_STRATEGY = "lora"
DEFAULT_SWEEP = tuple(name for name, spec in REGISTRY.items() if spec.in_default_sweep)


def implementation(spec: BackboneSpec) -> type[Backbone]:
    """Import the class of a backbone, and with it torch."""
    found: type[Backbone] = pkgutil.resolve_name(spec.implementation)
    return found


def strategy_of(model: str, requested: str) -> str:
    """The strategy of a backbone in a sweep with the requested one: its own if it has only one.

    Raises a UserError if the request is neither that nor the default, LoRA.
    """
    own = REGISTRY[model].strategy
    if own is None:
        return requested
    if requested not in (own, DEFAULT_STRATEGY):
        raise UserError(
            f"--strategy {requested}: {model} has no pretrained weights and only trains with the strategy {own}; leave "
            f"out --strategy, or {model} in --models"
        )
    return own


def backbone_spec(name: str) -> BackboneSpec:
    """The entry of a backbone; raises a UserError for an unknown name."""
    if name not in REGISTRY:
        raise UserError(f"backbone {name!r} is unknown; choose from: {', '.join(REGISTRY)}")
    return REGISTRY[name]
