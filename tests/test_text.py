"""Parsing and formatting of durations."""

from __future__ import annotations

import pytest

from sousaphone.errors import UserError
from sousaphone.text import as_option, in_words, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45s", 45),
        ("90m", 5_400),
        ("2h", 7_200),
        ("1h30m", 5_400),
        ("1d2h3m4s", 93_784),
        ("0.5h", 1_800),
        (" 2H ", 7_200),
    ],
)
def test_duration_is_parsed(text: str, seconds: float) -> None:
    assert parse_duration("--time-limit", text) == seconds


def test_none_is_no_limit() -> None:
    assert parse_duration("--time-limit", "None") is None


@pytest.mark.parametrize("text", ["", "90", "0s", "0h0m", "-5m", "5m1h", "1h 30m", "2 hours", "inf", "1e3s", "m"])
def test_invalid_duration_is_an_error_with_option_value_and_examples(text: str) -> None:
    with pytest.raises(UserError) as error:
        parse_duration("--stall-timeout", text)
    assert all(part in str(error.value) for part in ("--stall-timeout", repr(text), "1h30m"))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (99.4, "99 s"),
        (99.6, "1 min 40 s"),
        (594, "9 min 50 s"),
        (595, "10 min"),
        (5_900, "98 min"),
        (5_999, "1 h 40 min"),
        (7_200, "2 h"),
        (41_400, "11 h 30 min"),
        (172_000, "47 h 47 min"),
        (183_600, "2 d 3 h"),
        (172_800, "2 d"),
    ],
)
def test_words_have_at_most_two_units(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@pytest.mark.parametrize("seconds", [0.2, 1, 59, 60, 60.5, 61, 3_600, 5_401, 200_000])
def test_formatted_option_is_rounded_up_by_at_most_a_minute(seconds: float) -> None:
    read = parse_duration("--trial-time-limit", as_option(seconds))
    assert read is not None
    assert seconds <= read <= max(60, seconds + 60)
