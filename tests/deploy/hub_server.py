"""A local server that imitates the hub for uploads: accounts, private repositories, large files, atomic commits."""

from __future__ import annotations

import base64
import hashlib
import json
from http.server import BaseHTTPRequestHandler
from typing import Any

import yaml

from tests.weights.server import COMMIT, Published

TOKEN, READER = "hf_writesAsMe", "hf_onlyReads"
OWNER = "me"


class Hub(Published):
    """Accepts uploads of `TOKEN` to repositories of `OWNER`; `READER` may not write.

    Attributes:
        repositories: files by 'models/OWNER/NAME' or 'spaces/OWNER/NAME'; a commit changes them at once.
        private: those that only an account reads.
        large: contents of large files by SHA-256, committed or not.
        cuts: number of further uploads of a large file that end in the middle.
        lost: SHA-256 of large files of which every upload ends in the middle.
        commits: number of commits.
        garbled: the answer to all requests to create a repository, in place of the hub's.
        refuse: an HTTP status with which all requests to create a Space are refused.
    """

    def __init__(self) -> None:
        super().__init__()
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.large: dict[str, bytes] = {}
        self.lost: set[str] = set()
        self.cuts = self.commits = 0
        self.refuse: int | None = None
        self.garbled: Any = None

    def create(self, kind: str, name: str, private: bool) -> None:
        self.repositories[f"{kind}/{name}"] = {".gitattributes": b""}
        if private:
            self.private.add(f"{kind}/{name}")
        self._serve(kind, name)

    def _serve(self, kind: str, name: str) -> None:
        key, commit = f"{kind}/{name}", hashlib.sha1(f"{self.commits}".encode()).hexdigest()
        self.add_repository(name, self.repositories[key], kind, key in self.private, commit)

    def committed(self, kind: str, name: str, lines: list[dict[str, Any]]) -> None:
        files = dict(self.repositories[f"{kind}/{name}"])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.repositories[f"{kind}/{name}"] = files
        self.commits += 1
        self._serve(kind, name)

    def mode_and_id(self, kind: str, name: str, path: str, size: int) -> dict[str, Any]:
        large = path.endswith(".safetensors") or size > 10_000_000
        old = self.repositories[f"{kind}/{name}"].get(path)
        oid = None
        if old is not None:
            oid = hashlib.sha256(old) if large else hashlib.sha1(b"blob %d\0" % len(old) + old)
        mode = "lfs" if large else "regular"
        return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid and oid.hexdigest()}

    def _handler(hub) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(super()._handler()):  # type: ignore[misc]
            def token(self) -> str:
                return str(self.headers.get("Authorization", "")).removeprefix("Bearer ")

            def do_GET(self) -> None:  # noqa: N802
                kind = "spaces" if self.path.startswith(("/spaces/", "/api/spaces/")) else "models"
                hidden = [key for key in hub.private if key.startswith(kind) and key.partition("/")[2] in self.path]
                if hidden and self.token() not in (TOKEN, READER):
                    self.answer(401, {"error": "Invalid username or password."})
                else:
                    super().do_GET()

            def answer(self, status: int, content: Any) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = True

            def do_PUT(self) -> None:  # noqa: N802
                hub.requests.append(f"PUT {self.path}")
                size, sha256 = int(self.headers["Content-Length"]), self.path.rpartition("/")[2]
                if hub.cuts or sha256 in hub.lost:
                    hub.cuts = max(0, hub.cuts - 1)
                    self.rfile.read(size // 2)
                    self.close_connection = True
                    return
                body = self.rfile.read(size)
                assert hashlib.sha256(body).hexdigest() == sha256
                hub.large[sha256] = body
                self.answer(200, {})

            def do_POST(self) -> None:  # noqa: N802
                path = self.path.partition("?")[0]
                hub.requests.append(f"POST {path}")
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.token() not in (TOKEN, READER):
                    # The hub does not repeat the token; a proxy might.
                    self.answer(401, {"error": f"Invalid token {self.token()}"})
                elif path == "/api/validate-yaml":
                    yaml.safe_load(json.loads(body)["content"].split("---")[1])
                    self.answer(200, {"errors": [], "warnings": []})
                elif path == "/api/repos/create":
                    self.create(json.loads(body))
                elif self.token() == READER or f"/{OWNER}/" not in path:
                    self.answer(403, {"error": "You don't have the required permissions"})
                elif path.endswith("/info/lfs/objects/batch"):
                    self.answer(200, {"objects": [self.instruction(each) for each in json.loads(body)["objects"]]})
                elif path == f"/{OWNER}/verify":
                    wanted = json.loads(body)
                    known = len(hub.large.get(wanted["oid"], b"")) == wanted["size"]
                    self.answer(200 if known else 404, {})
                else:
                    _, _, kind, owner, name, action, _ = path.split("/")
                    if action == "preupload":
                        files = [
                            hub.mode_and_id(kind, f"{owner}/{name}", file["path"], file["size"])
                            for file in json.loads(body)["files"]
                        ]
                        self.answer(200, {"files": files})
                    else:
                        hub.committed(kind, f"{owner}/{name}", [json.loads(line) for line in body.splitlines()])
                        prefix = "spaces/" if kind == "spaces" else ""
                        url = f"{hub.url}/{prefix}{owner}/{name}/commit/{COMMIT}"
                        self.answer(200, {"commitUrl": url, "commitOid": COMMIT})

            def create(self, wanted: dict[str, Any]) -> None:
                kind, name = f"{wanted.get('type', 'model')}s", f"{wanted['organization']}/{wanted['name']}"
                url = f"{hub.url}/{'spaces/' if kind == 'spaces' else ''}{name}"
                if hub.garbled is not None:
                    self.answer(200, hub.garbled)
                elif kind == "spaces" and hub.refuse:
                    self.answer(hub.refuse, {"error": "Payment required"})
                elif self.token() == READER or wanted["organization"] != OWNER:
                    self.answer(403, {"error": "You don't have the rights to create a repository"})
                elif f"{kind}/{name}" in hub.repositories:
                    self.answer(409, {"error": "You already created this repo", "url": url})
                else:
                    assert kind != "spaces" or wanted["sdk"] == "gradio"
                    hub.create(kind, name, wanted["visibility"] == "private")
                    self.answer(200, {"url": url})

            def instruction(self, wanted: dict[str, Any]) -> dict[str, Any]:
                if wanted["oid"] in hub.large:
                    return wanted
                upload = {"href": f"{hub.url}/upload/{wanted['oid']}"}
                return {**wanted, "actions": {"upload": upload, "verify": {"href": f"{hub.url}/{OWNER}/verify"}}}

        return Handler
