"""From what `--weights` says to what a trial takes. Nothing is ever taken in place of what was asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from sousaphone.backbones.backbone_spec import BackboneSpec, WeightSource
from sousaphone.backbones.nano import shipped
from sousaphone.backbones.registry import REGISTRY
from sousaphone.errors import UserError
from sousaphone.weights.identity import RANDOM, refuse_other_bytes
from sousaphone.weights.locate import DIRECTORY, SETTINGS, find, in_hub_cache, own_directory

_WHOLE = "transformers directory"
_HUB_WORD = re.compile(r"(?P<mark>hub:)?(?P<kind>datasets/)?(?P<repository>[\w.-]+/[\w.-]+)(?:/(?P<file>[\w./()-]+))?")


def resolve(name: str, scale: str, choice: str) -> str:
    """What one backbone starts from; see `resolve_all`."""
    return resolve_all({name: choice}, scale)[name]


def resolve_all(choices: Mapping[str, str], scale: str) -> dict[str, str]:
    """`--weights` choices as what trials take: 'random', or the absolute path of a file or directory.

    A choice is 'random', a path, a repository of the hub (`OWNER/NAME`, `hub:OWNER/NAME[/FILE]`), or 'auto': the
    published weights, from the directory named by SOUSAPHONE_WEIGHTS, else the hub's or torch's cache, else the
    network. The nano scale has no published weights: there 'auto' is what comes with this package, else random.

    Raises:
        UserError: something is not to be had; all that is missing is in the one message, and where it belongs.
    """
    found: dict[str, str] = {}
    missing: dict[str, tuple[WeightSource, ...]] = {}
    for name, choice in choices.items():
        spec = REGISTRY[name]
        if choice == "auto" and scale == "nano" and (ours := shipped(name)) is not None:
            found[name] = str(ours)
        elif choice == RANDOM or (choice == "auto" and scale == "nano"):
            found[name] = _at_random(spec)
        elif choice == "auto":
            here = [(source, path) for source in spec.weights if (path := find(name, source)) is not None]
            if here:
                refuse_other_bytes(name, *here[0])
                found[name] = str(here[0][1])
            else:
                missing[name] = spec.weights
        elif (path := Path(choice).expanduser().absolute()).exists():
            found[name] = str(path)
        else:
            source = _hub_source(spec, choice)
            cached = in_hub_cache(source)
            if cached is None:
                missing[name] = (source,)
            else:
                found[name] = str(cached)
    if missing:
        from sousaphone.weights.download import fetch  # brings torch and what checks weights

        here_now, failed = fetch(missing)
        if failed:
            raise UserError(_all_missing({name: (missing[name], why) for name, why in failed.items()}))
        found |= {name: str(path) for name, path in here_now.items()}
    return {name: found[name] for name in choices}


def _at_random(spec: BackboneSpec) -> str:
    """'random'; a UserError where the backbone would then be another one."""
    if spec.twin is not None:
        raise UserError(
            f"{spec.name} is {spec.twin} with other weights, and without them it is the same arm (nano has none); give "
            f"--scale base with its weights, or --models {spec.twin}"
        )
    return RANDOM


def _hub_source(spec: BackboneSpec, choice: str) -> WeightSource:
    """A word for a repository of the hub, or for a file in one; a UserError where it is neither that nor a path."""
    wanted = "OWNER/NAME" if spec.format == _WHOLE else "OWNER/NAME/FILE.pt"
    match = _HUB_WORD.fullmatch(choice)
    # Without its mark a word that may be a path is one, unless nothing of it is there.
    if match is None or (not match["mark"] and Path(choice).parent.is_dir()):
        raise UserError(
            f"--weights {spec.name}={choice}: no such file or directory; give an existing path, hub:{wanted}, or "
            "'random'"
        )
    if (match["file"] is None) != (spec.format == _WHOLE):
        raise UserError(f"--weights {spec.name}={choice}: {spec.title} takes a {spec.format}; give hub:{wanted}")
    kind = "dataset" if match["kind"] else "model"
    return WeightSource(parameters=0, hub=match["repository"], hub_type=kind, file=match["file"])


def _all_missing(missing: Mapping[str, tuple[tuple[WeightSource, ...], str]]) -> str:
    own = own_directory()
    root = str(own) if own is not None else "DIR"
    lines = [f"weights of {', '.join(missing)} are not on this machine and could not be fetched:"]
    for name, (sources, why) in missing.items():
        source = sources[0]
        lines.append(f"  {name}: {why}")
        if source.file is None:
            files = f"{SETTINGS[0]}, {SETTINGS[1]} and model.safetensors (or pytorch_model.bin)"
            lines.append(f"    get {files} from {source.address}")
            lines.append(f"    and put them into {root}/{source.name}/")
        else:
            lines.append(f"    get {' or '.join(each.address for each in sources)} and put it into {root}/")
    where = "there" if own is not None else f"there and set {DIRECTORY}=DIR"
    by_hand = " ".join(f"{name}=PATH" for name in missing)
    lines.append(f"  Put them {where}, or say where each lies: --weights {by_hand}")
    lines.append("  (--weights random does without, and compares nothing published)")
    return "\n".join(lines)
