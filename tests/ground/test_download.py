"""A file of known size and digest, fetched from servers of every bad habit, over real sockets."""

from __future__ import annotations

import hashlib
import json
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from local_hub import Request, git, ranged, serving

from t5study.ground.download import Limits, Wanted, _Careful, download, read_json_from
from t5study.ground.errors import UserError

BODY = bytes(range(256)) * 400  # 102,400 bytes
QUICK = Limits(timeout=2, slowest=50_000, window=0.2, tries=3, pause=0)


def _wanted(address: str, body: bytes = BODY) -> Wanted:
    return Wanted(f"{address}/file", len(body), hashlib.sha256(body).hexdigest())


def _nothing_left(folder: Path) -> bool:
    return not [path for path in folder.iterdir() if path.suffix in (".partial", ".etag")]


def test_a_file_comes_whole_once(tmp_path: Path) -> None:
    with serving(lambda request: ranged(request, BODY)) as server:
        for _ in range(2):
            download(_wanted(server.address), tmp_path / "deep" / "file", QUICK)
        assert len(server.asked) == 1, "what is there is not fetched again"
    assert (tmp_path / "deep" / "file").read_bytes() == BODY
    assert _nothing_left(tmp_path / "deep")


def test_a_small_file_by_gits_digest_and_an_empty_one(tmp_path: Path) -> None:
    for body in (b"few words", b""):
        with serving(lambda request, body=body: ranged(request, body)) as server:
            wanted = Wanted(f"{server.address}/file", len(body), git(body), "git")
            download(wanted, tmp_path / str(len(body)), QUICK)
        assert (tmp_path / str(len(body))).read_bytes() == body


def test_a_cut_body_is_resumed_where_it_broke(tmp_path: Path) -> None:
    """Each answer breaks after 40,000 bytes: three of them make the file, none of whose bytes comes twice."""
    with serving(lambda request: ranged(request, BODY, upto=40_000)) as server:
        download(_wanted(server.address), tmp_path / "file", QUICK)
        starts = [headers.get("Range") for _, headers in server.asked]
    assert starts == [None, "bytes=40000-", "bytes=80000-"]
    assert (tmp_path / "file").read_bytes() == BODY


def test_the_next_call_goes_on_from_what_an_earlier_one_left(tmp_path: Path) -> None:
    answers = iter([30_000])

    def tell(request: Request) -> None:
        if (upto := next(answers, None)) is None:
            request.send(503, b"")
        else:
            ranged(request, BODY, upto=upto)

    with serving(tell) as server, pytest.raises(UserError, match=r"status 503; 30,000 of 102,400 bytes are kept, run"):
        download(_wanted(server.address), tmp_path / "file", QUICK)
    assert not (tmp_path / "file").exists()
    with serving(lambda request: ranged(request, BODY)) as server:
        download(_wanted(server.address), tmp_path / "file", QUICK)
        ((_, headers),) = server.asked
    assert (headers["Range"], headers["If-Range"]) == ("bytes=30000-", '"v1"')
    assert (tmp_path / "file").read_bytes() == BODY
    assert _nothing_left(tmp_path)


@pytest.mark.parametrize("careful", [True, False])
def test_a_file_that_changed_meanwhile_is_begun_anew(tmp_path: Path, careful: bool) -> None:
    """careful: the server looks at If-Range and sends all of the new version; else it sends the rest of another file,
    which only the digest tells."""
    old = bytes(len(BODY))
    answers = iter([lambda request: ranged(request, old, etag='"old"', upto=50_000)])

    def tell(request: Request) -> None:
        answer = next(answers, None)
        if answer:
            answer(request)
        elif careful:
            ranged(request, BODY, etag='"new"')
        else:
            ranged(request, BODY, etag=request.headers.get("If-Range", '"new"'))

    with serving(tell) as server:
        download(_wanted(server.address), tmp_path / "file", QUICK)
        assert len(server.asked) == (2 if careful else 3)
    assert (tmp_path / "file").read_bytes() == BODY


def test_another_file_of_that_size_is_refused_and_not_kept(tmp_path: Path) -> None:
    with serving(lambda request: ranged(request, bytes(len(BODY)))) as server:
        with pytest.raises(
            UserError, match=r"found another file than the one pinned \(sha256 [0-9a-f]{12}\.\.\.\); ask"
        ):
            download(_wanted(server.address), tmp_path / "file", QUICK)
        assert len(server.asked) == 1
    assert not (tmp_path / "file").exists()
    assert _nothing_left(tmp_path)


@pytest.mark.parametrize("told", ["102401", "50", "-1", "0", "many", "9" * 30])
def test_a_length_that_is_not_the_pinned_one(tmp_path: Path, told: str) -> None:
    def tell(request: Request) -> None:
        request.head(200, Content_Length=told)
        request.wfile.write(BODY)

    with (
        serving(tell) as server,
        pytest.raises(UserError, match=f"found a Content-Length of {told[:20]} where 102,400"),
    ):
        download(_wanted(server.address), tmp_path / "file", QUICK)
    assert not (tmp_path / "file").exists()


def _chunks(request: Request, blocks: Callable[[], bytes | None]) -> None:
    request.head(200, Transfer_Encoding="chunked")
    while block := blocks():
        request.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
    request.wfile.write(b"0\r\n\r\n")


def test_a_body_without_end(tmp_path: Path) -> None:
    with (
        serving(lambda request: _chunks(request, lambda: bytes(10_000))) as server,
        pytest.raises(UserError, match="sends more than 102,400 bytes, which is not the file that was asked for"),
    ):
        download(_wanted(server.address), tmp_path / "file", QUICK)
    assert _nothing_left(tmp_path)


