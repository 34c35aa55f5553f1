"""AdaLoRA (Zhang et al., arXiv 2303.10512): PEFT allocates the ranks of its adapters during training.

The importance of each number of an adapter is kept in the optimizer's state, so that checkpoints contain it.
"""

from __future__ import annotations

import torch
from peft import AdaLoraConfig
from peft.tuners.adalora import AdaLoraLayer, RankAllocator
from torch import nn

from sousaphone import lora
from sousaphone.config import TrainConfig
from sousaphone.model import RudimentClassifier

# Names in the optimizer's state: moving averages of a number's sensitivity and of its uncertainty.
IMPORTANCE = ("exp_avg_ipt", "exp_avg_unc")


class RankAllocation:
    """The adapters of AdaLoRA in a model; without any, a step is the optimizer's alone.

    In the first 15 % of the steps all ranks train. Then, with every step, more of the least important ranks of all
    adapters are set to zero, until `lora_r` ranks per adapter are left; these alone train in the second half of the
    steps. The fractions are about those of the paper's experiment on RTE, its smallest data set.
    """

    def __init__(self, config: TrainConfig, model: RudimentClassifier) -> None:
        self._config, self._model = config, model
        layers = [layer for layer in lora.adapter_layers(model) if isinstance(layer, AdaLoraLayer)]
        self._values: list[nn.Parameter] = [layer.lora_E["default"] for layer in layers]  # each [r, 1]
        self._rows: list[nn.Parameter] = [layer.lora_A["default"] for layer in layers]  # each [r, I]
        self._columns: list[nn.Parameter] = [layer.lora_B["default"] for layer in layers]  # each [O, r]
        self.parameters = frozenset((*self._values, *self._rows, *self._columns))

    def add_penalty(self) -> None:
        """Add the gradient of the penalty that PEFT adds to the loss if singular vectors are not orthonormal."""
        if not self.parameters:
            return
        grams = [a @ a.T for a in self._rows] + [b.T @ b for b in self._columns]  # each [r, r]
        distances = [(gram - torch.eye(len(gram), device=gram.device)).norm() for gram in grams]
        (AdaLoraConfig.orth_reg_weight * torch.stack(distances).mean()).backward()

    def step(self, optimizer: torch.optim.Optimizer, number: int, total: int) -> None:
        """Take step `number` of `total`, counted from 1, and set ranks to zero."""
        left = [value != 0 for value in self._values]
        optimizer.step()
        if not self.parameters:
            return
        first, last = -(-15 * total // 100), total - total // 2  # no rank becomes zero until `first` or after `last`
        if number > last:
            with torch.no_grad():
                for value, kept in zip(self._values, left, strict=True):
                    value.masked_fill_(~kept, 0.0)
        elif first < last:
            schedule = {"tinit": first, "tfinal": total - last, "total_step": total}
            allocator = RankAllocator(
                self._model, lora.adapter_config(self._config, self._model.targets, **schedule), "default"
            )
            named = {name: p for name, p in self._model.named_parameters() if p in self.parameters}
            for key in IMPORTANCE if number > 1 else ():
                averages = {name: optimizer.state[p][key] for name, p in named.items()}
                getattr(allocator, key).update(averages)
                allocator.ipt.update(averages)  # its names alone are used
            allocator.update_and_allocate(self._model, number, force_mask=number == last)
            for name, p in named.items():
                optimizer.state[p].update({key: getattr(allocator, key)[name] for key in IMPORTANCE})
