"""Profile: some steps of a run as torch's profiler sees them, as a file in the run's folder.

    FOLDER/profile-20-25.json.gz     a trace that ui.perfetto.dev and chrome://tracing open
    FOLDER/profile-20-25.txt         the operators of these steps, the longest first

No number of the run depends on it. Profiled steps are slower than others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_ROWS = 40


class Profile:
    """Told before and after every step. steps: the first and the last to look at, or None for none. A run that is
    resumed within them begins there; one that ends within them writes what it has seen."""

    def __init__(self, folder: Path, steps: tuple[int, int] | None):
        self.folder, self.steps = folder, steps
        self._profiler: Any = None

    def before(self, step: int) -> None:
        if self._profiler is None and self.steps and self.steps[0] <= step <= self.steps[1]:
            from torch import profiler

            self._profiler = profiler.profile()
            self._profiler.start()

    def after(self, step: int) -> None:
        if self.steps and step >= self.steps[1]:
            self.close()

    def close(self) -> None:
        if self._profiler is None or self.steps is None:
            return
        found, self._profiler = self._profiler, None
        found.stop()
        name = "profile-{}-{}".format(*self.steps)
        found.export_chrome_trace(str(self.folder / f"{name}.json.gz"))
        by = "self_device_time_total" if _on_gpu() else "self_cpu_time_total"
        (self.folder / f"{name}.txt").write_text(found.key_averages().table(sort_by=by, row_limit=_ROWS) + "\n")


def _on_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
