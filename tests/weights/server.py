"""A local HTTP server that behaves, and misbehaves, as servers of large files do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class Published:
    """Files by path, and how they are served.

    Attributes:
        cuts: after so many bytes the connection ends, one number for each of the next replies.
        ranges: whether a part can be asked for.
        asked: 'METHOD path range' of every request so far.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.cuts: list[int] = []
        self.ranges = True
        self.tag = '"one"'
        self.asked: list[str] = []
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
                path, wanted = self.path.partition("?")[0], self.headers.get("Range")
                published.asked.append(f"{self.command} {path} {wanted or 'whole'}")
                if path not in published.files:
                    self.send_error(404)
                    return
                content, start = published.files[path], 0
                if wanted and published.ranges and self.headers.get("If-Range", published.tag) == published.tag:
                    start = int(wanted.removeprefix("bytes=").rstrip("-"))
                    if start >= len(content):
                        self.send_error(416)
                        return
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.send_header("Content-Length", str(len(content) - start))
                if published.tag and "ETag" not in published.headers.get(path, {}):
                    self.send_header("ETag", published.tag)
                for name, value in published.headers.get(path, {}).items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    rest = content[start:]
                    self.wfile.write(rest[: published.cuts.pop(0)] if published.cuts else rest)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        return Handler
