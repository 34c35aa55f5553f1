"""python -m sousaphone.data: check, describe, make, preview and cache data sets."""

from __future__ import annotations

import argparse
import errno
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sousaphone.cli.command import EXIT_OK, Parser, prepare_process, require_torchaudio, run_command
from sousaphone.config import DATASET_SIZES
from sousaphone.errors import UserError
from sousaphone.files import cache_directory
from sousaphone.text import counted, first_few

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from sousaphone.data.dataset import Dataset
    from sousaphone.data.inspect.stroke_sequences import StrokeSequences

EXIT_FINDINGS = 1
_PROGRAM = "python -m sousaphone.data"
_SIZE = "mini"  # of the clips whose strokes and shortcuts are measured
_RATES = (16_000, 32_000, 48_000)  # Hz, of the backbones
_SOURCE = (
    "a SOUSA directory, an audiofolder (metadata.csv or metadata.jsonl), a folder of recordings (RUDIMENT/*.wav or "
    "PLAYER/RUDIMENT/*.wav), a CSV or JSONL file, or hub:OWNER/NAME"
)
_DESCRIPTION = "Check, describe, make, preview and cache data sets. Each command has its own --help."
_CHECK = """\
Describe a data set and report all of its problems, each with a remedy.

Every clip is decoded, to find files that are missing, unreadable, truncated, empty, silent or clipped, and recordings
that occur twice: also re-encoded, shifted or at another level. Labels are validated: players in two splits, empty
splits, unknown rudiments, repeated ids, invalid tempi. If there are no errors, two things are measured: which pairs of
classes the strokes do not distinguish (they may be defined alike), by the strokes in the labels or, without those, in
the audio; and the accuracy of shortcuts, a nearest neighbour that does not use the stroke pattern.
"""
_CHECK_END = """\
examples:
  %(prog)s /data/sousa               decode every clip: about 100,000 in 15 minutes on two cores
  %(prog)s takes.csv --no-audio      check only the labels (and their strokes), in seconds

exit codes: 0 no errors (there may be warnings); 1 errors: training would fail or mislead; 2 invalid argument
"""
_INFO = "Describe a data set: layout, clips, players, splits, fingerprint, durations. Nothing is decoded."
_INFO_END = """\
example:
  %(prog)s hub:zkeown/sousa

exit codes: 0, or 2 for a data set that is not readable
"""
_MAKE = """\
Make a synthetic data set in SOUSA's layout: 40 rudiments, many players, tempi, kits and rooms. Equal arguments give
equal bytes. An interrupted generation is resumed by the same command.
"""
_MAKE_END = """\
examples:
  %(prog)s /tmp/drums --clips 1000
  %(prog)s /tmp/drums --clips 5000 --seed 1 --soundfont FluidR3_GM.sf2 --workers 8
"""
_CACHE = """\
Decode every clip into the waveform cache for training (SOUSAPHONE_CACHE, by default sousaphone in XDG_CACHE_HOME, or
in ~/.cache). launch.py does this automatically at its start.
"""
_CACHE_END = """\
examples:
  %(prog)s /data/sousa --dataset small                 clips of launch.py --dataset small
  %(prog)s /data/sousa --dataset small --rates 16000   for AST and BEATs only (EfficientAT: 32000, HTS-AT: 48000)
  %(prog)s /data/sousa --clear                         remove its decoded clips, of all sizes and rates
  %(prog)s --clear                                     remove all decoded clips
"""
_PREVIEW = """\
Plot the models' input: the waveform and the features of the four default backbones, at nano and base scale, before and
after augmentation. Check that the strokes are visible and that the masks leave those that identify the rudiment.
"""
_PREVIEW_END = """\
example:
  %(prog)s /data/sousa --clips 8 --output /tmp/pictures
"""


