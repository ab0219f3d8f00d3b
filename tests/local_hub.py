"""A server on this machine, on a real socket, that does what a test tells it to: serves files by range, cuts bodies,
lies about their length, changes them, drips."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Request(BaseHTTPRequestHandler):
    """One request. `tell` of the server answers it."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        self.close_connection = True
        self.server.tell(self)

    def send(self, status: int, body: bytes, **headers: str) -> None:
        """An honest answer."""
        self.head(status, **{"Content_Length": str(len(body)), **headers})
        self.wfile.write(body)

    def head(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """asked: path and headers of every request so far."""

    daemon_threads = True
    tell: Callable[[Request], None]
    asked: list[tuple[str, dict[str, str]]]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that left early is what some tests are about


@contextmanager
def serving(tell: Callable[[Request], None]) -> Iterator[Server]:
    """A server for the block."""
    server = Server(("127.0.0.1", 0), Request)
    server.tell, server.asked = tell, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ranged(request: Request, body: bytes, etag: str = '"v1"', upto: int | None = None) -> None:
    """A file as honest servers send it: the rest of it where a range of this version is asked for. upto: cut the
    answer after so many bytes."""
    asked, version = request.headers.get("Range"), request.headers.get("If-Range")
    start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and version in (None, etag) else 0
    if start > len(body):
        request.send(416, b"")
        return
    told = {"Content_Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
    request.head(206 if start else 200, Content_Length=str(len(body) - start), ETag=etag, **told)
    request.wfile.write(body[start : None if upto is None else start + upto])


def hub(files: dict[str, dict[str, bytes]], commit: str = COMMIT) -> Callable[[Request], None]:
    """The hub: repository -> path -> bytes. Files of more than 100 bytes are its large ones."""

    def tell(request: Request) -> None:
        path = request.path.partition("?")[0]
        for repository, there in files.items():
            if path == f"/api/datasets/{repository}/revision/main" or path.endswith(f"{repository}/revision/{commit}"):
                request.send(200, json.dumps({"id": repository, "sha": commit, "siblings": listed(there)}).encode())
                return
            name = path.removeprefix(f"/datasets/{repository}/resolve/{commit}/")
            if name in there:
                ranged(request, there[name])
                return
        request.send(404, b"not found")

    return tell


def listed(files: dict[str, bytes]) -> list[dict[str, Any]]:
    """Files as the hub's answer lists them (with ?blobs=true)."""
    out = []
    for name, body in files.items():
        one: dict[str, Any] = {"rfilename": name, "size": len(body), "blobId": git(body)}
        if len(body) > 100:
            one["lfs"] = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 130}
        out.append(one)
    return out


def git(body: bytes) -> str:
    """What git calls a blob by."""
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
