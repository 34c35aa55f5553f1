"""What the names of EfficientAT's released files say that their tensors do not (models/mn/model.py of
fschmid56/EfficientAT lists them): hop, mel bands, strides, and what they were trained on.

`mn10_as_hop_15_mAP_463.pt` is of width 1.0, trained on AudioSet with a hop of 15 ms.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sousaphone.errors import UserError

SAMPLE_RATE = 32_000  # Hz
LONGEST_HOP_MS = 100
STRIDES = (2, 2, 2, 2)
_NAME = re.compile(r"mn(?P<width>\d\d)_(?P<data>as|im)(?=[_.(])(?P<rest>.*)")


@dataclass(frozen=True)
class OfficialName:
    width: float | None = None  # factor of MobileNetV3's channels; None for a file of another name
    images: bool = False  # trained on images alone (ImageNet)
    hop: int = 320  # samples between frames
    bins: int = 128  # mel bands
    strides: tuple[int, ...] = STRIDES  # of the four stages that halve the resolution by default


def read_name(name: str) -> OfficialName:
    """A file's name; one that is none of the released ones says nothing, and the defaults hold.

    Raises:
        UserError: it names a hop that no model has.
    """
    match = _NAME.match(name)
    if match is None:
        return OfficialName()
    rest = match["rest"]
    hop = re.search(r"_hop_(\d+)(?=[_.])", rest)
    bins = re.search(r"_mels_(\d+)(?=[_.])", rest)
    strides = re.search(r"_s([12]{4})(?=[_.])", rest)
    if hop and not 1 <= int(hop[1]) <= LONGEST_HOP_MS:
        raise UserError(
            f"{name}: the hop in the name of an EfficientAT file is in ms, from 1 to {LONGEST_HOP_MS}, and {hop[1]} is "
            f"none; call the file as its authors do, or give --set efficientat_hop=, in samples"
        )
    return OfficialName(
        width=int(match["width"]) / 10,
        images=match["data"] == "im",
        hop=int(hop[1]) * SAMPLE_RATE // 1000 if hop else 320,
        bins=int(bins[1]) if bins else 128,
        strides=tuple(map(int, strides[1])) if strides else STRIDES,
    )
