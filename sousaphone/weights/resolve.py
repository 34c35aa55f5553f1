"""Resolve `--weights` to the weights of a trial. The requested weights are never replaced by others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from sousaphone.backbones.backbone_spec import BackboneSpec, WeightSource
from sousaphone.backbones.nano import shipped
from sousaphone.backbones.registry import REGISTRY
from sousaphone.errors import UserError
from sousaphone.files import expanded
from sousaphone.weights.identity import RANDOM, refuse_other_bytes
from sousaphone.weights.locate import DIRECTORY, SETTINGS, find, in_hub_cache, own_directory

_ADDRESS = re.compile(r"(?P<hub>hub:)?(?P<kind>datasets/)?(?P<repository>[\w.-]+/[\w.-]+)(?:/(?P<file>[\w./()-]+))?")


def resolve_all(options: Mapping[str, str], scale: str) -> dict[str, str]:
    """Resolve `--weights` options, by backbone, to 'random' or the absolute path of a file or directory.

    An option is 'random', a path, a repository of the hub (`OWNER/NAME`, `hub:OWNER/NAME[/FILE]`), or 'auto': the
    published weights from SOUSAPHONE_WEIGHTS, else from the hub's or torch's cache, else from the network. The nano
    scale has no published weights: 'auto' is the file shipped with this package, else 'random'.

    Raises:
        UserError: weights are missing or wrong; one message lists all missing ones and where to put them.
    """
    found: dict[str, str] = {}
    missing: dict[str, WeightSource] = {}
    for name, option in options.items():
        spec = REGISTRY[name]
        if option == "auto" and (scale == "nano" or not spec.is_pretrained):
            option = str(shipped(name) or RANDOM)
        if option == RANDOM:
            if spec.twin is not None:
                raise UserError(
                    f"{name} is {spec.twin} with other weights, and without them it is the same arm (nano has none); "
                    f"give --scale base with its weights, or --models {spec.twin}"
                )
            found[name] = RANDOM
        elif spec.weights is None:
            raise UserError(f"--weights {name}={option}: {spec.title} has no pretrained weights; leave it out")
        elif option == "auto":
            if (local := find(name, spec.weights)) is not None:
                refuse_other_bytes(name, spec.weights, local)
                found[name] = str(local)
            else:
                missing[name] = spec.weights
        elif (path := expanded(option).absolute()).exists():
            found[name] = str(path)
        elif (cached := in_hub_cache(source := _hub_source(spec, option))) is not None:
            found[name] = str(cached)
        else:
            missing[name] = source
    if missing:
        from sousaphone.weights.download import fetch  # imports torch

        fetched, failed = fetch(missing)
        if failed:
            raise UserError(*_missing_message({name: (missing[name], why) for name, why in failed.items()}))
        found |= {name: str(path) for name, path in fetched.items()}
    return {name: found[name] for name in options}


def _hub_source(spec: BackboneSpec, option: str) -> WeightSource:
    """Parse the address of a hub repository or of a file in it; raises UserError if it does not fit the backbone."""
    whole = spec.weights is not None and spec.weights.file is None  # a transformers checkpoint
    expected = "OWNER/NAME" if whole else "OWNER/NAME/FILE.pt"
    match = _ADDRESS.fullmatch(option)
    # OWNER/NAME without the prefix is a missing path if the directory OWNER exists.
    if match is None or (not match["hub"] and Path(option).parent.is_dir()):
        raise UserError(
            f"--weights {spec.name}={option}: no such file or directory; give an existing path, hub:{expected}, or "
            "'random'"
        )
    if (match["file"] is None) != whole:
        raise UserError(f"--weights {spec.name}={option}: {spec.title} needs a {spec.format}; give hub:{expected}")
    kind = "dataset" if match["kind"] else "model"
    return WeightSource(parameters=0, hub=match["repository"], hub_type=kind, file=match["file"])


def _missing_message(missing: Mapping[str, tuple[WeightSource, str]]) -> list[str]:
    """The lines of the error for missing weights: by backbone its source, and why it could not be fetched."""
    own = own_directory()
    root = "DIR" if own is None else str(own)
    lines = [f"weights of {', '.join(missing)} are not on this machine and could not be fetched:"]
    for name, (source, why) in missing.items():
        lines.append(f"  {name}: {why}")
        if source.file is None:
            files = f"{SETTINGS[0]}, {SETTINGS[1]} and model.safetensors (or pytorch_model.bin)"
            lines.append(f"    get {files} from {source.address}")
            lines.append(f"    and put them into {root}/{source.name}/")
        else:
            lines.append(f"    get {source.address} and put it into {root}/")
    where = f"there and set {DIRECTORY}=DIR" if own is None else "there"
    lines.append(f"  Put them {where}, or give their paths: --weights {' '.join(f'{name}=PATH' for name in missing)}")
    lines.append("  (--weights random needs no files; such a run does not compare the published models)")
    return lines