def build_parser(prog: str = _PROGRAM) -> Parser:
    parser = Parser(prog=prog, description=_DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str, description: str, end: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=help, description=description, epilog=end)

    check = command("check", "describe a data set and report its problems", _CHECK, _CHECK_END)
    check.add_argument("--no-audio", action="store_true", help="check only labels and files, without decoding")
    info = command("info", "describe a data set", _INFO, _INFO_END)
    make = command("make", "make a synthetic data set", _MAKE, _MAKE_END)
    make.add_argument("directory", metavar="DIR", type=Path, help="a new or empty directory")
    make.add_argument("--clips", type=int, required=True, metavar="N", help="number of clips, 10 or more")
    make.add_argument("--seed", type=int, default=0, metavar="S", help="random seed (default 0)")
    soundfonts = ".sf2 files used in addition to the built-in one"
    make.add_argument("--soundfont", nargs="+", default=[], type=Path, metavar="FILE", help=soundfonts)
    make.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core)")
    cache = command("cache", "decode a data set for training, or remove decoded clips", _CACHE, _CACHE_END)
    cache.add_argument("source", metavar="SOURCE", nargs="?", help=_SOURCE)
    rates = "sample rates (default 16000 32000 48000)"
    cache.add_argument("--rates", nargs="+", type=int, metavar="HZ", help=rates)
    size = "maximum number of clips, drawn as by launch.py (default full)"
    cache.add_argument("--dataset", choices=DATASET_SIZES, help=size)
    cache.add_argument("--clear", action="store_true", help="remove instead of building")
    preview = command("preview", "plot the models' input", _PREVIEW, _PREVIEW_END)
    preview.add_argument("--clips", type=int, default=4, metavar="N", help="number of clips (default 4)")
    output = "directory of the PNGs (default ./preview)"
    preview.add_argument("--output", type=Path, default=Path("preview"), metavar="DIR", help=output)
    preview.add_argument("--scales", nargs="+", choices=("nano", "base"), default=("nano", "base"), help="default both")
    seed = "random seed of clips and augmentation (default 0)"
    preview.add_argument("--seed", type=int, default=0, metavar="S", help=seed)
    for subparser in (check, info, preview):
        subparser.add_argument("source", metavar="SOURCE", help=_SOURCE)
    return parser


def main(argv: Sequence[str] | None = None, prog: str = _PROGRAM) -> int:
    """Run the command line and return the exit code."""
    prepare_process()
    parser = build_parser(prog)
    options = parser.parse_args(argv)
    parser.refuse_with(options, "clear", "dataset", "rates")
    command = {"check": _check, "info": _info, "make": _make, "cache": _cache, "preview": _preview}[options.command]

    def run() -> int:
        if options.command != "make":
            require_torchaudio()
        return command(options)

    resume = "; run the same command to resume" if options.command == "make" else ""
    return run_command(f"{prog} {options.command}", run, f"interrupted{resume}")


# Modules that take seconds to import are imported in the commands, so that --help is fast.


def _check(options: argparse.Namespace) -> int:
    from sousaphone.data.inspect import describe
    from sousaphone.data.inspect.check import check
    from sousaphone.data.readers.sousa import located

    source = located(options.source)
    if not source.exists():
        raise UserError(f"{source} does not exist; give {_SOURCE}")
    result = check(source, audio=not options.no_audio)
    if result.dataset is not None:
        _describe(source, result.dataset, result.seconds, decoded=not options.no_audio)
        if result.repeated is not None:
            _show(describe.repeats(result.dataset, result.repeated))
        print()
    for finding in result.findings:
        print(f"{'error' if finding.error else 'warning'}: {finding.text}")
    errors = sum(finding.error for finding in result.findings)
    warnings = len(result.findings) - errors
    if errors:
        print("pairs of classes and shortcuts are not measured before the errors are corrected")
    elif result.dataset is not None:
        warnings += _strokes(result.dataset, audio=not options.no_audio)
    verdict = "training would fail or its results mislead" if errors else "passed"
    print(f"{verdict}: {counted(errors, 'error')}, {counted(warnings, 'warning')}")
    return EXIT_FINDINGS if errors else EXIT_OK


def _describe(source: Path | str, dataset: Dataset, seconds: pd.Series, decoded: bool) -> None:
    from sousaphone.data.inspect import describe

    _show([describe.form(source, dataset), *describe.tables(dataset)])
    _show(describe.lengths(seconds, dataset.clips.duration_sec, decoded))
    print(f"fingerprint: {dataset.fingerprint} (equal for a copy)")


def _show(parts: Iterable[Table | str]) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for part in parts:
        console.print(part, markup=False)


def _strokes(dataset: Dataset, audio: bool) -> int:
    """Show what the strokes do not distinguish, and the shortcuts; return the number of warnings."""
    from sousaphone.data.inspect.stroke_sequences import labelled_strokes, transcribed_strokes
    from sousaphone.data.splits import draw

    drawn = draw(dataset, _SIZE)
    strokes = labelled_strokes(drawn) or (transcribed_strokes(drawn) if audio else None)
    if strokes is None:
        return 0
    warnings = _inseparable(drawn, strokes)
    if audio:
        _shortcuts(drawn, strokes)
    return warnings


