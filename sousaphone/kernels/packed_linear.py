"""Products with frozen weights on a CPU, by oneDNN with the weights in its own layout.

The operators are those of torch.compile.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEAST_OUTPUTS = 16  # narrower layers are not faster


def can_pack(kind: torch.dtype) -> bool:
    """Whether oneDNN is here and multiplies matrices of this type; in bfloat16 it needs AVX-512."""
    if not torch.backends.mkldnn.is_available():
        return False
    return kind == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class PackedWeight:
    """A copy of a weight [O, I] in oneDNN's layout, which torch itself can neither copy nor pickle."""

    def __init__(self, weight: Tensor) -> None:
        self.tensor: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())

    def __reduce__(self) -> tuple[type[PackedWeight], tuple[Tensor]]:
        return PackedWeight, (self.tensor.to_dense(),)


def product(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
    """Multiply x [..., I] by a packed weight [O, I], without gradients: [..., O]."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight.tensor, bias, "none", [], "")
    return y


class PackedLinear(nn.Module):
    """A linear layer from [..., I] to [..., O], without gradients.

    torch multiplies float32 matrices by MKL, which on processors of AMD takes twice the time of oneDNN; packing saves a
    tenth more, also in bfloat16.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.bias, self.packed = layer.bias, PackedWeight(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.packed, self.bias)


def pack_layers(model: nn.Module) -> None:
    """Replace the linear layers of a model on a CPU by packed ones, in place, where possible."""
    for name, layer in list(model.named_modules()):
        if type(layer) is nn.Linear and layer.out_features >= _LEAST_OUTPUTS and can_pack(layer.weight.dtype):
            model.set_submodule(name, PackedLinear(layer))
