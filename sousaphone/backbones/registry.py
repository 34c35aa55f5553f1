"""Every backbone the sweep can compare. A new one is one file beside this one and one entry here."""

from __future__ import annotations

from sousaphone.backbones.spec import BackboneSpec, WeightSource

_AST = BackboneSpec(
    name="ast",
    title="AST",
    implementation="sousaphone.backbones.ast:AstBackbone",
    sample_rate=16_000,
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
        "all-linear": (
            "attention.q_proj",
            "attention.k_proj",
            "attention.v_proj",
            "attention.o_proj",
            "mlp.fc1",
            "mlp.fc2",
        ),
        "sweep": ("query", "key", "value", "output.dense"),
    },
    aliases={
        # transformers 5 renamed AST's modules; `output.dense` was the name of both blocks' last layer.
        "query": ("attention.q_proj",),
        "key": ("attention.k_proj",),
        "value": ("attention.v_proj",),
        "attention.output.dense": ("attention.o_proj",),
        "intermediate.dense": ("mlp.fc1",),
        "output.dense": ("attention.o_proj", "mlp.fc2"),
    },
    weights=(WeightSource(hub="MIT/ast-finetuned-audioset-10-10-0.4593"),),
    licence="BSD-3-Clause",
    pretraining="AudioSet labels, mAP .459",
)

_HTSAT = BackboneSpec(
    name="htsat",
    title="HTS-AT (CLAP)",
    implementation="sousaphone.backbones.htsat:HtsatBackbone",
    sample_rate=48_000,
    scales={
        "base": {},
        # 256 frames (2.55 s) in a square of side 128. Patches twice as tall as the base's and a stage fewer leave 16
        # time steps of 160 ms; the base's last 320 ms.
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
        "all-linear": ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"),
        "sweep": ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"),
    },
    aliases={},
    weights=(WeightSource(hub="laion/clap-htsat-unfused"),),
    licence="Apache-2.0",
    pretraining="audio-text pairs (CLAP); the AudioSet-trained HTS-AT is another checkpoint",
)

_EFFICIENTAT = BackboneSpec(
    name="efficientat",
    title="EfficientAT",
    implementation="sousaphone.backbones.efficientat:EfficientAtBackbone",
    sample_rate=32_000,
    scales={
        "base": {"width": 1.0, "hop": 320, "bins": 128},
        "nano": {"width": 0.1, "hop": 160, "bins": 64},
    },
    lora_targets={
        "all-linear": ("expand.conv", "project.conv", "last.conv", "se.fc1", "se.fc2"),
        "sweep": ("attention_pool.0", "attention_pool.2", "classifier.1"),
    },
    aliases={},
    weights=(
        WeightSource(
            url="https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/mn10_as_mAP_471.pt",
            file="mn10_as_mAP_471.pt",
        ),
    ),
    licence="MIT",
    pretraining="AudioSet labels by distillation, mAP .471",
    fresh=("attention_pool",),
)

_BEATS = BackboneSpec(
    name="beats",
    title="BEATs",
    implementation="sousaphone.backbones.beats:BeatsBackbone",
    sample_rate=16_000,
    # Names of the official cfg; what is not named here has the official default.
    scales={
        "base": {
            "input_patch_size": 16,
            "embed_dim": 512,
            "deep_norm": True,
            "encoder_layerdrop": 0.05,
            "relative_position_embedding": True,
            "num_buckets": 320,
            "max_distance": 800,
            "gru_rel_pos": True,
        },
        "nano": {
            "input_patch_size": 16,
            "embed_dim": 128,
            "encoder_layers": 2,
            "encoder_embed_dim": 96,
            "encoder_ffn_embed_dim": 384,
            "encoder_attention_heads": 4,
            "conv_pos": 32,
            "deep_norm": True,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "relative_position_embedding": True,
            "num_buckets": 320,
            "max_distance": 800,
            "gru_rel_pos": True,
        },
    },
    lora_targets={
        "all-linear": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
        "sweep": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    },
    # Files whose activation is a gated linear unit keep the first layer one level deeper.
    aliases={"fc1": ("fc1", "fc1.linear")},
    weights=(WeightSource(hub="Bencr/beats-checkpoints", file="BEATs_iter3_plus_AS2M.pt"),),
    licence="MIT",
    pretraining="self-supervised on AudioSet",
)

REGISTRY: dict[str, BackboneSpec] = {spec.name: spec for spec in (_AST, _HTSAT, _EFFICIENTAT, _BEATS)}
