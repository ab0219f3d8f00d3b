"""Room: whether a disk has it, and what is told when it had not.

A full disk, a quota, a limit of a file's size and a folder that may not be written to come as an OSError or as
safetensors' own; a run tells all of them in one line that names the path, the bytes needed and those that are free.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from t5study.ground.errors import NoRoom, UserError


def require_room(folder: Path, needed: int) -> None:
    """NoRoom if the disk of a folder has fewer bytes free."""
    free = _free(folder)
    if free < needed:
        raise NoRoom(
            f"{folder}: checkpoints need {_bytes(needed)} here and {_bytes(free)} are free; make room and run the same "
            "command again"
        )


AGAIN = "then run the same command again: it goes on from the last checkpoint"


@contextmanager
def told_if_full(folder: Path, needed: int, then: str = AGAIN) -> Iterator[None]:
    """Turns what the system says when a disk is full, or may not be written to, into one line."""
    try:
        yield
    except OSError as error:
        _tell(folder, needed, then, error.errno, error.filename, str(error))
        raise
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        _tell(folder, needed, then, int(code[1]) if code else None, None, str(error))
        raise


def _tell(folder: Path, needed: int, then: str, code: int | None, name: str | None, text: str) -> None:
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise NoRoom(
            f"{folder}: could not be written to ({text}); a checkpoint needs {_bytes(needed)} and "
            f"{_bytes(_free(folder))} are free; make room or raise the limit, {then}"
        ) from None
    told = f"{name or folder}: cannot be written to ({text}); choose another folder"
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        raise NoRoom(told) from None
    if code in (errno.ENOTDIR, errno.EEXIST):
        raise UserError(told) from None


def _free(folder: Path) -> int:
    """Bytes that are free where a folder is, or would be."""
    while not folder.exists():
        folder = folder.absolute().parent
    return shutil.disk_usage(folder).free


def _bytes(n: int) -> str:
    return f"{n / 1e9:.2f} GB" if n >= 1e8 else f"{n / 1e6:.2f} MB"
