"""Attention on a CPU in bfloat16 without gradients, in blocks whose scores stay in the processor's caches.

At full size the scores of AST take 9 MB for each clip and layer. Those of a whole batch would pass through memory with
every operation on them. torch's fused attention for CPUs takes longer still.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SCORES = 2**21  # of a block, for each thread


def usable(q: Tensor, k: Tensor) -> bool:
    """Whether queries [B, H, Q, D] and keys [B, H, L, D] need no gradient and have scores of more than one block. Under
    autocast, torch computes the softmax in float32."""
    plain = q.device.type == "cpu" and q.dtype == torch.bfloat16 and not torch.is_autocast_enabled("cpu")
    return plain and not torch.is_grad_enabled() and q.shape[:3].numel() * k.shape[2] > _block_size()


def _block_size() -> int:
    return torch.get_num_threads() * _SCORES


def attend_in_blocks(q: Tensor, k: Tensor, v: Tensor, gate: Tensor | None, bias: Tensor | None) -> Tensor:
    """Compute softmax(q k' + gate * bias) v [B, H, Q, D], a few heads of a clip at a time.

    Args:
        q, k, v: queries [B, H, Q, D], keys and values [B, H, L, D].
        gate, bias: [B, H, Q, 1] and [1, H, Q, L], or None.
    """
    clips, heads, queries, _ = q.shape
    most = min(heads, max(1, _block_size() // (queries * k.shape[2])))
    block, y = q.new_empty(most, queries, k.shape[2]), torch.empty_like(q)
    for clip in range(clips):
        for first in range(0, heads, most):
            part = slice(first, first + most)
            scores = block[: min(most, heads - first)]
            torch.bmm(q[clip, part], k[clip, part].mT, out=scores)
            if gate is not None and bias is not None:
                scores.addcmul_(gate[clip, part], bias[0, part])
            elif bias is not None:
                scores += bias[0, part]
            torch.softmax(scores, -1, out=scores)
            torch.bmm(scores, v[clip, part], out=y[clip, part])
    return y
