"""sousaphone publish MODEL --to OWNER/NAME: a model folder on the Hugging Face hub."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sousaphone.cli.command import (
    EXIT_FAILED,
    EXIT_OK,
    Parser,
    existing_directory,
    prepare_process,
    require_torchaudio,
    run_command,
)
from sousaphone.errors import printable
from sousaphone.hub import UnreachableError
from sousaphone.text import counted

if TYPE_CHECKING:
    from sousaphone.deploy.publish import Repository

_DESCRIPTION = """\
Publish a model folder on the Hugging Face hub, privately unless --public is given. `sousaphone predict OWNER/NAME` and
`sousaphone.load` read it there. Only files that `sousaphone export` writes are uploaded, without paths of this machine.
The token is that of `hf auth login`, or HF_TOKEN.
"""
_EPILOG = """\
examples:
  %(prog)s my_model --to me/my-model --dry-run            list the files
  %(prog)s my_model --to me/my-model --dry-run check      write them to the directory check
  %(prog)s my_model --to me/my-model
  %(prog)s my_model --to me/my-model --space --public

exit codes: 0 published; 1 the connection failed: run the same command again, which uploads only what is missing;
2 wrong argument or input, or the hub refused it; 130 interrupted
"""


def main(argv: Sequence[str] | None = None, prog: str = "sousaphone publish") -> int:
    """Run the command line and return the exit code."""
    prepare_process()
    parser = Parser(prog=prog, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument(
        "model", metavar="MODEL", type=existing_directory, help="model folder that `sousaphone export` wrote"
    )
    parser.add_argument("--to", metavar="OWNER/NAME", required=True, help="repository; created if it does not exist")
    parser.add_argument("--space", action="store_true", help="also a Space of that name, which runs the model's page")
    parser.add_argument("--public", action="store_true", help="new repositories are public (default: private)")
    licence = "licence of the published model, such as cc-by-4.0; needed if that of its base weights is not known"
    parser.add_argument("--licence", metavar="ID", help=licence)
    dry = "upload nothing; list the files, and write them to DIR if it is given"
    parser.add_argument("--dry-run", metavar="DIR", nargs="?", type=Path, const=True, help=dry)
    options = parser.parse_args(argv)

    def run() -> int:
        require_torchaudio()
        from sousaphone.deploy import publish  # imports torch

        planned = publish.plan(options.model, options.to, space=options.space, licence=options.licence)
        for repository in planned.repositories:
            _list(repository, options.to, "public" if options.public else "private")
        for line in planned.notes:
            print(printable(line))
        if options.dry_run is not None:
            if options.dry_run is not True:
                publish.write(planned, options.dry_run)
                print(printable(f"written to {options.dry_run}"))
            print("dry run: nothing was uploaded")
            return EXIT_OK
        sys.stdout.flush()
        try:
            urls = publish.upload(planned, options.public)
        except UnreachableError as error:
            print(
                f"{prog}: error: the upload to {options.to} failed ({error}); run the same command again, which "
                "uploads only what is missing",
                file=sys.stderr,
            )
            return EXIT_FAILED
        for url in urls:
            print(f"published: {url}")
        return EXIT_OK

    return run_command(prog, run, "interrupted; run the same command again, which uploads only what is missing")


def _list(repository: Repository, name: str, visibility: str) -> None:
    """Print the files with their sizes; the source of this package as one line."""
    sizes: Counter[str] = Counter()
    for file, size in repository.sizes().items():
        sizes["sousaphone/ (this package)" if file.startswith("sousaphone/") else file] += size
    total = f"{counted(len(repository.files), 'file')}, {sizes.total() / 1e6:,.1f} MB"
    print(f"{repository.kind} {name} ({visibility}): {total}")
    for file, size in sizes.items():
        print(printable(f"  {size / 1e3:>12,.1f} kB  {file}"))
