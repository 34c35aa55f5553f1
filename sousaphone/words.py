"""Numbers of things in words."""

from __future__ import annotations


def counted(number: int | None, noun: str) -> str:
    """`1 epoch`, `2 epochs`; `? epochs` where the number is not known."""
    return f"{'?' if number is None else number} {noun}{'' if number == 1 else 's'}"
