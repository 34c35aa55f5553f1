"""A progress bar on a terminal; otherwise at most two messages."""

from __future__ import annotations

import pytest

from sousaphone.text import progress_bar, tracked


def test_only_given_messages_are_printed_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(tracked("abc", "writing", 3)) == ["a", "b", "c"]
    with progress_bar("measuring", 2) as advance:
        advance(0.5)
    assert capsys.readouterr() == ("", "")
    assert list(tracked("abc", "writing", 3, begun="writing 3, once", ended="wrote 3")) == ["a", "b", "c"]
    assert capsys.readouterr().err == "writing 3, once\nwrote 3 in 0 s\n"


def test_bar_is_shown_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert list(tracked("abc", "writing", 3, begun="writing 3, once", ended="wrote 3")) == ["a", "b", "c"]
    err = capsys.readouterr().err
    assert "writing" in err
    assert "100%" in err
    assert "once" not in err
