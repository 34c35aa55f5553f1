"""sousaphone predict MODEL FILE_OR_FOLDER ...: name the rudiments of recordings."""

from __future__ import annotations

import argparse
import io
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sousaphone.cli.command import (
    EXIT_FAILED,
    EXIT_INPUT,
    EXIT_OK,
    Parser,
    prepare_process,
    require_torchaudio,
    run_command,
)
from sousaphone.config import DEVICES, PRECISIONS
from sousaphone.data.readers.paths import SUFFIXES
from sousaphone.errors import UserError
from sousaphone.files import atomic_write, expanded
from sousaphone.text import Advance, progress_bar

if TYPE_CHECKING:
    from sousaphone.deploy.predictor import Prediction, Predictor

# Of the files that are read: RIFF, RF64, W64, AIFF, CAF; FLAC; Ogg; MP3 with a tag or without.
_FIRST_BYTES = (b"RIF", b"RF64", b"riff", b"FORM", b"caff", b"fLaC", b"OggS", b"ID3", b"\xff")
_DESCRIPTION = """\
Name the rudiments of recordings. MODEL is a model folder (sousaphone export), a run (its best trial), or OWNER/NAME on
the Hugging Face hub. Recordings may be WAV, FLAC, MP3 or Ogg of any length, sample rate and number of channels; a
folder means all recordings in it, and - means standard input.

A recording is cut into overlapping windows of the length that the model was trained with. Pauses (more than a second
that is more than 40 dB (--gate) quieter than the loudest 20 ms of the recording) are skipped, and the parts between
them are divided into segments where the rudiment changes. Each segment has a start, an end, a rudiment and a
confidence, from the mean of its windows' logits.
An answer is "undecided" if its confidence is below --min-confidence; by default, the threshold above which at most
10 % of the answers on the validation clips were wrong, if the run measured it. If no confidence reaches that, every
answer is undecided; --min-confidence 0 shows answers without a limit.
"""
_EPILOG = """\
examples:
  %(prog)s my_model take.wav
  %(prog)s my_model practice.mp3 --plot practice.png
  %(prog)s my_model recordings/ --format csv --output names.csv
  %(prog)s my_model practice.mp3 --format audacity --output labels.txt    File > Import > Labels
  ffmpeg -i video.mp4 -f wav - | %(prog)s my_model -

exit codes: 0 all recordings are named; 1 some could not be decoded, with a line for each; 2 wrong argument or input, or
no recording could be decoded; 130 interrupted
"""


