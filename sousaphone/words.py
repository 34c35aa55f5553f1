"""Numbers of things, and errors, in words."""

from __future__ import annotations


def counted(number: int | None, noun: str) -> str:
    """`1 epoch`, `2 epochs`; `? epochs` where the number is not known."""
    return f"{'?' if number is None else number} {noun}{'' if number == 1 else 's'}"


def one_line(error: BaseException, most: int | None = None) -> str:
    """What an error says, in one line of at most so many letters; its kind where it says nothing."""
    return " ".join(str(error).split())[:most] or type(error).__name__
