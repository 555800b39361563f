"""A hub on this machine: the part of its HTTP interface that huggingface_hub uses for models.

Repositories are dictionaries of files. Large files go through git LFS, as those of the real hub do
without its faster storage.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin", ".onnx")


@dataclass
class Hub:
    """The state of the hub, and what goes wrong."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    lfs: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    cards: list[str] = field(default_factory=list)
    private: set[str] = field(default_factory=set)
    token: str = ""
    """If set, needed for everything."""
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Status and message, by a part of the path."""
    broken: int = 0
    """Answers with a large file that end halfway."""
    changed: str = ""
    """A file that is sent with other content of the same length."""
    home: str = ""


def git_name(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), Content_Type="application/json")

    def _handle(self) -> None:
        path, body = self.path.partition("?")[0], self._body()
        self.hub.requests.append(f"{self.command} {path}")
        for part, (status, message) in self.hub.refuse.items():
            if part in path:
                return self._json({"error": message}, status)
        given = self.headers.get("Authorization")
        if path.startswith("/lfs/"):  # storage of others, which must not see the token
            assert given is None
        elif self.hub.token and given != f"Bearer {self.hub.token}":
            return self._json({"error": "Invalid username or password."}, 401)
        for pattern, answer in (
            (r"/api/repos/create", self._create),
            (r"/api/validate-yaml", self._validate),
            (r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?", self._info),
            (r"/api/models/([^/]+/[^/]+)/tree/[^/]+", self._tree),
            (r"/api/models/([^/]+/[^/]+)/preupload/main", self._preupload),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
            (r"/lfs/([0-9a-f]{64})", self._store),
            (r"/api/models/([^/]+/[^/]+)/commit/main", self._commit),
            (r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self._file),
        ):
            if found := re.fullmatch(pattern, path):
                return answer(body, *found.groups())
        return self._json({"error": "Not found"}, 404)

    do_GET = do_POST = do_PUT = do_HEAD = _handle  # noqa: N815

    def _create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repositories:
            return self._json({"error": "exists", "url": f"{self.hub.home}/{name}"}, 409)
        self.hub.repositories[name] = {".gitattributes": b"*.bin filter=lfs\n"}
        if asked.get("visibility") == "private" or asked.get("private"):
            self.hub.private.add(name)
        return self._json({"url": f"{self.hub.home}/{name}"})

    def _validate(self, body: bytes) -> None:
        self.hub.cards.append(json.loads(body)["content"])
        self._json({"errors": [], "warnings": []})

    def _repository(self, name: str) -> dict[str, bytes] | None:
        files = self.hub.repositories.get(name)
        if files is None:
            self._send(404, b'{"error": "Repository not found"}', X_Error_Code="RepoNotFound")
        return files

    def _info(self, body: bytes, name: str) -> None:
        if (files := self._repository(name)) is not None:
            siblings = [{"rfilename": path} for path in files]
            self._json({"id": name, "sha": COMMIT, "siblings": siblings, "tags": []})

    def _tree(self, body: bytes, name: str) -> None:
        if (files := self._repository(name)) is None:
            return
        rows: list[dict[str, Any]] = [{"type": "directory", "path": "lm", "oid": "0" * 40}]
        for path, content in files.items():
            row = {"type": "file", "path": path, "size": len(content), "oid": git_name(content)}
            if path.endswith(LARGE):
                sha256 = hashlib.sha256(content).hexdigest()
                row["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
            rows.append(row)
        self._json(rows)

    def _preupload(self, body: bytes, name: str) -> None:
        asked = json.loads(body)["files"]
        modes = [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for one in asked
        ]
        self._json({"files": modes})

    def _batch(self, body: bytes, name: str) -> None:
        rows = []
        for one in json.loads(body)["objects"]:
            row = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.hub.lfs:
                row["actions"] = {"upload": {"href": f"{self.hub.home}/lfs/{one['oid']}"}}
            rows.append(row)
        self._json({"transfer": "basic", "objects": rows})

    def _store(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.lfs[oid] = body
        self._send(200)

    def _commit(self, body: bytes, name: str) -> None:
        files = dict(self.hub.repositories[name])
        for line in body.splitlines():
            row = json.loads(line)
            value = row["value"]
            if row["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif row["key"] == "lfsFile":
                files[value["path"]] = self.hub.lfs[value["oid"]]
            elif row["key"] == "deletedFile":
                del files[value["path"]]
        self.hub.repositories[name] = files
        self._json({"commitUrl": f"{self.hub.home}/{name}/commit/{COMMIT}", "commitOid": COMMIT})

    def _file(self, body: bytes, name: str, path: str) -> None:
        content = self.hub.repositories[name][path]
        headers = {"X_Repo_Commit": COMMIT, "ETag": f'"{git_name(content)}"'}
        if path.endswith(LARGE):
            headers |= {"X_Linked_Etag": f'"{hashlib.sha256(content).hexdigest()}"'}
            headers |= {"X_Linked_Size": str(len(content))}
        if self.hub.changed == path:
            content = bytes([content[0] ^ 1]) + content[1:]
        begin = re.fullmatch(r"bytes=(\d+)-.*", self.headers.get("Range", ""))
        part = content[int(begin[1]) if begin else 0 :]
        if begin:
            headers["Content_Range"] = f"bytes {begin[1]}-{len(content) - 1}/{len(content)}"
        headers["Content_Length"] = str(len(part))
        if self.command == "GET" and self.hub.broken and path.endswith(LARGE):
            self.hub.broken -= 1
            part = part[: len(part) // 2]
            self.close_connection = True
        self._send(206 if begin else 200, part, **headers)


@contextmanager
def running(hub: Hub) -> Iterator[str]:
    """Serve the hub, and yield its address."""
    handler = type("HubHandler", (Handler,), {"hub": hub})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        hub.home = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield hub.home
        listening.shutdown()
        thread.join()
