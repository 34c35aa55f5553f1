"""A local HTTP server of files, also as a hub with repositories."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

COMMIT = "0123456789abcdef0123456789abcdef01234567"


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

    def add_repository(
        self, name: str, files: Mapping[str, bytes], kind: str = "models", private: bool = False, commit: str = COMMIT
    ) -> None:
        """Serve files like a repository of the hub; they replace those of an earlier call."""
        prefix = "" if kind == "models" else f"/{kind}"
        listing = [{"rfilename": file, "size": len(content)} for file, content in files.items()]
        about = {"id": name, "sha": commit, "siblings": listing, "private": private, "tags": []}
        tree = [{"type": "file", "path": file, "size": len(c), "oid": "b" * 40} for file, c in files.items()]
        self.files[f"/api/{kind}/{name}"] = json.dumps(about).encode()
        for old in [path for path in self.files if path.startswith(f"{prefix}/{name}/resolve/main/")]:
            del self.files[old]
        for revision in ("main", commit):
            self.files[f"/api/{kind}/{name}/revision/{revision}"] = json.dumps(about).encode()
            self.files[f"/api/{kind}/{name}/tree/{revision}"] = json.dumps(tree).encode()
            for file, content in files.items():
                path = f"{prefix}/{name}/resolve/{revision}/{file}"
                self.files[path] = content
                tag = hashlib.sha256(content).hexdigest()
                self.headers[path] = {"X-Repo-Commit": commit, "ETag": f'"{tag}"'}

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
