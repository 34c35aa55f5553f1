"""sousaphone runs: list runs with their state and size, and free disk space."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sousaphone.cli.command import (
    EXIT_FAILED,
    EXIT_INPUT,
    EXIT_OK,
    Parser,
    existing_directory,
    prepare_process,
    run_command,
)
from sousaphone.errors import UserError, printable
from sousaphone.files import cache_directory
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.trial_record import CHECKPOINTS_NAME

_LIST = """\
List the runs of a storage directory, the newest last: start time, number of completed trials, state and size.
"""
_PRUNE = """\
Free disk space. Shows the paths to delete with their sizes, then asks for confirmation. A running run is never touched.

  RUN ...         delete these runs
  --checkpoints   delete only the checkpoints of completed trials, in the named runs (default: all runs); records,
                  reports, predictions and adapters are kept, so report and --promote still work
  --caches        delete decoded waveforms and built-in data sets; the next launch makes them again
"""
_EXAMPLES = """\
examples:
  %(prog)s --checkpoints            checkpoints that no trial needs any more
  %(prog)s first second             two whole runs
  %(prog)s --caches --yes           without confirmation

exit codes: 0 done; 1 not confirmed, nothing deleted; 2 wrong argument, or a damaged run was skipped; 130 interrupted
"""
# Waveforms and built-in data sets; other contents of the cache directory are never deleted.
_CACHED = re.compile(r"[0-9a-f]+-\d+hz|builtin-\d+-[a-z]+(\.\w+)?")


def main(argv: Sequence[str] | None = None, prog: str = "sousaphone runs") -> int:
    """Run the command line and return the exit code."""
    prepare_process()
    parser = Parser(prog=prog, description="List runs on disk, and free disk space.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="list runs with their state and size", description=_LIST)
    prune = commands.add_parser("prune", help="free disk space", description=_PRUNE, epilog=_EXAMPLES)
    prune.add_argument("runs", nargs="*", metavar="RUN", help="names in the storage directory")
    prune.add_argument("--checkpoints", action="store_true", help="only checkpoints of completed trials")
    prune.add_argument("--caches", action="store_true", help="decoded waveforms and built-in data sets")
    prune.add_argument("--yes", action="store_true", help="delete without confirmation")
    for command in (listing, prune):
        storage = "directory of runs (default results)"
        command.add_argument("--storage", metavar="DIR", type=existing_directory, default=Path("results"), help=storage)
    arguments = parser.parse_args(argv)
    function = _list if arguments.command == "list" else _prune
    return run_command(f"{prog} {arguments.command}", lambda: function(arguments))


def _list(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Column, Table

    rows = []
    for run in _runs(arguments.storage):
        try:
            plan = run.read_foreign_plan()
            completed = sum(_misses_nothing(run, trial_id) for trial_id in plan["trial_ids"])
            planned = max(len(plan["trial_ids"]), plan.get("planned", 0))
            state = "running" if run.is_live() else "complete" if completed == planned else "incomplete"
            cells = plan["created"], f"{completed}/{planned}", state
        except UserError as error:
            cells = "", "", str(error)
        rows.append((printable(run.path.name), *cells, _size(_bytes(run.path))))
    if not rows:
        print(f"no runs in {arguments.storage}")
        return EXIT_OK
    table = Table(Column("run", no_wrap=True), "started", "completed", "state", "size", box=None)
    for row in sorted(rows, key=lambda row: row[1]):  # damaged runs, without a start, first
        table.add_row(*row)
    Console(soft_wrap=True, highlight=False, markup=False).print(table)
    return EXIT_OK


def _misses_nothing(run: RunDirectory, trial_id: str) -> bool:
    record = run.record(trial_id)
    return record is not None and record.status.continuation(record.cause) is None


def _is_full(run: RunDirectory, trial_id: str) -> bool:
    record = run.record(trial_id)
    return record is not None and record.status.is_full


def _prune(arguments: argparse.Namespace) -> int:
    if not (arguments.runs or arguments.checkpoints or arguments.caches):
        raise UserError("nothing to delete is given; give RUN ..., --checkpoints or --caches")
    found = {run.path.name: run for run in _runs(arguments.storage)}
    if unknown := [name for name in arguments.runs if name not in found]:
        raise UserError(f"{unknown[0]} is not a run in {arguments.storage}; its runs: {', '.join(found) or 'none'}")
    named = [found[name] for name in arguments.runs] or list(found.values())
    if live := [run for run in named if arguments.runs and run.is_live()]:
        raise UserError(f"{live[0].path} is running; stop it first")
    code = EXIT_OK
    paths: dict[Path, RunDirectory | None] = {}  # path to delete, and its run
    for run in named:
        if arguments.checkpoints and not run.is_live():
            try:
                paths |= dict.fromkeys(_ended_checkpoints(run), run)
            except UserError as error:
                if arguments.runs:
                    raise
                print(f"skipped: {error}", file=sys.stderr)  # the others' space can be freed
                code = EXIT_INPUT
        elif arguments.runs and not arguments.checkpoints:
            paths[run.path] = run
    if arguments.caches and (live := [run for run in found.values() if run.is_live()]):
        raise UserError(f"{live[0].path} is running and reads the caches; stop it first")
    if arguments.caches and cache_directory().is_dir():
        cached = [path for path in sorted(cache_directory().iterdir()) if _CACHED.fullmatch(path.name)]
        whole = [path for path in cached if path.is_dir() and not path.is_symlink()]
        paths |= dict.fromkeys(path for path in whole if not _is_being_generated(path))
    if not paths:
        print("nothing to delete")
        return code
    sizes = {path: _bytes(path) for path in paths}
    for path, size in sizes.items():
        print(f"{_size(size):>9}  {printable(str(path))}")
    print(f"{_size(sum(sizes.values())):>9}  in all")
    if not arguments.yes and not _confirmed():
        print("nothing deleted")
        return EXIT_FAILED
    for path, owner in paths.items():
        with owner.held() if owner else nullcontext():  # fails if a driver has started in the meantime
            shutil.rmtree(path)
    print(f"freed {_size(sum(sizes.values()))}")
    return code


def _is_being_generated(path: Path) -> bool:
    """Whether `builtin_dataset` of another process is making this directory."""
    if path.suffix != ".partial":
        return False
    try:
        with FileLock(path.with_suffix(".lock"), timeout=0):
            return False
    except Timeout:
        return True


def _confirmed() -> bool:
    try:
        return input("delete these? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:  # no terminal
        print("(pass --yes to delete without confirmation)")
        return False


def _ended_checkpoints(run: RunDirectory) -> Iterator[Path]:
    """Yield the checkpoints that neither a resumed trial nor the report reads."""
    for trial_id in run.read_foreign_plan()["trial_ids"]:
        checkpoints = run.trial(trial_id) / CHECKPOINTS_NAME
        if checkpoints.is_dir() and not checkpoints.is_symlink() and _is_full(run, trial_id):
            yield checkpoints


def _runs(storage: Path) -> list[RunDirectory]:
    """Return the runs in the order of their names; links are not followed."""
    plans = sorted(storage.glob("*/run.json"))
    return [RunDirectory(path.parent) for path in plans if not path.parent.is_symlink()]


def _bytes(directory: Path) -> int:
    """Return the bytes on disk that deleting a directory frees."""
    freed = 0
    for parent, names, files in os.walk(directory):
        for name in (*names, *files):
            with suppress(FileNotFoundError):  # a live run removes files
                freed += Path(parent, name).lstat().st_blocks * 512
    return freed


def _size(size: int) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
