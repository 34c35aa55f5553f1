"""Linear layers for inference on a CPU, by oneDNN with weights in its own layout."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEAST_OUTPUTS = 16  # narrower layers are not faster


class PackedLinear(nn.Module):
    """A linear layer from [..., I] to [..., O], without gradients.

    torch multiplies float32 matrices by MKL, which on processors of AMD takes twice the time of oneDNN; packing saves a
    tenth more, also in bfloat16. The operators are those of torch.compile.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.bias = layer.bias
        self.packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return y


def pack(model: nn.Module) -> None:
    """Replace the linear layers of a model on a CPU by packed ones, in place; none where torch has no oneDNN."""
    if not torch.backends.mkldnn.is_available():
        return
    for name, layer in list(model.named_modules()):
        if type(layer) is nn.Linear and layer.out_features >= _LEAST_OUTPUTS:
            model.set_submodule(name, PackedLinear(layer))
