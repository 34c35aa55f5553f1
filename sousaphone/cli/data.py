"""python -m sousaphone.data: check, describe, make, preview and cache data sets."""

from __future__ import annotations

import argparse
import dataclasses
import errno
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sousaphone.cli.command import EXIT_OK, Parser, prepare_process, require_torchaudio, run_command
from sousaphone.config import DATASET_SIZES
from sousaphone.errors import UserError
from sousaphone.files import cache_directory

if TYPE_CHECKING:
    import pandas as pd

    from sousaphone.data.dataset import Dataset

EXIT_FINDINGS = 1
_PROGRAM = "python -m sousaphone.data"
_RATES = (16_000, 32_000, 48_000)  # Hz, as the backbones want them
_SOURCE = (
    "a SOUSA directory, a folder of recordings (RUDIMENT/*.wav or PLAYER/RUDIMENT/*.wav), a CSV file, or hub:OWNER/NAME"
)
_DESCRIPTION = "Look at a data set, make one, and decode it for training. Each command has its own --help."
_CHECK = """\
Say what is in a data set and all that is wrong with it, each with what to do.

Every clip is decoded: files that are missing, unreadable, cut short, empty, silent or clipped, and recordings that
occur twice. The labels are held against each other: players in two splits, empty splits, unknown rudiments, ids that
occur twice, tempi that are no numbers. At the end, how far one gets without hearing a pattern at all.
"""
_CHECK_END = """\
examples:
  %(prog)s /data/sousa               decodes every clip: about 100,000 in ten minutes on two cores
  %(prog)s takes.csv --no-audio      the labels alone, in seconds

exit codes: 0 nothing that would mislead (there may be warnings); 1 errors: training on it would fail or mislead;
2 wrong argument
"""
_INFO = "Say what is in a data set: its form, clips, players, splits, fingerprint, lengths. Nothing is decoded."
_INFO_END = """\
example:
  %(prog)s hub:zkeown/sousa

exit codes: 0, or 2 for a data set that cannot be read
"""
_MAKE = """\
Make a synthetic data set in SOUSA's layout: 40 rudiments, many players, tempi, kits and rooms. Equal arguments give
equal bytes. One that was interrupted goes on where it was.
"""
_MAKE_END = """\
examples:
  %(prog)s /tmp/drums --clips 1000
  %(prog)s /tmp/drums --clips 5000 --seed 1 --soundfont FluidR3_GM.sf2 --workers 8
"""
_CACHE = """\
Decode every clip into the waveform cache that training reads (SOUSAPHONE_CACHE, by default ~/.cache/sousaphone).
launch.py does this by itself; doing it beforehand saves waiting.
"""
_CACHE_END = """\
examples:
  %(prog)s /data/sousa --dataset small                 what launch.py --dataset small reads
  %(prog)s /data/sousa --dataset small --rates 16000   for AST and BEATs alone (EfficientAT: 32000, HTS-AT: 48000)
  %(prog)s /data/sousa --clear                         remove all that was decoded from there, at any size and rate
  %(prog)s --clear                                     remove all decoded waveforms
"""
_PREVIEW = """\
Draw what the models are fed: the waveform and every backbone's features, at nano and base scale, before and after
augmentation. Look whether the strokes can be seen, and whether the masks leave those that tell the rudiment.
"""
_PREVIEW_END = """\
example:
  %(prog)s /data/sousa --clips 8 --output /tmp/pictures
"""


