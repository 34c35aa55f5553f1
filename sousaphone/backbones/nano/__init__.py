"""The weights of nano backbones shipped with this package: NAME.safetensors in this directory, in half precision.

`scripts.pretrain_nano` makes them; only weights with a significant effect are shipped. CARD.md describes them,
`files.py` writes and reads them. Imports no torch.
"""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path(__file__).parent
ORIGIN = "shipped nano weights"
PRETRAINING = "random stroke patterns, none of them a rudiment, by scripts.pretrain_nano"
OBJECTIVE = "supervised: pattern classification and stroke detection"
LICENCE = "MIT"


def shipped(name: str) -> Path | None:
    """The file of a backbone's shipped nano weights, or None."""
    path = DIRECTORY / f"{name}.safetensors"
    return path if path.is_file() else None
