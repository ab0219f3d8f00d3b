"""Parts: the results of an evaluation's batches, kept as they are made, so that a killed one goes on behind the last.

A line a batch: its key, a tab, xxh3-64 of what follows, a tab, JSON. A line that a kill or a power cut left unfinished
does not match its digest; it and all behind it are cut off, and those batches are done again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash


class Parts:
    """path: the file, made if it is not there; None keeps nothing. watch: is told, batch after batch, how many rows are
    done."""

    def __init__(self, path: Path | None = None, watch: Callable[[int], None] | None = None):
        self.path, self.watch, self.rows = path, watch, 0
        self.found: dict[str, Any] = {}
        if path is None or not path.exists():
            return
        whole = 0
        with open(path, "rb") as file:
            for line in file:
                read = _read(line)
                if read is None:
                    break
                key, value = read
                self.found[key] = value
                whole += len(line)
        if whole < path.stat().st_size:
            os.truncate(path, whole)

    def get(self, key: str, make: Callable[[], Any], rows: int = 0) -> Any:
        """The result of that key: the one kept, or a new one, which is kept. It is plain JSON, of so many rows."""
        value = self.found[key] if key in self.found else self._made(key, make())
        self.rows += rows
        if self.watch is not None:
            self.watch(self.rows)
        return value

    def _made(self, key: str, value: Any) -> Any:
        if self.path is not None:
            text = json.dumps(value)
            with open(self.path, "ab") as file:
                file.write(f"{key}\t{xxhash.xxh3_64_hexdigest(text.encode())}\t{text}\n".encode())
                file.flush()
                os.fsync(file.fileno())
        return value


def _read(line: bytes) -> tuple[str, Any] | None:
    """Key and value of a line; None if it is not whole."""
    fields = line.removesuffix(b"\n").split(b"\t")
    if not line.endswith(b"\n") or len(fields) != 3 or xxhash.xxh3_64_hexdigest(fields[2]).encode() != fields[1]:
        return None
    return fields[0].decode(), json.loads(fields[2])
