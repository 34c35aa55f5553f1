"""One file from an address: shown as it comes, resumed where it was cut, checked, and only then under its name."""

from __future__ import annotations

import errno
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from sousaphone.errors import UserError
from sousaphone.files import flush
from sousaphone.weights.identity import file_sha256, note_origin

_CHUNK = 1 << 18  # bytes
_STALL = 30.0  # seconds without a byte after which a connection counts as cut
_SIGN_OF_LIFE = 10.0  # seconds between lines where there is no terminal
_ATTEMPTS = 4  # in a row without a byte more


class CutError(Exception):
    """The connection ended before the file did."""


def download(url: str, target: Path, sha256: str | None, check: Callable[[Path], object]) -> Path:
    """Fetch `url` to `target`. What came so far waits in `.incomplete/` beside it and is not fetched again.

    Args:
        sha256: what the file must have; None where that is not known.
        check: called with the whole file, under its own name in `.incomplete/`; raises UserError to refuse it.

    Raises:
        UserError: it cannot be fetched or stored, or is not the file that it should be.
    """
    part = target.parent / ".incomplete" / target.name
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(part.with_name(f".{part.name}.lock")):
            if target.is_file():  # another process was faster
                return target
            _fetch_whole(url, part)
            found = file_sha256(part)
            if sha256 is not None and found != sha256:
                _discard(part)
                raise UserError(f"{url} gave a file of SHA-256 {found}, not {sha256}; nothing of it was kept")
            try:
                check(part)
            except UserError as error:
                _discard(part)
                raise UserError(f"{url} gave a file that is not right, and nothing of it was kept: {error}") from None
            flush(part)
            note_origin(target, url, found)
            part.replace(target)
            flush(target.parent)
            _discard(part)
    except OSError as error:
        raise UserError(_not_stored(error, url, part)) from error
    return target


def _fetch_whole(url: str, part: Path) -> None:
    """Connect, and after a cut connect again, until the file is whole.

    Raises:
        UserError: there is no such file, or connection after connection brings nothing.
    """
    failures = 0
    while True:
        had = _size(part)
        try:
            return _fetch_rest(url, part)
        except HTTPError as error:
            raise UserError(f"{url} answers {error.code} {error.reason}") from error
        except (CutError, HTTPException, TimeoutError, ConnectionError, URLError) as error:
            failures = failures + 1 if _size(part) == had else 0
            if failures == _ATTEMPTS:
                raise UserError(
                    f"{url} was cut off after {_size(part) / 1e6:.1f} MB ({error}); these are kept, and fetching it "
                    "again goes on from there"
                ) from error
            time.sleep(0.25 * failures)


def _fetch_rest(url: str, part: Path) -> None:
    have, known = _size(part), _tag(part)
    headers = {"User-Agent": "sousaphone", "Accept-Encoding": "identity"}
    if have and known:
        # Without the tag of what it belongs to, the rest might be another file's.
        headers |= {"Range": f"bytes={have}-", "If-Range": known}
    else:
        have = 0
    with _connect(url, headers) as reply:
        if have and (reply.status != 206 or not reply.headers.get("Content-Range", "").startswith(f"bytes {have}-")):
            have = 0
        length = reply.headers.get("Content-Length")
        total = have + int(length) if length and length.isdigit() else None
        if total is not None and total - have > (free := shutil.disk_usage(part.parent).free):
            raise OSError(errno.ENOSPC, f"{(total - have) / 1e6:.0f} MB are to come and {free / 1e6:.0f} MB are free")
        if tag := reply.headers.get("ETag") or reply.headers.get("Last-Modified"):
            _tag_file(part).write_text(json.dumps(tag), encoding="utf-8")
        else:
            _tag_file(part).unlink(missing_ok=True)
        with part.open("ab" if have else "wb") as file, _shown(part.name, url, have, total) as advance:
            while chunk := reply.read(_CHUNK):
                file.write(chunk)
                advance(len(chunk))
    if total is not None and _size(part) < total:
        raise CutError(f"{_size(part):,} of {total:,} bytes")


def _connect(url: str, headers: dict[str, str]) -> Any:
    try:
        return urlopen(Request(url, headers=headers), timeout=_STALL)
    except HTTPError as error:
        if error.code != 416:
            raise
    # The part is no part of what is there now, or all of it: from the start.
    whole = {name: value for name, value in headers.items() if name not in ("Range", "If-Range")}
    return urlopen(Request(url, headers=whole), timeout=_STALL)


@contextmanager
def _shown(name: str, url: str, have: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; elsewhere a line at the start, every ten seconds, and at the end."""
    console = Console(stderr=True, soft_wrap=True)
    size = "" if total is None else f" ({total / 1e6:.1f} MB)"
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
            task = bar.add_task(f"fetching {name}", total=total, completed=have)
            yield lambda count: bar.advance(task, count)
        return
    console.print(f"fetching {name}{size} from {url}" + (f"; {have / 1e6:.1f} MB are here" if have else ""))
    begun = said = time.monotonic()
    done = have

    def advance(count: int) -> None:
        nonlocal done, said
        done += count
        if (now := time.monotonic()) - said >= _SIGN_OF_LIFE:
            said = now
            share = f", {100 * done / total:.0f} %" if total else ""
            console.print(f"  {name}: {done / 1e6:.1f} MB{share}, {(done - have) / 1e6 / (now - begun):.1f} MB/s")

    yield advance
    console.print(f"fetched {name}: {(done - have) / 1e6:.1f} MB in {time.monotonic() - begun:.0f} s")


def _not_stored(error: OSError, url: str, part: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{url} finds no room in {part.parent}: {error.strerror}; free some space, or set SOUSAPHONE_WEIGHTS or "
            f"TORCH_HOME to a directory with more ({_size(part) / 1e6:.1f} MB are kept, and fetching it goes on there)"
        )
    reason = getattr(error, "reason", None) or error.strerror or error
    return f"{url} cannot be fetched to {part.parent} ({reason})"


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _tag_file(part: Path) -> Path:
    return part.with_name(f".{part.name}.tag")


def _tag(part: Path) -> str | None:
    """What the server called the version that the part belongs to."""
    try:
        return str(json.loads(_tag_file(part).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag_file(part).unlink(missing_ok=True)
