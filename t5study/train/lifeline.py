"""Lifelines: a connection between each rank and the first, over which nothing is said while all goes well.

A rank that dies closes its connections, and the sums of those who wait for it fail. Not always: the first may be about
to send to the dead one, and the rest wait for the first, who has told nobody, for as long as collectives may take,
which is hours (gloo in torch 2.13; seen twice in 150 kills). A process that waits there does not hear signals either.

So a thread of each rank listens on its lifeline, which the kernel closes however a process ends. The first tells the
others. A rank then has some seconds to notice by itself, with its own words and exit code; after that its process ends.
"""

# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta

from torch import distributed as dist

from t5study.ground.errors import Lost, Stopped
from t5study.train.meeting import PATIENCE

GRACE_S = 10.0  # to notice by itself, once a rank is known to be gone
HELLO_S = 10.0  # in which whoever connects has to say who it is
BYE, GONE = b"b", b"g"  # I leave, and the others may go on without me; another rank is gone


@contextmanager
def lifelines(store: dist.Store, rank: int, world: int, patience: timedelta = PATIENCE) -> Iterator[None]:
    """Ends this process with 75 some seconds after another rank left without a word, while this holds. To leave with a
    word is to reach the end or to be `Stopped`; any other exception is taken for a rank that the others cannot do
    without. Raises Lost if a rank cannot be reached."""
    try:
        lines = _first(store, world, patience) if rank == 0 else {0: _to_first(store, rank, patience)}
    except (OSError, dist.DistError) as error:
        raise Lost(
            f"rank {rank}: no connection between all {world} ranks ({error}); run the same command again"
        ) from None
    left = threading.Event()
    watch = threading.Thread(target=_watch, args=(rank, lines, left), name="lifeline", daemon=True)
    watch.start()
    word = b""
    try:
        yield
        word = BYE
    except Stopped:
        word = BYE
        raise
    finally:
        left.set()
        for line in lines.values():
            with suppress(OSError):
                line.sendall(word)
                line.shutdown(socket.SHUT_RDWR)
        watch.join()
        for line in lines.values():
            line.close()


def _first(store: dist.Store, world: int, patience: timedelta) -> dict[int, socket.socket]:
    """The first rank's connections, by rank. Whoever connects and does not know this run's word is turned away."""
    word, lines, limit = uuid.uuid4().hex, dict[int, socket.socket](), time.monotonic() + patience.total_seconds()
    with _server() as server:
        store.set("lifeline", f"{server.getsockname()[1]} {word}")
        while len(lines) < world - 1:
            server.settimeout(max(limit - time.monotonic(), 0.001))
            line, _ = server.accept()
            line.settimeout(HELLO_S)
            try:
                told, _, rank = _hello(line).partition(" ")
            except (OSError, UnicodeDecodeError):
                told, rank = "", ""
            if told != word or not rank.isdigit():
                line.close()
                continue
            line.settimeout(None)
            lines[int(rank)] = line
    return lines


def _server() -> socket.socket:
    """On all of this host's addresses, at any free port."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    return socket.create_server(("", 0), backlog=1024)


def _hello(line: socket.socket) -> str:
    """What is said until the line's end, or in the first hundred bytes."""
    told = b""
    while not told.endswith(b"\n") and len(told) < 100 and (more := line.recv(1)):
        told += more
    return told.decode().strip()


def _to_first(store: dist.Store, rank: int, patience: timedelta) -> socket.socket:
    store.wait(["lifeline"], patience)
    port, word = store.get("lifeline").decode().split()
    line = socket.create_connection((os.environ["MASTER_ADDR"], int(port)), timeout=patience.total_seconds())
    line.settimeout(None)
    line.sendall(f"{word} {rank}\n".encode())
    return line


def _watch(rank: int, lines: Mapping[int, socket.socket], left: threading.Event) -> None:
    """Until all others have left with a word, or this rank leaves, or one is gone."""
    with selectors.DefaultSelector() as open_lines:
        for other, line in lines.items():
            open_lines.register(line, selectors.EVENT_READ, other)
        while open_lines.get_map():
            for key, _ in open_lines.select():
                word = b""
                with suppress(OSError):
                    word = lines[key.data].recv(1)
                if left.is_set():
                    return
                if word == BYE:
                    open_lines.unregister(key.fileobj)
                else:
                    who = f"rank {key.data}" if word != GONE else "another rank"
                    _end(rank, who, lines, left)
                    return


def _end(rank: int, who: str, lines: Mapping[int, socket.socket], left: threading.Event) -> None:
    if rank == 0:
        for line in lines.values():
            with suppress(OSError):
                line.sendall(GONE)
    if not left.wait(GRACE_S):
        os.write(2, f"t5study: rank {rank}: {who} is gone; run the same command again to go on\n".encode())
        os._exit(Lost.code)  # the main thread waits in a collective, where no exception reaches it
