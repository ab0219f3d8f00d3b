"""One file over HTTP whose size and digest are known beforehand: fetched, resumed, checked, and put in place whole.

The other side is not trusted. It may cut the body, send too much, too little, too slowly or something else, or say so
falsely in its headers; whatever it does, what comes to lie at `path` has the size and the digest that were asked for.

    path            only there when it is right
    path.partial    what has come so far; the next call goes on from there
    path.etag       the server's name for the version that the partial file is of
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from t5study.ground.errors import UserError
from t5study.ground.store import write_text

_BLOCK = 1 << 16
_CHANGED = "ask for another revision, or find out who changed the file"
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True)
class Wanted:
    """A file by its content. algorithm: "sha256", or "git" for the SHA-1 that git calls a blob by."""

    url: str
    bytes: int
    digest: str
    algorithm: str = "sha256"


@dataclass(frozen=True)
class Limits:
    """How long a server is borne with. timeout: seconds without a byte. slowest: bytes a second, on average over
    `window` seconds. tries: attempts in a row that bring next to nothing. pause: seconds before the second of them;
    three times that before the third, then seven times ..."""

    timeout: float = 30
    slowest: float = 2000
    window: float = 30
    tries: int = 4
    pause: float = 1


PATIENCE = Limits()


class _Failed(Exception):
    """An attempt that another may mend."""


class _Again(Exception):
    """What has come so far is of no use: begin anew."""


def digest_of(path: Path, algorithm: str) -> str:
    """The digest of a file's bytes, in hex."""
    digest = hashlib.sha256() if algorithm == "sha256" else hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def is_right(path: Path, wanted: Wanted) -> bool:
    """Whether the file at `path` is the one wanted."""
    return path.is_file() and path.stat().st_size == wanted.bytes and digest_of(path, wanted.algorithm) == wanted.digest


def download(wanted: Wanted, path: Path, limits: Limits = PATIENCE) -> None:
    """Puts the file at `path`, going on from what an earlier call left. UserError if the server does not have that
    file, or cannot be reached; what has come so far is kept then."""
    partial, etag = path.with_name(f"{path.name}.partial"), path.with_name(f"{path.name}.etag")
    with _alone(path):
        if is_right(path, wanted):
            return
        path.unlink(missing_ok=True)
        left = limits.tries
        while True:
            had = _size(partial)
            try:
                whole = _attempt(wanted, partial, etag, limits)
                if digest_of(partial, wanted.algorithm) == wanted.digest:
                    break
                _forget(partial, etag)
                if whole:  # every byte of it came in one answer
                    pinned = f"{wanted.algorithm} {wanted.digest[:12]}..."
                    raise UserError(f"{wanted.url}: found another file than the one pinned ({pinned}); {_CHANGED}")
                told = "it changed while it was fetched"
            except _Again:
                _forget(partial, etag)
                told = "it changed while it was fetched"
            except _Failed as failed:
                told = str(failed)
            # A hundredth of the file is progress; else a server that cuts after every byte would be asked for ever.
            left = limits.tries if _size(partial) - had > wanted.bytes // 100 else left - 1
            if left <= 0:
                kept = f"{_size(partial):,} of {wanted.bytes:,} bytes are kept"
                raise UserError(f"{wanted.url}: {told}; {kept}, run the same command again to go on")
            time.sleep(limits.pause * (2 ** (limits.tries - left) - 1))
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        etag.unlink(missing_ok=True)


def read_json_from(url: str, most: int = 1 << 26, limits: Limits = PATIENCE) -> Any:
    """The JSON at an address. UserError if there is none, or more than `most` bytes of it."""
    left = limits.tries
    while True:
        try:
            with _answer(url, {}, limits) as answer:
                raw = b"".join(_blocks(answer, most, limits))
            break
        except _Failed as failed:
            left -= 1
            if left <= 0:
                raise UserError(f"{url}: {failed}; see that there is a network, then run it again") from None
            time.sleep(limits.pause)
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{url}: found no JSON ({error}); is this the address of the hub?") from None


