"""sousaphone serve MODEL: a page that names the rudiments of recordings, in the browser."""

from __future__ import annotations

import argparse
import importlib.util
import socket
from collections.abc import Sequence

from sousaphone.cli.command import EXIT_OK, Parser, prepare_process, require_torchaudio, run_command
from sousaphone.cli.predict import add_model_options, load_model
from sousaphone.errors import UserError, not_installed
from sousaphone.text import one_line

_DESCRIPTION = """\
Serve a page on this machine that names the rudiments of recordings: uploads, or the microphone. It shows the five most
probable rudiments with their confidence, the detected strokes, the sticking in notation, and how even the strokes are;
long recordings are divided into segments, as by `sousaphone predict`. MODEL is a model folder (sousaphone export), a
run (its best trial), or OWNER/NAME on the Hugging Face hub.

The page needs no network and sends nothing to other hosts. Recordings are deleted an hour after their upload, and when
the command ends (Ctrl-C). Browsers allow the microphone on this machine and over HTTPS only.
"""
_EPILOG = """\
examples:
  %(prog)s my_model                          then open http://127.0.0.1:7860
  %(prog)s my_model --port 8000
  %(prog)s my_model --host 0.0.0.0           for everyone who can reach this machine, without a password

exit codes: 2 wrong argument or input, or the port is in use; 130 stopped
"""


def main(argv: Sequence[str] | None = None, prog: str = "sousaphone serve") -> int:
    """Run the command line and return the exit code."""
    prepare_process()
    parser = Parser(prog=prog, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("model", metavar="MODEL", help="model folder, run directory, or OWNER/NAME")
    parser.add_argument("--port", type=int, default=7860, metavar="N", help="0 for any free one (default 7860)")
    host = "address to listen on (default 127.0.0.1: this machine only)"
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help=host)
    add_model_options(parser)
    options = parser.parse_args(argv)
    return run_command(prog, lambda: _serve(options))


def _serve(options: argparse.Namespace) -> int:
    if not 0 <= options.port <= 65_535:
        raise UserError(f"--port {options.port}: give a number from 0 to 65535")
    if importlib.util.find_spec("gradio") is None:
        raise not_installed("the page", ["gradio"], "demo")
    with _listener(options.host, options.port) as listener:
        require_torchaudio()
        from sousaphone.deploy.page.app import serve

        model = load_model(options)
        print(f"serving {options.model} at {_address(listener)} (Ctrl-C stops it)")
        serve(model, listener)
    return EXIT_OK


def _listener(host: str, port: int) -> socket.socket:
    """Return a listening socket, before the model is loaded; connections wait until the page is served."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except (OSError, UnicodeError) as error:  # the latter if it cannot be a host name
        why = getattr(error, "strerror", None) or one_line(error, 200)
        raise UserError(f"cannot listen on --host {host} --port {port} ({why}); give another one") from None
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
