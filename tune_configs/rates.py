"""Peak learning rates by backbone and strategy, each with where it comes from.

Published for AST: LoRA and adapters 5e-3, linear probe 1e-3, full fine-tuning 5e-5 (Cappellazzo et al., arXiv
2312.03694). The others start from these until they are tuned; a nano backbone trains from random weights, for which
a published fine-tuning rate says nothing, so the full strategy takes a usual rate for training from scratch.
"""

from __future__ import annotations

BASE = {
    "ast": {"lora": 5e-3, "head": 1e-3, "full": 5e-5},
    "htsat": {"lora": 5e-3, "head": 1e-3, "full": 5e-5},
    "beats": {"lora": 5e-3, "head": 1e-3, "full": 5e-5},
    "efficientat": {"lora": 5e-3, "head": 1e-3, "full": 5e-5},
}
NANO = {
    "ast": {"lora": 5e-3, "head": 5e-3, "full": 1e-3},
    "htsat": {"lora": 5e-3, "head": 5e-3, "full": 1e-3},
    "beats": {"lora": 5e-3, "head": 5e-3, "full": 1e-3},
    "efficientat": {"lora": 5e-3, "head": 5e-3, "full": 3e-3},
}


def rate(model: str, strategy: str, scale: str) -> float:
    """The peak learning rate of one arm."""
    return (BASE if scale == "base" else NANO)[model][strategy]
