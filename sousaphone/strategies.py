"""What is trained in addition to the new layers, as data. Imports neither torch nor PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Strategy:
    """The adapters that are added to pretrained layers, and the pretrained parameters that train."""

    title: str
    peft_type: Literal["LORA", "ADALORA", "IA3"] | None = None  # the kind of adapters, as PEFT names it
    options: Mapping[str, Any] = field(default_factory=dict)  # of PEFT's configuration, in addition to the trial's
    pretrained: Literal["frozen", "biases", "all"] = "frozen"  # pretrained parameters that train
    # In bfloat16: frozen layers are held in it, and on CUDA passes are captured as graphs. Otherwise eager, with
    # autocast.
    rounded: bool = False

    @property
    def low_rank(self) -> bool:
        """Whether the adapters are matrices of low rank, to which the `lora_*` options apply."""
        return self.peft_type in ("LORA", "ADALORA")


STRATEGIES: Mapping[str, Strategy] = {
    "lora": Strategy("LoRA", "LORA", rounded=True),  # Hu et al., arXiv 2106.09685
    "rslora": Strategy("rsLoRA", "LORA", {"use_rslora": True}, rounded=True),  # Kalajdzievski, arXiv 2312.03732
    "dora": Strategy("DoRA", "LORA", {"use_dora": True}),  # Liu et al., arXiv 2402.09353
    "adalora": Strategy("AdaLoRA", "ADALORA"),  # Zhang et al., arXiv 2303.10512
    "ia3": Strategy("(IA)³", "IA3"),  # Liu et al., arXiv 2205.05638
    "bitfit": Strategy("biases only", pretrained="biases"),  # Ben Zaken et al., arXiv 2106.10199
    "head": Strategy("head only", rounded=True),
    "full": Strategy("full fine-tuning", pretrained="all"),
}
