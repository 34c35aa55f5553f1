"""Imports in a thread, beside something that waits."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from sousaphone.sweep.runtime import imported_beside


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three slow ones, the second of which is broken."""
    names = [f"beside_{number}" for number in range(3)]
    for name in names:
        (tmp_path / f"{name}.py").write_text("import time\ntime.sleep(0.2)\nDONE = True\n")
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "beside_1.py").write_text("raise ImportError('half of me is missing')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return names


def test_all_are_there_at_the_end_and_one_that_is_broken_says_so_where_it_is_imported(modules: list[str]) -> None:
    with imported_beside(*modules):
        pass
    assert sys.modules[modules[0]].DONE
    assert sys.modules[modules[2]].DONE
    with pytest.raises(ImportError, match="half of me is missing"):
        importlib.import_module(modules[1])


def test_who_leaves_early_waits_for_the_module_at_hand_alone(modules: list[str]) -> None:
    with pytest.raises(ValueError, match="early"), imported_beside(*modules):
        raise ValueError("early")
    assert modules[2] not in sys.modules