def build_parser(prog: str = _PROGRAM) -> argparse.ArgumentParser:
    parser = Parser(prog=prog, description=_DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str, description: str, end: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=help, description=description, epilog=end)

    check = command("check", "what is in a data set, and what is wrong with it", _CHECK, _CHECK_END)
    check.add_argument("source", metavar="SOURCE", help=_SOURCE)
    check.add_argument("--no-audio", action="store_true", help="decode nothing: labels and files alone")
    info = command("info", "what is in a data set", _INFO, _INFO_END)
    info.add_argument("source", metavar="SOURCE", help=_SOURCE)
    make = command("make", "make a synthetic data set", _MAKE, _MAKE_END)
    make.add_argument("directory", metavar="DIR", type=Path, help="a new or empty directory")
    make.add_argument("--clips", type=int, required=True, metavar="N", help="how many, 10 or more")
    make.add_argument("--seed", type=int, default=0, metavar="S", help="another one gives another set (default 0)")
    make.add_argument(
        "--soundfont", nargs="+", default=[], type=Path, metavar="FILE", help=".sf2 files used beside the built-in ones"
    )
    make.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each core)")
    cache = command("cache", "decode a data set for training, or clear what was decoded", _CACHE, _CACHE_END)
    cache.add_argument("source", metavar="SOURCE", nargs="?", help=_SOURCE)
    cache.add_argument(
        "--rates", nargs="+", type=int, default=_RATES, metavar="HZ", help="sample rates (default 16000 32000 48000)"
    )
    size = "at most so many clips, as launch.py draws them (default full)"
    cache.add_argument("--dataset", choices=DATASET_SIZES, help=size)
    cache.add_argument("--clear", action="store_true", help="remove instead of building")
    preview = command("preview", "pictures of what the models are fed", _PREVIEW, _PREVIEW_END)
    preview.add_argument("source", metavar="SOURCE", help=_SOURCE)
    preview.add_argument("--clips", type=int, default=4, metavar="N", help="how many (default 4)")
    preview.add_argument(
        "--output", type=Path, default=Path("preview"), metavar="DIR", help="where the PNGs go (default ./preview)"
    )
    preview.add_argument("--scales", nargs="+", choices=("nano", "base"), default=("nano", "base"), help="default both")
    preview.add_argument("--seed", type=int, default=0, metavar="S", help="other clips, other augmentation (default 0)")
    return parser


def main(argv: Sequence[str] | None = None, prog: str = _PROGRAM) -> int:
    """Run the command line; returns the exit code."""
    prepare_process()
    options = build_parser(prog).parse_args(argv)
    command = {"check": _check, "info": _info, "make": _make, "cache": _cache, "preview": _preview}[options.command]

    def run() -> int:
        if options.command != "make":
            require_torchaudio()
        return command(options)

    again = "; the same command continues" if options.command in ("make", "cache") else ""
    return run_command(f"{prog} {options.command}", run, f"interrupted{again}")


# What each command needs takes seconds to import; --help and wrong arguments do without.


def _check(options: argparse.Namespace) -> int:
    from sousaphone.data.inspect.check import check
    from sousaphone.data.readers.sousa import located

    source = located(options.source)
    if not source.exists():
        raise UserError(f"{source} does not exist; give {_SOURCE}")
    found = check(source, audio=not options.no_audio)
    if found.dataset is not None:
        _describe(source, found.dataset, found.seconds, decoded=not options.no_audio)
    for finding in found.findings:
        print(f"{'error' if finding.error else 'warning'}: {finding.text}")
    errors = sum(finding.error for finding in found.findings)
    if found.dataset is not None and not options.no_audio and not errors:
        _shortcuts(found.dataset)
    warnings = len(found.findings) - errors
    verdict = "training on it would fail or mislead" if errors else "passes"
    print(f"{verdict}: {errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}")
    return EXIT_FINDINGS if errors else EXIT_OK


def _describe(source: Path | str, dataset: Dataset, seconds: pd.Series, decoded: bool) -> None:
    from rich.console import Console

    from sousaphone.data.inspect import describe

    console = Console(highlight=False, soft_wrap=True)
    console.print(describe.form(source, dataset), markup=False)
    for table in describe.tables(dataset):
        console.print(table)
    for line in describe.lengths(seconds, dataset.clips.duration_sec, decoded):
        console.print(line)
    console.print(f"fingerprint: {dataset.fingerprint} (equal for a copy)")


