"""What stands above a run's results."""

from __future__ import annotations

import pytest

from sousaphone.run import banner

FILE = "/weights/file"
TOLD = ": this run shows that the tool works; it says nothing about the published models."


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ([("ast", "base", FILE), ("beats", "base", FILE)], None),
        ([("ast", "nano", FILE)], "Nano-sized backbones"),
        ([("ast", "base", "random"), ("ast", "base", "random")], "Random weights"),
        ([("ast", "nano", "random"), ("beats", "nano", "random")], "Nano-sized backbones and random weights"),
        ([("ast", "base", "random"), ("beats", "base", FILE)], "Random weights in AST"),
        (
            [("ast", "nano", "random"), ("efficientat", "nano", FILE), ("beats", "nano", "random")],
            "Nano-sized backbones and random weights in AST and BEATs",
        ),
    ],
)
def test_the_banner_names_what_says_nothing_about_published_models(
    arms: list[tuple[str, str, str]], said: str | None
) -> None:
    assert banner(arms) == (said and f"{said}{TOLD}")
