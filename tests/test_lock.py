"""constraints.txt pins every requirement of setup.cfg."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from sousaphone.cli.command import TORCHAUDIO_REMEDY

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
MACHINES = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))


def requirements(text: str) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def direct_requirements() -> list[Requirement]:
    """The requirements of the package and of its extras, which may refer to each other."""
    extras = setup()["options.extras_require"].values()
    needs = [need for text in (setup()["options"]["install_requires"], *extras) for need in requirements(text)]
    return [need for need in needs if need.name != setup()["metadata"]["name"]]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(("system", "machine"), MACHINES)
def test_every_requirement_is_pinned_to_one_matching_version(python: str, system: str, machine: str) -> None:
    here = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": system}
    here["platform_machine"] = machine
    locked: dict[str, str] = {}
    for line in requirements((ROOT / "constraints.txt").read_text(encoding="utf-8")):
        if line.marker is None or line.marker.evaluate(here):
            (version,) = line.specifier
            assert version.operator == "=="
            assert line.name not in locked
            locked[line.name] = version.version
    for need in direct_requirements():
        name = need.name.lower().replace("_", "-")
        assert name in locked
        assert need.specifier.contains(locked[name], prereleases=True), need


def test_pinned_python_versions_are_those_that_setup_cfg_allows() -> None:
    allowed = Requirement(f"python{setup()['options']['python_requires']}").specifier
    assert [f"3.{minor}" for minor in range(9, 18) if allowed.contains(f"3.{minor}")] == list(PYTHONS)


def test_torchaudio_remedy_installs_the_versions_of_setup_cfg() -> None:
    pair = [need for need in direct_requirements() if need.name in ("torch", "torchaudio")]
    given = TORCHAUDIO_REMEDY.removeprefix("pip install ").replace("'", "").split()
    assert {(r.name, r.specifier) for r in map(Requirement, given)} == {(r.name, r.specifier) for r in pair}