def _inseparable(dataset: Dataset, strokes: StrokeSequences) -> int:
    from sousaphone.data.inspect import describe
    from sousaphone.data.inspect.inseparable import pairs

    measured = pairs(dataset.clips, strokes)
    _show(describe.inseparable(dataset, strokes, measured))
    alike = [" = ".join(pair.classes) for pair in measured if pair.alike]
    if alike:
        print(
            f"warning: {counted(len(alike), 'pair')} of classes not distinguished by strokes ({first_few(alike)}); "
            "listen to the clips above, and correct the recordings or the labels, or leave one class out"
        )
    return int(bool(alike))


def _shortcuts(dataset: Dataset, strokes: StrokeSequences) -> None:
    from sousaphone.data.inspect.shortcuts import shortcut_scores

    scores = shortcut_scores(dataset, strokes)
    print(f"\nshortcuts: accuracy of the nearest neighbour among other players' clips ({scores.clips:,} clips), by")
    for name, percent in scores.percent.items():
        print(f"  {percent:5.1f} %  {name}")
    print(f"  {scores.majority:5.1f} %  none: always the largest class")
    detected = "detected in the audio, with some missed and some false; low values do not exclude a shortcut"
    print(f"strokes are {'counted in the labels' if scores.counted == 'labels' else detected}.")
    name, highest = max(scores.percent.items(), key=lambda item: item[1])
    if highest > scores.majority:
        print(f"A model that does not exceed {highest:.1f} % may use {name} instead of recognising rudiments.")
    else:
        print(f"No shortcut exceeds the largest class; a model must exceed {scores.majority:.1f} %.")


def _info(options: argparse.Namespace) -> int:
    from sousaphone.data.readers.sousa import located, read_dataset

    root, notes = located(options.source), []
    try:
        dataset = read_dataset(root)
    except UserError as error:
        with suppress(UserError):
            dataset = read_dataset(root, only_test=True)
            notes.append(f"only usable for --test-also: {error}")
        if not notes:
            raise
    _describe(options.source, dataset, dataset.clips.duration_sec, decoded=False)
    for note in (*notes, *dataset.notes):
        print(f"note: {note}")
    return EXIT_OK


def _make(options: argparse.Namespace) -> int:
    from sousaphone.data.synthetic.generate import generate

    try:
        generate(options.directory, options.clips, options.seed, options.workers, soundfonts=options.soundfont)
    except OSError as error:
        full = error.errno == errno.ENOSPC
        remedy = "free space and run the same command to resume" if full else "give another DIR"
        raise UserError(f"{options.directory} cannot be written ({error.strerror}); {remedy}") from None
    print(f"made: {options.directory.absolute()}")
    return EXIT_OK


def _cache(options: argparse.Namespace) -> int:
    from sousaphone.data.cache.build import build_caches, clear_caches
    from sousaphone.data.prepare import read_subset

    directory = cache_directory()
    if options.clear:
        removed = clear_caches(directory, None if options.source is None else _root(options.source))
        for path in removed:
            print(f"removed: {path}")
        if not removed:
            print(f"nothing to remove in {directory}")
        return EXIT_OK
    if options.source is None:
        raise UserError(f"no data set given; give {_SOURCE}")
    rates = options.rates or _RATES
    if invalid := [rate for rate in rates if not 1_000 <= rate <= 384_000]:
        raise UserError(f"--rates {invalid[0]} is out of range; give 1000 to 384000 (Hz), such as 16000 32000 48000")
    dataset = read_subset(options.source, options.dataset or "full")
    for rate, cache in build_caches(dataset, rates, directory).items():
        print(f"{rate} Hz: {len(cache):,} clips, {cache.wave.nbytes / 1e6:,.0f} MB, {cache.path}")
    return EXIT_OK


def _root(source: str) -> Path:
    """Return the directory of a data set's clips, which need not exist."""
    from sousaphone.data.readers import hub
    from sousaphone.data.readers.paths import local_path

    if hub.is_word(source):
        if (directory := hub.cached(source, complete=False)) is None:
            raise UserError(f"{source} is not in the hub's cache; give --clear alone to remove all decoded clips")
        return directory
    path = local_path(source)
    return path.parent if path.is_file() else path


def _preview(options: argparse.Namespace) -> int:
    from sousaphone.cli.preview import preview
    from sousaphone.data.readers.sousa import read_dataset

    if options.clips < 1:
        raise UserError(f"--clips {options.clips} is out of range; give 1 or more")
    if options.seed < 0:
        raise UserError(f"--seed {options.seed} is negative; give 0 or more")
    for path in preview(read_dataset(options.source), options.output, options.clips, options.scales, options.seed):
        print(path)
    return EXIT_OK
