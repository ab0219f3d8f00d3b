"""Where the real data lies, if this machine has it: tests that need it skip, visibly, where it is absent."""

from __future__ import annotations

import os
from pathlib import Path

_beside = Path(os.environ.get("T5STUDY_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SHARED: Path | None = _beside if _beside.is_dir() else None
