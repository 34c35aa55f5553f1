"""A local HTTP server of files."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class Published:
    """Files to serve.

    Attributes:
        files, headers: contents and additional headers by path.
        cut: number of bytes after which the connection is closed; None: not early.
        requests: 'METHOD path' of every request so far.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.cut: int | None = None
        self.requests: list[str] = []
        self.url = ""

    @contextmanager
    def served(self) -> Iterator[Self]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _handler(published) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                published.requests.append(f"{self.command} {path}")
                if path not in published.files:
                    self.send_error(404)
                    return
                content = published.files[path]
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                for name, value in published.headers.get(path, {}).items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content[: published.cut])
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        return Handler
