"""python -m sousaphone.weights: what is here and what is missing, fetch it, and whether it is the right thing."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from sousaphone.backbones.backbone_spec import BackboneSpec
from sousaphone.backbones.registry import DEFAULT_SWEEP, REGISTRY
from sousaphone.cli.command import EXIT_OK, Parser, prepare_process, require_torchaudio, run_command
from sousaphone.errors import UserError
from sousaphone.weights import locate
from sousaphone.weights.resolve import resolve_all

EXIT_MISSING = 1
_PROGRAM = "python -m sousaphone.weights"
_LIST = "Say of every backbone which weights it starts from, where they are here or where they come from, and licences."
_FETCH = f"""\
Fetch what is missing (default: {" ".join(DEFAULT_SWEEP)}): from the Hugging Face hub into its cache, EfficientAT's from
its authors' release into SOUSAPHONE_WEIGHTS, else torch's cache, where each file is checked before it gets its name.
"""
_VERIFY = """\
Say what is here, exactly: origin, SHA-256, parameters, and what the loaded network makes of a fixed clip. NAME=PATH
takes a file or directory of yours. On two machines with the same weights the fingerprints are equal and the numbers
agree to about 1e-4.
"""
_END = """\
examples:
  %(prog)s list
  %(prog)s fetch beats efficientat
  %(prog)s verify                            all that is here
  %(prog)s verify efficientat=/data/mn10.pt  a file of yours

exit codes: 0; 1 what is to be verified is missing, damaged or not what it should be; 2 wrong argument, or what is to
be fetched cannot be had; 130 interrupted
"""


def build_parser(prog: str = _PROGRAM) -> argparse.ArgumentParser:
    parser = Parser(prog=prog, description="Published weights: what is here, fetch it, check it.", epilog=_END)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (("list", _LIST), ("fetch", _FETCH), ("verify", _VERIFY)):
        command = commands.add_parser(name, help=re.split(r"[:.(]", text)[0].strip(), description=text)
        if name != "list":
            command.add_argument("names", nargs="*", metavar="NAME", help=f"of {' '.join(REGISTRY)}")
    return parser


def main(argv: Sequence[str] | None = None, prog: str = _PROGRAM) -> int:
    """Run the command line; returns the exit code."""
    prepare_process()
    arguments = build_parser(prog).parse_args(argv)

    def run() -> int:
        if arguments.command == "list":
            for line in listed():
                print(line)
            return EXIT_OK
        require_torchaudio()
        if arguments.command == "fetch":
            return fetch(arguments.names or DEFAULT_SWEEP)
        return verify(arguments.names)

    return run_command(prog, run)


def listed() -> Iterator[str]:
    """The registry's weights, in words, line by line."""
    for name, spec in REGISTRY.items():
        millions = spec.weights[0].parameters / 1e6
        extra = "" if spec.in_default_sweep else f"; compared where --models names {name}"
        yield f"{name}: {spec.title}, {millions:.2f} M parameters, {spec.format}, {spec.licence}{extra}"
        yield f"  trained on: {spec.pretraining} ({spec.objective})"
        yield f"  hears: {spec.frontend.in_words()}"
        for source in spec.weights:
            yield f"  from: {source.address}" + (f" (SHA-256 {source.sha256})" if source.sha256 else "")
        path = _here(spec)
        yield f"  here, unchecked: {path}" if path is not None else f"  missing: {_PROGRAM} fetch {name}"


def fetch(names: Sequence[str]) -> int:
    found = resolve_all({_spec(name).name: "auto" for name in names}, "base")
    for name, path in found.items():
        print(f"{name}: {path}")
    return EXIT_OK


def verify(words: Sequence[str]) -> int:
    """Those that are named, else all that are here; a missing or a wrong one does not keep the others from being
    looked at."""
    wanted: dict[str, Path | None] = {}
    for word in words or [name for name in REGISTRY if _here(REGISTRY[name]) is not None]:
        name, sign, given = word.partition("=")
        spec = _spec(name)
        wanted[name] = Path(given).expanduser().absolute() if sign else _here(spec)
    if not wanted:
        print(f"no published weights are on this machine; to fetch them: {_PROGRAM} fetch")
        return EXIT_MISSING
    wrong = 0
    for name, path in wanted.items():
        try:
            if path is None:
                raise UserError(f"not on this machine; to fetch it: {_PROGRAM} fetch {name}")
            lines = list(_verified(REGISTRY[name], path))
        except UserError as error:
            wrong += 1
            print(f"{name}: {error}", file=sys.stderr)
            continue
        print("\n".join(lines))
    return EXIT_MISSING if wrong else EXIT_OK


def _verified(spec: BackboneSpec, path: Path) -> Iterator[str]:
    import torch

    from sousaphone.weights.check import fixed_clip, load_checked, pretrained_parameters
    from sousaphone.weights.identity import fingerprint, identify, refuse_other_bytes

    if not path.exists():
        raise UserError(f"{path} does not exist")
    found = identify(spec, path)
    if found.published is not None:
        refuse_other_bytes(spec.name, found.published, path)
    backbone = load_checked(spec, path).eval()
    published, as_published = found.published is not None, " (as published)"
    same_bytes = found.published is not None and found.published.sha256 == found.sha256
    yield f"{spec.name}: {path}"
    yield f"  origin: {found.origin}"
    yield f"  licence: {spec.licence if published else 'not known'}"
    yield f"  SHA-256: {found.sha256}{as_published * same_bytes}"
    yield f"  parameters: {pretrained_parameters(backbone):,}{as_published * published}"
    yield f"  fingerprint of the loaded tensors: {fingerprint(backbone.get_submodule('net'))}"
    yield f"  hears: {backbone.frontend.contract.in_words()}"
    clip = torch.from_numpy(fixed_clip(spec.sample_rate)).float()[None] / 32768
    with torch.no_grad():
        embedding = backbone(clip)[0].double()
    first = ", ".join(f"{value:.6g}" for value in embedding[:4])
    yield (
        f"  fixed clip: {len(embedding)} numbers of mean {embedding.mean():.6g} and norm {embedding.norm():.6g}, the "
        f"first {first}"
    )


def _spec(name: str) -> BackboneSpec:
    if name not in REGISTRY:
        raise UserError(f"backbone {name!r} is unknown; choose from: {', '.join(REGISTRY)}")
    return REGISTRY[name]


def _here(spec: BackboneSpec) -> Path | None:
    return next((path for source in spec.weights if (path := locate.find(spec.name, source)) is not None), None)
