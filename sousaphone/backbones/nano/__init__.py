"""The weights of nano backbones that come with this package: NAME.safetensors beside this file, in half precision.

They are made by `scripts.pretrain_nano`, and only those are here that were shown to help. CARD.md says what they are,
`files.py` writes and reads them. Light: imports no torch.
"""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path(__file__).parent
ORIGIN = "shipped nano weights"
PRETRAINING = "random stroke patterns, none of them a rudiment, by sousaphone.pretrain"
OBJECTIVE = "supervised: which pattern, and which strokes when"
LICENCE = "MIT"


def shipped(name: str) -> Path | None:
    """The file of a backbone's nano weights; None where none earned its place."""
    path = DIRECTORY / f"{name}.safetensors"
    return path if path.is_file() else None
