"""Stop: Ctrl-C and a scheduler's signals as a flag that a loop looks at between steps."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

# SIGTERM: most schedulers, torchrun. SIGUSR1, SIGUSR2: Slurm's --signal, submitit. SIGHUP: the terminal went away.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


class Stop:
    """While it is entered, the first of SIGNALS is noted in `signum` and nothing is interrupted.

    A Ctrl-C after that stops at once (KeyboardInterrupt): whoever cannot wait for the step loses what came after the
    last checkpoint, no more. Any other that is repeated changes nothing, for schedulers repeat themselves. Signals
    that were ignored (a run under nohup) stay so, and the handlers that were there before are put back at the end.
    Outside the main thread Python allows no handlers: nothing is installed, and `signum` stays None.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                if signal.getsignal(signum) is not signal.SIG_IGN:
                    self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is None:
            self.signum = signum
            # Not print(): the signal may have come in the middle of one, and buffers do not take turns.
            with suppress(OSError):  # nobody may be listening
                more = b"; Ctrl-C again stops at once" if signum == signal.SIGINT else b""
                os.write(2, b"\nt5study: finishing this step, then saving" + more + b"\n")
        elif signum == signal.SIGINT:
            raise KeyboardInterrupt
