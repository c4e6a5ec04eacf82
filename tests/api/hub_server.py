"""A server that speaks the part of the Hugging Face Hub's protocol that downloads need.

As the Hub itself does, it answers for a file with a redirect to another host, where the bytes are.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_TREE = re.compile(r"/api/models/([^/]+/[^/]+)/tree/([^/?]+)")
_BYTES = re.compile(r"/bytes/(\w+)")
_CHUNK = 16384


@dataclass
class Repository:
    """Files by revision and path."""

    revisions: dict[str, dict[str, bytes]]
    #: Who asks must have it.
    token: str | None = None
    #: Who has no token, or one that is not admitted, is told of terms to accept.
    gated: bool = False

    def commit(self, revision: str) -> str | None:
        """The revision's commit; a commit is a revision too."""
        for name, files in self.revisions.items():
            commit = hashlib.sha1(json.dumps([[path, len(data)] for path, data in files.items()]).encode()).hexdigest()
            if revision in (name, commit):
                return commit
        return None

    def files(self, revision: str) -> dict[str, bytes]:
        """Its files."""
        return next(files for name, files in self.revisions.items() if self.commit(name) == self.commit(revision))


@dataclass
class Hub:
    """What the server has, and what it was asked.

    Attributes
    ----------
    repositories
        By owner/name.
    requests
        Method, path, and the headers `Range` and `Authorization`, of each request.
    cut
        Bytes after which the connection breaks, for the next downloads.
    slow
        Seconds between pieces of 16 KiB.
    refuse
        A status for all that is asked.
    """

    port: int
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    slow: float = 0
    refuse: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def endpoint(self) -> str:
        """For HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.port}"

    def asked(self, method: str, part: str) -> list[tuple[str, str, str | None, str | None]]:
        """The requests of this kind."""
        return [request for request in self.requests if request[0] == method and part in request[1]]

    def data(self, digest: str) -> bytes | None:
        """The file with this hash."""
        for repository in self.repositories.values():
            for files in repository.revisions.values():
                for data in files.values():
                    if _digest(data) == digest:
                        return data
        return None


@contextmanager
def serving() -> Iterator[Hub]:
    """A server, until the end of the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    hub = server.hub = Hub(server.server_port)  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.stop.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined,no-any-return]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append((self.command, path, self.headers.get("Range"), self.headers.get("Authorization")))
        if self.hub.refuse:
            self._end(self.hub.refuse)
        elif found := _BYTES.fullmatch(path):
            self._send_bytes(found[1])
        elif found := _RESOLVE.fullmatch(path):
            self._resolve(found[1], unquote(found[2]), unquote(found[3]))
        elif found := _TREE.fullmatch(path):
            self._list(found[1], unquote(found[2]))
        else:
            self._end(404)

    def _admitted(self, name: str, revision: str) -> Repository | None:
        """The repository, if it has the revision and this client may read it."""
        repository = self.hub.repositories.get(name)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if repository is None or (repository.token and not repository.gated and token != repository.token):
            self._end(401, "RepoNotFound", "Invalid username or password.")
        elif repository.gated and token != repository.token:
            self._end(403 if token else 401, "GatedRepo", f"Access to model {name} is restricted.")
        elif repository.commit(revision) is None:
            self._end(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return repository
        return None

    def _resolve(self, name: str, revision: str, file: str) -> None:
        if (repository := self._admitted(name, revision)) is None:
            return
        commit = str(repository.commit(revision))
        data = repository.files(revision).get(file)
        if data is None:
            self._end(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
            return
        self._end(302, headers={
            "X-Repo-Commit": commit,
            "X-Linked-Etag": f'"{_digest(data)}"',
            "X-Linked-Size": str(len(data)),
            "Location": f"http://localhost:{self.hub.port}/bytes/{_digest(data)}",
        })  # fmt: skip

    def _list(self, name: str, revision: str) -> None:
        if (repository := self._admitted(name, revision)) is None:
            return
        rows = [
            {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for path, data in repository.files(revision).items()
        ]
        body = json.dumps(rows).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_bytes(self, digest: str) -> None:
        data = self.hub.data(digest) or b""
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(wanted[1]) if wanted else 0
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("ETag", f'"{digest}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.hub.cut.pop(0) if self.hub.cut else len(data)
        for at in range(start, min(start + cut, len(data)), _CHUNK):
            self.wfile.write(data[at : min(at + _CHUNK, start + cut)])
            self.hub.stop.wait(self.hub.slow)
        self.close_connection = cut < len(data) - start

    def _end(self, status: int, code: str = "", words: str = "", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ((headers or {}) | {"X-Error-Code": code, "X-Error-Message": words}).items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
