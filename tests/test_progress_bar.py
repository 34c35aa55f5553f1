"""A bar on a terminal; elsewhere two lines, or nothing."""

from __future__ import annotations

import pytest

from sousaphone.text import progress_bar, tracked


def test_where_stderr_is_no_terminal_only_what_is_given_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(tracked("abc", "writing", 3)) == ["a", "b", "c"]
    with progress_bar("measuring", 2) as advance:
        advance(0.5)
    assert capsys.readouterr() == ("", "")
    assert list(tracked("abc", "writing", 3, begun="writing 3, once", ended="wrote 3")) == ["a", "b", "c"]
    assert capsys.readouterr().err == "writing 3, once\nwrote 3 in 0 s\n"


def test_on_a_terminal_there_is_a_bar_instead(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert list(tracked("abc", "writing", 3, begun="writing 3, once", ended="wrote 3")) == ["a", "b", "c"]
    err = capsys.readouterr().err
    assert "writing" in err
    assert "100%" in err
    assert "once" not in err