def main(argv: Sequence[str] | None = None, prog: str = "sousaphone predict") -> int:
    """Run the command line and return the exit code."""
    prepare_process()
    parser = Parser(prog=prog, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("model", metavar="MODEL", help="model folder, run directory, or OWNER/NAME")
    parser.add_argument("recordings", metavar="FILE_OR_FOLDER", nargs="+", help="recordings, folders, or -")
    top = "rudiments listed in an answer (default 5, in a table 3)"
    parser.add_argument("--top", type=int, metavar="N", help=top)
    formats = ("table", "csv", "json", "audacity")
    parser.add_argument("--format", choices=formats, default="table", help="format of the output (default table)")
    parser.add_argument(
        "--min-confidence",
        type=float,
        metavar="P",
        help="answers below it are undecided (0: none; default: chosen on validation)",
    )
    parser.add_argument("--hop", type=float, metavar="S", help="seconds between windows (default half a window)")
    gate = "parts quieter than the loudest by more than this are silence (default 40)"
    parser.add_argument("--gate", type=float, default=40.0, metavar="DB", help=gate)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write to FILE instead of the terminal")
    parser.add_argument(
        "--plot", type=Path, metavar="PNG", help="draw waveform, segments and confidence of a recording"
    )
    add_model_options(parser)
    options = parser.parse_args(argv)
    if options.format == "audacity":
        parser.refuse_with(options, "format", "top")
    if options.top is None:
        options.top = 3 if options.format == "table" else 5
    return run_command(prog, lambda: _predict(options, prog))


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options with which a model is loaded."""
    runtimes = "onnx and int8 use the graphs of a model folder, on the CPU (default torch)"
    parser.add_argument("--runtime", choices=("torch", "onnx", "int8"), default="torch", help=runtimes)
    parser.add_argument(
        "--device", choices=("auto", *DEVICES), default="auto", help="default auto: cuda, else mps, else cpu"
    )
    precision = (
        "default auto: bfloat16 on CUDA, and on a CPU for a full-size model trained in it, if the processor has it; "
        "else float32"
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help=precision)
    weights = "the base weights of an adapter, if they are not where it was trained"
    parser.add_argument("--weights", type=Path, metavar="PATH", help=weights)


def load_model(options: argparse.Namespace) -> Predictor:
    """Load the model that the arguments name."""
    from sousaphone.deploy.predictor import load

    return load(
        options.model,
        weights=options.weights,
        device=options.device,
        precision=options.precision,
        runtime=options.runtime,
    )


def _predict(options: argparse.Namespace, prog: str) -> int:
    if options.top < 1:
        raise UserError(f"--top {options.top}: give 1 or more")
    if options.min_confidence is not None and not 0 <= options.min_confidence <= 1:
        raise UserError(f"--min-confidence {options.min_confidence:g}: give a number from 0 to 1")
    if not options.gate > 0:
        raise UserError(f"--gate {options.gate:g}: give a number of dB above 0")
    files = list(_files(options.recordings))
    for option, given in (("--plot", options.plot), ("--format audacity", options.format == "audacity")):
        if given and len(files) > 1:
            raise UserError(f"{option} takes one recording; {len(files)} are given")
    refuse_target(options.output, "--output", files)
    refuse_target(options.plot, "--plot", files)
    if options.plot is not None and options.plot.suffix.lower() not in ("", ".png"):
        raise UserError(f"--plot {options.plot}: the picture is a PNG; give a name that ends in .png")
    if options.plot is not None and options.output is not None and options.plot.resolve() == options.output.resolve():
        raise UserError(f"--plot {options.plot} is the file of --output; give another file")
    require_torchaudio()
    from sousaphone.deploy.calibration import DEFAULT_ERROR

    model = load_model(options)
    predictions, failed = [], 0
    with progress_bar(f"{len(files)} recordings", 2 * sum(map(_seconds, files))) as advance:
        for file in files:
            try:
                predictions.append(_one(model, file, options, advance))
            except UserError as error:
                failed += 1
                print(f"{prog}: error: {error}", file=sys.stderr)
    if not predictions:
        return EXIT_INPUT
    if options.min_confidence is None and model.config.calibration.undecided_below == 1.0:
        print(
            f"{prog}: no confidence kept wrong answers on the validation clips to {DEFAULT_ERROR:.0%}, so every "
            "answer is undecided (--min-confidence 0 for answers without a limit)",
            file=sys.stderr,
        )
    _write(predictions, options)
    if options.plot is not None:
        from sousaphone.deploy.picture import draw

        save(options.plot, draw(predictions[0], model.classes), "--plot")
    return EXIT_FAILED if failed else EXIT_OK


def _files(given: Sequence[str]) -> Iterator[Path]:
    """Yield the recordings that the arguments name; raise a UserError if one does not exist."""
    for name in given:
        path = expanded(name)
        if path.is_dir():
            found = sorted(_inside(path))
            if not found:
                raise UserError(f"{name} has no recordings ({', '.join(SUFFIXES)}); give a file or another folder")
            yield from found
        elif name != "-" and not (path.is_file() or path.is_fifo()):
            problem = "is not a file" if path.exists() else "does not exist"
            raise UserError(f"{name} {problem}; give recordings, folders, or - for standard input")
        else:
            yield path


def _inside(folder: Path) -> Iterator[Path]:
    """Yield the recordings in a folder, without hidden ones; raise a UserError if a folder in it cannot be read."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}); make it readable, or give other folders")

    for directory, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [each for each in folders if each[0] != "."]
        for path in (Path(directory, name) for name in names if name[0] != "."):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                yield path


