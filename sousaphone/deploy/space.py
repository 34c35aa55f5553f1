"""The files of a Space of the Hugging Face hub that runs the page of a model."""

from __future__ import annotations

import platform
import re
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import sousaphone
from sousaphone.deploy.onnx_session import GRAPHS
from sousaphone.deploy.public_files import Files
from sousaphone.errors import not_installed

# What the page imports. The package itself is not on PyPI and a Space installs its requirements before it has the other
# files, so that its source is part of the Space.
_NEEDS = (
    *("gradio", "huggingface_hub", "numpy", "packaging", "pandas", "peft", "psutil", "pyarrow", "pydantic", "rich"),
    *("safetensors", "scipy", "soundfile", "torch", "torchaudio", "transformers"),
)
_CUDA = re.compile(r"(nvidia|cuda|triton)\b.*")  # torch's builds for the CPU need none of them
_SOURCES = (".py", ".csv", ".safetensors")  # suffixes of the package's files; also the cards CARD.md
_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
_APP = '''\
"""The page of the model in `model/`. A Space sets the two variables."""

import os
import socket
from pathlib import Path

import sousaphone
from sousaphone.deploy.page.app import serve

address = (os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), int(os.environ.get("GRADIO_SERVER_PORT", "7860")))
serve(sousaphone.load(Path(__file__).parent / "model"), socket.create_server(address))
'''


def space_files(model: Files, name: str, licence: str | None) -> Files:
    """Return the files of a Space by their path: card, app.py, requirements.txt, the model, this package.

    Raises:
        UserError: Gradio is not installed.
    """
    needed = "\n".join(requirements())  # first, as it refuses missing packages
    return {
        "README.md": _card(name, licence).encode(),
        "app.py": _APP.encode(),
        "requirements.txt": f"{needed}\n".encode(),
        # Without the graphs: the page computes with torch.
        **{f"model/{path}": content for path, content in model.items() if not path.endswith(tuple(GRAPHS.values()))},
        **_package(),
    }


def requirements() -> list[str]:
    """Return the lines of requirements.txt: the packages that the page needs, directly or not, in the versions that are
    installed here. torch comes from its index of builds for the CPU.

    Raises:
        UserError: a needed package is not installed.
    """
    from packaging.markers import default_environment
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
    from packaging.version import Version

    linux = {"os_name": "posix", "sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}
    here: dict[str, Any] = {**default_environment(), **linux}
    versions: dict[str, str] = {}
    queue, seen = [Requirement(name) for name in _NEEDS], set()
    while queue:
        need = queue.pop()
        name = canonicalize_name(need.name)
        if (name, *sorted(need.extras)) in seen or _CUDA.fullmatch(name):
            continue
        seen.add((name, *sorted(need.extras)))
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if need.name in _NEEDS:
                raise not_installed("--space", [name], "demo") from None
            continue  # only needed on Linux
        versions[name] = Version(found.version).public  # without the build, such as +cu130
        for each in map(Requirement, found.requires or ()):
            if each.marker is None or any(each.marker.evaluate({**here, "extra": e}) for e in ("", *need.extras)):
                queue.append(each)
    return [f"--extra-index-url {_CPU_INDEX}", *(f"{name}=={versions[name]}" for name in sorted(versions))]


def _card(name: str, licence: str | None) -> str:
    from huggingface_hub import SpaceCardData

    data = SpaceCardData(
        title=name.partition("/")[2],
        sdk="gradio",
        sdk_version=metadata.version("gradio"),
        python_version=".".join(platform.python_version_tuple()[:2]),
        app_file="app.py",
        license=licence and licence.lower(),
        models=[name],
    )
    about = f"Names the snare-drum rudiments in a recording, with the model [{name}](https://huggingface.co/{name})."
    return f"---\n{data.to_yaml()}\n---\n\n{about}\n"


def _package() -> Files:
    """The source of this package with its data (see setup.cfg), and its licence; no other files in its directory."""
    root = Path(sousaphone.__file__).parent
    files: dict[str, Path | bytes] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root.parent)
        hidden = any(part.startswith(".") for part in name.parts)
        if path.is_file() and not hidden and (path.suffix in _SOURCES or path.name == "CARD.md"):
            files[name.as_posix()] = path
    with suppress(metadata.PackageNotFoundError):
        if text := metadata.distribution("sousaphone").read_text("licenses/LICENSE"):
            files["sousaphone/LICENSE"] = text.encode()
    return files
