"""python -m sousaphone.weights: list, fetch and verify pretrained weights."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from sousaphone.backbones.backbone_spec import BackboneSpec
from sousaphone.backbones.registry import DEFAULT_SWEEP, REGISTRY, backbone_spec
from sousaphone.cli.command import EXIT_FAILED, EXIT_OK, Parser, prepare_process, require_torchaudio, run_command
from sousaphone.errors import UserError
from sousaphone.files import expanded
from sousaphone.weights import locate
from sousaphone.weights.resolve import resolve_all

_PROGRAM = "python -m sousaphone.weights"
_LIST = "List every backbone's weights: training data, licence, source, and path on this machine."
_FETCH = f"""\
Fetch missing weights (default: {" ".join(DEFAULT_SWEEP)}): from the Hugging Face hub into its cache, EfficientAT's from
its authors' release into SOUSAPHONE_WEIGHTS, else torch's cache. Every file is checked before it is used.
"""
_VERIFY = """\
Verify weights on this machine: origin, SHA-256, number of parameters, and the network's output for a fixed clip.
NAME=PATH verifies any file or directory. The same weights give equal fingerprints on all machines, and outputs that
agree to about 1e-4.
"""
_END = """\
examples:
  %(prog)s list
  %(prog)s fetch beats efficientat
  %(prog)s verify                            all weights on this machine
  %(prog)s verify efficientat=/data/mn10.pt  any other file

exit codes: 0; 1 weights to verify are missing, damaged or wrong; 2 wrong argument, or weights cannot be fetched;
130 interrupted
"""


def main(argv: Sequence[str] | None = None, prog: str = _PROGRAM) -> int:
    """Run the command line and return the exit code."""
    prepare_process()
    parser = Parser(prog=prog, description="List, fetch and verify published weights.", epilog=_END)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (("list", _LIST), ("fetch", _FETCH), ("verify", _VERIFY)):
        command = commands.add_parser(name, help=re.split(r"[:.(]", text)[0].strip(), description=text)
        if name != "list":
            command.add_argument("names", nargs="*", metavar="NAME", help=f"one of {' '.join(REGISTRY)}")
    arguments = parser.parse_args(argv)

    def run() -> int:
        if arguments.command == "list":
            print("\n".join(listed()))
            return EXIT_OK
        require_torchaudio()
        if arguments.command == "verify":
            return verify(arguments.names)
        names = {_pretrained(name, name).name: "auto" for name in arguments.names or DEFAULT_SWEEP}
        for name, path in resolve_all(names, "base").items():
            print(f"{name}: {path}")
        return EXIT_OK

    return run_command(prog, run)


def listed() -> Iterator[str]:
    """Lines that describe the registry's weights."""
    for name, spec in REGISTRY.items():
        if (source := spec.weights) is None:
            yield f"{name}: {spec.title}, no published weights, trained from scratch; only with --models {name}"
            continue
        millions = source.parameters / 1e6
        extra = "" if spec.in_default_sweep else f"; only with --models {name}"
        yield f"{name}: {spec.title}, {millions:.2f} M parameters, {spec.format}, {spec.licence}{extra}"
        yield f"  trained on: {spec.pretraining} ({spec.objective})"
        yield f"  features: {spec.frontend.in_words()}"
        yield f"  from: {source.address}" + (f" (SHA-256 {source.sha256})" if source.sha256 else "")
        path = _local(spec)
        yield f"  found, not verified: {path}" if path is not None else f"  missing: {_PROGRAM} fetch {name}"


def verify(arguments: Sequence[str]) -> int:
    """Verify the weights in `arguments` (NAME or NAME=PATH), or all on this machine; errors do not stop the others."""
    paths: list[tuple[str, Path | None]] = []
    for argument in arguments or [name for name, spec in REGISTRY.items() if _local(spec) is not None]:
        name, sign, path = argument.partition("=")
        if sign and not path:
            raise UserError(f"{argument} names no file; give {name}=PATH")
        spec = _pretrained(argument, name)
        paths.append((name, expanded(path).absolute() if sign else _local(spec)))
    if not paths:
        print(f"no published weights are on this machine; to fetch them: {_PROGRAM} fetch")
        return EXIT_FAILED
    code = EXIT_OK
    for name, found in paths:
        try:
            if found is None:
                raise UserError(f"not on this machine; to fetch it: {_PROGRAM} fetch {name}")
            print("\n".join(_verified(REGISTRY[name], found)))
        except UserError as error:
            code = EXIT_FAILED
            print(f"{name}: {error}", file=sys.stderr)
    return code


def _pretrained(argument: str, name: str) -> BackboneSpec:
    """Return the specification of a backbone; raise a UserError if it has no weights."""
    spec = backbone_spec(name)
    if not spec.is_pretrained:
        raise UserError(f"{argument}: {spec.title} has no published weights, it is trained from scratch; leave it out")
    return spec


def _verified(spec: BackboneSpec, path: Path) -> Iterator[str]:
    """Lines that describe verified weights."""
    import torch

    from sousaphone.weights.check import fixed_clip, load_checked, pretrained_parameters
    from sousaphone.weights.identity import fingerprint, identify, refuse_other_bytes

    if not path.exists():
        raise UserError(f"{path} does not exist")
    found = identify(spec, path)
    as_published = same_bytes = ""
    if found.published is not None:
        refuse_other_bytes(spec.name, found.published, path)
        as_published = " (as published)"
        same_bytes = as_published * (found.published.sha256 == found.sha256)
    backbone = load_checked(spec, path).eval()
    yield f"{spec.name}: {path}"
    yield f"  origin: {found.origin}"
    yield f"  licence: {spec.licence if found.published else 'not known'}"
    yield f"  SHA-256: {found.sha256}{same_bytes}"
    yield f"  parameters: {pretrained_parameters(backbone):,}{as_published}"
    yield f"  fingerprint of the loaded tensors: {fingerprint(backbone.get_submodule('net'))}"
    yield f"  features: {backbone.frontend.contract.in_words()}"
    clip = torch.from_numpy(fixed_clip(spec.sample_rate)).float()[None] / 32768
    with torch.no_grad():
        embedding = backbone(clip)[0].double()
    norm, first = embedding.norm(), ", ".join(f"{value:.6g}" for value in embedding[:4])
    yield f"  fixed clip: {len(embedding)} outputs, mean {embedding.mean():.6g}, norm {norm:.6g}, first {first}"


def _local(spec: BackboneSpec) -> Path | None:
    return locate.find(spec.name, spec.weights) if spec.weights is not None else None
