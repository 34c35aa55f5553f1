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
            "hidden_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 512,
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

REGISTRY: dict[str, BackboneSpec] = {spec.name: spec for spec in (_AST,)}