def _one(model: Predictor, file: Path, options: argparse.Namespace, advance: Advance) -> Prediction:
    with _source(file) as (source, name):
        return model.predict(
            source,
            name=name,
            top=options.top,
            hop_seconds=options.hop,
            gate_db=options.gate,
            min_confidence=options.min_confidence,
            advance=advance,
        )


@contextmanager
def _source(file: Path) -> Iterator[tuple[Path, str]]:
    """Yield a file and its name; standard input and pipes are copied to a temporary file, in which one can seek."""
    from sousaphone.deploy.recordings import no_space

    if _is_file(file):
        yield file, str(file)
        return
    name = "standard input" if str(file) == "-" else str(file)
    with tempfile.NamedTemporaryFile(prefix="sousaphone-") as copy:
        with nullcontext(sys.stdin.buffer) if str(file) == "-" else file.open("rb") as stream:
            first = stream.read(max(map(len, _FIRST_BYTES)))
            if not first.startswith(_FIRST_BYTES):  # it may have no end
                raise UserError(f"{name} is not a WAV, FLAC, MP3 or Ogg file; pipe one of these")
            try:
                copy.write(first)
                shutil.copyfileobj(stream, copy)
                copy.flush()
            except OSError as error:
                raise no_space(name, error) from None
        yield Path(copy.name), name


def _is_file(path: Path) -> bool:
    return str(path) != "-" and path.is_file()


def _seconds(file: Path) -> float:
    """Return the duration (s) in a file's header, for the progress bar; 0 if it is not known."""
    from sousaphone.data.readers.samples import header_seconds

    try:
        seconds = header_seconds(file) if _is_file(file) else math.nan  # a stream can be read once only
    except (OSError, UserError):
        return 0.0
    return 0.0 if math.isnan(seconds) else seconds


def _write(predictions: Sequence[Prediction], options: argparse.Namespace) -> None:
    from sousaphone.deploy import formats

    if options.format == "table" and options.output is None and sys.stdout.isatty():
        from rich.console import Console

        Console(soft_wrap=True, highlight=False, markup=False).print(formats.to_table(predictions))
        return
    text = {
        "table": lambda: table_text(formats.to_table(predictions)),
        "csv": lambda: formats.to_csv(predictions),
        "json": lambda: formats.to_json(predictions),
        "audacity": lambda: formats.to_labels(predictions[0]),
    }[options.format]()
    if options.output is None:
        sys.stdout.write(text)
    else:
        try:
            save(options.output, text.encode(errors="replace"), "--output")
        except UserError:
            sys.stdout.write(text)  # it may have taken minutes
            raise


def table_text(table: Any) -> str:
    """Return a table of `rich` as text wide enough for all of its cells."""
    from rich.console import Console

    console = Console(width=1_000, file=io.StringIO(), highlight=False, markup=False)
    with console.capture() as capture:
        console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def refuse_target(path: Path | None, option: str, inputs: Iterable[Path] = ()) -> None:
    """Raise a UserError if a file that an option names cannot be written, or is one of the inputs."""
    if path is None:
        return
    directory = path.resolve().parent
    if path.is_dir() or not directory.is_dir() or not os.access(path if path.exists() else directory, os.W_OK):
        raise UserError(f"{option} {path} is not a writable file in an existing directory; give another file")
    if path.exists() and any(each.exists() and each.samefile(path) for each in inputs):
        raise UserError(f"{option} {path} is one of the inputs; give another file")


def save(path: Path, content: bytes, option: str) -> None:
    """Write a file that an option names; raise a UserError if that fails. A link is followed; a pipe or a device, such
    as /dev/null, is written to."""
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
        else:
            with atomic_write(path.resolve()) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        raise UserError(f"{option} {path} cannot be written ({error.strerror}); give another file") from None