def _shortcuts(dataset: Dataset) -> None:
    from sousaphone.data.inspect.shortcuts import shortcut_scores

    scores = shortcut_scores(dataset)
    print(
        f"\nwithout hearing a pattern, one nearest neighbour among other players' clips ({scores.clips:,} clips) names"
    )
    for name, percent in scores.percent.items():
        print(f"  {percent:5.1f} %  by {name}")
    detected = "detected in the audio, where some are missed and some found twice: low figures prove nothing"
    print(f"strokes are {'counted by the labels' if scores.counted == 'labels' else detected}.")
    print(
        f"chance is {scores.chance:.1f} %. A model that reaches no more than the highest of these may have learnt to "
        "count or to measure instead of to hear rudiments."
    )


def _info(options: argparse.Namespace) -> int:
    dataset = _read(options.source)
    _describe(options.source, dataset, dataset.clips.duration_sec, decoded=False)
    for note in dataset.notes:
        print(f"note: {note}")
    return EXIT_OK


def _read(source: str) -> Dataset:
    """A data set, also one that serves for --test-also alone: then a note says why."""
    from sousaphone.data.prepare import read_further
    from sousaphone.data.readers.sousa import located, read_dataset

    there = located(source)
    try:
        return read_dataset(there)
    except UserError as error:
        try:
            further = read_further(there)
        except UserError:
            raise error from None
        return dataclasses.replace(further, notes=(f"it serves for --test-also alone: {error}", *further.notes))


def _make(options: argparse.Namespace) -> int:
    from sousaphone.data.synthetic.generate import generate

    try:
        generate(options.directory, options.clips, options.seed, options.workers, soundfonts=options.soundfont)
    except OSError as error:
        way = "free some space, and the same command goes on" if error.errno == errno.ENOSPC else "give another DIR"
        raise UserError(f"{options.directory} cannot be written to ({error.strerror}); {way}") from None
    print(f"made: {options.directory.absolute()}")
    return EXIT_OK


def _cache(options: argparse.Namespace) -> int:
    from sousaphone.data.cache.build import build_caches, clear_caches
    from sousaphone.data.prepare import read_subset

    directory = cache_directory()
    if options.clear:
        if options.dataset:
            raise UserError(f"--dataset {options.dataset}: --clear removes every size; leave --dataset out")
        removed = clear_caches(directory, None if options.source is None else _root(options.source))
        for path in removed:
            print(f"removed: {path}")
        if not removed:
            print(f"nothing to remove in {directory}")
        return EXIT_OK
    if options.source is None:
        raise UserError(f"no data set given; give {_SOURCE}")
    if wrong := [rate for rate in options.rates if not 1_000 <= rate <= 384_000]:
        raise UserError(
            f"--rates {wrong[0]} is not a sample rate in Hz; give 1000 to 384000, such as 16000 32000 48000"
        )
    dataset = read_subset(options.source, options.dataset or "full")
    for rate, cache in build_caches(dataset, options.rates, directory).items():
        size = cache.wave.nbytes
        print(f"{rate} Hz: {len(cache):,} clips, {size / 1e6:,.0f} MB, {cache.path}")
    return EXIT_OK


def _root(source: str) -> Path:
    """The directory that a data set's clips lie in; nothing is read there, and it may be gone."""
    from sousaphone.data.readers import hub
    from sousaphone.data.readers.paths import local_path

    if hub.is_word(source):
        if (there := hub.found(source)) is None:
            raise UserError(f"{source} is not in the hub's cache any more; --clear without it removes all waveforms")
        return there
    path = local_path(source)
    return path.parent if path.is_file() else path


def _preview(options: argparse.Namespace) -> int:
    from sousaphone.cli.preview import preview
    from sousaphone.data.readers.sousa import read_dataset

    if options.clips < 1:
        raise UserError(f"--clips {options.clips} is below its limit; give 1 or more")
    if options.seed < 0:
        raise UserError(f"--seed {options.seed} is negative; give 0 or more")
    for path in preview(read_dataset(options.source), options.output, options.clips, options.scales, options.seed):
        print(path)
    return EXIT_OK