# --- one attempt ------------------------------------------------------------------------------------------------


def _attempt(wanted: Wanted, partial: Path, etag: Path, limits: Limits) -> bool:
    """Brings `partial` to its full size, or raises. True if all of it came in this one answer."""
    had = _size(partial)
    if had > wanted.bytes:
        raise _Again
    if had == wanted.bytes and partial.exists():
        return False
    headers = {"Range": f"bytes={had}-"} if had else {}
    if had and etag.exists():
        headers["If-Range"] = etag.read_text(encoding="utf-8")  # the rest only if it is of the same version, else all
    with _answer(wanted.url, headers, limits) as answer:
        if answer.status == 206 and headers:
            found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if not found or int(found[1]) != had or found[2] not in ("*", str(wanted.bytes)):
                raise _Again
        elif answer.status != 200:
            raise _Failed(f"found status {answer.status}")
        else:
            had = 0  # the server has another version by now, or no ranges: it sends all of it
        _check_length(wanted, answer.headers.get("Content-Length"), had)
        tag = answer.headers.get("ETag", "")
        if tag and not tag.startswith("W/"):
            write_text(etag, tag)
        else:
            etag.unlink(missing_ok=True)
        with open(partial, "ab" if had else "wb") as file:
            try:
                for block in _blocks(answer, wanted.bytes - had, limits):
                    file.write(block)
                    file.flush()  # a kill loses nothing of what came
            except UserError:
                _forget(partial, etag)
                raise
    if (size := _size(partial)) < wanted.bytes:
        raise _Failed(f"the body ended after {size:,} of {wanted.bytes:,} bytes")
    return not had


def _check_length(wanted: Wanted, told: str | None, had: int) -> None:
    if told is None:
        return
    if not told.isdecimal() or int(told) != wanted.bytes - had:
        pinned = f"{wanted.bytes - had:,} bytes are pinned"
        raise UserError(f"{wanted.url}: found a Content-Length of {told[:20]} where {pinned}; {_CHANGED}")


def _blocks(answer: http.client.HTTPResponse, most: int, limits: Limits) -> Iterator[bytes]:
    """The body in blocks. Raises when there is more than `most`, or it comes too slowly to ever end."""
    came, since, came_then = 0, time.monotonic(), 0
    while True:
        try:
            block = answer.read1(_BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise _Failed(f"the connection broke ({_reason(error)})") from None
        if not block:
            return
        came += len(block)
        if came > most:
            raise UserError(f"{answer.url}: sends more than {most:,} bytes, which is not the file that was asked for")
        yield block
        now = time.monotonic()
        if now - since >= limits.window:
            if (came - came_then) / (now - since) < limits.slowest:
                raise _Failed(f"fewer than {limits.slowest:,.0f} bytes a second came")
            since, came_then = now, came


class _Careful(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to anything less."""

    max_redirections = 5

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in ("https", urlsplit(req.full_url).scheme):
            raise UserError(f"{req.full_url}: leads to {newurl[:80]}, which is not encrypted; it is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextmanager
def _answer(url: str, headers: dict[str, str], limits: Limits) -> Iterator[http.client.HTTPResponse]:
    if urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"{url}: found no http or https address")
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", "User-Agent": "t5study", **headers})
    try:
        answer = urllib.request.build_opener(_Careful).open(request, timeout=limits.timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and "Range" in headers:
            raise _Again from None
        if error.code in (401, 403, 404, 410, 451):
            raise UserError(f"{url}: found status {error.code}; see that the name and the revision are right") from None
        raise _Failed(f"found status {error.code}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _Failed(f"cannot be reached ({_reason(error)})") from None
    with answer:
        yield answer


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", None) or error
    return str(getattr(inner, "strerror", None) or inner or type(error).__name__)


# --- files ------------------------------------------------------------------------------------------------------


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _forget(*files: Path) -> None:
    for file in files:
        file.unlink(missing_ok=True)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Two processes that want the same file: the second waits, and finds it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f"{path.name}.lock"), "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
