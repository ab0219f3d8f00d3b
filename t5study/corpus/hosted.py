"""Files of a data set on the Hugging Face hub: hub:allenai/c4/en/c4-train.0000*.json.gz

They are fetched by the hub's own client (extra `hub`) into its cache, HF_HOME, where they stay; with HF_HUB_OFFLINE=1
the cache alone is asked. hub:owner/name@revision/pattern takes a branch, a tag or a commit.

The cache calls a large file by its sha256, so what lies there is checked when it is read (`check_blob`).
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from pathlib import Path

from t5study.corpus.files import one_line, told
from t5study.ground.errors import UserError

HUB = "hub:"
_ADDRESS = re.compile(r"hub:([\w.-]+/[\w.-]+)(?:@([\w.-]+))?/(.+)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def hosted_files(address: str) -> list[Path]:
    """The files that an address stands for, fetched where they are not there yet. UserError if it is none, if nothing
    matches, or if the hub cannot be asked."""
    found = _ADDRESS.fullmatch(address)
    if not found or {"", ".", ".."} & set(found[3].split("/")):
        raise UserError(
            f"{address[:120]!r}: found no owner, name and file; give hub:allenai/c4/en/c4-train.0000*.json.gz"
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UserError(
            f"{address!r}: needs the hub's client: pip install 't5study[hub]'; or give local files"
        ) from None
    try:
        folder = Path(
            snapshot_download(found[1], repo_type="dataset", revision=found[2] or None, allow_patterns=[found[3]])
        )
    except Exception as error:  # the client's errors have no class in common
        raise UserError(
            f"{address!r}: cannot be fetched ({_first_sentence(error)}); see that the name is right and the hub can be "
            "reached, or give local files"
        ) from None
    names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    matched = [names[name] for name in sorted(names) if fnmatch.fnmatchcase(name, found[3])]
    if not matched:
        raise UserError(f"{address!r}: matches no file of that data set; give a pattern that does")
    return matched


def _first_sentence(error: Exception) -> str:
    return re.split(r"(?<=[.!?]) |\n| For more information| An error happened", one_line(error))[0]


def check_blob(path: Path) -> None:
    """UserError if a file of the hub's cache is not what its name there says. Others are none of its business."""
    blob = path.resolve()
    if blob.parent.name != "blobs" or not _SHA256.fullmatch(blob.name):
        return
    with open(blob, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != blob.name:
            raise UserError(
                f"{told(path)}: is not the file that the hub has (its sha256 differs); delete it and run again"
            )