def test_a_body_in_chunks_that_ends_early_or_late(tmp_path: Path) -> None:
    whole = iter([BODY[:60_000], BODY[60_000:], None])
    with serving(lambda request: _chunks(request, lambda: next(whole))) as server:
        download(_wanted(server.address), tmp_path / "file", QUICK)
    assert (tmp_path / "file").read_bytes() == BODY
    (tmp_path / "file").unlink()
    with (
        serving(lambda request: _chunks(request, iter([BODY[:60_000], None]).__next__)) as server,
        pytest.raises(
            UserError, match=r"the body ended after 60,000 of 102,400 bytes; 60,000 of 102,400 bytes are kept"
        ),
    ):
        download(_wanted(server.address), tmp_path / "file", QUICK)


def test_a_server_that_drips_is_left(tmp_path: Path) -> None:
    leave = threading.Event()

    def tell(request: Request) -> None:
        request.head(200, Content_Length=str(len(BODY)))
        for i in range(len(BODY)):
            request.wfile.write(BODY[i : i + 1])
            if leave.wait(0.02):
                return

    with serving(tell) as server:
        with pytest.raises(UserError, match="fewer than 50,000 bytes a second came; .* of 102,400 bytes are kept"):
            download(_wanted(server.address), tmp_path / "file", QUICK)
        leave.set()
        assert len(server.asked) == QUICK.tries


def test_a_server_that_says_nothing_is_left(tmp_path: Path) -> None:
    leave = threading.Event()
    silent = Limits(timeout=0.1, tries=2, pause=0)
    with serving(lambda request: leave.wait(10) and None) as server:
        with pytest.raises(UserError, match=r"cannot be reached \(timed out\)|the connection broke \(timed out\)"):
            download(_wanted(server.address), tmp_path / "file", silent)
        leave.set()


def test_nobody_there_and_not_found(tmp_path: Path) -> None:
    with serving(lambda request: request.send(404, b"")) as server:
        gone = server.address
        with pytest.raises(UserError, match="found status 404; see that the name and the revision are right"):
            download(_wanted(server.address), tmp_path / "file", QUICK)
        assert len(server.asked) == 1
    with pytest.raises(UserError, match=r"cannot be reached \(Connection refused\)"):
        download(_wanted(gone), tmp_path / "file", QUICK)
    with pytest.raises(UserError, match="found no http or https address"):
        download(Wanted("file:///etc/hosts", 1, "0" * 64), tmp_path / "file", QUICK)


def test_redirects(tmp_path: Path) -> None:
    def tell(request: Request) -> None:
        if request.path == "/file":
            request.send(302, b"", Location="/elsewhere")
        elif request.path == "/loop":
            request.send(302, b"", Location="/loop")
        elif request.path == "/local":
            request.send(302, b"", Location="file:///etc/hosts")
        else:
            ranged(request, BODY, upto=60_000)

    with serving(tell) as server:
        download(_wanted(server.address), tmp_path / "file", QUICK)
        assert (tmp_path / "file").read_bytes() == BODY
        for path in ("/loop", "/local"):
            wanted = Wanted(server.address + path, 10, "0" * 64)
            with pytest.raises(UserError):
                download(wanted, tmp_path / "other", QUICK)


def test_no_redirect_from_https_to_anything_less() -> None:
    """Without a certificate there is no https server here: the rule is asked itself."""
    rule, asked = _Careful(), urllib.request.Request("https://a.example/file")
    follow = rule.redirect_request(asked, None, 302, "", {}, "https://b.example/file")
    assert follow is not None
    assert follow.full_url == "https://b.example/file"
    for place in ("http://b.example/file", "ftp://b.example/file"):
        with pytest.raises(UserError, match=rf"leads to {place}, which is not encrypted; it is not followed"):
            rule.redirect_request(asked, None, 302, "", {}, place)


def test_a_partial_file_that_is_too_long_or_whole_but_wrong(tmp_path: Path) -> None:
    for left in (BODY + b"more", bytes(len(BODY)), BODY):
        (tmp_path / "file").unlink(missing_ok=True)
        (tmp_path / "file.partial").write_bytes(left)
        with serving(lambda request: ranged(request, BODY)) as server:
            download(_wanted(server.address), tmp_path / "file", QUICK)
            assert len(server.asked) == (0 if left == BODY else 1)
        assert (tmp_path / "file").read_bytes() == BODY


def test_two_at_once_fetch_once(tmp_path: Path) -> None:
    with serving(lambda request: ranged(request, BODY)) as server:
        threads = [
            threading.Thread(target=download, args=(_wanted(server.address), tmp_path / "file", QUICK))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.asked) == 1
    assert (tmp_path / "file").read_bytes() == BODY


def test_json_and_what_is_none() -> None:
    answers = {"/right": json.dumps({"a": [1]}).encode(), "/wrong": b"<html>", "/deep": b"[" * 100_000}
    with serving(lambda request: request.send(200, answers[request.path])) as server:
        assert read_json_from(f"{server.address}/right", limits=QUICK) == {"a": [1]}
        for path in ("/wrong", "/deep"):
            with pytest.raises(UserError, match=f"{path}: found no JSON"):
                read_json_from(server.address + path, limits=QUICK)
        with pytest.raises(UserError, match="sends more than 5 bytes"):
            read_json_from(f"{server.address}/right", most=5, limits=QUICK)
    with serving(lambda request: request.send(416, b"")) as server, pytest.raises(UserError, match="found status 416"):
        read_json_from(server.address, limits=QUICK)
