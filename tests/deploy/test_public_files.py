"""Damaged files of a model folder are refused before anything is published."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sousaphone.deploy import model_folder
from sousaphone.deploy.publish import plan
from sousaphone.errors import UserError


@pytest.mark.parametrize("content", [None, [], 0, {}, {"trial": "x"}])
def test_damaged_deploy_card_is_refused(model: Path, tmp_path: Path, content: object) -> None:
    path = Path(shutil.copytree(model, tmp_path / "model")) / model_folder.RESULTS
    path.write_text(json.dumps({**json.loads(path.read_text()), "deployment": content}))
    with pytest.raises(UserError, match=path.name) as error:
        plan(path.parent, "me/drums", licence="mit")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("header", ["license: [", "license: !!python/object/apply:os.abort []"])
def test_invalid_header_of_a_card_is_refused(model: Path, tmp_path: Path, header: str) -> None:
    path = Path(shutil.copytree(model, tmp_path / "model")) / model_folder.CARD
    path.write_text(f"---\n{header}\n---\n# Model\n")
    with pytest.raises(UserError, match=path.name) as error:
        plan(path.parent, "me/drums", licence="mit")
    assert "\n" not in str(error.value)
