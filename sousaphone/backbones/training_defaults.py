"""What each backbone trains with unless told otherwise: peak learning rates by strategy, and micro-batches by device.

Published for AST: LoRA and adapters 5e-3, linear probe 1e-3, full fine-tuning 5e-5 (Cappellazzo et al., arXiv
2312.03694). The others start from these until they are tuned; a nano backbone trains from random weights, for which
a published fine-tuning rate says nothing, so the full strategy takes a usual rate for training from scratch.

A micro-batch is what fits with room to spare: 16 GB on a CUDA card in bfloat16; in float32 on a Mac, whose 36 GB serve
everything else as well; a few GB on a CPU, where a larger one is no faster. A trial that runs out of memory all the
same halves it by itself. The effective batch is the same everywhere: 32, or what `--set` comes to.
"""

from __future__ import annotations

BASE_RATES = {
    "ast": {"lora": 5e-3, "head": 1e-3, "full": 5e-5},
    "htsat": {"lora": 5e-3, "head": 1e-3, "full": 5e-5},
    "beats": {"lora": 5e-3, "head": 1e-3, "full": 5e-5},
    "beats-ft": {"lora": 5e-3, "head": 1e-3, "full": 5e-5},
    "efficientat": {"lora": 5e-3, "head": 1e-3, "full": 5e-5},
}
NANO_RATES = {
    "ast": {"lora": 5e-3, "head": 5e-3, "full": 1e-3},
    "htsat": {"lora": 5e-3, "head": 5e-3, "full": 1e-3},
    "beats": {"lora": 5e-3, "head": 5e-3, "full": 1e-3},
    "beats-ft": {"lora": 5e-3, "head": 5e-3, "full": 1e-3},
    "efficientat": {"lora": 5e-3, "head": 5e-3, "full": 3e-3},
}
EFFECTIVE_BATCH = 32
# Smaller where the first layers' maps are so large that a batch of them leaves the processor's caches.
_NANO_MICRO_BATCH = {"efficientat": 16}
_BASE_MICRO_BATCH = {
    "cuda": {"ast": 32, "htsat": 32, "beats": 32, "beats-ft": 32, "efficientat": 32},
    "mps": {"ast": 4, "htsat": 8, "beats": 8, "beats-ft": 8, "efficientat": 16},
    "cpu": {"ast": 2, "htsat": 2, "beats": 2, "beats-ft": 2, "efficientat": 4},
}


def rate(model: str, strategy: str, scale: str) -> float:
    """The peak learning rate of one arm, before any search."""
    return (BASE_RATES if scale == "base" else NANO_RATES)[model][strategy]


def micro_batch(model: str, scale: str, device: str) -> int:
    """Clips in one forward pass."""
    return _NANO_MICRO_BATCH.get(model, EFFECTIVE_BATCH) if scale == "nano" else _BASE_MICRO_BATCH[device].get(model, 2)
