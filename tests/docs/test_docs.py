"""README and docs/ agree with the program: options, commands, links."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import shlex
from collections.abc import Iterator
from itertools import dropwhile
from pathlib import Path

import pytest

from scripts.options_page import PAGE, options_page
from sousaphone.cli.sweep import build_parser, make_sweep
from sousaphone.config import check_trials
from sousaphone.planning.sweep_options import Options, flag
from tests.test_tune_configs import request

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MOST_WORDS = 1300  # of README
OF_OTHER_COMMANDS = {"--checkpoints", "--caches", "--no-sounds", "--clear", "--soundfont", "--help"}
OF_OTHER_COMMANDS |= {
    "--to",
    "--trial",
    "--ensemble",
    "--merged",
    "--overwrite",
    "--split",
    "--onnx",
    "--quantize",
    "--runtime",
    "--precision",
}
OF_OTHER_COMMANDS |= {"--space", "--public", "--licence", "--dry-run"}
OF_OTHER_COMMANDS |= {"--port", "--host"}
OF_OTHER_COMMANDS |= {"--only", "--batch", "--rounds", "--steps"}  # of the benchmark of speed
OF_OTHER_COMMANDS |= {"--format", "--output", "--top", "--min-confidence", "--hop", "--gate", "--plot"}


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command line in a page's blocks of shell code."""
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.splitlines():
            for part in line.split("&&"):
                words = shlex.split(re.sub(r"\$\(.*?\)", "0", part), comments=True)
                yield list(dropwhile(lambda word: re.match(r"[A-Z_]+=", word), words))


def test_options_page_is_the_one_that_the_declarations_give() -> None:
    assert PAGE.read_text(encoding="utf-8") == options_page()


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= MOST_WORDS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8")):
        name, _, heading = target.partition("#")
        file = (page.parent / name) if name else page
        assert file.exists(), target
        headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE) if heading else []
        assert not heading or heading in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_command_lines_are_accepted(page: Path) -> None:
    for words in commands(page):
        if "launch.py" in (names := [Path(word).name for word in words]):
            build_parser().parse_args(words[names.index("launch.py") + 1 :])
        elif words[1:2] == ["-m"] and words[0].startswith("python"):
            assert importlib.util.find_spec(words[2]) is not None, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_that_a_page_names_exist(page: Path) -> None:
    known = {flag(prefix + declared.name) for declared in dataclasses.fields(Options) for prefix in ("", "no_")}
    named = set(re.findall(r"`(--[a-z-]+)", page.read_text(encoding="utf-8")))
    assert named <= known | OF_OTHER_COMMANDS, named - known


def test_sweeps_of_the_search_page_are_accepted(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", (ROOT / "docs" / "search.md").read_text(), re.DOTALL)
    assert len(blocks) >= 3
    for name, code in blocks:
        (tmp_path / name).write_text(code)
        made = make_sweep(str(tmp_path / name), request(models=("ast", "beats"), lora_targets="qv"))
        check_trials(made.trials())
        assert made.searcher is not None or len(made.trials()) > 4
